"""The plan of the data: raw files, archives, and the images and taxa of each data set."""

import re
from pathlib import Path

from vltaxon import layout
from vltaxon.config.base import RawFile, local
from vltaxon.config.datasets import Dataset
from vltaxon.config.experiment import Experiment
from vltaxon.errors import UserError
from vltaxon.plan.planned import Wildcards, planned
from vltaxon.tasks.data import (
    DemoArchivesTask,
    DemoBaseTask,
    DemoSiglipTask,
    DownloadTask,
    IngestTask,
    UnpackTask,
)


class DataPlan:
    """The tasks that bring data in, and where the data lie."""

    def __init__(self, experiment: Experiment) -> None:
        uses = [
            (raw, dataset.licence)
            for dataset in experiment.datasets.values()
            for split in dataset.splits.values()
            for raw in split.raw.values()
        ]
        self.raw: dict[str, RawFile] = {raw.name: raw for raw, _ in uses}
        self.licences: dict[str, str] = {
            name: "; ".join(dict.fromkeys(terms for raw, terms in uses if raw.name == name))
            for name in self.raw
        }
        self.datasets: dict[str, Dataset] = {name: one.here() for name, one in experiment.datasets.items()}
        self.archives = self._archives()
        self._config = experiment.config

    def _archives(self) -> dict[str, Path]:
        archives: dict[str, Path] = {}
        for dataset in self.datasets.values():
            for split in dataset.splits.values():
                if split.archive is None:
                    continue
                if archives.setdefault(split.stem, local(split.archive)) != split.archive:
                    other = archives[split.stem]
                    raise UserError(
                        f"two archives are called {split.archive.name}: {other} and {split.archive}"
                    )
        return archives

    @property
    def raw_names(self) -> str:
        """Return a regex of the raw files that have a source; it matches nothing where there are none."""
        return "|".join(map(re.escape, self.raw)) or r"(?!)"

    @planned
    def download(self, wildcards: Wildcards) -> DownloadTask:
        """Plan a raw file."""
        raw = self.raw[wildcards.file]
        return DownloadTask(
            md5=raw.md5,
            sha256=raw.sha256,
            file=raw,
            licence=self.licences[wildcards.file],
            unpacked=layout.ARCHIVES if raw.path in self.archives.values() else None,
            state=layout.DOWNLOADS,
            target=layout.fill(layout.RAW, file=wildcards.file),
        )

    @planned
    def unpack_archive(self, wildcards: Wildcards) -> UnpackTask:
        """Plan an unpacked archive."""
        name = wildcards.archive
        return UnpackTask(
            archive=self.archives[name],
            tar=layout.fill(layout.TAR, archive=name),
            index=layout.fill(layout.INDEX, archive=name),
        )

    @planned
    def ingest(self, wildcards: Wildcards) -> IngestTask:
        """Plan the images and taxa of a data set.

        No other task reads its tars as inputs: Snakemake would read them whole after every job, for its
        checksums. What opens them depends on `images.parquet`, which has the digest of each image.
        """
        name, dataset = wildcards.dataset, self.datasets[wildcards.dataset]
        stems = list(dict.fromkeys(split.stem for split in dataset.splits.values() if split.stem))
        return IngestTask(
            dataset=dataset.raw,
            seed=self._config.seed,
            archives=layout.ARCHIVES,
            tars=tuple(layout.fill(layout.TAR, archive=stem) for stem in stems),
            indexes=tuple(layout.fill(layout.INDEX, archive=stem) for stem in stems),
            tables=tuple(dict.fromkeys(dataset.reader.tables(dataset))),
            taxa=layout.fill(layout.TAXA, dataset=name),
            images=layout.fill(layout.IMAGES, dataset=name),
            rejected=layout.fill(layout.REJECTED, dataset=name),
        )

    def test_index(self, dataset: str) -> Path | None:
        """Return the index of the archive with the test images, None where they lie in a folder."""
        stem = self.datasets[dataset].test.stem
        return layout.fill(layout.INDEX, archive=stem) if stem else None

    @planned
    def demo_archives(self, wildcards: Wildcards) -> DemoArchivesTask:
        """Plan the archives of the embedded demo."""
        names = [f"{split}.{kind}" for split in ("train_mini", "val") for kind in ("tar.gz", "json.tar.gz")]
        return DemoArchivesTask(
            sizes=self._config.demo,
            seed=self._config.seed,
            archives=tuple(layout.fill(layout.DEMO_RAW, file=name) for name in names),
            cub=layout.fill(layout.DEMO_RAW, file="CUB_200_2011.tgz"),
            classes=layout.fill(layout.DEMO_RAW, file="cub_classes.csv"),
        )

    @planned
    def demo_siglip(self, wildcards: Wildcards) -> DemoSiglipTask:
        """Plan the tiny dual encoder of the embedded demo."""
        return DemoSiglipTask(
            config=layout.fill(layout.DEMO_SIGLIP, file="open_clip_config.json"),
            weights=layout.fill(layout.DEMO_SIGLIP, file="open_clip_model.safetensors"),
        )

    @planned
    def demo_base(self, wildcards: Wildcards) -> DemoBaseTask:
        """Plan the tiny vision-language model of the embedded demo."""
        return DemoBaseTask(weights=Path(layout.DEMO_BASE))
