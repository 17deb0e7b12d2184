"""Compares templates of a label with the published distractors."""

from pathlib import Path
from typing import TYPE_CHECKING

from vltaxon.logs import job

if TYPE_CHECKING:
    from snakemake.script import snakemake

if __name__ == "__main__":
    with job(snakemake):
        from vltaxon.config import Clip
        from vltaxon.distractors.calibration import calibrate_templates

        files = {name: Path(snakemake.input[name]) for name in ("taxa", "images", "image_vectors", "questions")}
        made = {name: Path(snakemake.output[name]) for name in ("table", "text")}
        calibrate_templates(Clip.model_validate(snakemake.params.encoder), **files, **snakemake.params.texts, **made)
