"""A GRPO step whose groups share their prompt against TRL's own, same weights and completions, all in one run.

Run by hand: `python benchmarks/grpo.py [ROUNDS]`. On the demo's base (64 completions of 8 prompts, 56 x 56
pixels) and on a random Qwen2.5-VL of 50 M parameters (one group of 8 completions of 90 tokens, 448 x 448).
Prints a table and writes results/benchmarks/grpo.json. `python benchmarks/grpo.py --peak WAY MODEL` prints
the peak memory in MB of a process that does nothing else.

A step is writing the completions, the reference's log-probabilities, the policy's, and backward; the ways
take turns. They are then compared on the same completions.
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import torch
from inference import BASE, RANKS, checkpoint, images
from tabulate import tabulate

from vltaxon import checkpoint as checkpoints
from vltaxon.config.files import read_yaml
from vltaxon.config.recipes import STEPS
from vltaxon.config.steps import Lora
from vltaxon.engines.transformers import Vlm
from vltaxon.prepared import Lengths, Prepared
from vltaxon.prompts import render
from vltaxon.train import adapter, samples
from vltaxon.train.shared_group import SharedGroupTrainer

GROUP = 8
MODELS = {  # side, completions of a step, of which at once, tokens of each
    "demo": (56, 64, 32, 40),
    "50 M": (448, GROUP, GROUP, 90),
}
WAYS = ("trl", "shared")


def trainer_of(name: str, folder: Path) -> SharedGroupTrainer:
    """A trainer of the model on noise, its adapter moved off the reference so that the KL counts."""
    side, batch, rows_at_once, tokens = MODELS[name]
    path = BASE if name == "demo" else checkpoint(folder / "model", side)
    vlm = Vlm(engine="transformers", checkpoint=str(path), dtype="float32", pixels=side * side, min_pixels=side * side,
              licence="none")  # fmt: skip
    prompt = read_yaml(Path(__file__).parents[1] / "config/prompts/stage1.yaml", [])
    text = render(prompt["text"], "", "plant", RANKS)
    count = batch // GROUP
    drawn = [
        samples.Sample(
            image_id=str(i), task="leaf", level=None, form="tagged", reasoned=True, leaf="Rosa canina", ranks=RANKS, lineage=RANKS, options=(),
            answer_index=None, system=prompt.get("system"), text=text, target="",
        ) for i in range(count)
    ]  # fmt: skip
    processor, base = checkpoints.load(vlm)
    policy = adapter.with_adapter(base, Lora(rank=16, alpha=16, dropout=0.05), None)
    step = STEPS["grpo"].model_validate({
        "kind": "grpo", "part": "grpo", "samples": [{"task": "leaf", "prompt": "stage1"}], "learning_rate": 1e-4,
        "rewards": [{"name": "format"}], "batch_size": batch, "device_batch_size": rows_at_once, "group_size": GROUP,
        "max_new_tokens": tokens, "generate": "shared",
    })  # fmt: skip
    arguments = {
        "output_dir": str(folder / "state"), "per_device_train_batch_size": rows_at_once, "use_cpu": not torch.cuda.is_available(),
        "gradient_accumulation_steps": batch // rows_at_once, "report_to": "none", "save_strategy": "no", "bf16": False,
        "remove_unused_columns": False, "gradient_checkpointing": False, "disable_tqdm": True,
    }  # fmt: skip
    rows = samples.dataset(drawn, images(folder, count, side), side * side, side * side)
    trainer = step.trainer(Prepared(policy, processor, rows, arguments, Lengths(0, 0)))
    generator = torch.Generator().manual_seed(1)
    for parameter in trainer.model.parameters():
        if parameter.requires_grad:
            parameter.data += 0.002 * torch.randn(parameter.shape, generator=generator)
    if name != "demo":  # a random model ends at random: every completion has all its tokens
        trainer.generation_config.suppress_tokens = [
            *(trainer.generation_config.suppress_tokens or ()),
            *trainer.eos_token_ids,
        ]
    trainer.model.train()
    trainer.current_gradient_accumulation_steps = batch // rows_at_once
    return trainer


def written(trainer: Any, way: str, seed: int) -> list[dict[str, Any]]:
    """Completions of a batch and the reference's log-probabilities, in micro-batches."""
    trainer.not_shared, trainer._step = None if way == "shared" else "to compare", 0
    torch.manual_seed(seed)
    trainer._prepare_inputs(next(iter(trainer.get_train_dataloader())))
    return list(trainer._buffered_inputs)


