"""Answers the questions about a shard of images: stage 2."""

from vltaxon.logs import job
from vltaxon.tasks.prediction import AnswerTask

if __name__ == "__main__":
    with job(snakemake):
        from vltaxon.inference.run import answer_questions

        answer_questions(AnswerTask.of(snakemake))
