"""The whole plan of an experiment, part by part in the order in which data flow."""

from collections.abc import Iterator
from pathlib import Path

from vltaxon.config.experiment import Experiment
from vltaxon.plan.data import DataPlan
from vltaxon.plan.models import Models
from vltaxon.plan.planned import Named
from vltaxon.plan.prediction import PredictionPlan
from vltaxon.plan.questions import QuestionsPlan
from vltaxon.plan.scopes import MAIN, Scopes
from vltaxon.plan.scoring import ScoringPlan
from vltaxon.plan.training import TrainingPlan
from vltaxon.tasks.base import Task


class Plan:
    """An experiment as jobs; rules take their tasks from its parts."""

    def __init__(self, experiment: Experiment) -> None:
        self.experiment = experiment
        self.data = DataPlan(experiment)
        self.models = Models(experiment)
        self.scopes = Scopes(experiment)
        self.prediction = PredictionPlan(experiment, self.models)
        self.questions = QuestionsPlan(experiment, self.data, self.models, self.prediction.answer_shards)
        self.training = TrainingPlan(experiment, self.models)
        self.scoring = ScoringPlan(experiment, self.scopes, self.training, self.prediction)

    def reading_sources(self) -> Iterator[Task]:
        """Yield the jobs that may read what no rule makes, each after those whose results it reads."""
        data, questions, config = self.data, self.questions, self.experiment.config
        encoders = {system.model for system in config.asked.values()} & self.models.encoders()
        mined = "similar" in config.choices or (config.training and config.training.choices == "similar")
        encoders |= {config.encoder} if mined else set()
        yield from (data.unpack_archive(Named(archive=name)) for name in data.archives)
        for name, dataset in data.datasets.items():
            yield data.ingest(Named(dataset=name))
            if dataset.published is not None and "published" in config.choices and name in config.datasets:
                if dataset.published.taxonomy is not None:
                    yield questions.load_taxonomy(Named(dataset=name))
                yield questions.import_published(Named(dataset=name))
            for encoder in sorted(encoders):
                yield questions.embed(Named(dataset=name, encoder=encoder))

    def exports(self) -> list[Path]:
        """Return all questions and answers of the main systems, in the benchmark's formats."""
        main = self.scopes[MAIN]
        return self.questions.exports(main.asked, self.scoring.answers(main))
