# Reads the config once, checked; every rule asks `plan` for its task.
import sys

from vltaxon import layout
from vltaxon.config.load import load
from vltaxon.errors import UserError
from vltaxon.plan.whole import Plan

try:
    plan = Plan(
        load(
            config,
            folder=list(dict.fromkeys([CONFIG, OWN_CONFIG])),
            files=map(
                Path, workflow.config_settings.configfiles or workflow.configfiles
            ),
        )
    )
except UserError as error:
    print(f"error: {error}", file=sys.stderr)
    sys.exit(1)
