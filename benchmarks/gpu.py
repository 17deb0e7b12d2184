"""vltaxon on a GPU: inference, GRPO, SFT, decoding, embedding and running out of memory, on random weights of
real sizes.

Run by hand, without network and without weights:

    python benchmarks/gpu.py --out FOLDER     all sections, then FOLDER/gpu.json and tables in Markdown
    python benchmarks/gpu.py --render JSON    docs/gpu.md of such a record
    python benchmarks/gpu.py --tests          the tests of training and inference that need no workflow, on
    this device python benchmarks/gpu.py --tiny           the same sections with a tiny model: on the CPU a
    rehearsal of a minute

The model is a Qwen2.5-VL of 7B in bfloat16, made on the device, and images are noise of 448 x 448. Sections
stand alone: what one of them raises is written down as its error, and the others go on; each has a limit of
seconds, all together `--minutes`.

The head is wider than the demo's tokenizer: each further row is three quarters of a row that a word has, and
the marks' rows are zero, so that greedy texts are of that tokenizer, and never end.
"""

import argparse
import gc
import importlib.metadata
import importlib.util
import json
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import traceback
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, field
from functools import partial
from io import StringIO
from pathlib import Path
from types import FrameType, SimpleNamespace
from typing import Any

import numpy as np
import torch
from inference import BASE, RANKS, asked
from PIL import Image
from tabulate import tabulate
from torch.utils.flop_counter import FlopCounterMode
from transformers import (
    AutoProcessor,
    DynamicCache,
    GenerationConfig,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    StaticCache,
    TrainerCallback,
)

from vltaxon import checkpoint
from vltaxon.config.recipes import STEPS
from vltaxon.config.steps import Lora, Samples, Step
from vltaxon.encoders.towers import Encoder
from vltaxon.engines.transformers import Vlm
from vltaxon.engines.zero_shot import Clip
from vltaxon.inference import preallocated_cache, shared_prefix
from vltaxon.inference.engine import Decoding, Request, Response
from vltaxon.inference.shared_prefix import NotShared, SharedPrefix, State
from vltaxon.inference.transformers_engine import TransformersEngine
from vltaxon.prepared import Lengths, Prepared
from vltaxon.prompts import completion, listed, stated
from vltaxon.train import adapter, arguments, guards, samples

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = (
    "torch",
    "triton",
    "transformers",
    "trl",
    "peft",
    "accelerate",
    "open_clip_torch",
    "timm",
    "numpy",
)
MARKS = 7  # the tokenizer's first tokens: end of text, of a turn, image and the like
TESTS = (
    "tests/unit/train/test_step.py", "tests/unit/train/objectives",
    "tests/unit/train/test_survival.py::test_a_killed_training_ends_the_same",
    "tests/unit/inference/test_shared_prefix.py", "tests/unit/inference/test_transformers_engine.py",
    "tests/unit/inference/test_families.py",
)  # fmt: skip

Result = dict[str, Any]
Tokens = list[int]


class NeedsGpu(Exception):
    """A section that says nothing on a CPU."""


class OutOfTime(BaseException):
    """A section's seconds are over. Not an Exception, so that no library takes it for a failure of its
    own.
    """


# -- models --------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Size:
    """Sizes of a Qwen2.5-VL: its language model and its vision tower."""

    width: int
    inner: int
    layers: int
    heads: int
    shared_heads: int
    words: int
    rope: tuple[int, int, int]
    depth: int
    seen: int
    seen_inner: int
    seen_heads: int
    window: int
    whole: tuple[int, ...]


B7 = Size(3584, 18944, 28, 28, 4, 152064, (16, 24, 24), 32, 1280, 3420, 16, 112, (7, 15, 23, 31))
M50 = Size(512, 1376, 12, 8, 2, 8192, (8, 12, 12), 8, 384, 1024, 6, 112, (3, 7))
TINY = Size(64, 96, 2, 4, 2, 2048, (2, 3, 3), 2, 32, 48, 2, 56, (1,))


@dataclass(frozen=True)
class Scale:
    """How much of everything: models, pixels of an image's side, images, questions one by one, new tokens,
    rows.
    """

    big: Size = B7
    small: Size = M50
    side: int = 448
    images: int = 16
    many: int = 64
    alone: int = 4
    new: int = 93
    prompts: int = 16
    group: int = 8
    device_rows: int = 8
    sft_rows: int = 64
    rank: int = 64
    decode_rows: tuple[int, ...] = (8, 112)
    prompt: int = 360
    steps: int = 88  # prompt and steps together a multiple of 8, as the attention kernels like a mask to be
    matrix: int = 8192
    copied: int = 2 << 30
    encoder: str = "ViT-SO400M-14-SigLIP-384"
    embedded: int = 1024
    embed_rows: int = 128


REHEARSAL = Scale(
    TINY, TINY, side=56, images=2, many=3, alone=2, new=6, prompts=2, group=2, device_rows=2, sft_rows=4, rank=4,
    decode_rows=(4,), prompt=16, steps=8, matrix=256, copied=1 << 20, encoder="tiny", embedded=8, embed_rows=4,
)  # fmt: skip


