"""Pre-train the tiny base model from its seed, and save it with the record of its training."""

import json
from collections.abc import Sequence
from pathlib import Path

import torch
import transformers

from vltaxon.demo.clades import Clade
from vltaxon.demo.tiny_vlm.curriculum import STAGES, Stage
from vltaxon.demo.tiny_vlm.evaluation import evaluate
from vltaxon.demo.tiny_vlm.processor import build_processor
from vltaxon.demo.tiny_vlm.pupil import Pupil
from vltaxon.demo.tiny_vlm.vision import draw_patches, encode, train_tower
from vltaxon.provenance import digest_file

_TEST_IMAGES = 4  # of each species


def pretrain(
    folder: Path,
    seed: int = 0,
    stages: Sequence[Stage] = STAGES,
    web_images: int = 30,
    vision_steps: int = 900,
    clades: Sequence[Clade] = (),
) -> None:
    """Make the base model from its seed and save it as an ordinary checkpoint, with `training_record.json`.

    About 25 minutes on two CPU cores. Images come from the streams `web` and `web_test`, which no data set
    uses.

    Args:
        folder: where the checkpoint goes.
        seed: of initial weights, corpus, images and order.
        stages: the curriculum; the last stage is the one with images.
        web_images: images drawn of each species.
        vision_steps: steps of 64 images in which the vision tower learns the words.
        clades: the trees; all three by default.
    """
    pupil = Pupil(seed, clades)
    species = pupil.corpus.species
    stage_records = [pupil.train_stage(stage) for stage in stages[:-1]]
    patches = draw_patches(species, "web", web_images, seed)
    vision_curve = train_tower(pupil, patches, vision_steps, seed)
    pupil.visual = encode(pupil, patches)
    stage_records.append(pupil.train_stage(stages[-1]))
    test = encode(pupil, draw_patches(species, "web_test", _TEST_IMAGES, seed))
    record = {
        "seed": seed,
        "data": {"species": len(species), "web_images": web_images, "test_images": _TEST_IMAGES},
        "stages": stage_records,
        "vision": vision_curve,
        "evaluation": evaluate(pupil, test),
    }
    _save(pupil, folder, record)


def _save(pupil: Pupil, folder: Path, record: dict[str, object]) -> None:
    """Write weights (float16), config, tokenizer, processor and the training record."""
    folder.mkdir(parents=True, exist_ok=True)
    pupil.model.half().save_pretrained(folder)
    build_processor(pupil.tokenizer).save_pretrained(folder)
    record["parameters"] = sum(p.numel() for p in pupil.model.parameters())
    record["weights_sha256"] = digest_file(folder / "model.safetensors")
    record["versions"] = {"torch": torch.__version__, "transformers": transformers.__version__}
    (folder / "training_record.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
