"""Propose a data set's file and an experiment for a folder of photos: complete, commented, to be edited.

What it tells is what `ingest` makes of them: it is run on the photos, into a folder that is thrown away.
"""

import csv
import io
import math
import os
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import yaml
from pydantic import Field, ValidationError

from vltaxon.config.base import Closed
from vltaxon.config.datasets import RawDataset
from vltaxon.config.experiment import Experiment
from vltaxon.config.files import read_model
from vltaxon.config.load import load
from vltaxon.config.messages import problems_of
from vltaxon.data.ingest import ingest
from vltaxon.data.labels import settle_labels
from vltaxon.errors import UserError, listed, suggest
from vltaxon.proposal.experiment import FEWEST, TrainingPhotos, experiment_text
from vltaxon.proposal.labels import TABLE, Labels, read_labels
from vltaxon.provenance import read_frame, write_text
from vltaxon.seeded import draw_numbers
from vltaxon.tasks.data import IngestTask
from vltaxon.taxonomy import Taxonomy, normalise

_WORDS = {
    "aves": "bird", "insecta": "insect", "mammalia": "mammal", "plantae": "plant", "animalia": "animal",
    "fungi": "fungus",
}  # fmt: skip

_DESCRIBING = ("word", "licence", "description", "questions", "variant")  # keys that ingest does not read
_SHOWN = 5  # photos that are left out


class Wish(Closed):
    """What somebody wants of a folder of photos.

    Attributes:
        name: of the data set and of the experiment.
        folder: of the photos.
        ranks: what to call the levels; None to read it from folders or columns.
        train: share of each species' photos to learn from, where no split is given.
        settings: further keys of the data set's file, as `species: binomial`.
        model: that is asked.
        encoder: that finds the similar options.
    """

    name: str
    folder: Path
    ranks: tuple[str, ...] | None = None
    train: float = Field(default=0.0, ge=0, lt=1)
    settings: dict[str, Any] = Field(default_factory=dict)
    model: str = "tiny_vlm"
    encoder: str = "tiny_siglip"


@dataclass(frozen=True)
class Ingested:
    """What `ingest` made of the photos."""

    taxonomy: Taxonomy
    images: pl.DataFrame
    rejected: pl.DataFrame
    notes: Sequence[str]

    def labels(self, level: int) -> int:
        """Return how many labels a 1-based level has."""
        return len(self.taxonomy.labels(level))

    @property
    def scored(self) -> list[int]:
        """Return the levels at which there is something to choose from."""
        return [level for level in range(1, len(self.taxonomy.ranks) + 1) if self.labels(level) > 1]

    @property
    def learnt(self) -> TrainingPhotos | None:
        """Return what there is to learn from, None where that is nothing or too few species."""
        each = self.images.filter(pl.col("split") == "train").group_by("leaf").len()["len"]
        if len(each) < FEWEST:
            return None
        return TrainingPhotos(len(each), int(each.min()), len(self.scored))  # type: ignore[arg-type]  # a number


def propose(wish: Wish, config: Path = Path("config")) -> str:
    """Write the table, the data set's file and the experiment; return what was understood, in words.

    Args:
        wish: name, folder and what else was said.
        config: folder of the workflow's config.

    Raises:
        UserError: a file is there already, there is no config folder, or the photos have no labels that make
            a tree.
    """
    folder = wish.folder
    table = folder / f"{wish.name}{TABLE}"
    dataset_file, experiment_file = config / "datasets" / f"{wish.name}.yaml", config / f"{wish.name}.yaml"
    if not folder.is_dir():
        raise UserError(f"{folder}: {'is no folder' if folder.exists() else 'no such folder'}")
    if not dataset_file.parent.is_dir():
        raise UserError(f"{dataset_file.parent}: no such folder; run this in the folder of the workflow")
    if there := [str(path) for path in (dataset_file, experiment_file, table) if path.exists()]:
        raise UserError(f"{', '.join(there)}: already there, and nothing is overwritten; choose another name")
    _demand_models(wish, config)
    labels = read_labels(folder, wish.ranks)
    _leave_out_unnamed(labels, _dataset(wish, labels, {"test": {"table": table}}))
    parts = _parted(labels, wish)
    try:
        write_text(table, _table_text(labels, parts))
        tree = _ingested(wish, labels, table, "train" in parts)
        write_text(dataset_file, _dataset_text(wish, labels, tree, table))
        learnt = tree.learnt
        if learnt is None and "train" in parts:
            labels.left_out.append(
                f"the training, since fewer than {FEWEST} species have photos to learn from"
            )
        write_text(experiment_file, experiment_text(wish, learnt))
        if why := _too_few(load(experiment_file, config), learnt):
            labels.left_out.append(f"the training, since {why}")
            write_text(experiment_file, experiment_text(wish, None))
    except BaseException:
        for path in (table, dataset_file, experiment_file):
            path.unlink(missing_ok=True)
        raise
    return _told(labels, tree, (table, dataset_file, experiment_file))


