"""What a trainer is made of: the contract between a training step and its objective."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import datasets
    from peft import PeftModel
    from transformers import ProcessorMixin


@dataclass(frozen=True)
class Lengths:
    """Tokens of the longest sample (prompt with image, and target), and of the targets on average."""

    longest: int
    target: float


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
    lengths: Lengths
    files: tuple[Path, ...] = ()
