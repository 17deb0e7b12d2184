# Reads the config once, checked; every rule asks `plan` for its files and values.
import os
import sys
from pathlib import Path

import vltaxon
from vltaxon import config as settings, layout
from vltaxon.errors import UserError
from vltaxon.plan import Plan
from vltaxon.provenance import code_version
from vltaxon.versions import VERSIONS

try:
    plan = Plan(settings.load(config, files=map(Path, workflow.configfiles)))
except UserError as error:
    print(f"error: {error}", file=sys.stderr)
    sys.exit(1)
