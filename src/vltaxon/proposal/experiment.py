"""The text of a proposed experiment: zero-shot and direct answers, and a VL-Taxon where there is training."""

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
"""
_SETTINGS = """\
  settings: # sizes for a tiny model on a CPU; take them out for a model of billions
    sft: {learning_rate: 1.0e-3, weight_decay: 0, batch_size: 16, device_batch_size: 16, lora: {dropout: 0}}
    grpo:
      {learning_rate: 3.0e-4, batch_size: 16, device_batch_size: 8, max_new_tokens: 40, lora: {dropout: 0}}
"""
_NO_TRAINING = """
# To train a VL-Taxon, give the data set a training split (`vltaxon new ... --train 0.5` draws one), then add
#   vl_taxon: {{model: {model}, recipe: vl_taxon, protocol: two_stage}}
# to the systems, and
#   training: {{dataset: {name}, partition: {{held_out: 1}}}}
"""
_FEWEST = 3  # species: one held out, one for SFT, one for GRPO


def experiment_text(wish: "Wish", species: int) -> str:
    """Return the text of an experiment's file.

    Args:
        wish: names of the data set and the models.
        species: how many have photos to learn from.
    """
    names = {"name": wish.name, "model": wish.model, "encoder": wish.encoder}
    notes = {f"{key}_note": _TINY if names[key].startswith("tiny_") else "" for key in ("model", "encoder")}
    text = _HEAD.format(**names, **notes)
    if species < _FEWEST:
        return text + _CHANCE + _NO_TRAINING.format(**names)
    text += _TRAINED.format(**names) + _CHANCE
    text += _TRAINING.format(name=wish.name, held_out=max(1, round(species / 10)), species=species)
    return text + (_SETTINGS if wish.model.startswith("tiny_") else "")
