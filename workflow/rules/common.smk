# Reads the config once, checked; every rule asks `plan` for its task.
import sys

from vltaxon import config as settings, layout
from vltaxon.errors import UserError
from vltaxon.plan import Plan

try:
    plan = Plan(
        settings.load(
            config,
            folder=list(dict.fromkeys([CONFIG, OWN_CONFIG])),
            files=map(Path, workflow.configfiles),
        )
    )
except UserError as error:
    print(f"error: {error}", file=sys.stderr)
    sys.exit(1)
