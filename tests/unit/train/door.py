"""A training job as its script starts it, without Snakemake: python -m tests.unit.train.door TASK LOG."""

import sys
from pathlib import Path

from vltaxon.logs import logged
from vltaxon.tasks.training import TrainTask
from vltaxon.train.launch import train

if __name__ == "__main__":
    task, log = sys.argv[1:]
    with logged(log, 1):
        train(TrainTask.model_validate_json(Path(task).read_text()))
