"""What a stage asks: a prompt in the words of a data set, as requests to an engine."""

from collections.abc import Sequence
from dataclasses import replace

from vltaxon import prompts, provenance
from vltaxon.config.protocols import Stage
from vltaxon.inference.engine import Decoding, Engine, Request, Response
from vltaxon.inference.stages.table import Progress
from vltaxon.tasks.asking import Asking

WINDOW = (
    4096  # requests that an engine may order as it likes; rows are written when all of a window are answered
)


def limited(asking: Asking) -> Stage:
    """Return the stage, its token limit capped by the model's own."""
    stage, cap = asking.stage, asking.model.max_new_tokens
    return (
        stage if cap is None else stage.model_copy(update={"max_new_tokens": min(cap, stage.max_new_tokens)})
    )


def system_text(asking: Asking) -> str | None:
    """Return the system text: the model's own where it has one, else the prompt's."""
    own = asking.model.own_system
    return asking.prompt.system if own is None else own


def prompt_id(asking: Asking) -> str:
    """Return a short id of template, system text and wording."""
    return provenance.digest_text(system_text(asking) or "", asking.prompt.text, asking.wording)


def render(asking: Asking, rank: str = "", options: Sequence[str] = (), leaf: str = "") -> str:
    """Return the text of one request.

    Args:
        asking: prompt and words.
        rank: of the question, where one is asked.
        options: in the order in which they are shown.
        leaf: the name that the prompt is given.
    """
    words = asking.wording, asking.word, asking.ranks
    return prompts.render(asking.prompt.text, *words, rank, options, leaf)


def window_size(stage: Stage) -> int:
    """Return how many prompts an engine gets at once."""
    return max(1, WINDOW // stage.samples)


def decoding(asking: Asking, only: Sequence[str] = ()) -> Decoding:
    """Return how the completions of a stage are written.

    Args:
        asking: the stage, the model's limit and the seed.
        only: the texts that may be written, where the stage is constrained.
    """
    stage = limited(asking)
    stop = "</answer>" if stage.form == "tagged" and not only else ""
    letters = stage.read == "letters"
    plain = Decoding(stage.max_new_tokens, stage.repetition_penalty, tuple(only), stop, letters)
    if not stage.temperature:
        return plain
    return replace(plain, temperature=stage.temperature, top_p=stage.top_p, seed=asking.seed)


def complete(
    engine: Engine, prompted: Sequence[Request], asked: Decoding, samples: int, progress: Progress
) -> list[list[Response]]:
    """Return the responses to some requests, in their order: `samples` to each.

    Args:
        engine: who answers.
        prompted: one request a prompt.
        asked: how completions are written.
        samples: completions of each prompt.
        progress: of the job; counts what comes.

    Raises:
        RuntimeError: the engine has lost some, a defect.
    """
    responses: dict[int, Response] = {}
    if not prompted:
        return []
    requests = [replace(request, sample=i) for request in prompted for i in range(samples)]
    for at, response in engine.generate(requests, asked):
        responses[at] = response
        progress.count(requests[at], response)
    if len(responses) < len(requests):
        raise RuntimeError(f"the engine answered {len(responses)} of {len(requests)} requests")
    every = [
        [responses[at] for at in range(start, start + samples)] for start in range(0, len(requests), samples)
    ]
    if asked.temperature:
        for some in every:
            progress.compare(some)
    return every
