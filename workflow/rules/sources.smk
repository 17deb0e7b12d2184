# Last, when all rules are known: refuses a file that no rule makes where it is missing.
from vltaxon.plan.sources import check_sources

try:
    check_sources(plan.reading_sources(), workflow)
except UserError as error:
    print(f"error: {error}", file=sys.stderr)
    sys.exit(1)