def _demand_models(wish: Wish, config: Path) -> None:
    """Check that the models are there, before photos are looked at."""
    there = {path.stem: path for path in (config / "models").glob("*.yaml")}
    engines = {"--model": {"transformers", "server"}, "--encoder": {"zero_shot"}}
    for option, name in (("--model", wish.model), ("--encoder", wish.encoder)):
        if name not in there:
            raise UserError(f'{option}: "{name}" is not {suggest(name, there)}')
        if (engine := read_model(there[name]).get("engine")) not in engines[option]:
            wanted = " or ".join(sorted(engines[option]))
            raise UserError(f"{option}: {name} is of engine {engine}, needed is one of {wanted}")


def _too_few(experiment: Experiment, learnt: TrainingPhotos | None) -> str:
    """Return why a proposed training would learn nothing; empty where it learns, or there is none."""
    if learnt is None:
        return ""
    rest = learnt.species - learnt.held_out
    species = {"sft": round(rest / 2), "grpo": rest - round(rest / 2)}
    for step in experiment.recipes["vl_taxon"].steps:
        samples = sum(sample.per_image(learnt.levels) for sample in step.samples)
        try:
            step.check_learns(species[step.part] * learnt.each * samples)
        except UserError as error:
            return f"its {step.kind} step has too little to learn from: {error}"
    return ""


def _parted(labels: Labels, wish: Wish) -> list[str]:
    """Return the split of each photo: as its folder or row says, or drawn within each species."""
    said = {split for _, split, _ in labels.rows}
    if said - {"train", "val", "test", ""}:
        raise UserError(f"{wish.folder}: a split is called {listed(sorted(said - {'train', 'val', 'test'}))}")
    if "" in said:
        if said != {""}:
            raise UserError(f"{wish.folder}: some photos have a split (train, test), others have none")
        names = [tuple(taxa.values()) for _, _, taxa in labels.rows]
        drawn = pl.DataFrame(
            {
                "leaf": [" > ".join(taxa) for taxa in names],
                "number": draw_numbers("proposal", 0, [path for path, _, _ in labels.rows]),
            }
        )
        rank = (pl.col("number").rank("ordinal").over("leaf") - 1) / pl.len().over("leaf")
        return drawn.select(pl.when(rank < wish.train).then(pl.lit("train")).otherwise(pl.lit("test")))[
            "literal"
        ].to_list()
    if "test" not in said:
        return ["test" if split == "val" else split for _, split, _ in labels.rows]
    if number := sum(split == "val" for _, split, _ in labels.rows):
        labels.left_out.append(f"{number} photos of a validation split, since there is a test split")
        labels.rows = [row for row in labels.rows if row[1] != "val"]
    return [split for _, split, _ in labels.rows]


def _table_text(labels: Labels, parts: Sequence[str]) -> str:
    """Return the table as `source: folder` reads it."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    splits = ["split"] if "train" in parts else []
    writer.writerow(["path", *labels.ranks, *splits])
    for (path, _, taxa), part in zip(labels.rows, parts, strict=True):
        writer.writerow([path, *(taxa[rank] for rank in labels.ranks), *([part] if splits else [])])
    return text.getvalue()


def _dataset(wish: Wish, labels: Labels, splits: Mapping[str, object]) -> RawDataset:
    """Return the data set as `ingest` reads it, whatever of it cannot be used."""
    given = {"source": "folder", "ranks": labels.ranks, "max_rejected": 1.0}
    settings = {key: value for key, value in wish.settings.items() if key not in _DESCRIBING}
    try:
        return RawDataset.model_validate(given | dict(splits) | settings)
    except ValidationError as error:
        problems = problems_of(error, RawDataset, "--set")
        raise UserError("\n".join(problems)) from error


def _leave_out_unnamed(labels: Labels, dataset: RawDataset) -> None:
    """Leave out the photos whose labels name no taxon, as those of a folder `unknown`."""
    taxa_of = [tuple(taxon or None for taxon in taxa.values()) for _, _, taxa in labels.rows]
    settled, _ = settle_labels(dict.fromkeys(taxa_of, ""), dataset)
    lost = sorted({" > ".join(filter(None, taxa)) or "nothing" for taxa in taxa_of if not any(settled[taxa])})
    lines = labels.rows
    labels.rows = [row for row, taxa in zip(lines, taxa_of, strict=True) if any(settled[taxa])]
    if lost:
        number = len(lines) - len(labels.rows)
        labels.left_out.append(f"{number} photos whose labels name no taxon: {listed(lost)}")


def _ingested(wish: Wish, labels: Labels, table: Path, trained: bool) -> Ingested:
    """Run `ingest` on the photos, into a folder that is thrown away."""
    with tempfile.TemporaryDirectory() as scratch:
        names = ("taxa", "images", "rejected")
        made = {name: Path(scratch) / f"{name}.parquet" for name in names}
        split = {"table": table}
        dataset = _dataset(wish, labels, {"test": split} | ({"train": split} if trained else {}))
        task = IngestTask(
            dataset=dataset,
            seed=0,
            archives=Path(scratch),
            threads=os.cpu_count() or 1,
            tars=(),
            indexes=(),
            tables=(table,),
            **made,
        )
        said = io.StringIO()  # what was changed of names
        with redirect_stdout(said):
            try:
                ingest(task)
            except UserError as error:
                keys = "keys of the data set's file are given as --set KEY=VALUE"
                raise UserError(f"{error}\n(Nothing was written; {keys}.)") from error
        images, rejected = (read_frame(made[name]) for name in ("images", "rejected"))
        found = Ingested(Taxonomy.read(made["taxa"]), images, rejected, said.getvalue().splitlines())
    if not found.scored:
        raise UserError(
            f"{wish.folder}: every level has one label only ({', '.join(labels.ranks)}), so there is nothing "
            "to choose from"
        )
    return found


def _dataset_text(wish: Wish, labels: Labels, tree: Ingested, table: Path) -> str:
    """Return the data set's file."""
    number, broken = len(tree.images) + len(tree.rejected), len(tree.rejected)
    split = {"table": str(table)}
    lines: dict[str, tuple[object, str]] = {
        "description": (f"{len(tree.images)} photos of {wish.folder}.", ""),
        "source": ("folder", ""),
        "word": (_word(tree.taxonomy), "what the prompts call the organism"),
        "ranks": (list(labels.ranks), "root first"),
        "scored_levels": (tree.scored, _levels(tree)),
        "questions": ("inat21", "the wordings in config/questions/inat21.yaml"),
        **({"train": (split, "")} if (tree.images["split"] == "train").any() else {}),
        "test": (split, ""),
        "size": (
            {
                "leaves": tree.images["leaf"].n_unique(),
                "test": int((tree.images["split"] == "test").sum()),
                "pixels": int((tree.images["width"] * tree.images["height"]).median()),  # type: ignore[arg-type]
            },
            "for `snakemake plan`, before the photos are ingested",
        ),
        "licence": ("not said", "terms of use of the photos, as `snakemake plan` shows them"),
    }
    if broken:
        share = math.ceil(1000 * broken / number) / 1000
        lines["max_rejected"] = (share, f"{broken} of {number} photos cannot be used, see below")
    lines |= {key: (value, "") for key, value in wish.settings.items()}
    parts = [
        "# Proposed by `vltaxon new`. Change what you like; docs/data.md has every key.",
        f"# Labels: {labels.how}.",
        *(_yaml(key, value, comment) for key, (value, comment) in lines.items()),
        *(f"# {' '.join(line.split())}" for line in _rejected(tree)),
    ]
    return "\n".join(parts) + "\n"


