"""A small world to train in: eight species, images in a tar, and a random Qwen2.5-VL of 0.2 M parameters."""

import hashlib
import io
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from vltaxon import layout, provenance, schemas
from vltaxon.config.protocols import Prompt
from vltaxon.config.recipes import STEPS
from vltaxon.config.steps import Lora, Samples, Step
from vltaxon.engines.transformers import Vlm
from vltaxon.tasks.training import TrainTask
from vltaxon.train.step import train_step

RANKS = ("kingdom", "order", "genus", "species")
WORDING = "Given the {word} in the image, what is its classification at the {rank} level?"
PROMPTS = {
    "stage1": Prompt(source="test", text="Name the {word} ({ranks})."),
    "stage2": Prompt(source="test", text='It is "{leaf}". {question}\n{options}\n'),
    "direct": Prompt(source="test", system="Answer by letter.", text="{question}\n{options}"),
}
LORA = Lora(rank=4, alpha=8)
NO_MODEL = Vlm(engine="transformers", checkpoint="org/model", revision="0" * 40, pixels=3136, licence="MIT")
NAMES = ("endoftext", "im_start", "im_end", "vision_start", "vision_end", "image_pad", "video_pad")
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{% for c in m['content'] %}{% if c['type'] == 'image' %}"
    "<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ c['text'] }}{% endif %}{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def lineage(i: int) -> tuple[str, ...]:
    return ("Plantina", f"Ordo{i // 4}", f"Genus{i // 2}", f"Genus{i // 2} epithet{i}")


@dataclass(frozen=True)
class World:
    """Tables of one data set. Species 0-3 are of the sft part, 4 and 5 of grpo, 6 and 7 held out; 4 training images each."""

    folder: Path

    @property
    def tables(self) -> dict[str, Path]:
        return {name: self.folder / f"{name}.parquet" for name in ("images", "taxa", "questions", "parts")}

    def task(
        self, what: Step, vlm: Vlm | None = None, name: str = "o", previous: Path | None = None, **changes: Any
    ) -> TrainTask:
        """The training of a step; a draw of its samples needs no model."""
        output = self.folder / name
        values: dict[str, Any] = {
            "step": what, "model": vlm or NO_MODEL, "prompts": PROMPTS, "wording": WORDING, "word": "plant", "seed": 0,
            "device_batch_size": what.device_batch_size, "checkpoint_minutes": what.checkpoint_minutes,
            "state": self.folder / ".state" / name, **self.tables, "weights": (), "own": None,
            "previous": previous and previous / layout.WEIGHTS, "adapter": output / layout.WEIGHTS,
            "config": output / layout.ADAPTER_CONFIG, "record": output / layout.RECORD, "curve": output / layout.CURVE,
        }  # fmt: skip
        return TrainTask(**(values | changes))

    def rewrite(self, name: str, column: str, values: list[Any]) -> None:
        """Replace a column, to make a mistake."""
        schema = {"images": schemas.IMAGES, "taxa": schemas.TAXA, "questions": schemas.QUESTIONS, "parts": schemas.PARTS}[name]
        table = provenance.read_parquet(self.tables[name], schema)
        at = table.column_names.index(column)
        changed = table.set_column(at, column, pa.array(values, schema.field(column).type))
        provenance.write_parquet(changed, self.tables[name], schema)

    def column(self, name: str, column: str) -> list[Any]:
        return provenance.read_parquet(self.tables[name], columns=[column])[column].to_pylist()


@pytest.fixture
def world(tmp_path: Path) -> World:
    return build(tmp_path)


