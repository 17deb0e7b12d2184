# Reads the config once, checked; every rule asks `plan` for its task.
import sys

from vltaxon import layout
from vltaxon.config.load import load
from vltaxon.errors import UserError
from vltaxon.plan.whole import Plan

# Of the command line; they replace the workflow's own, where the profile says so.
given = workflow.config_settings.configfiles
if not (given and workflow.config_settings.replace_workflow_config):
    given = workflow.configfiles

try:
    plan = Plan(
        load(
            config,
            folder=list(dict.fromkeys([CONFIG, OWN_CONFIG])),
            files=map(Path, given),
        )
    )
except UserError as error:
    print(f"error: {error}", file=sys.stderr)
    sys.exit(1)
