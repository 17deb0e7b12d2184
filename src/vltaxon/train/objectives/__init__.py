"""Objectives of training, one file each: its kind of step (a `Step`), and how that is trained.

A file that is put here is found: its name is what `kind:` says in config/recipes/*.yaml. It is imported while
the Snakefile is parsed, so whatever is heavy it imports inside its functions.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vltaxon.plugins import find_plugins

if TYPE_CHECKING:
    import datasets
    from peft import PeftModel
    from transformers import ProcessorMixin

    from vltaxon.config.steps import Step
    from vltaxon.train.lengths import Lengths


@dataclass(frozen=True)
class Prepared:
    """What a trainer is made of.

    Attributes:
        policy: base model with the adapter to train, trainable.
        processor: of the base model.
        rows: the samples as TRL takes them: prompt and completion, or messages; image; and what rewards read.
        arguments: optimiser, batches, precision and the like, see `arguments.common_arguments`.
        lengths: tokens of the samples.
        files: what the objective reads of its own, see `Step.files`.
    """

    policy: "PeftModel"
    processor: "ProcessorMixin"
    rows: "datasets.Dataset"
    arguments: Mapping[str, Any]
    lengths: "Lengths"
    files: tuple[Path, ...] = ()


def step_classes() -> dict[str, "type[Step]"]:
    """Return the kinds of steps, each the one that its file declares."""
    from vltaxon.config.steps import Step

    return {
        name: declared
        for name, module in find_plugins("vltaxon.train.objectives").items()
        for declared in vars(module).values()
        if isinstance(declared, type)
        and issubclass(declared, Step)
        and declared.__module__ == module.__name__
    }


import vltaxon.config  # noqa: E402, F401  # last: the config asks here for the steps, whichever is imported first
