"""Data sets: where they come from, their ranks, how their questions are worded."""

from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, PositiveInt, StringConstraints, model_validator

from vltaxon import prompts
from vltaxon.config.base import HOW, Closed, Name, Raw, RawFile, Shown, doubles
from vltaxon.errors import suggest
from vltaxon.plugins import find_plugins


def readers() -> Mapping[str, ModuleType]:
    """Return the readers of raw data by their name: each is a file of `vltaxon.data.sources`."""
    return find_plugins("vltaxon.data.sources")


def _known(source: str) -> str:
    if source not in readers():
        raise ValueError(f'"{source}" is not {suggest(source, readers())}')
    return source


def _list_readers(schema: dict[str, Any]) -> None:
    """List the readers in the JSON schema of the field."""
    schema["enum"] = list(readers())


class Split(Closed):
    """Where one split of a data set comes from."""

    archive: Raw | None = Field(
        None, description="The raw archive (inat21, cub200): a path, or its source and checksum."
    )
    annotations: Raw | None = Field(None, description="The JSON archive beside it (inat21), likewise.")
    folder: Path | None = Field(None, description="The data set's folder, as downloaded (terra_incognita).")
    table: Path | None = Field(
        None,
        description="CSV or Parquet: path (from the table's folder), a column per rank, and split where one "
        "table serves both splits (folder).",
    )
    images_per_leaf: PositiveInt | None = Field(
        None, description="Draw this many images per leaf, seeded; all where absent."
    )

    @property
    def stem(self) -> str:
        """Return the archive's name without endings (`val` for `val.tar.gz`), empty without an archive."""
        if self.archive is None:
            return ""
        return self.archive.name.removesuffix(".gz").removesuffix(".tgz").removesuffix(".tar")

    @property
    def raw(self) -> dict[str, RawFile]:
        """Return the files with a source, by key."""
        files = {"archive": self.archive, "annotations": self.annotations}
        return {key: file for key, file in files.items() if isinstance(file, RawFile)}

    def here(self) -> Self:
        """Return the split with the paths of the verified files in place of their sources."""
        return self.model_copy(update={key: file.path for key, file in self.raw.items()})


class Published(Closed):
    """The benchmark's own questions about a data set's test images."""

    annotations: Path = Field(
        description="The benchmark's JSON lines, as downloaded.",
        examples=["data/published/inat21_plantae_with_similar_choice.jsonl"],
    )
    blob: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{40}$")] | None = Field(
        None, description="Its git blob digest (git hash-object FILE), verified before use."
    )
    taxonomy: Path | None = Field(
        None, description="The benchmark's JSON of leaf -> path; rows and options must be of it."
    )
    parts: PositiveInt = Field(
        2,
        description="How many last parts of an image's path tell it: 2 are class folder and file, 1 is the "
        "file name.",
    )


class Size(Closed):
    """How large a data set is, for the estimate of costs before its images are read and counted."""

    leaves: PositiveInt = Field(description="Leaves that it has.", examples=[200])
    test: PositiveInt = Field(description="Test images, before any draw.", examples=[2000])
    pixels: PositiveInt = Field(description="Pixels of a typical image.", examples=[187500])


