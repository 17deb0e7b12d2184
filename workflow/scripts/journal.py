"""Tells what the journal holds, on the terminal and in a log."""

from vltaxon.tasks.prediction import JournalTask

if __name__ == "__main__":
    from vltaxon.inference.journal.statistics import tell

    tell(JournalTask.of(snakemake))
