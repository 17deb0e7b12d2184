"""Builds the files that scoring and reporting read: real tables in the pipeline's layout, with invented
content.
"""

import io
import math
import random
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
from PIL import Image

from vltaxon import schemas
from vltaxon.metrics import heads
from vltaxon.parsing import LETTERS
from vltaxon.provenance import write_parquet
from vltaxon.tasks.scoring import ScoreTask, Sources
from vltaxon.taxonomy import normalise

Lineage = tuple[str | None, ...]


def _row(schema: pa.Schema, **values: Any) -> dict[str, Any]:
    return dict.fromkeys(schema.names) | values


@dataclass
class Bench:
    """A benchmark under `root`. Add data sets, then what systems said; `sources()` writes it all."""

    root: Path
    training: str = ""
    parts: dict[str, str] = field(default_factory=dict)
    leaf_systems: dict[str, str] = field(default_factory=dict)
    images: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    taxa: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    questions: dict[tuple[str, str], list[dict[str, Any]]] = field(default_factory=dict)
    answers: dict[tuple[str, str, str], list[dict[str, Any]]] = field(default_factory=dict)
    leaves: dict[tuple[str, str], list[dict[str, Any]]] = field(default_factory=dict)

    def dataset(
        self,
        name: str,
        ranks: Sequence[str],
        lineages: Mapping[str, Lineage],
        images: Mapping[str, str],
        scored: Sequence[int],
        choices: Sequence[str] = ("similar",),
        **image_columns: Mapping[str, Any],
    ) -> None:
        """Add a data set with questions of up to four options; the right one is at (level + position in
        images) mod options.
        """
        self.training = self.training or name
        self.taxa[name] = [
            _row(
                schemas.TAXA,
                leaf=leaf,
                level=level,
                rank=rank,
                taxon=taxon,
                key=None if taxon is None else normalise(taxon),
            )
            for leaf, path in lineages.items()
            for level, (rank, taxon) in enumerate(zip(ranks, path, strict=True), start=1)
        ]
        self.images[name] = [
            _row(schemas.IMAGES, image_id=i, split="test", leaf=leaf)
            | {k: v[i] for k, v in image_columns.items()}
            for i, leaf in images.items()
        ]
        for kind in choices:
            self.questions[name, kind] = [
                self._question(i, place, level, rank, lineages[leaf][level - 1], lineages, level in scored)
                for place, (i, leaf) in enumerate(images.items())
                for level, rank in enumerate(ranks, start=1)
                if lineages[leaf][level - 1] is not None
            ]

    @staticmethod
    def _question(
        image: str,
        place: int,
        level: int,
        rank: str,
        true: str | None,
        lineages: Mapping[str, Lineage],
        scored: bool,
    ) -> dict[str, Any]:
        others = sorted({path[level - 1] for path in lineages.values()} - {true, None}, key=str)
        start = place % max(len(others), 1)
        options = (others[start:] + others[:start])[:3]
        at = (level + place) % (len(options) + 1)
        options.insert(at, true)
        return _row(
            schemas.QUESTIONS,
            question_id=f"{image}:{level}",
            image_id=image,
            split="test",
            level=level,
            rank=rank,
            options=options,
            answer_index=at,
            scored=scored and len(options) > 1,
            source="mined",
        )

    def answer(
        self,
        system: str,
        dataset: str,
        choices: str,
        right: Mapping[str, Sequence[bool | str]],
        tokens: int | None = 1,
    ) -> None:
        """What a system chose: per image, for its scored questions from the root, True, False or an outcome
        that is no answer.

        A model wrote it, the bare letter or something without capitals, unless `tokens` is None.
        """
        rows = self.answers.setdefault((system, dataset, choices), [])
        asked: dict[str, list[dict[str, Any]]] = {}
        for question in self.questions[dataset, choices]:
            if question["scored"]:
                asked.setdefault(question["image_id"], []).append(question)
        for image, given in right.items():
            for question, mark in zip(asked[image], given, strict=True):
                options, gold = question["options"], question["answer_index"]
                index = (gold if mark else (gold + 1) % len(options)) if isinstance(mark, bool) else None
                text = {
                    "completion": "?" if index is None else LETTERS[index],
                    "finish_reason": "stop",
                    "published_index": index,
                }
                rows.append(
                    _row(
                        schemas.PREDICTIONS,
                        question_id=question["question_id"],
                        image_id=image,
                        level=question["level"],
                        stage="answer",
                        answer=None if index is None else options[index],
                        answer_index=index,
                        outcome="answered" if index is not None else mark,
                        completion_tokens=tokens,
                        **(text if tokens is not None else {}),
                    )
                )

    def name(
        self,
        system: str,
        dataset: str,
        said: Mapping[str, tuple[str | None, Sequence[str | None] | None]],
        outcome: str = "answered",
        tokens: int = 40,
        completion: str | None = None,
    ) -> None:
        """What a system's stage 1 said: per image the name in the answer and the names in the reasoning,
        one per rank.
        """
        self.leaf_systems.setdefault(system, system)
        rows = self.leaves.setdefault((system, dataset), [])
        for image, (answer, lineage) in said.items():
            text = (
                completion or f"<think>{'; '.join(map(str, lineage or ()))}</think><answer>{answer}</answer>"
            )
            rows.append(
                _row(
                    schemas.PREDICTIONS,
                    image_id=image,
                    stage="leaf",
                    completion=text,
                    lineage=lineage,
                    answer=answer,
                    outcome=outcome,
                    completion_tokens=tokens,
                )
            )

    def sources(self, shards: int = 1) -> Sources:
        """Write everything; paths relative to the root, which must be the working directory."""

        def put(rows: list[dict[str, Any]], path: str, schema: pa.Schema) -> Path:
            write_parquet(pa.Table.from_pylist(rows, schema=schema), self.root / path, schema)
            return Path(path)

        def sharded(rows: list[dict[str, Any]], folder: str) -> list[Path]:
            return [put(rows[i::shards], f"{folder}/{i}.parquet", schemas.PREDICTIONS) for i in range(shards)]

        parts = [{"leaf": leaf, "part": part, "seed": 0} for leaf, part in self.parts.items()]
        return Sources(
            questions={
                (d, c): put(r, f"results/questions/{d}/{c}.parquet", schemas.QUESTIONS)
                for (d, c), r in self.questions.items()
            },
            images={
                d: put(r, f"results/data/{d}/images.parquet", schemas.IMAGES) for d, r in self.images.items()
            },
            taxa={d: put(r, f"results/data/{d}/taxa.parquet", schemas.TAXA) for d, r in self.taxa.items()},
            answers={
                (s, d, c): sharded(r, f"results/predictions/{s}/{d}/{c}")
                for (s, d, c), r in self.answers.items()
            },
            leaves={
                (s, d): sharded(r, f"results/predictions/{s}/{d}/leaf") for (s, d), r in self.leaves.items()
            },
            leaf_systems=self.leaf_systems,
            partition={self.training: put(parts, f"results/splits/{self.training}.parquet", schemas.PARTS)},
            trained={
                self.training: put(
                    self.images.get(self.training, []),
                    f"results/data/{self.training}/images.parquet",
                    schemas.IMAGES,
                )
            },
        )


