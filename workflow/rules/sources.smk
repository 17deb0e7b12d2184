# Last, when all rules are known: refuses a file that no rule makes where it is missing. What only tells is told all the same.
import io
from contextlib import redirect_stderr

from snakemake import cli
from snakemake.io import IOFile
from snakemake.persistence.db import DbPersistence
from snakemake.persistence.file import FilePersistence
from snakemake.settings.enums import PersistenceBackend

from vltaxon.plan.sources import demand_sources, read_record

TELLING = {"plan", "usage", "journal"}


def recorded(path):
    """Return what Snakemake recorded of a result."""
    settings = workflow.workflow_settings
    if settings.persistence_backend is PersistenceBackend.DB:
        url = settings.persistence_backend_db_url
        memory = DbPersistence(nolock=True, **({"db_url": url} if url else {}))
    else:
        memory = FilePersistence(nolock=True)
    return read_record(memory.metadata(IOFile(str(path))))


def asked():
    """Return the targets of the command line, which Snakemake tells a workflow too late."""
    with redirect_stderr(io.StringIO()):  # Snakemake prints which profile it reads
        return set(cli.parse_args(sys.argv[1:])[1].targets)


if workflow.is_main_process and not (TELLING & set(sys.argv) and asked() <= TELLING):
    try:
        notes = demand_sources(
            plan.reading_sources(),
            made=lambda path: any(
                rule.is_producer(str(path)) for rule in workflow.rules
            ),
            recorded=recorded,
        )
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    for note in notes:
        print(f"note: {note}", file=sys.stderr)
