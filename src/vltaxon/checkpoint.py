"""Loading a vision-language model, the same for training and for inference, and saying which weights it has."""

from pathlib import Path
from typing import Any

from vltaxon import provenance
from vltaxon.config import Vlm
from vltaxon.errors import UserError


def digest(model: Vlm) -> str:
    """Identity of the weights: content of a local folder, or hub id and revision."""
    folder = Path(model.checkpoint)
    return provenance.digest_folder(folder) if folder.is_dir() else f"{model.checkpoint}@{model.revision}"


def load(model: Vlm) -> tuple[Any, Any]:
    """Load processor and weights in the configured dtype; a hub id is pinned to its revision, and none of its code is run.

    Raises:
        UserError: the checkpoint is absent, damaged, or of no architecture that takes images and text.
    """
    import torch
    from transformers import AutoModelForImageTextToText, AutoProcessor

    pinned = {} if Path(model.checkpoint).is_dir() else {"revision": model.revision}
    try:
        processor = AutoProcessor.from_pretrained(model.checkpoint, **pinned)
        weights = AutoModelForImageTextToText.from_pretrained(model.checkpoint, dtype=getattr(torch, model.dtype), **pinned)
    except (OSError, ValueError) as error:
        raise UserError(f"{model.checkpoint}: not loadable as a vision-language model: {error}") from error
    return processor, weights


def merge(model: Vlm, adapter: Path, output: Path) -> None:
    """Write the model with an adapter merged into its weights, as a checkpoint folder like any other."""
    from peft import PeftModel

    processor, weights = load(model)
    with provenance.whole_folder(output) as part:
        PeftModel.from_pretrained(weights, str(adapter)).merge_and_unload().save_pretrained(part)
        processor.save_pretrained(part)
