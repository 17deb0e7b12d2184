"""The whole plan of an experiment, part by part in the order in which data flow."""

from pathlib import Path

from vltaxon.config.experiment import Experiment
from vltaxon.plan.data import DataPlan
from vltaxon.plan.models import Models
from vltaxon.plan.prediction import PredictionPlan
from vltaxon.plan.questions import QuestionsPlan
from vltaxon.plan.scopes import MAIN, Scopes
from vltaxon.plan.scoring import ScoringPlan
from vltaxon.plan.training import TrainingPlan


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

    def exports(self) -> list[Path]:
        """Return all questions and answers of the main systems, in the benchmark's formats."""
        main = self.scopes[MAIN]
        return self.questions.exports(main.asked, self.scoring.answers(main))
