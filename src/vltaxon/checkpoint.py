"""Load a vision-language model, the same for training and for inference, and identify its weights.

Nothing here names a model family: a model of another one is another file in config/models.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from vltaxon import chat, provenance
from vltaxon.config.base import MOVING
from vltaxon.errors import UserError

if TYPE_CHECKING:
    from vltaxon.engines.transformers import Vlm


def pinned(model: "Vlm") -> "Vlm":
    """Return the model with a moving revision replaced by the commit that it means now.

    Raises:
        UserError: neither the hub nor an earlier download says which commit that is.
    """
    if Path(model.checkpoint).is_dir() or model.revision != MOVING:
        return model
    from huggingface_hub import resolve_revision
    from huggingface_hub.errors import RevisionResolutionError

    try:
        commit = resolve_revision(model.checkpoint, revision=model.revision).resolved
    except (OSError, ValueError, RevisionResolutionError) as error:
        raise UserError(
            f"{model.checkpoint}: which commit is its {model.revision} cannot be found out: {error}"
        ) from error
    return model.model_copy(update={"revision": commit})


def digest(model: "Vlm") -> str:
    """Return the identity of the weights: content of a local folder, or hub id and commit.

    A moving revision does not identify weights: see `pinned`.
    """
    folder = Path(model.checkpoint)
    assert folder.is_dir() or model.revision != MOVING, (
        "the digest of a moving name would not tell what was loaded"
    )
    return provenance.digest_folder(folder) if folder.is_dir() else f"{model.checkpoint}@{model.revision}"


def adapted(weights: str, adapter: Path) -> str:
    """Return the identity of weights with an adapter.

    Args:
        weights: identity of the weights alone.
        adapter: folder of the adapter.
    """
    return f"{weights}+{provenance.digest_file(adapter / 'adapter_model.safetensors')}"


def load(model: "Vlm") -> tuple[Any, Any]:
    """Load processor and weights in the configured dtype; no code from a hub is run.

    Weights are on the CPU, except for a model of several `gpus` where several are visible: then they are
    spread over these, layer by layer. (We have not yet run this on several devices.)

    Raises:
        UserError: the checkpoint is absent, damaged, or of no architecture that takes images and text.
    """
    import torch
    from transformers import AutoModelForImageTextToText, AutoProcessor

    where = {} if Path(model.checkpoint).is_dir() else {"revision": model.revision}
    spread = {"device_map": "auto"} if model.gpus > 1 and torch.cuda.device_count() > 1 else {}
    dtype = getattr(torch, model.dtype)
    try:
        processor = AutoProcessor.from_pretrained(model.checkpoint, **where)
        weights = AutoModelForImageTextToText.from_pretrained(
            model.checkpoint, dtype=dtype, **where, **spread
        )
    except (OSError, ValueError) as error:
        raise UserError(f"{model.checkpoint}: not loadable as a vision-language model: {error}") from error
    chat.set_options(processor, model.template, model.checkpoint)
    chat.check_marks(processor.tokenizer, model.checkpoint)
    return processor, weights


def merge(model: "Vlm", adapter: Path, output: Path) -> None:
    """Write a model with an adapter merged into its weights, as a checkpoint folder like any other.

    Args:
        model: the base model.
        adapter: folder of the adapter.
        output: folder to write.
    """
    from peft import PeftModel

    processor, weights = load(pinned(model))
    with provenance.whole_folder(output) as part:
        PeftModel.from_pretrained(weights, str(adapter)).merge_and_unload().save_pretrained(part)
        processor.save_pretrained(part)