def _yaml(key: str, value: object, comment: str) -> str:
    """Return the line of a key."""
    text = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=math.inf)
    return f"{key}: {text.removesuffix('...' + chr(10)).rstrip()}" + (f" # {comment}" if comment else "")


def _levels(tree: Ingested) -> str:
    """Return in words how many labels the levels have."""
    ranks = tree.taxonomy.ranks
    counts = ", ".join(f"{rank} {tree.labels(level)}" for level, rank in enumerate(ranks, start=1))
    return f"those with more than one label ({counts})"


def _rejected(tree: Ingested) -> list[str]:
    rows = list(tree.rejected.select("member", "reason").iter_rows())
    lines = [f"left out: {member}: {reason}" for member, reason in rows[:_SHOWN]]
    return [*lines, f"and {len(rows) - _SHOWN} more"] if len(rows) > _SHOWN else lines


def _word(taxonomy: Taxonomy) -> str:
    """Return what the prompts are to call the organism: by its class or kingdom where all are of one."""
    for rank in ("class", "kingdom"):
        if rank in taxonomy.ranks:
            names = taxonomy.labels(taxonomy.ranks.index(rank) + 1)
            if len(names) == 1 and (word := _WORDS.get(normalise(names[0]))) is not None:
                return word
    return "organism"


def _told(labels: Labels, tree: Ingested, written: Sequence[Path]) -> str:
    """Return what was understood and what to do next."""
    images, taxonomy = tree.images, tree.taxonomy
    lines = [f"Labels: {labels.how}.", "", "| rank | labels | photos without |", "|---|---|---|"]
    rows = images.group_by("leaf").len().iter_rows()
    count = dict(rows)
    for level, rank in enumerate(taxonomy.ranks, start=1):
        without = sum(number for leaf, number in count.items() if taxonomy.taxon(leaf, level) is None)
        lines.append(f"| {rank} | {tree.labels(level)} | {without} |")
    parts = images.group_by("split").agg(pl.len(), pl.col("leaf").n_unique()).sort("split")
    said = ", ".join(
        f"{number} photos of {leaves} taxa in {split}" for split, number, leaves in parts.iter_rows()
    )
    lines += ["", f"Usable: {said}."]
    lines += [f"Left out: {one}." for one in labels.left_out] + _rejected(tree) + [*tree.notes]
    experiment = written[-1]
    lines += [
        "",
        f"Written: {', '.join(map(str, written))}. Look at them; they are yours to change. Then:",
        f"  snakemake plan --cores all --configfile {experiment}",
        f"  snakemake --cores all --configfile {experiment}",
    ]
    return "\n".join(lines) + "\n"