def build(folder: Path) -> World:
    """Draw the images and write the tables."""
    rng, rows, asked = np.random.default_rng(0), [], []
    archive = folder / "images.tar"
    with tarfile.open(archive, "w", format=tarfile.USTAR_FORMAT) as tar:
        for i in range(8):
            for number in range(5):
                split = "train" if number < 4 else "test"
                image_id, buffer = f"{split}/{i}_{number}", io.BytesIO()
                Image.fromarray(rng.integers(0, 255, (60, 64, 3), dtype=np.uint8)).save(buffer, "JPEG")
                offset, size = tar.offset + 512, buffer.tell()
                info = tarfile.TarInfo(image_id)
                info.size = size
                buffer.seek(0)
                tar.addfile(info, buffer)
                leaf = lineage(i)[-1]
                digest = hashlib.sha256(buffer.getvalue()).hexdigest()
                facts = (image_id, split, leaf, str(archive), image_id, offset, size, 64, 60, digest)
                rows.append(dict(zip(schemas.IMAGES.names, facts, strict=True)))
                for level, rank in enumerate(RANKS, start=1):
                    truth, other = lineage(i)[level - 1], lineage((i + 5) % 8)[level - 1]
                    options = list(dict.fromkeys([other, truth]))
                    values = (
                        f"{image_id}:{level}", image_id, split, level, rank, options, options.index(truth), len(options) > 1,
                        "mined", "e", "t", [0.0] * len(options),
                    )  # fmt: skip
                    asked.append(dict(zip(schemas.QUESTIONS.names, values, strict=True)))
    made = World(folder)
    taxa = [
        dict(zip(schemas.TAXA.names, (path[-1], level, rank, taxon, taxon.casefold()), strict=True))
        for path in map(lineage, range(8))
        for level, (rank, taxon) in enumerate(zip(RANKS, path, strict=True), start=1)
    ]
    kinds = ["sft"] * 4 + ["grpo"] * 2 + ["held_out"] * 2
    parts = [{"leaf": lineage(i)[-1], "part": part, "seed": 0} for i, part in enumerate(kinds)]
    for name, table, schema in (
        ("images", rows, schemas.IMAGES),
        ("taxa", taxa, schemas.TAXA),
        ("questions", sorted(asked, key=lambda row: (row["image_id"], row["level"])), schemas.QUESTIONS),
        ("parts", parts, schemas.PARTS),
    ):
        provenance.write_parquet(pa.Table.from_pylist(table, schema), made.tables[name], schema)
    return made


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Qwen2.5-VL, its processor and a byte-level tokenizer, as a checkpoint folder."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import (
        PreTrainedTokenizerFast,
        Qwen2_5_VLConfig,
        Qwen2_5_VLForConditionalGeneration,
        Qwen2_5_VLProcessor,
        Qwen2VLImageProcessor,
        Qwen2VLVideoProcessor,
    )

    special = [f"<|{name}|>" for name in NAMES]
    tokens = Tokenizer(models.BPE())
    tokens.pre_tokenizer, tokens.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    text = "<think></think><answer></answer> Kingdom: Plantina; Order: Ordo; Genus: Genus; Species: epithet A B user assistant"
    tokens.train_from_iterator(
        [text] * 9, trainers.BpeTrainer(vocab_size=400, special_tokens=special, initial_alphabet=alphabet, show_progress=False)
    )
    names = {"image_token": special[5], "video_token": special[6], "vision_bos_token": special[3], "vision_eos_token": special[4]}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=tokens, eos_token=special[2], pad_token=special[0], extra_special_tokens=names, padding_side="left"
    )
    ids = {name: tokenizer.convert_tokens_to_ids(name) for name in special}
    config = Qwen2_5_VLConfig(
        text_config={
            "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "vocab_size": len(tokenizer), "max_position_embeddings": 512, "tie_word_embeddings": True,
            "bos_token_id": ids[special[0]], "eos_token_id": ids[special[2]], "pad_token_id": ids[special[0]],
            "rope_parameters": {"rope_type": "default", "mrope_section": [2, 3, 3], "rope_theta": 10000.0},
        },
        vision_config={
            "depth": 2, "hidden_size": 32, "intermediate_size": 48, "num_heads": 2, "patch_size": 14, "spatial_merge_size": 2,
            "temporal_patch_size": 2, "out_hidden_size": 64, "window_size": 56, "fullatt_block_indexes": [1],
        },
        image_token_id=ids[special[5]], video_token_id=ids[special[6]], vision_start_token_id=ids[special[3]],
        vision_end_token_id=ids[special[4]], tie_word_embeddings=True,
    )  # fmt: skip
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("base")
    model = Qwen2_5_VLForConditionalGeneration(config)
    model.get_input_embeddings().weight.data *= 10  # tied to the output: else no adapter could make a token likely
    model.save_pretrained(folder)
    pixels = Qwen2VLImageProcessor(patch_size=14, merge_size=2, min_pixels=3136, max_pixels=3136)
    Qwen2_5_VLProcessor(pixels, tokenizer, Qwen2VLVideoProcessor(), chat_template=TEMPLATE).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def vlm(checkpoint: Path) -> Vlm:
    return Vlm(engine="transformers", checkpoint=str(checkpoint), dtype="float32", pixels=3136, min_pixels=3136, licence="MIT")


def step(kind: str = "sft", **changes: Any) -> Step:
    """Two optimiser steps: 16 images of 4 species, or 8 images of 2 species with groups of 4."""
    sft = kind == "sft"
    settings: dict[str, Any] = {
        "kind": kind, "part": kind, "samples": (Samples(task="leaf", prompt="stage1"),), "lora": LORA, "learning_rate": 1e-2,
        "batch_size": 8 if sft else 16, "device_batch_size": 8, "max_new_tokens": 8, "warmup": 0,
    }  # fmt: skip
    own: dict[str, Any] = {} if sft else {"group_size": 4, "kl": 0.4}
    return STEPS[kind](**(settings | own | changes))


LETTERS = Samples(task="answer", prompt="stage2", condition="gold", target="answer", form="bare")
RIGHT_LETTERS = LETTERS.model_copy(update={"target": "reasoning"})  # grpo has no target


@pytest.fixture(scope="session")
def lettered(tmp_path_factory: pytest.TempPathFactory, vlm: Vlm) -> Path:
    """An SFT adapter that answers with a letter, so that rewards vary within a group."""
    world = build(tmp_path_factory.mktemp("lettered"))
    return train(world, vlm, "1-sft", step(samples=(LETTERS,), epochs=4))


def train(world: World, vlm: Vlm, name: str, what: Step, previous: Path | None = None, seed: int = 0) -> Path:
    """Run a step in the world; its adapter folder."""
    task = world.task(what, vlm, name, previous, seed=seed)
    train_step(task)
    return task.adapter.parent