@dataclass
class Bench:
    """What all sections share: device, sizes, a folder for files, and the device's rates once they are
    known.
    """

    device: str
    scale: Scale
    folder: Path
    rates: dict[str, float] = field(default_factory=dict)
    rows: list[Result] = field(
        default_factory=list
    )  # of the section that runs, kept where it does not come to its end

    @property
    def gpu(self) -> bool:
        return self.device == "cuda"

    def wait(self) -> None:
        """Until the device has done all it was given."""
        if self.gpu:
            torch.cuda.synchronize()

    def peak(self) -> float | None:
        """GB that were taken at most since the last call."""
        if not self.gpu:
            return None
        taken = torch.cuda.max_memory_allocated() / 1e9
        torch.cuda.reset_peak_memory_stats()
        return round(taken, 1)

    def seconds(self, work: Callable[[], Any]) -> tuple[float, Any]:
        """How long work takes, and what it returns."""
        self.wait()
        began = time.perf_counter()
        made = work()
        self.wait()
        return time.perf_counter() - began, made

    def processor(self) -> Any:
        """The demo's, for images of this scale."""
        made = AutoProcessor.from_pretrained(BASE)
        pixels = self.scale.side**2
        made.image_processor.size = {"shortest_edge": pixels, "longest_edge": pixels}
        made.tokenizer.padding_side = "left"
        return made

    def model(self, size: Size, dtype: torch.dtype = torch.bfloat16) -> Any:
        """A model of random weights, made on the device."""
        words = len(AutoProcessor.from_pretrained(BASE).tokenizer)
        config, before = configured(size), torch.get_default_dtype()
        torch.manual_seed(0)
        torch.set_default_dtype(dtype)
        try:
            with torch.device(self.device):
                made = Qwen2_5_VLForConditionalGeneration(config)
        finally:
            torch.set_default_dtype(before)
        with torch.no_grad():
            head = made.lm_head.weight
            head[:MARKS] = 0
            head[MARKS:words] *= 4  # so that sampling, too, seldom leaves the tokenizer's words
            for start in range(words, len(head), words - MARKS):
                part = head[start : start + words - MARKS]
                part.copy_(0.75 * head[MARKS : MARKS + len(part)])
        text = config.text_config
        made.generation_config = GenerationConfig(
            eos_token_id=text.eos_token_id, pad_token_id=text.pad_token_id
        )
        return made.eval()


def configured(size: Size) -> Qwen2_5_VLConfig:
    """The config of a size, with the demo's special tokens."""
    tokens = AutoProcessor.from_pretrained(BASE).tokenizer
    ids = {
        name: tokens.convert_tokens_to_ids(f"<|{name}|>")
        for name in ("im_end", "image_pad", "video_pad", "vision_start")
    }
    return Qwen2_5_VLConfig(
        text_config={
            "hidden_size": size.width, "intermediate_size": size.inner, "num_hidden_layers": size.layers,
            "num_attention_heads": size.heads, "num_key_value_heads": size.shared_heads, "vocab_size": size.words,
            "max_position_embeddings": 32768, "tie_word_embeddings": False, "rms_norm_eps": 1e-6,
            "rope_parameters": {"rope_type": "default", "mrope_section": list(size.rope), "rope_theta": 1e6},
            "bos_token_id": tokens.pad_token_id, "eos_token_id": ids["im_end"], "pad_token_id": tokens.pad_token_id,
        },
        vision_config={
            "depth": size.depth, "hidden_size": size.seen, "intermediate_size": size.seen_inner, "num_heads": size.seen_heads,
            "patch_size": 14, "spatial_merge_size": 2, "temporal_patch_size": 2, "out_hidden_size": size.width,
            "window_size": size.window, "fullatt_block_indexes": list(size.whole),
        },
        image_token_id=ids["image_pad"], video_token_id=ids["video_pad"], vision_start_token_id=ids["vision_start"],
        tie_word_embeddings=False,
    )  # fmt: skip


class Noise:
    """Images by name, each of its own noise."""

    def __init__(self, side: int) -> None:
        self._side = side

    def resized(self, image_id: str, pixels: int = 0, min_pixels: int = 0) -> Image.Image:
        """The image, which has the size that is asked for."""
        rng = np.random.default_rng(int(image_id))
        return Image.fromarray(rng.integers(0, 255, (self._side, self._side, 3), dtype=np.uint8))


# -- measuring -----------------------------------------------------------------------------------------------------------------


@contextmanager
def timed_parts(
    bench: Bench, places: Mapping[str, tuple[Any, str]], threads: Sequence[str] = ()
) -> Iterator[dict[str, float]]:
    """Seconds of calls of some methods, by label, each waited for; those of other `threads` are not."""
    seconds: dict[str, float] = defaultdict(float)

    def timed(label: str, method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*given: Any, **named: Any) -> Any:
            name = label.split("|")[not torch.is_grad_enabled()] if "|" in label else label
            wait = (lambda: None) if label in threads else bench.wait
            wait()
            began = time.perf_counter()
            try:
                return method(*given, **named)
            finally:
                wait()
                seconds[name] += time.perf_counter() - began

        return call

    kept = [(owner, name, vars(owner).get(name)) for owner, name in places.values()]
    for label, (owner, name) in places.items():
        setattr(owner, name, timed(label, getattr(owner, name)))
    try:
        yield seconds
    finally:
        for owner, name, own in kept:
            if own is None:
                delattr(owner, name)
            else:
                setattr(owner, name, own)


def rounded(seconds: Mapping[str, float]) -> dict[str, float]:
    return {name: round(value, 3) for name, value in seconds.items()}


