"""Draws the synthetic clades into raw archives."""

from vltaxon.logs import job
from vltaxon.tasks.data import DemoArchivesTask

if __name__ == "__main__":
    with job(snakemake):
        from vltaxon.demo.archives import write_archives

        task = DemoArchivesTask.of(snakemake)
        write_archives(task.cub.parent, task.sizes.train, task.sizes.test, task.seed)
