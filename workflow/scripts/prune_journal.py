"""Deletes the answers of models and adapters that are no more, and tells which."""

from vltaxon.tasks.prediction import PruneJournalTask

if __name__ == "__main__":
    from vltaxon.inference.run import prune_journal

    prune_journal(PruneJournalTask.of(snakemake))