def facts(bench: Bench) -> Result:
    """Card, versions, and what the device reaches at most: a matrix product in bfloat16 and a copy."""
    side = bench.scale.matrix
    a, b = (torch.randn(side, side, device=bench.device, dtype=torch.bfloat16) for _ in range(2))
    source = torch.randn(bench.scale.copied // 4, device=bench.device)
    target = torch.empty_like(source)
    for name, unit, amount, work in (
        ("matrix product, bfloat16", "TFLOP/s", 2 * side**3 / 1e12, lambda: a @ b),
        ("copy, read and written", "GB/s", 2 * source.nbytes / 1e9, lambda: target.copy_(source)),
    ):
        for _ in range(3):
            work()
        found = sorted(
            amount * 10 / bench.seconds(lambda work=work: [work() for _ in range(10)])[0] for _ in range(5)
        )
        bench.rates[unit] = found[2]
        bench.rows.append(
            {
                "what": name,
                "rate": round(found[2], 1),
                "unit": unit,
                "lowest": round(found[0], 1),
                "highest": round(found[-1], 1),
            }
        )
    return {"rows": bench.rows}


def described(bench: Bench) -> Result:
    """The device and the versions of what ran on it."""
    versions = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "absent"
    versions["torch"] = torch.__version__
    card, driver, memory = platform.processor() or platform.machine(), None, None
    if bench.gpu:
        made = torch.cuda.get_device_properties(0)
        card, memory = made.name, round(made.total_memory / 1e9, 1)
        asked_for = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        try:
            driver = subprocess.run(asked_for, capture_output=True, text=True, timeout=20).stdout.strip()
        except (OSError, subprocess.TimeoutExpired) as error:
            driver = f"unknown ({error})"
    return {
        "device": bench.device, "card": card, "driver": driver, "cuda": torch.version.cuda, "memory_gb": memory,
        "threads": torch.get_num_threads(), "tiny": bench.scale is REHEARSAL, "versions": versions,
        "date": time.strftime("%Y-%m-%d"),
    }  # fmt: skip


# -- inference -----------------------------------------------------------------------------------------------------------------


class Watched(TransformersEngine):
    """The engine over a model that is there already; keeps the tokens that it writes."""

    def __init__(self, bench: Bench, model: Any, rows: int) -> None:
        folder = bench.folder / "processor"
        processor = bench.processor()
        processor.save_pretrained(folder)
        pixels = bench.scale.side**2
        spec = Vlm(
            engine="transformers", checkpoint=str(folder), dtype="bfloat16", batch_size=rows, batch_tokens=1 << 20,
            pixels=pixels, min_pixels=pixels, licence="none",
        )  # fmt: skip
        kept, self.written, self.refused = checkpoint.load, list[Tokens](), ""
        checkpoint.load = lambda _: (processor, model)
        try:
            super().__init__(spec, None, Noise(bench.scale.side))  # type: ignore[arg-type]
        finally:
            checkpoint.load = kept

    def _verify(self, *given: Any) -> None:
        try:
            super()._verify(*given)
        except NotShared as reason:  # said in the record; what is measured is sharing all the same
            self.refused = str(reason)

    def _response(self, prompt: Tokens, tokens: Tokens, decoding: Decoding, seconds: float) -> Response:
        self.written.append(list(tokens))
        return super()._response(prompt, tokens, decoding, seconds)

    def said(self, requests: Sequence[Request], decoding: Decoding) -> list[Any]:
        """What is written to each request, in order; or the responses, where letters are read."""
        self.written.clear()
        found = list(self.generate(requests, decoding))
        kept = [response for _, response in found] if decoding.letters else self.written
        return [
            one
            for _, one in sorted(
                zip([place for place, _ in found], kept, strict=True), key=lambda pair: pair[0]
            )
        ]

    def plain(
        self, requests: Sequence[Request], opened: Mapping[str, Any], rows: int, new: int
    ) -> list[Tokens]:
        """Plain `generate` in batches of some rows, every row with its image."""
        found: list[Tokens] = []
        for start in range(0, len(requests), rows):
            some = requests[start : start + rows]
            inputs = self._inputs(
                [self._rendered(request) for request in some], [opened[request.image_id] for request in some]
            )
            with torch.inference_mode():
                out = self._model.generate(
                    **inputs, max_new_tokens=new, do_sample=False, pad_token_id=self._ends[0]
                )
            found += out[:, inputs["input_ids"].shape[1] :].tolist()
        return found

    def logits(self, request: Request, image: Any, written: Tokens) -> torch.Tensor:
        """Of the token after those written, by the model alone."""
        inputs = dict(self._inputs([self._rendered(request)], [image]))
        more = torch.tensor([written], dtype=torch.long, device=self._model.device)
        inputs["input_ids"] = torch.cat([inputs["input_ids"], more], 1)
        inputs["attention_mask"] = torch.cat([inputs["attention_mask"], torch.ones_like(more)], 1)
        if "mm_token_type_ids" in inputs:
            kinds = inputs["mm_token_type_ids"]
            inputs["mm_token_type_ids"] = torch.cat([kinds, kinds.new_zeros(more.shape)], 1)
        with torch.inference_mode():
            return self._model(**inputs, logits_to_keep=1).logits[0, -1].float()


def inference(bench: Bench) -> Result:
    """Letters and answers: the engine against one question at a time and against plain batches."""
    scale = bench.scale
    engine = Watched(bench, bench.model(scale.big), scale.images * len(RANKS))
    requests, many = asked(scale.images), asked(scale.many)
    opened = {request.image_id: engine._resized(request.image_id) for request in requests}
    rows, said = bench.rows, dict[str, list[Tokens]]()
    letters, written = Decoding(1, letters=True), Decoding(scale.new)
    bench.peak()
    loop = requests[:: max(1, len(requests) // scale.alone)][: scale.alone]
    batch = len(requests)
    works: list[tuple[str, str, Sequence[Request], int, Callable[[], Any], int]] = [
        ("letters, one pass", "engine", requests, 1, lambda: engine.said(requests, letters), 3),
        ("letters, one pass", f"engine, {scale.many} images", many, 1, lambda: engine.said(many, letters), 1),
        ("letters, 5 tokens", "one by one", loop, 5, lambda: engine.plain(loop, opened, 1, 5), 1),
        (
            "letters, 5 tokens",
            "plain batch",
            requests,
            5,
            lambda: engine.plain(requests, opened, batch, 5),
            1,
        ),
        ("letters, 5 tokens", "engine", requests, 5, lambda: engine.said(requests, Decoding(5)), 1),
        ("answers", "one by one", loop, scale.new, lambda: engine.plain(loop, opened, 1, scale.new), 1),
        (
            "answers",
            "plain batch",
            requests,
            scale.new,
            lambda: engine.plain(requests, opened, batch, scale.new),
            1,
        ),
        ("answers", "engine", requests, scale.new, lambda: engine.said(requests, written), 1),
    ]
    engine.said(requests, Decoding(2))  # warms up, and the engine checks its first batch
    engine.plain(requests, opened, batch, 2)
    for what, by, some, new, work, rounds in works:
        if by.startswith("engine,"):  # as many rows at a time as there are
            engine._batching.rows = len(some)
        taken = [bench.seconds(work) for _ in range(rounds)]
        engine._batching.rows = batch
        took = statistics.median(seconds for seconds, _ in taken)
        said[f"{what}: {by}"] = taken[-1][1]
        rows.append({"answers": what, "by": by, "questions": len(some), "new tokens": new, "s": round(took, 3),
                     "questions/s": round(len(some) / took, 2), "peak GB": bench.peak()})  # fmt: skip
    first = engine.said(requests, letters)[0]
    tokens = sum(response.prompt_tokens for response in engine.said(requests, letters))
    one_pass, answers = rows[0]["s"], rows[-1]["s"]
    found: Result = {
        "rows": rows,
        "prompt tokens": first.prompt_tokens,
        "of these the image's": first.image_tokens,
        "the engine's own check of its first batch": engine.refused or "passed",
        "one pass": shares(bench, lambda: engine.said(requests, letters), one_pass),
        "parts of a pass, s": parts_of_pass(bench, engine, requests),
        "speed": {
            "prompt": round(tokens / one_pass),
            "new": round(len(requests) * scale.new / (answers - one_pass)) if answers > one_pass else None,
        },
    }
    for by in ("plain batch", "engine"):
        found[f"answers of {by} against one by one"] = compared(engine, loop, opened, said["answers: one by one"], {
            request: tokens for request, tokens in zip(requests, said[f"answers: {by}"], strict=True)})  # fmt: skip
    return found


def shares(bench: Bench, work: Callable[[], Any], seconds: float) -> Result:
    """Floating-point operations of work that took some seconds, and their share of the device's rate."""
    with FlopCounterMode(display=False) as counter:
        work()
    flop = counter.get_total_flops() / 1e12
    peak = bench.rates.get("TFLOP/s")
    return {
        "TFLOP": round(flop, 3),
        "TFLOP/s": round(flop / seconds, 2),
        "share of a matrix product": peak and round(flop / seconds / peak, 3),
    }


def parts_of_pass(bench: Bench, engine: Watched, requests: Sequence[Request]) -> dict[str, float]:
    """Where a pass over the prompts spends its time; preparing goes on in a thread of its own, beside the
    rest.
    """
    assert engine._shared is not None, "prompts are not shared any more"
    places = {
        "prepare (a thread's)": (shared_prefix, "prepare"),
        "vision": (engine._model.model.visual, "forward"),
        "prefill, vision and suffixes included": (engine._shared, "prefill"),
        "suffixes": (engine._shared, "forward"),
    }
    with timed_parts(bench, places, threads=("prepare (a thread's)",)) as seconds:
        took, _ = bench.seconds(lambda: engine.said(requests, Decoding(1, letters=True)))
    return rounded({**seconds, "all": took})


def compared(
    engine: Watched,
    asked_for: Sequence[Request],
    opened: Mapping[str, Any],
    wanted: Sequence[Tokens],
    given: Mapping[Request, Tokens],
) -> Result:
    """How many texts differ, and by how little the first other token lost, in deviations of the logits.

    `rounding` is how far the logits of a first token differ between a prefix that is shared and a prompt
    alone.
    """
    with torch.inference_mode():
        groups = [
            shared_prefix.Group([engine._rendered(request)], opened[request.image_id])
            for request in asked_for
        ]
        made = shared_prefix.prepare(engine._maker, groups, engine._adds_start(groups[0].texts[0]))
        _, together = SharedPrefix(engine._model).prefill(made, 0)
    rounding, margins, at = [], [], []
    for row, (request, truth) in enumerate(zip(asked_for, wanted, strict=True)):
        image, other = opened[request.image_id], given[request]
        alone = engine.logits(request, image, [])
        rounding.append(((alone - together[row]).abs().max() / alone.std()).item())
        place = next((i for i, (a, b) in enumerate(zip(truth, other, strict=False)) if a != b), None)
        if place is not None:
            logits = engine.logits(request, image, truth[:place])
            margins.append(abs((logits[truth[place]] - logits[other[place]]) / logits.std()).item())
            at.append(place)
    return {
        "compared": len(wanted), "differ": len(margins), "first at token": at, "margins": [round(m, 4) for m in margins],
        "rounding": round(max(rounding), 4), "differ beyond twice the rounding": sum(m > 2 * max(rounding) for m in margins),
    }  # fmt: skip


# -- training ------------------------------------------------------------------------------------------------------------------


def taught(bench: Bench, count: int) -> list[samples.Sample]:
    """Samples of stage 2, an image each, in the workflow's words."""
    lineage = ("Plantae", "Tracheophyta", "Magnoliopsida", "Rosales", "Rosaceae", "Rosa", "Rosa canina")
    options = ("Rosales", "Fagales", "Asterales", "Malvales")
    question = "Given the plant in the image, what is its taxonomic classification at the order level?"
    text = (
        f'A first look identified the plant as "{lineage[-1]}". {question}\n{listed(options)}\nThink from the most general '
        "level to the most specific one, then give only the letter in <answer> </answer>, with the reasoning in <think> </think>."
    )
    target = completion("A", "tagged", stated(RANKS, lineage))
    return [
        samples.Sample(
            str(i),
            "answer",
            len(RANKS),
            "tagged",
            True,
            lineage[-1],
            RANKS,
            lineage,
            options,
            0,
            None,
            text,
            target,
        )
        for i in range(count)
    ]


class Steps(TrainerCallback):  # type: ignore[misc]  # a class of a library without types
    """Seconds, parts and peak memory of every optimiser step; what is in `between` is done after that
    step.
    """

    def __init__(
        self,
        bench: Bench,
        parts: dict[str, float],
        names: Sequence[str],
        between: Mapping[int, Callable[[], None]],
    ) -> None:
        self._bench, self._parts, self._names, self._between = bench, parts, names, between

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self._begin()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self._bench.wait()
        took = time.perf_counter() - self._began
        parts = rounded(dict(self._parts))
        done, rows = len(self._bench.rows), self._bench.rows
        rows.append({"step": self._names[done], "s": round(took, 3), **parts, "peak GB": self._bench.peak()})
        self._between.get(done + 1, lambda: None)()
        self._begin()

    def _begin(self) -> None:
        self._parts.clear()
        self._bench.peak()
        self._began = time.perf_counter()


def trained(
    bench: Bench,
    kind: str,
    steps: int,
    model: Any,
    dtype: str = "bfloat16",
    generate: str = "shared",
    **changes: Any,
) -> tuple[Any, Any, Any]:
    """The workflow's own trainer of a step over some optimiser steps, its step and its rows; arguments as
    on a GPU.
    """
    scale = bench.scale
    own = {"group_size": scale.group, "kl": 0.4, "generate": generate} if kind == "grpo" else {}
    batch = scale.prompts * scale.group if kind == "grpo" else scale.sft_rows
    what: Step = STEPS[kind](
        kind=kind, part=kind, samples=(Samples(task="answer", prompt="stage2"),), learning_rate=1e-5, warmup=0,
        lora=Lora(rank=scale.rank, alpha=scale.rank, dropout=0.05), batch_size=batch, device_batch_size=scale.device_rows,
        max_new_tokens=scale.new, **own,
    )  # fmt: skip
    drawn = taught(bench, steps * (scale.prompts if kind == "grpo" else batch))
    pixels = scale.side**2
    rows = samples.dataset(drawn, Noise(scale.side), pixels, pixels)
    task: Any = SimpleNamespace(
        running_step=what, model=SimpleNamespace(dtype=dtype), state=bench.folder / "state", seed=0
    )
    options = arguments.common_arguments(task, world=1, gpu=bench.gpu)
    options |= {"max_steps": steps, "disable_tqdm": True, "gradient_checkpointing": True} | changes
    policy = adapter.with_adapter(model, what.lora, None)
    guards.list_adapted_modules(policy)
    made = what.trainer(Prepared(policy, bench.processor(), rows, options, Lengths(0, 0)))
    guards.count_trainable(made.model)
    return made, what, rows


def without_gradients_of_pixels(policy: Any) -> None:
    """Take off the hooks by which checkpointing has inputs, the pixels' among them, require gradients that
    no adapter needs.
    """
    for module in policy.modules():
        for key, hook in list(module._forward_hooks.items()):
            if getattr(hook, "__name__", "") == "make_inputs_require_grads":
                del module._forward_hooks[key]


def odd_length(completions: Sequence[list[dict[str, str]]], **_: Any) -> list[float]:
    """A reward that random texts can earn, so that there are advantages and gradients."""
    return [float(len(completion[0]["content"]) % 2) for completion in completions]


def grpo_step(bench: Bench, generate: str) -> Result:
    """Optimiser steps by part, TRL's way or with the prompt of a group computed once; the first compiles
    kernels, and compares the ways where they share; the last has no gradients of pixels.
    """
    made, what, _ = trained(bench, "grpo", 3, bench.model(bench.scale.big), generate=generate)
    base = made.model.get_base_model()
    places = {
        "rollout": (made, "_generate"),
        "policy, forward|reference": (made, "_get_per_token_logps_and_entropies"),
        "backward": (made.accelerator, "backward"),
        "rewards": (made, "_calculate_rewards"),
        "vision, of all these": (base.model.visual, "forward"),
        "images on the CPU, of all these": (made.processing_class.image_processor, "preprocess"),
    }
    names = ("first step", "second step", "third step, no gradients of pixels")
    made.reward_funcs[-1] = odd_length
    with timed_parts(bench, places) as seconds:
        made.add_callback(Steps(bench, seconds, names, {2: lambda: without_gradients_of_pixels(made.model)}))
        made.train()
    logged = [
        {key: entry[key] for key in ("loss", "grad_norm", "kl", "reward") if key in entry}
        for entry in made.state.log_history
    ]
    return {
        "rows": bench.rows,
        "prompts": bench.scale.prompts, "completions of each": what.group_size, "new tokens": what.max_new_tokens,
        "rows at a time": what.device_batch_size, "lora rank": what.lora.rank, "logged": logged,
        "adapter": str(next(p.dtype for name, p in made.model.named_parameters() if "lora_A.default" in name)),
        "groups share their prompt": getattr(made, "not_shared", "TRL's way") or "yes",
    }  # fmt: skip


def agreement(bench: Bench) -> Result:
    """Log-probabilities of the completions of a group in float32 and in bfloat16, TRL's way and with the prompt
    computed once, against plain ones in float32.
    """
    scale, rows = bench.scale, bench.scale.device_rows
    true = bench.model(scale.small, torch.float32)
    processor = bench.processor()
    text = processor.apply_chat_template(
        taught(bench, 1)[0].prompt, tokenize=False, add_generation_prompt=True
    )
    images = [[Noise(scale.side).resized("0")]] * rows
    inputs = processor(text=[text] * rows, images=images, padding=True, return_tensors="pt").to(bench.device)
    more = torch.randint(
        MARKS, len(processor.tokenizer), (rows, scale.new), generator=torch.Generator().manual_seed(1)
    )
    more = more.to(bench.device)
    ids = torch.cat([inputs["input_ids"], more], 1)
    mask = torch.ones_like(ids)
    seen = {name: inputs[name] for name in ("pixel_values", "image_grid_thw")}
    kinds = inputs["mm_token_type_ids"]
    seen["mm_token_type_ids"] = torch.cat([kinds, kinds.new_zeros(more.shape)], 1)
    with torch.no_grad():
        plain = (
            true(input_ids=ids, attention_mask=mask, **seen, logits_to_keep=scale.new + 1)
            .logits[:, :-1]
            .float()
        )
        wanted = plain.log_softmax(-1).gather(-1, more[..., None]).squeeze(-1)
    half = bench.model(scale.small, torch.bfloat16)
    half.load_state_dict(true.state_dict())
    table = []
    for name, model, dtype in (("float32", true, "float32"), ("bfloat16", half, "bfloat16")):
        made, _, _ = trained(bench, "grpo", 1, model, dtype, use_cpu=not bench.gpu)
        for way, not_shared in (("shared", None), ("TRL's", "to compare")):
            made.not_shared = not_shared
            with torch.no_grad():
                found = made._get_per_token_logps_and_entropies(
                    made.model, ids, mask, scale.new, num_images=[1] * rows, **seen
                )[0]
            gap = (found.float() - wanted).abs()
            table.append(
                {
                    "in": name,
                    "way": way if not_shared or not made.not_shared else made.not_shared,
                    "tokens": gap.numel(),
                    "mean gap": f"{gap.mean().item():.2e}",
                    "largest gap": f"{gap.max().item():.2e}",
                }
            )
    return {"rows": table, "parameters, M": round(sum(p.numel() for p in true.parameters()) / 1e6, 1)}


def sft_step(bench: Bench) -> Result:
    """Optimiser steps of SFT: tokens a second, whole prompts and images among them."""
    model = bench.model(bench.scale.big)
    parameters = sum(p.numel() for p in model.model.language_model.parameters())
    made, what, rows = trained(bench, "sft", 4, model)
    collated = made.data_collator([rows[i] for i in range(what.device_batch_size)])
    tokens = collated["attention_mask"].sum().item() / what.device_batch_size
    learnt = (collated["labels"] != -100).sum().item() / what.device_batch_size
    places = {"forward": (made, "compute_loss"), "backward": (made.accelerator, "backward"),
              "vision, forward": (made.model.get_base_model().model.visual, "forward")}  # fmt: skip
    names = ("first step", "second step", "third step", "fourth step, no gradients of pixels")
    with timed_parts(bench, places) as seconds:
        made.add_callback(Steps(bench, seconds, names, {3: lambda: without_gradients_of_pixels(made.model)}))
        made.train()
    table = [{**found, "tokens/s": round(what.batch_size * tokens / found["s"])} for found in bench.rows]
    peak, flop = (
        bench.rates.get("TFLOP/s"),
        4 * parameters / 1e12,
    )  # forward, and the gradients of activations
    return {
        "rows": table, "samples": what.batch_size, "rows at a time": what.device_batch_size, "tokens of a sample": tokens,
        "of these learnt": learnt, "speed": {"train": table[2]["tokens/s"]},
        "share of a matrix product, at 4 FLOP a parameter of the language model and token":
            peak and round(table[2]["tokens/s"] * flop / peak, 3),
    }  # fmt: skip


# -- decoding ------------------------------------------------------------------------------------------------------------------


class Stepper:
    """Greedy one-token steps over a static cache. All state is changed in place, so that a step can be
    captured and replayed.
    """

    def __init__(self, model: Any, prompt: torch.Tensor, steps: int) -> None:
        (rows, self._width), device = prompt.shape, prompt.device
        self._language, self._head = model.model.language_model, model.lm_head
        self._whole = self._width + steps
        self.cache = StaticCache(config=model.config, max_cache_len=self._whole)
        self._at = torch.tensor([self._width], device=device)
        self._seen = torch.ones(1, 1, 1, self._whole, dtype=torch.bool, device=device)
        self.written = torch.zeros(rows, steps, dtype=torch.long, device=device)
        causal = torch.ones(self._width, self._whole, dtype=torch.bool, device=device).tril()[None, None]
        place = torch.arange(self._width, device=device).expand(3, rows, -1)
        self._first = self._next(prompt, place, causal.expand(rows, -1, -1, -1))
        self._token = self._first.clone()
        self.rewind()

    def _next(self, ids: torch.Tensor, place: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        out = self._language(
            inputs_embeds=self._language.embed_tokens(ids),
            position_ids=place,
            attention_mask={"full_attention": mask},
            past_key_values=self.cache,
            use_cache=True,
        )
        return self._head(out.last_hidden_state[:, -1:]).argmax(-1)

    def step(self) -> None:
        """Write the token that is known, and choose the next."""
        rows = len(self._token)
        self.written.index_copy_(1, self._at - self._width, self._token)
        self._seen.index_fill_(3, self._at, True)
        place = self._at.view(1, 1, 1).expand(3, rows, 1)
        self._token.copy_(self._next(self._token, place, self._seen.expand(rows, -1, -1, -1)))
        self._at.add_(1)

    def rewind(self) -> None:
        """Back to where the prompt ends."""
        self._at.fill_(self._width)
        self._seen.copy_(
            (torch.arange(self._whole, device=self._seen.device) < self._width)[None, None, None]
        )
        self._token.copy_(self._first)
        for layer in self.cache.layers:
            layer.cumulative_length.fill_(self._width)


def captured(step: Callable[[], None], rewind: Callable[[], None]) -> torch.cuda.CUDAGraph:
    """A step as a CUDA graph, after some on a stream of their own."""
    rewind()  # a step beyond the last would write beside the cache
    aside = torch.cuda.Stream()
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(aside)
    rewind()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph


def engines_steps(
    model: Any, prompt: torch.Tensor, steps: int
) -> tuple[Callable[[], list[Tokens]], torch.Tensor]:
    """Steps as the engine takes them: its cache, its loop, greedy. What is returned works once."""
    cache, rows = DynamicCache(config=model.config), len(prompt)
    mask = torch.ones_like(prompt)
    place = torch.arange(prompt.shape[1], device=prompt.device).expand(3, rows, -1)
    out = model(
        input_ids=prompt,
        attention_mask=mask,
        position_ids=place,
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=1,
    )
    preallocated_cache.branch(cache, torch.arange(rows, device=prompt.device), steps)
    state, logits = State(cache, mask, mask.sum(1)), out.logits[:, -1].float()
    pick = lambda _, logits, __: logits.argmax(-1)  # noqa: E731
    return lambda: SharedPrefix(model).write(state, logits, steps, (), pick, lambda _: False), logits


def decode(bench: Bench) -> Result:
    """New tokens a second: the engine's loop, a static cache, and the same step as a CUDA graph."""
    model, scale, table = bench.model(bench.scale.big), bench.scale, bench.rows
    weights = (
        sum(p.nbytes for p in (*model.model.language_model.layers.parameters(), *model.lm_head.parameters()))
        / 1e9
    )
    with torch.no_grad():
        for rows in scale.decode_rows:
            prompt = torch.randint(
                MARKS, 1000, (rows, scale.prompt), generator=torch.Generator().manual_seed(0)
            ).to(bench.device)
            engines_steps(model, prompt, 4)[0]()
            took, said = bench.seconds(engines_steps(model, prompt, scale.steps)[0])
            ways = [("the engine's loop", took, torch.tensor(said))]
            stepper = Stepper(model, prompt, scale.steps)
            ways.append(("static cache", *stepped(bench, stepper, stepper.step)))
            if bench.gpu:
                graph = captured(stepper.step, stepper.rewind)
                ways.append(("static cache, CUDA graph", *stepped(bench, stepper, graph.replay)))
                del graph
            table += compared_steps(bench, rows, weights, ways)
            del stepper
    return {
        "rows": table,
        "GB of weights read in a step": round(weights, 2),
        **({} if bench.gpu else {"CUDA graph": "needs a GPU"}),
    }


def stepped(bench: Bench, stepper: Stepper, step: Callable[[], Any]) -> tuple[float, torch.Tensor]:
    """Seconds of all steps, and what they write."""
    stepper.rewind()
    took, _ = bench.seconds(lambda: [step() for _ in range(bench.scale.steps)])
    return took, stepper.written.cpu()


def compared_steps(
    bench: Bench, rows: int, weights: float, ways: Sequence[tuple[str, float, torch.Tensor]]
) -> list[Result]:
    steps, rate = bench.scale.steps, bench.rates.get("GB/s")
    return [
        {
            "rows": rows, "by": name, "ms a step": round(1000 * took / steps, 2), "tokens/s": round(rows * steps / took),
            "weights read, of a copy's rate": rate and round(weights * steps / took / rate, 3),
            "rows as the first way's": f"{(said == ways[0][2]).all(1).float().mean().item():.0%}",
        }
        for name, took, said in ways
    ]  # fmt: skip


def compiled(bench: Bench) -> Result:
    """The step over a static cache by torch.compile, alone and as a CUDA graph."""
    if not bench.gpu:
        raise NeedsGpu
    model, scale, rows = bench.model(bench.scale.big), bench.scale, bench.scale.decode_rows[-1]
    weights = (
        sum(p.nbytes for p in (*model.model.language_model.layers.parameters(), *model.lm_head.parameters()))
        / 1e9
    )
    prompt = torch.randint(MARKS, 1000, (rows, scale.prompt), generator=torch.Generator().manual_seed(0)).to(
        bench.device
    )
    with torch.no_grad():
        stepper = Stepper(model, prompt, scale.steps)
        ways = [("static cache", *stepped(bench, stepper, stepper.step))]
        step = torch.compile(stepper.step, dynamic=False)
        stepper.rewind()
        made, _ = bench.seconds(lambda: [step() for _ in range(2)])
        ways.append(("torch.compile", *stepped(bench, stepper, step)))
        graph = captured(step, stepper.rewind)
        ways.append(("torch.compile, CUDA graph", *stepped(bench, stepper, graph.replay)))
    return {"rows": compared_steps(bench, rows, weights, ways), "seconds to compile": round(made, 1)}


# -- embedding, memory ---------------------------------------------------------------------------------------------------------


class Unlearnt(Encoder):
    """Our encoder over an open_clip model of random weights."""

    def __init__(self, bench: Bench) -> None:
        import open_clip

        name = bench.scale.encoder
        if name == "tiny":
            towers = {
                "vision_cfg": {
                    "image_size": 32,
                    "patch_size": 16,
                    "width": 32,
                    "layers": 2,
                    "head_width": 16,
                },
                "text_cfg": {"width": 32, "heads": 2, "layers": 1, "context_length": 8, "vocab_size": 64},
            }
            (bench.folder / "tiny.json").write_text(json.dumps({"embed_dim": 32, **towers}), encoding="utf-8")
            open_clip.add_model_config(bench.folder / "tiny.json")
        with torch.device(bench.device):
            self._model, _, self._prepare = open_clip.create_model_and_transforms(name, device=bench.device)
        self._model.eval()
        self._torch, self._device = torch, bench.device
        self._spec = Clip(
            engine="zero_shot",
            name=name,
            dtype="float16" if bench.gpu else "bfloat16",
            batch_size=bench.scale.embed_rows,
            licence="none",
        )


def embed(bench: Bench) -> Result:
    """Images a second through our encoder, from decoded images on, and of the model alone."""
    scale, threads = bench.scale, torch.get_num_threads()
    encoder = Unlearnt(bench)
    pictures = [Noise(scale.side).resized(str(i)) for i in range(min(scale.embedded, 4 * scale.embed_rows))]
    given = (pictures * -(-scale.embedded // len(pictures)))[: scale.embedded]
    encoder.images(given[: scale.embed_rows], threads=threads)
    took, vectors = bench.seconds(lambda: encoder.images(given, threads=threads))
    ready = torch.stack([encoder._prepare(image) for image in given[: scale.embed_rows]])
    batches = 8
    encoder._embedded(encoder._model.encode_image, iter([ready]))
    alone, _ = bench.seconds(lambda: encoder._embedded(encoder._model.encode_image, iter([ready] * batches)))
    preparing, _ = bench.seconds(lambda: [encoder._prepare(image) for image in given[:8]])
    return {
        "rows": [
            {"what": f"all, {threads} threads", "images/s": round(scale.embedded / took, 1)},
            {"what": "model and transfer alone", "images/s": round(batches * scale.embed_rows / alone, 1)},
            {"what": "making ready, one thread", "images/s": round(8 / preparing, 1)},
        ],
        "model": scale.encoder, "pixels of the model's side": ready.shape[-1], "pixels of an image's side": scale.side,
        "dtype": encoder._spec.dtype, "dimensions": vectors.shape[1],
    }  # fmt: skip


def memory(bench: Bench) -> Result:
    """A batch that does not fit: memory is capped, and the engine must halve it and answer all the same."""
    if not bench.gpu:
        raise NeedsGpu
    scale = bench.scale
    requests, decoding = asked(scale.many), Decoding(3)
    engine = Watched(bench, bench.model(scale.big), len(requests))
    engine.said(requests[: len(RANKS)], decoding)
    torch.cuda.empty_cache()
    held = torch.cuda.memory_reserved()
    torch.cuda.reset_peak_memory_stats()
    free, wanted = bench.seconds(lambda: engine.said(requests, decoding))
    needed = torch.cuda.max_memory_reserved() - held
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction((held + 0.4 * needed) / total)
    try:
        with redirect_stdout(StringIO()) as told:
            capped, said = bench.seconds(lambda: engine.said(requests, decoding))
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    halvings = [line for line in told.getvalue().splitlines() if line.startswith("out of memory")]
    if not halvings:
        raise RuntimeError("the cap did not make the batch fail, so nothing was shown")
    return {
        "rows": [
            {"memory": "all", "s": round(free, 2), "answers": len(wanted)},
            {"memory": "capped", "s": round(capped, 2), "answers": len(said)},
        ],
        "GB beyond the weights": round(needed / 1e9, 2), "GB allowed": round(0.4 * needed / 1e9, 2), "said": halvings,
        "answers alike": sum(a == b for a, b in zip(said, wanted, strict=True)),
    }  # fmt: skip


# -- the record ----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Section:
    """A part of the record: what it is called, what makes it, and its seconds at most."""

    title: str
    run: Callable[[Bench], Result]
    seconds: int


SECTIONS = {
    "facts": Section("What the device reaches", facts, 40),
    "inference": Section("Answers: the engine, plain batches, one by one", inference, 160),
    "grpo": Section("GRPO, TRL's way", partial(grpo_step, generate="transformers"), 160),
    "grpo shared": Section(
        "GRPO, the prompt of a group computed once", partial(grpo_step, generate="shared"), 100
    ),
    "agreement": Section("Log-probabilities in bfloat16 and float32", agreement, 45),
    "sft": Section("SFT", sft_step, 90),
    "embed": Section("Embedding images", embed, 60),
    "memory": Section("Out of memory", memory, 60),
    "decode": Section("Decoding with and without CUDA graphs", decode, 60),
    "compile": Section("Decoding by torch.compile", compiled, 150),
}


@contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Raise OutOfTime in the block once it has taken so long, between two calls that the interpreter sees."""

    def over(_: int, __: FrameType | None) -> None:
        raise OutOfTime

    before = signal.signal(signal.SIGALRM, over)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def attempt(bench: Bench, section: Section, left: float) -> Result:
    """A section's result, or its error."""
    seconds = left if bench.scale is REHEARSAL else min(section.seconds, left)
    if left < 5:
        return {"error": "OutOfTime: no time was left for it"}
    began, bench.rows = time.perf_counter(), []
    try:
        with limited(seconds):
            found = section.run(bench)
    except NeedsGpu:
        found = {"skipped": "needs a GPU"}
    except OutOfTime:
        found = {
            "error": f"OutOfTime: not done within {seconds:.0f} s",
            "at": traceback.format_exc().splitlines()[-12:],
        }
    except Exception as error:
        lines = traceback.format_exc().splitlines()
        print("\n".join(lines), flush=True)
        found = {"error": f"{type(error).__name__}: {error}", "at": lines[-12:]}
    if "error" in found and bench.rows:
        found["rows"] = bench.rows
    found["section_seconds"] = round(time.perf_counter() - began, 1)
    gc.collect()
    if bench.gpu:
        torch.cuda.empty_cache()
    return found


def record(bench: Bench, chosen: Sequence[str], out: Path, minutes: float) -> Result:
    """Run sections in turn; the file is written anew after each."""
    deadline = time.monotonic() + 60 * minutes
    made: Result = {"about": described(bench), "sections": {}}
    print(json.dumps(made["about"]), flush=True)
    for name in chosen:
        made["sections"][name] = attempt(bench, SECTIONS[name], deadline - time.monotonic())
        out.mkdir(parents=True, exist_ok=True)
        (out / "gpu.json").write_text(json.dumps(made, indent=1) + "\n", encoding="utf-8")
        print("\n".join(shown(name, made["sections"][name])), flush=True)
    return made


def shown(name: str, found: Mapping[str, Any]) -> list[str]:
    """A section in Markdown: its table, then what else is known."""
    lines = [f"## {SECTIONS[name].title}", ""]
    if "rows" in found:
        lines += [
            tabulate(
                found["rows"], headers="keys", tablefmt="github", disable_numparse=True, missingval=""
            ).replace("None", "    "),
            "",
        ]
    for key, value in found.items():
        if key not in ("rows", "at", "section_seconds"):
            lines.append(f"- {key}: {said(value)}")
    return [
        *lines,
        f"- seconds of this section: {found['section_seconds']}" if "section_seconds" in found else "",
        "",
    ]


def said(value: Any) -> str:
    if isinstance(value, Mapping):
        return "; ".join(f"{key} {said(one)}" for key, one in value.items())
    if isinstance(value, list | tuple):
        return (
            ", ".join(f"({said(one)})" if isinstance(one, Mapping) else said(one) for one in value) or "none"
        )
    return str(value)


def page(made: Mapping[str, Any]) -> str:
    """docs/gpu.md of a record."""
    about = made["about"]
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    intro = [
        "# vltaxon on a GPU",
        "",
        "Made by `benchmarks/gpu.py` (`--render` of its JSON), which needs no network and no weights.",
        "",
    ]
    if about["device"] == "cpu":
        intro += [
            "**No GPU was had.** What follows is the rehearsal on a CPU: it shows that the script runs, and no speed.",
            "",
        ]
    elif about["tiny"]:
        intro += [
            "**With a tiny model**: what follows shows that the code runs on this card, and no speed.",
            "",
        ]
    beside = (
        f", {about['memory_gb']} GB, driver {about['driver']}, CUDA {about['cuda']}"
        if about["driver"]
        else ""
    )
    intro += [
        f"- card: {about['card']}{beside}",
        f"- versions: {versions}; {about['threads']} CPU threads",
        f"- on {about['date']}; weights are random, images are noise; a margin is in deviations of the logits", "",
    ]  # fmt: skip
    return (
        "\n".join(
            [*intro, *(line for name, found in made["sections"].items() for line in shown(name, found))]
        ).rstrip()
        + "\n"
    )


def tests() -> int:
    """Run the tests that need neither the workflow nor two devices, in several processes where pytest can."""
    several = ["-n", "6"] if importlib.util.find_spec("xdist") else []
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *several, *TESTS], cwd=ROOT
    ).returncode


def main() -> int:
    """Measure, print and write; the status is 1 where a section failed."""
    asked_for = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    asked_for.add_argument("--out", type=Path, default=ROOT / "results" / "benchmarks")
    asked_for.add_argument("--minutes", type=float, default=8)
    asked_for.add_argument("--only", default=",".join(SECTIONS), help="sections, by commas")
    asked_for.add_argument("--tiny", action="store_true")
    asked_for.add_argument("--tests", action="store_true")
    asked_for.add_argument("--render", type=Path, metavar="JSON")
    given = asked_for.parse_args()
    if given.tests:
        return tests()
    if given.render:
        (ROOT / "docs" / "gpu.md").write_text(
            page(json.loads(given.render.read_text(encoding="utf-8"))), encoding="utf-8"
        )
        return 0
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(
            "cuda" if torch.cuda.is_available() else "cpu", REHEARSAL if given.tiny else Scale(), Path(folder)
        )
        if given.tiny and not bench.gpu:
            torch.set_num_threads(1)  # so little work is only slowed down by sharing it
        made = record(bench, given.only.split(","), given.out, given.minutes)
    print(page(made))
    failed = [name for name, found in made["sections"].items() if "error" in found]
    print(
        f"{len(made['sections']) - len(failed)} of {len(made['sections'])} sections; failed: {', '.join(failed) or 'none'}",
        flush=True,
    )
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