class RawDataset(Closed):
    """The part of a data set's file that shapes its images and taxa."""

    source: Annotated[str, AfterValidator(_known)] = Field(
        description="The reader of the raw data.", examples=["folder"], json_schema_extra=_list_readers
    )
    kingdom: str | None = Field(None, description="Keep this kingdom only (inat21).")
    classes: Path | None = Field(
        None,
        description="CSV with class_name, order, family, genus, species (cub200); where absent, the one of "
        "the package.",
    )
    subset: Literal["known", "novel"] | None = Field(
        None, description="Which of the two halves (terra_incognita)."
    )
    max_rejected: float = Field(
        0.001,
        ge=0,
        le=1,
        description="Share of the chosen images that may be broken or absent; beyond it ingest stops.",
    )
    bits: Literal[8, 10, 12, 14, 16] | None = Field(
        None,
        description="How many bits the values of its images have where they are written with 16, as those of "
        "microscopes; asked for where none is high.",
    )
    ranks: tuple[Shown, ...] = Field(
        min_length=1,
        description="Names of the levels, root first.",
        examples=[["order", "family", "genus", "species"]],
    )
    names: Literal["parsed", "as_written"] = Field(
        "parsed",
        description="Whether scientific names are read down to their taxon (without authors, of the species, "
        "`sp.` and `cf.` as missing), or are taken as written.",
    )
    missing: tuple[str, ...] | None = Field(
        None, description="Words of cells that name no taxon, in place of those that docs/data.md lists."
    )
    species: Literal["binomial", "as_written"] | None = Field(
        None, description="Whether an epithet alone, as the species, is put behind its genus."
    )
    homonyms: Literal["refuse", "allow"] = Field(
        "refuse", description="Whether a name may be that of two taxa of a kingdom."
    )
    train: Split | None = Field(None, description="Images to learn from.")
    test: Split = Field(description="Images to be scored on.", examples=[{"table": "photos/test.csv"}])

    @property
    def splits(self) -> dict[str, Split]:
        """Return the splits that it has."""
        both = (("train", self.train), ("test", self.test))
        return {name: split for name, split in both if split is not None}

    def here(self) -> Self:
        """Return the data set with paths of verified files in place of sources, as jobs see it."""
        return self.model_copy(update={name: split.here() for name, split in self.splits.items()})

    @property
    def reader(self) -> ModuleType:
        """Return the module that reads it: see `vltaxon.data.sources.Reader`."""
        return readers()[self.source]

    @model_validator(mode="after")
    def _has_what_its_reader_needs(self) -> Self:
        if found := doubles(self.ranks):
            raise ValueError(f"ranks: {', '.join(found)}")
        if self.species == "binomial" and "genus" not in map(str.casefold, self.ranks):
            ranks = list(self.ranks)
            raise ValueError(
                f"species: binomial puts the genus before an epithet, but no rank of {ranks} is genus"
            )
        for split in self.splits.values():
            keys = [key for key in ("archive", "folder", "table") if getattr(split, key) is not None]
            if keys != [self.reader.TAKES]:
                raise ValueError(
                    f"train and test: {self.source} takes `{self.reader.TAKES}`, and was given "
                    f"{', '.join(keys) or 'none'}"
                )
        for reader in readers().values():
            for key, problem in reader.NEEDS.items():
                if (getattr(self, key) is not None) != (key in self.reader.NEEDS):
                    raise ValueError(f"{key}: {problem}")
        self.reader.check(self)
        return self


class Dataset(RawDataset):
    """A data set: where it comes from, its ranks, and how its questions are worded."""

    description: Annotated[str, HOW] = ""
    word: Shown = Field(
        description="What the prompts call the organism: plant, animal, bird.", examples=["plant"]
    )
    scored_levels: tuple[PositiveInt, ...] = Field(
        min_length=1, description="1-based levels that count.", examples=[[1, 2, 3, 4]]
    )
    questions: Name = Field(description="File of question wordings in config/questions.", examples=["inat21"])
    variant: int = Field(0, ge=0, description="Which of the wordings is asked.")
    published: Published | None = Field(
        None, description="The benchmark's own questions, where it has any about these images."
    )
    size: Annotated[Size | None, HOW] = Field(
        None, description="What is known of it before it is here, for `snakemake plan`."
    )
    licence: Annotated[str, HOW] = Field(
        description="Terms of use of the images.", examples=["my own photographs"]
    )

    @property
    def tested(self) -> int | None:
        """Return how many test images there are before they are read, None where the file does not say."""
        if self.size is None:
            return None
        each = self.test.images_per_leaf
        return self.size.test if each is None else min(each * self.size.leaves, self.size.test)

    @property
    def raw(self) -> RawDataset:
        """Return only the part that shapes its images and taxa."""
        return RawDataset(**{name: getattr(self, name) for name in RawDataset.model_fields})

    @model_validator(mode="after")
    def _levels_exist(self) -> Self:
        if wrong := [level for level in self.scored_levels if level > len(self.ranks)]:
            raise ValueError(f"scored_levels {wrong}: out of range, there are {len(self.ranks)} ranks")
        if list(self.scored_levels) != sorted(set(self.scored_levels)):
            raise ValueError("scored_levels: must rise, without repetition")
        return self


class Questions(Closed):
    """Wordings of the benchmark's question, by variant. Placeholders: word, rank."""

    source: str = Field(examples=["data/annotations of Tan et al. (2505.24840)"])
    variants: tuple[str, ...] = Field(min_length=1, examples=[["What is the {rank} of the {word}?"]])

    @model_validator(mode="after")
    def _known_fields(self) -> Self:
        for text in self.variants:
            if odd := prompts.fields(text) - {"word", "rank"}:
                raise ValueError(
                    f"variants: placeholder {sorted(odd)} is unknown; there are ['rank', 'word']"
                )
        return self