VIEWS = tuple(sorted((heads.FOLDER / "views").glob("*.sql")))


def score_task(
    sources: Sources, bootstrap: int, seed: int, scores: Path, database: Path, metrics: Sequence[Path] = ()
) -> ScoreTask:
    """The task of scoring some files, by the package's metrics where none are given."""
    given = tuple(metrics or heads.files())
    return ScoreTask(
        scope="main",
        sources=sources,
        bootstrap=bootstrap,
        seed=seed,
        metrics=given,
        views=VIEWS,
        scores=scores,
        database=database,
    )


def tree(branching: Sequence[int], prefix: str = "") -> dict[str, Lineage]:
    """A tree with `branching[k]` children per taxon of level k: leaf -> lineage, names made of the path."""
    paths: list[tuple[str, ...]] = [()]
    for level, children in enumerate(branching):
        paths = [
            (*p, f"{prefix}{'abcdefgh'[level]}{'.'.join([*(q[-1:] for q in p), str(k)])}")
            for p in paths
            for k in range(children)
        ]
    return {path[-1]: path for path in paths}


def marks(rng: random.Random, levels: int, upper: float, leaf: float) -> list[bool | str]:
    """Right or wrong per level: the leaf with probability `leaf`, each level above with `upper`; 2 % of
    the answers are none.
    """
    out: list[bool | str] = [rng.random() < upper for _ in range(levels - 1)] + [rng.random() < leaf]
    return [rng.choice(["unparsed", "truncated", "empty"]) if rng.random() < 0.02 else mark for mark in out]


LABELS = {
    "base": "Base",
    "base_open": "Base, open set",
    "default_sft": "Default SFT",
    "vl_taxon": "VL-Taxon",
    "vl_taxon_lookup": "VL-Taxon, lookup",
    "siglip": "SigLIP-style encoder, zero-shot",
    "chance": "Chance",
}
RANKS = {
    "seven": ("kingdom", "phylum", "class", "order", "family", "genus", "species"),
    "four": ("order", "family", "genus", "species"),
}
_UPPER = {"base": 0.75, "default_sft": 0.86, "vl_taxon": 0.965, "siglip": 0.55, "chance": 0.27}
_LEAF = {"base": 0.62, "default_sft": 0.7, "vl_taxon": 0.8, "siglip": 0.4, "chance": 0.25}


