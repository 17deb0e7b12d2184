"""The text of a proposed experiment: zero-shot and direct answers, and a VL-Taxon where there is training."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vltaxon.proposal import Wish

_HEAD = """\
# Proposed by `vltaxon new`. Change what you like; config/README.md has every key.
#   snakemake plan --cores all --configfile config/{name}.yaml   what it costs, before anything is run
#   snakemake --cores all --configfile config/{name}.yaml        the table: results/tables/main.md
seed: 0

datasets: [{name}]
choices: [similar] # the three wrong labels nearest to the photo, found by `encoder`; or random
encoder: {encoder}{encoder_note}

systems:
  zero_shot: {{model: {encoder}, protocol: zero_shot, label: "{encoder}, zero-shot"}}
  direct: {{model: {model}, protocol: direct, label: "{model}, direct"}}{model_note}
"""
_TINY = " # knows the demo's drawings only; for numbers, take a real one of config/models"
_TRAINED = """\
  vl_taxon: {{model: {model}, recipe: vl_taxon, protocol: two_stage, label: VL-Taxon}}
"""
_CHANCE = """\
  chance: {model: chance, protocol: chance, label: Chance}
"""
_TRAINING = """
training:
  dataset: {name}
  partition: {{held_out: {held_out}}} # species, of {species}; the rest: half SFT, half GRPO
  settings: # {why}
    sft: {{{sft}}}
    grpo: {{{grpo}}}
"""
_TINY_SETTINGS = {
    "sft": "learning_rate: 1.0e-3, weight_decay: 0, lora: {dropout: 0}",
    "grpo": "learning_rate: 3.0e-4, max_new_tokens: 40, lora: {dropout: 0}",
}
_NO_TRAINING = """
# To train a VL-Taxon, give the data set a training split of some species (`vltaxon new ... --train 0.5`
# draws one), then add, with a model of engine transformers,
#   vl_taxon: {{model: {model}, recipe: vl_taxon, protocol: two_stage}}
# to the systems, and
#   training: {{dataset: {name}, partition: {{held_out: 1}}}}
"""
FEWEST = 3  # species: one held out, one for SFT, one for GRPO
_STEPS = 10  # optimiser steps that small data are cut into, if they can be
_GROUP = 8  # completions of a prompt


@dataclass(frozen=True)
class TrainingPhotos:
    """What there is to learn from: species with training photos, photos of each at least, scored levels."""

    species: int
    each: int
    levels: int

    @property
    def held_out(self) -> int:
        """Return how many species are never trained on."""
        return max(1, round(self.species / 10))

    def batches(self) -> tuple[int, int]:
        """Return batch sizes of SFT and GRPO: the paper's 128, or less where that would make few steps."""
        rest = self.species - self.held_out
        sft = round(rest / 2)
        samples, prompts = sft * self.each * (6 + self.levels), (rest - sft) * self.each * 2
        return _halved(16, samples // _STEPS // _GROUP) * _GROUP, _halved(16, prompts // _STEPS) * _GROUP


def _halved(most: int, number: int) -> int:
    """Return the largest power of two that is at most a number, and at most `most`; 1 at least."""
    while most > max(1, number):
        most //= 2
    return most


def experiment_text(wish: "Wish", learnt: TrainingPhotos | None) -> str:
    """Return the text of an experiment's file.

    Args:
        wish: names of the data set and the models.
        learnt: what there is to learn from; None where nothing is trained.
    """
    names = {"name": wish.name, "model": wish.model, "encoder": wish.encoder}
    notes = {f"{key}_note": _TINY if names[key].startswith("tiny_") else "" for key in ("model", "encoder")}
    text = _HEAD.format(**names, **notes)
    if learnt is None:
        return text + _CHANCE + _NO_TRAINING.format(**names)
    tiny = wish.model.startswith("tiny_")
    more = _TINY_SETTINGS if tiny else {}
    settings = {
        kind: ", ".join(
            filter(None, (f"batch_size: {size}, device_batch_size: 8, warmup: 0", more.get(kind)))
        )
        for kind, size in zip(("sft", "grpo"), learnt.batches(), strict=True)
    }
    why = "sizes for so many photos" + (", and for a tiny model on a CPU" if tiny else "")
    training = {"held_out": learnt.held_out, "species": learnt.species, "why": why, **settings}
    return text + _TRAINED.format(**names) + _CHANCE + _TRAINING.format(name=wish.name, **training)
