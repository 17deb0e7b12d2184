"""vltaxon: raw archives -> questions -> training -> two-stage predictions -> metric tables -> report."""

import os
import shlex
import sys
from pathlib import Path

from snakemake.utils import min_version

from vltaxon.config.files import read_yaml

min_version("9.27")

# Snakemake puts this path into shell commands as it is.
if Path(sys.executable).exists():
    sys.executable = shlex.quote(sys.executable)

# The config of the working directory; what it has not is taken from the workflow's own. So it runs in any directory, and as a module.
OWN_CONFIG = Path(
    os.path.relpath(
        workflow.current_basedir.join("config").get_path_or_uri(secret_free=False)
    )
)
CONFIG = Path("config")
CONFIG_FILE = (
    CONFIG if CONFIG.joinpath("config.yaml").exists() else OWN_CONFIG
) / "config.yaml"

# Snakemake takes all words after --configfile for such files, and targets may be files that it can read as one.
problems = [
    f"{path}: is a result, no config; name targets before --configfile, which takes all words after it"
    for path in workflow.config_settings.configfiles
    if Path(path).is_relative_to(Path("results").absolute())
]
# Snakemake itself would follow aliases without end.
if CONFIG_FILE.exists():
    read_yaml(CONFIG_FILE, problems)
if problems:
    print("error:", *problems, file=sys.stderr)
    sys.exit(1)


# A config named on the command line stands alone, whatever the profile says or who calls; values (`--config seed=1`) change one.
workflow.config_settings.replace_workflow_config = bool(
    workflow.config_settings.configfiles
)


configfile: str(CONFIG_FILE)


# Satisfies --lint; the environment is the one of `make`, unless you run with --sdm apptainer and an image of your own.
container: "docker://python:3.11"


wildcard_constraints:
    dataset=r"[a-z0-9_.-]+",
    encoder=r"[a-z0-9_.-]+",
    system=r"[a-z0-9_.-]+",
    model=r"[a-z0-9_.-]+",
    recipe=r"[a-z0-9_.-]+",
    step=r"\d+-[a-z][a-z0-9_]*",
    choices=r"similar|random|published",
    shard=r"\d+",
    of=r"(\.[a-z0-9_.-]+)?",
    scope=r"[a-z0-9_.-]+",
    paper=r"[a-z0-9_]+",
    figure=r"[a-z0-9_]+",


include: "workflow/rules/common.smk"
include: "workflow/rules/demo.smk"
include: "workflow/rules/download.smk"
include: "workflow/rules/ingest.smk"
include: "workflow/rules/questions.smk"
include: "workflow/rules/published.smk"
include: "workflow/rules/train.smk"
include: "workflow/rules/predict.smk"
include: "workflow/rules/score.smk"
include: "workflow/rules/report.smk"
include: "workflow/rules/paper.smk"


rule all:
    default_target: True
    input:
        plan.scoring.main,
        rules.plot.output,
        rules.report.output,


# On demand: what all of it will cost, told before anything is paid. Without output, so it tells anew each time.
rule plan:
    log:
        layout.log("plan", "md"),
    localrule: True
    params:
        experiment=plan.experiment,
    message:
        "Estimating requests, tokens, device hours, disk and licences"
    script:
        "workflow/scripts/plan.py"


# On demand: which jobs would run and what has changed, in one line each. TARGET: `python -m vltaxon.why TARGET`.
rule why:
    log:
        layout.log("why"),
    localrule: True
    params:
        configs=list(map(str, workflow.config_settings.configfiles)),
        given=dict(workflow.config_settings.config),
    message:
        "Comparing the results with the config and the code"
    script:
        "workflow/scripts/why.py"


rule calibrate:
    input:
        lambda wildcards: plan.questions.calibrations(),


include: "workflow/rules/sources.smk"
