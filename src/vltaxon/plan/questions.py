"""The plan of the questions: vectors, distractors, parts of the species, the benchmark's files in and out."""

from collections.abc import Callable, Iterable
from pathlib import Path

from vltaxon import layout
from vltaxon.config.datasets import Published
from vltaxon.config.experiment import Experiment
from vltaxon.errors import UserError
from vltaxon.plan.data import DataPlan
from vltaxon.plan.models import Models
from vltaxon.plan.planned import Wildcards, planned
from vltaxon.tasks.questions import (
    CalibrateTask,
    DrawTask,
    EmbedTask,
    ExportAnswersTask,
    ExportTask,
    ImportTask,
    LoadTaxonomyTask,
    MineTask,
    PartitionTask,
)


class QuestionsPlan:
    """The tasks that make questions, and which questions are asked.

    Args:
        experiment: the config.
        data: its data sets.
        models: its models.
        answers: the tables of answers, by system, data set and choices.
    """

    def __init__(
        self,
        experiment: Experiment,
        data: DataPlan,
        models: Models,
        answers: Callable[[str, str, str], tuple[Path, ...]],
    ) -> None:
        self._experiment, self._config = experiment, experiment.config
        self._data = data
        self._models = models
        self._answers = answers

    @planned
    def embed(self, wildcards: Wildcards) -> EmbedTask:
        """Plan the vectors of a data set."""
        names = {"encoder": wildcards.encoder, "dataset": wildcards.dataset}
        encoder = self._models.clip(wildcards.encoder)
        return EmbedTask(
            encoder=encoder,
            batch_size=encoder.batch_size,
            threads=encoder.threads,
            model=self._models.files(wildcards.encoder),
            images=layout.fill(layout.IMAGES, **names),
            taxa=layout.fill(layout.TAXA, **names),
            image_vectors=layout.fill(layout.IMAGE_VECTORS, **names),
            taxon_vectors=layout.fill(layout.TAXON_VECTORS, **names),
        )

    @planned
    def mine(self, wildcards: Wildcards) -> MineTask:
        """Plan the questions with similar choices."""
        encoder, dataset = self._config.encoder, wildcards.dataset
        return MineTask(
            encoder=encoder,
            template=self._models.clip(encoder).template,
            scored_levels=self._data.datasets[dataset].scored_levels,
            seed=self._config.seed,
            images=layout.fill(layout.IMAGES, dataset=dataset),
            taxa=layout.fill(layout.TAXA, dataset=dataset),
            image_vectors=layout.fill(layout.IMAGE_VECTORS, encoder=encoder, dataset=dataset),
            taxon_vectors=layout.fill(layout.TAXON_VECTORS, encoder=encoder, dataset=dataset),
            questions=layout.fill(layout.QUESTIONS, dataset=dataset, choices="similar"),
        )

    @planned
    def draw(self, wildcards: Wildcards) -> DrawTask:
        """Plan the questions with random choices."""
        dataset = wildcards.dataset
        return DrawTask(
            scored_levels=self._data.datasets[dataset].scored_levels,
            seed=self._config.seed,
            images=layout.fill(layout.IMAGES, dataset=dataset),
            taxa=layout.fill(layout.TAXA, dataset=dataset),
            questions=layout.fill(layout.QUESTIONS, dataset=dataset, choices="random"),
        )

    @planned
    def partition(self, wildcards: Wildcards) -> PartitionTask:
        """Plan the parts of the species."""
        dataset = wildcards.dataset
        return PartitionTask(
            partition=self._experiment.training.partition,
            seed=self._config.seed,
            images=layout.fill(layout.IMAGES, dataset=dataset),
            taxa=layout.fill(layout.TAXA, dataset=dataset),
            parts=layout.fill(layout.PARTS, dataset=dataset),
        )

    def published(self, dataset: str) -> Published:
        """Return the benchmark's own questions about a data set.

        Raises:
            UserError: it has none.
        """
        published = self._data.datasets[dataset].published
        if published is None:
            raise UserError(
                f"config/datasets/{dataset}.yaml has no `published`, so there are no published questions to "
                "ask"
            )
        return published

    @planned
    def load_taxonomy(self, wildcards: Wildcards) -> LoadTaxonomyTask:
        """Plan the table of the benchmark's taxonomy file.

        Raises:
            UserError: the data set's file names none.
        """
        dataset = wildcards.dataset
        hierarchy = self.published(dataset).taxonomy
        if hierarchy is None:
            raise UserError(f"config/datasets/{dataset}.yaml: published has no `taxonomy` to be read")
        return LoadTaxonomyTask(
            ranks=self._data.datasets[dataset].ranks,
            hierarchy=hierarchy,
            taxa=layout.fill(layout.PUBLISHED_TAXA, dataset=dataset),
        )

    @planned
    def import_published(self, wildcards: Wildcards) -> ImportTask:
        """Plan the benchmark's questions about a data set."""
        name, dataset = wildcards.dataset, self._data.datasets[wildcards.dataset]
        published = self.published(name)
        return ImportTask(
            blob=published.blob,
            parts=published.parts,
            scored_levels=dataset.scored_levels,
            drawn=dataset.test.images_per_leaf is not None,
            annotations=published.annotations,
            images=layout.fill(layout.IMAGES, dataset=name),
            taxa=layout.fill(layout.TAXA, dataset=name),
            rejected=layout.fill(layout.REJECTED, dataset=name),
            index=self._data.test_index(name),
            taxonomy=layout.fill(layout.PUBLISHED_TAXA, dataset=name) if published.taxonomy else None,
            questions=layout.fill(layout.QUESTIONS, dataset=name, choices="published"),
            records=layout.fill(layout.RECORDS, dataset=name),
        )

    @planned
    def export_questions(self, wildcards: Wildcards) -> ExportTask:
        """Plan questions in the benchmark's format."""
        dataset, choices = wildcards.dataset, wildcards.choices
        return ExportTask(
            questions=layout.fill(layout.QUESTIONS, dataset=dataset, choices=choices),
            images=layout.fill(layout.IMAGES, dataset=dataset),
            taxa=layout.fill(layout.TAXA, dataset=dataset),
            records=layout.fill(layout.RECORDS, dataset=dataset) if choices == "published" else None,
            output=layout.fill(layout.QUESTIONS_EXPORT, dataset=dataset, choices=choices),
        )

    @planned
    def export_predictions(self, wildcards: Wildcards) -> ExportAnswersTask:
        """Plan answers in the benchmark's format, beside the questions that they answer."""
        asked = self.export_questions(wildcards)
        names = {"system": wildcards.system, "dataset": wildcards.dataset, "choices": wildcards.choices}
        return ExportAnswersTask(
            questions=asked.questions,
            images=asked.images,
            taxa=asked.taxa,
            records=asked.records,
            answers=self._answers(wildcards.system, wildcards.dataset, wildcards.choices),
            output=layout.fill(layout.ANSWERS_EXPORT, **names),
        )

    @staticmethod
    def exports(asked: Iterable[tuple[str, str]], answered: Iterable[tuple[str, str, str]]) -> list[Path]:
        """Return all questions and answers in the benchmark's formats.

        Args:
            asked: (data set, choices) of all questions.
            answered: (system, data set, choices) of all answers.
        """
        questions = [layout.fill(layout.QUESTIONS_EXPORT, dataset=d, choices=c) for d, c in asked]
        return questions + [
            layout.fill(layout.ANSWERS_EXPORT, system=s, dataset=d, choices=c) for s, d, c in answered
        ]

    @planned
    def calibrate_templates(self, wildcards: Wildcards) -> CalibrateTask:
        """Plan the comparison of an encoder's templates on a data set."""
        names = {"encoder": wildcards.encoder, "dataset": wildcards.dataset}
        return CalibrateTask(
            encoder=self._models.clip(wildcards.encoder),
            texts=self._config.calibration,
            model=self._models.files(wildcards.encoder),
            images=layout.fill(layout.IMAGES, **names),
            taxa=layout.fill(layout.TAXA, **names),
            image_vectors=layout.fill(layout.IMAGE_VECTORS, **names),
            questions=layout.fill(layout.QUESTIONS, dataset=wildcards.dataset, choices="published"),
            table=layout.fill(layout.CALIBRATION, **names),
            text=layout.fill(layout.CALIBRATION_TEXT, **names),
        )

    def calibrations(self) -> list[Path]:
        """Return the tables of the target `calibrate`, one for each data set with questions of the benchmark.

        Raises:
            UserError: there is none.
        """
        names = [name for name in self._config.datasets if self._data.datasets[name].published is not None]
        if not names:
            raise UserError(
                "calibrate: no data set's file has `published`, the benchmark's questions to compare with"
            )
        encoder = self._config.encoder
        return [layout.fill(layout.CALIBRATION_TEXT, dataset=name, encoder=encoder) for name in names]
