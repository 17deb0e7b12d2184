"""Tells what the jobs took, on the terminal and in a log."""

from vltaxon.tasks.scoring import UsageTask

if __name__ == "__main__":
    from vltaxon.report.usage import tell

    tell(UsageTask.of(snakemake))
