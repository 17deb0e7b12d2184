"""Objectives of training, one file each: its kind of step (a `Step`), and how that is trained.

A file that is put here is found: its name is what `kind:` says in config/recipes/*.yaml. It is imported while
the Snakefile is parsed, so whatever is heavy it imports inside its functions.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
