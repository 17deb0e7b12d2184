"""A training job as the rule's script starts it, without Snakemake: python -m tests.unit.train.door TASK PROCESSES LOG."""

import sys
from pathlib import Path

from vltaxon.logs import job
from vltaxon.train.launch import Task, train

SETTINGS = Path(__file__).parents[3] / "config" / "accelerate" / "ddp.yaml"

if __name__ == "__main__":
    task, processes, log = sys.argv[1:]
    with job(log, 1):
        train(Task.model_validate_json(Path(task).read_text()), int(processes), SETTINGS)
