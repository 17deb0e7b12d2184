"""Compares templates of a label with the published distractors."""

from vltaxon.logs import job
from vltaxon.tasks.questions import CalibrateTask

if __name__ == "__main__":
    with job(snakemake):
        from vltaxon.distractors.calibration import calibrate_templates

        calibrate_templates(CalibrateTask.of(snakemake))
