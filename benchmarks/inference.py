"""Answering seven questions an image: the engine against a loop of `generate` and plain batches, same
weights, all in one run.

Run by hand: `python benchmarks/inference.py [IMAGES] [PIXELS]`: 8 images of 448 x 448 where not given. The
model is a random Qwen2.5-VL of 50 M parameters. Prints a table and writes results/benchmarks/inference.json.

`loop` asks one question at a time and encodes the image for each, as the benchmark's own scripts do; `batch`
gives all questions of four images to `generate` at once, each with its image. Neither reads an archive,
decodes an image or counts a token.
"""

import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from PIL import Image
from tabulate import tabulate
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoProcessor, Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

from vltaxon import allocator
from vltaxon.data.images import ImageStore
from vltaxon.engines.transformers import Vlm
from vltaxon.inference.engine import Decoding, Request
from vltaxon.inference.transformers_engine import TransformersEngine

ROUNDS = 3
RANKS = ("kingdom", "phylum", "class", "order", "family", "genus", "species")
BASE = Path(__file__).parents[1] / "src" / "vltaxon" / "demo" / "base"
SYSTEM = "You are an expert in hierarchical image classification."
BATCH = 4 * len(RANKS)


def checkpoint(folder: Path, side: int) -> Path:
    """A random model of 50 M parameters with the tokenizer of the demo's base."""
    processor = AutoProcessor.from_pretrained(BASE)
    processor.image_processor.size = {"shortest_edge": side * side, "longest_edge": side * side}
    tokenizer = processor.tokenizer
    ids = {
        name: tokenizer.convert_tokens_to_ids(f"<|{name}|>")
        for name in ("im_end", "image_pad", "video_pad", "vision_start")
    }
    config = Qwen2_5_VLConfig(
        text_config={
            "hidden_size": 512, "intermediate_size": 1376, "num_hidden_layers": 12, "num_attention_heads": 8,
            "num_key_value_heads": 2, "vocab_size": len(tokenizer), "max_position_embeddings": 4096, "tie_word_embeddings": True,
            "rope_parameters": {"rope_type": "default", "mrope_section": [8, 12, 12], "rope_theta": 1e6},
            "eos_token_id": ids["im_end"], "pad_token_id": tokenizer.pad_token_id,
        },
        vision_config={
            "depth": 8, "hidden_size": 384, "intermediate_size": 1024, "num_heads": 6, "patch_size": 14, "spatial_merge_size": 2,
            "temporal_patch_size": 2, "out_hidden_size": 512, "window_size": 112, "fullatt_block_indexes": [3, 7],
        },
        image_token_id=ids["image_pad"], video_token_id=ids["video_pad"], vision_start_token_id=ids["vision_start"],
        tie_word_embeddings=True,
    )  # fmt: skip
    torch.manual_seed(0)
    model = Qwen2_5_VLForConditionalGeneration(config)
    print(
        f"{sum(p.numel() for p in model.parameters()) / 1e6:.1f} M parameters, {torch.get_num_threads()} threads"
    )
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def images(folder: Path, count: int, side: int) -> ImageStore:
    """Noise, as files."""
    rng, rows = np.random.default_rng(0), []
    for i in range(count):
        path = folder / f"{i}.png"
        Image.fromarray(rng.integers(0, 255, (side, side, 3), dtype=np.uint8)).save(path)
        rows.append({"image_id": str(i), "archive": str(path), "offset": 0, "size": path.stat().st_size})
    return ImageStore(pa.Table.from_pylist(rows))


def asked(count: int) -> list[Request]:
    """Seven questions an image in the benchmark's words; an option is four or five tokens, as most orders'
    names are.
    """
    options = "A. Rosales\nB. Fagales\nC. Asterales\nD. Malvales"
    return [
        Request(str(i), f"Given the plant in the image, what is its taxonomic classification at the {rank} level?\n{options}\n"
                "Answer with the option's letter from the given choices directly.", SYSTEM, 4)
        for i in range(count) for rank in RANKS
    ]  # fmt: skip


