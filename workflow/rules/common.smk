# Reads the config once, checked; every rule asks `plan` for its files and values.
import os
import sys
from pathlib import Path

import vltaxon
from vltaxon import config as settings, layout
from vltaxon.errors import UserError
from vltaxon.plan import Plan
from vltaxon.code_versions import code_version
from vltaxon.report.cells import FIGURES, TITLES
from vltaxon.versions import VERSIONS

try:
    plan = Plan(settings.load(config, files=map(Path, workflow.configfiles)))
except UserError as error:
    print(f"error: {error}", file=sys.stderr)
    sys.exit(1)

PACKAGE = Path(os.path.relpath(Path(vltaxon.__file__).parent, workflow.basedir))
METRICS, TABLES = PACKAGE / "metrics", PACKAGE / "report"
SITE = TABLES / "site"