def learnt(trainer: Any, way: str, batches: list[dict[str, Any]]) -> tuple[list[float], torch.Tensor]:
    """Losses and gradient of the policy on a batch of completions."""
    trainer.not_shared = None if way == "shared" else "to compare"
    trainer.model.zero_grad()
    losses = []
    for batch in batches:
        loss = trainer._compute_loss(trainer.model, batch)
        loss.backward()
        losses.append(loss.item())
    return losses, torch.cat([p.grad.flatten() for p in trainer.model.parameters() if p.requires_grad])


def peak(way: str, name: str) -> float:
    """Peak memory in MB of a process that does two steps in one way."""
    command = [sys.executable, __file__, "--peak", way, name]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])


def peak_of_this() -> float:
    """Peak memory of this process in MB. (`getrusage` gives the parent's where that was larger.)"""
    status = Path("/proc/self/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) / 1024


def main(rounds: int) -> None:
    rows, record = [], {}
    for name in MODELS:
        with tempfile.TemporaryDirectory() as folder:
            trainer = trainer_of(name, Path(folder))
            seconds: dict[str, list[tuple[float, float]]] = {way: [] for way in WAYS}
            for seed in range(rounds + 1):
                for way in WAYS if seed % 2 else reversed(WAYS):
                    began = time.perf_counter()
                    batches = written(trainer, way, seed)
                    middle = time.perf_counter()
                    learnt(trainer, way, batches)
                    if seed:  # the first of each way compares, and warms up
                        seconds[way].append((middle - began, time.perf_counter() - middle))
            same = written(trainer, "shared", 0)
            (losses, gradient), (theirs, wanted) = (learnt(trainer, way, same) for way in ("shared", "trl"))
        whole = {way: statistics.median(a + b for a, b in some) for way, some in seconds.items()}
        found = {
            "seconds": whole,
            "writing": {way: statistics.median(a for a, _ in some) for way, some in seconds.items()},
            "times": whole["trl"] / whole["shared"],
            "loss": max(abs(a - b) / max(abs(b), 1e-9) for a, b in zip(losses, theirs, strict=True)),
            "gradient": float((gradient - wanted).norm() / wanted.norm()),
            "peak_mb": {way: peak(way, name) for way in WAYS},
        }
        record[name] = found
        rows.append(
            [
                name,
                *whole.values(),
                found["times"],
                found["loss"],
                found["gradient"],
                *found["peak_mb"].values(),
            ]
        )
    heads = [
        "model",
        "TRL, s",
        "shared, s",
        "times",
        "loss, off by",
        "gradient, off by",
        "TRL, MB",
        "shared, MB",
    ]
    print(tabulate(rows, heads, floatfmt=".3g"))
    out = Path("results/benchmarks/grpo.json")
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(record, indent=1))


if __name__ == "__main__":
    warnings.filterwarnings("ignore")
    if sys.argv[1:2] == ["--peak"]:
        _, _, way, name = sys.argv
        with tempfile.TemporaryDirectory() as folder:
            trainer = trainer_of(name, Path(folder))
            for seed in range(2):
                learnt(trainer, way, written(trainer, way, seed))
        print(peak_of_this())
    else:
        main(int(sys.argv[1]) if sys.argv[1:] else 5)