def generated(
    engine: TransformersEngine, requests: Sequence[Request], opened: dict[str, Any], rows: int, new: int
) -> list[str]:
    """Plain `generate` in batches of some rows, every row with its image; with the allocator of a plain process."""
    allocator.keep_freed(False)
    texts, said = [engine._rendered(request) for request in requests], []
    for start in range(0, len(requests), rows):
        some = range(start, min(start + rows, len(requests)))
        inputs = engine._inputs([texts[i] for i in some], [opened[requests[i].image_id] for i in some])
        with torch.inference_mode():
            out = engine._model.generate(
                **inputs, max_new_tokens=new, do_sample=False, pad_token_id=engine._ends[0]
            )
        said += engine._processor.tokenizer.batch_decode(
            out[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True
        )
    return said


def answered(engine: TransformersEngine, requests: Sequence[Request], decoding: Decoding) -> list[str]:
    """What the engine says, in order."""
    allocator.keep_freed()
    given = {place: response.completion for place, response in engine.generate(requests, decoding)}
    return [given[place] for place in range(len(requests))]


def timed(works: dict[str, Callable[[], list[str]]]) -> tuple[dict[str, float], dict[str, list[str]]]:
    """Median seconds of each, in turn, after a first round that does not count; and what they said."""
    said = {name: work() for name, work in works.items()}
    seconds: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(ROUNDS):
        for name, work in works.items():
            began = time.perf_counter()
            work()
            seconds[name].append(time.perf_counter() - began)
    return {name: statistics.median(found) for name, found in seconds.items()}, said


def product_rate() -> float:
    """Floating-point operations a second of a matrix product, the best of some."""
    a, best = torch.randn(2048, 2048), 0.0
    for _ in range(8):
        began = time.perf_counter()
        a @ a
        best = max(best, 2 * 2048**3 / (time.perf_counter() - began))
    return best


def main(count: int, side: int) -> None:
    """Measure, print and write."""
    with tempfile.TemporaryDirectory() as folder:
        store, requests = images(Path(folder), count, side), asked(count)
        path = checkpoint(Path(folder) / "model", side)
        pixels = {"pixels": side * side, "min_pixels": side * side}
        spec = Vlm(
            engine="transformers",
            checkpoint=str(path),
            dtype="float32",
            batch_size=BATCH,
            licence="none",
            **pixels,
        )
        engine = TransformersEngine(spec, None, store)
        opened = {request.image_id: engine._resized(request.image_id) for request in requests}
        answered(engine, requests[: len(RANKS)], Decoding(1))  # the engine's own check of its first batch
        rows, record = [], {"images": count, "side": side, "threads": torch.get_num_threads()}
        for kind, new in (("letters, 5 tokens", 5), ("reasoning, 90 tokens", 90)):
            works: dict[str, Callable[[], list[str]]] = {
                "loop": lambda new=new: generated(engine, requests, opened, 1, new),
                "batch": lambda new=new: generated(engine, requests, opened, BATCH, new),
                "engine": lambda new=new: answered(engine, requests, Decoding(new)),
            }
            if new == 5:
                works["engine, one pass"] = lambda: answered(engine, requests, Decoding(1, letters=True))
            seconds, said = timed(works)
            for name, took in seconds.items():
                same = (
                    ""
                    if "pass" in name
                    else f"{np.mean([a == b for a, b in zip(said[name], said['loop'], strict=True)]):.0%}"
                )
                rate, to = len(requests) / took, (seconds["loop"] / took, seconds["batch"] / took)
                rows.append([kind, name, f"{took:.2f}", f"{rate:.2f}", f"{to[0]:.2f}", f"{to[1]:.2f}", same])
                record[f"{kind}: {name}"] = {
                    "seconds": took,
                    "questions_per_second": rate,
                    "times_loop": to[0],
                    "times_batch": to[1],
                }
        print(
            tabulate(
                rows,
                ["answers", "by", "s", "questions/s", "x loop", "x batch", "same texts as loop"],
                disable_numparse=True,
            )
        )
        with FlopCounterMode(display=False) as counter:
            began = time.perf_counter()
            answered(engine, requests, Decoding(1, letters=True))
            took = time.perf_counter() - began
        took = min(took, record["letters, 5 tokens: engine, one pass"]["seconds"])  # type: ignore[index]  # counting costs time
        flops, peak = counter.get_total_flops(), product_rate()
        share = f"{flops / took / peak:.0%} of a matrix product's {peak / 1e9:.0f} GFLOP/s"
        print(f"one pass: {flops / 1e9:.1f} GFLOP in {took:.2f} s, {share}")
        record["one pass"] = {
            "flop": flops,
            "seconds": took,
            "product_flop_per_second": peak,
            "share": flops / took / peak,
        }
    output = Path("results/benchmarks/inference.json")
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(*(int(argument) for argument in (*sys.argv[1:], *("8", "448")[len(sys.argv) - 1 :])))