def realistic(root: Path, images_per_leaf: int = 3, seed: int = 0) -> Bench:
    """A benchmark like the demo's: three data sets, two kinds of choices, the seven systems, real JPEGs in
    a tar.
    """
    rng = random.Random(seed)
    bench = Bench(root)
    shapes = {
        "demo_plants": ([1, 2, 2, 2, 2, 2, 2], "p"),
        "demo_animals": ([1, 2, 2, 2, 2, 2, 1], "z"),
        "demo_birds": ([3, 2, 2, 2], "b"),
    }
    for dataset, (branching, prefix) in shapes.items():
        lineages = tree(branching, prefix)
        ranks = RANKS["seven" if len(branching) == 7 else "four"]
        scored = range(2, 8) if len(branching) == 7 else range(1, 5)
        images = {f"{dataset}/{leaf}-{k}": leaf for leaf in lineages for k in range(images_per_leaf)}
        places = _archive(root, f"results/{dataset}.tar", images)
        bench.dataset(dataset, ranks, lineages, images, scored, ("similar", "random"), **places)
        drop = 0.0 if dataset == "demo_plants" else 0.12
        for system in _UPPER:
            less = drop * (system != "chance")
            for choices, ease in (("similar", 0.0), ("random", 0.06 * (system != "chance"))):
                said = {
                    i: marks(
                        rng, len(scored), min(1, _UPPER[system] - less + ease), _LEAF[system] - less + ease
                    )
                    for i in images
                }
                bench.answer(
                    system,
                    dataset,
                    choices,
                    said,
                    tokens=None if system in ("siglip", "chance") else 62 if system == "vl_taxon" else 2,
                )
        for choices in ("similar", "random"):
            said = {i: [rng.random() < 0.82 - drop] * len(scored) for i in images}
            bench.answer("vl_taxon_lookup", dataset, choices, said, tokens=None)
        for system, grip in (("base_open", 0.2), ("vl_taxon", 0.97)):
            named = {
                i: _named(rng, lineages, leaf, 0.62 if grip < 0.5 else 0.8, grip - drop)
                for i, leaf in images.items()
            }
            bench.name(system, dataset, named)
        bench.leaf_systems["vl_taxon_lookup"] = "vl_taxon"
        if not bench.parts:
            bench.parts = {leaf: ("sft", "grpo", "held_out", "sft")[k % 4] for k, leaf in enumerate(lineages)}
    return bench


def _named(
    rng: random.Random, lineages: Mapping[str, Lineage], leaf: str, right: float, grip: float
) -> tuple[str, list[str | None]]:
    """A name, and the lineage written before it: each taxon is that of the name with probability `grip`."""
    name = leaf if rng.random() < right else rng.choice(list(lineages))
    return name, [
        t if rng.random() < grip else rng.choice(list(lineages.values()))[k]
        for k, t in enumerate(lineages[name])
    ]


def _archive(root: Path, path: str, images: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """Draw a small picture per image into a tar; columns of the images table that say where it lies."""
    columns: dict[str, dict[str, Any]] = {
        name: {} for name in ("archive", "offset", "size", "width", "height")
    }
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    hue: dict[str, int] = {leaf: k for k, leaf in enumerate(dict.fromkeys(images.values()))}
    with tarfile.open(root / path, "w") as tar:
        for image, leaf in images.items():
            data = io.BytesIO()
            Image.new("HSV", (96, 72), (hue[leaf] * 37 % 256, 120, 200)).convert("RGB").save(data, "JPEG")
            info = tarfile.TarInfo(f"{image}.jpg")
            info.size = data.tell()
            tar.addfile(info, io.BytesIO(data.getvalue()))
            at = tar.offset - -(-info.size // 512) * 512
            for name, value in zip(columns, (path, at, info.size, 96, 72), strict=True):
                columns[name][image] = value
    return columns


def curves(root: Path, seed: int = 0) -> dict[str, Path]:
    """Learning curves of two SFT steps and a GRPO step, noisy and saturating."""
    rng = random.Random(seed)
    out = {}
    for name, steps in (("default_sft 1-sft", 60), ("vl_taxon 1-sft", 90), ("vl_taxon 2-grpo", 120)):
        rows = []
        for step in range(1, steps + 1):
            done = 1 - math.exp(-4 * step / steps)
            accuracy, form = 0.35 + 0.4 * done + rng.gauss(0, 0.06), 0.9 + 0.09 * done + rng.gauss(0, 0.01)
            values = {"loss": 1.6 * (1 - done) + 0.15 + abs(rng.gauss(0, 0.06))}
            if "grpo" in name:
                values = {
                    "reward": accuracy + form,
                    "reward_accuracy": accuracy,
                    "reward_format": form,
                    "kl": 0.05 * done + abs(rng.gauss(0, 0.008)),
                }
            rows += [{"step": step, "metric": metric, "value": value} for metric, value in values.items()]
        out[name] = Path(f"results/adapters/{name.replace(' ', '/')}/curve.parquet")
        write_parquet(pa.Table.from_pylist(rows, schema=schemas.CURVE), root / out[name], schemas.CURVE)
    return out
