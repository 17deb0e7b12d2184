"""Load a vision-language model, the same for training and for inference, and identify its weights.

What is loaded is what is in the folder, and all of it: libraries would fill what is missing with random
weights and leave out what does not fit. Nothing here names a model family: a model of another one is another
file in config/models.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vltaxon import allocator, chat, layout, provenance
from vltaxon.adapters import adapted, load_adapter
from vltaxon.config.base import MOVING
from vltaxon.errors import UserError, flat, listed

if TYPE_CHECKING:
    from vltaxon.engines.transformers import Vlm

_GENERATION = "generation_config.json"
# Settings that some answers followed once, which were asked one by one.
_FOLLOWED = (
    *("suppress_tokens", "begin_suppress_tokens", "bad_words_ids", "sequence_bias", "forced_eos_token_id"),
    *("no_repeat_ngram_size", "encoder_no_repeat_ngram_size", "min_new_tokens", "min_length"),
    *("encoder_repetition_penalty", "exponential_decay_length_penalty", "num_beams"),
)


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

    With the content of the adapter that the model's file names, if it names one. A moving revision does not
    identify weights: see `pinned`.
    """
    folder = Path(model.checkpoint)
    assert folder.is_dir() or model.revision != MOVING, (
        "the digest of a moving name would not tell what was loaded"
    )
    weights = provenance.digest_folder(folder) if folder.is_dir() else f"{model.checkpoint}@{model.revision}"
    return weights if model.adapter is None else adapted(weights, model.adapter)


def load(model: "Vlm") -> tuple[Any, Any]:
    """Load processor and weights in the configured dtype; no code from a hub is run.

    An adapter that the model's file names is merged into the weights. These are on the CPU, except for a
    model of several `gpus` where several are visible: then they are spread over these, layer by layer. (We
    have not yet run this on several devices.)

    Raises:
        UserError: the checkpoint is absent, damaged, or of no architecture that takes images and text; its
            tensors are not those of the architecture; it has no chat template, or one that drops what it is
            given.
    """
    import torch
    from transformers import AutoModelForImageTextToText

    if not torch.cuda.is_available():
        allocator.keep_freed()
    _refuse_foreign_files(model.checkpoint)
    processor, where = load_processor(model), _where(model)
    spread = {"device_map": "auto"} if model.gpus > 1 and torch.cuda.device_count() > 1 else {}
    try:
        weights, found = AutoModelForImageTextToText.from_pretrained(
            model.checkpoint,
            dtype=getattr(torch, model.dtype),
            trust_remote_code=False,
            use_safetensors=True,  # weights in .bin are pickles
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # we do not: they are named below
            **where,
            **spread,
        )
    except Exception as error:  # whatever the libraries raise on half a file, or one of another format
        raise UserError(_refusal(model.checkpoint, error)) from error
    _check_loaded(model.checkpoint, weights, processor, found)
    if model.adapter is not None:
        weights = load_adapter(weights, model.adapter).merge_and_unload()
    return processor, weights


def load_processor(model: "Vlm") -> Any:
    """Load what turns images and texts into a model's inputs, with the options that its file sets.

    Raises:
        UserError: it is absent or damaged, or its chat template loses what it is given.
    """
    from transformers import AutoProcessor

    try:
        processor = AutoProcessor.from_pretrained(model.checkpoint, trust_remote_code=False, **_where(model))
    except Exception as error:  # as above
        raise UserError(_refusal(model.checkpoint, error)) from error
    chat.set_options(processor, model.template, model.checkpoint)
    chat.check_template(processor, model.checkpoint)
    chat.check_marks(processor.tokenizer, model.checkpoint)
    return processor


def _where(model: "Vlm") -> dict[str, Any]:
    return {} if Path(model.checkpoint).is_dir() else {"revision": model.revision}


def _refusal(checkpoint: str, error: Exception) -> str:
    """Return why a checkpoint cannot be loaded, in words that say what to do where the library's do not."""
    said = flat(error)
    if "trust_remote_code" in said:
        return (
            f"{checkpoint}: needs Python code of its own to be loaded, and vltaxon runs no code that comes "
            "with weights. Take a checkpoint of an architecture that transformers has (many have one whose "
            "name ends in -hf)"
        )
    pointers = [path for path in _weights_in(checkpoint) if path.stat().st_size < 1024 and _is_pointer(path)]
    if pointers:
        return f"{pointers[0]}: is a pointer of Git LFS, not weights; fetch them: git lfs pull"
    if isinstance(error, ImportError):
        return f"{checkpoint}: needs a library that is not installed (quantised weights do): {said[:500]}"
    if type(error).__name__ == "SafetensorError":
        return f"{checkpoint}: its weights are damaged or half copied ({said}); copy them again"
    return f"{checkpoint}: not loadable as a vision-language model: {type(error).__name__}: {said[:1000]}"


def _weights_in(checkpoint: str) -> list[Path]:
    return sorted(Path(checkpoint).glob("*.safetensors"))


def _is_pointer(path: Path) -> bool:
    return path.read_bytes().startswith(b"version https://git-lfs")


def _refuse_foreign_files(checkpoint: str) -> None:
    """Refuse a folder with an adapter: transformers would put it on top of whatever weights it finds.

    Raises:
        UserError: there is one, beside weights or instead of them.
    """
    config = Path(checkpoint) / layout.ADAPTER_CONFIG
    if not config.exists():
        return
    if _weights_in(checkpoint) == [Path(checkpoint) / layout.WEIGHTS]:
        raise UserError(
            f"{checkpoint}: is the folder of an adapter. Name its base as `checkpoint`, and this folder as "
            "`adapter`"
        )
    raise UserError(
        f"{config}: beside whole weights it would be applied to them, a second time if they are merged "
        "already. If they are, delete it; if they are not, move the adapter's files elsewhere and name that "
        "folder as `adapter`"
    )


def _check_loaded(checkpoint: str, weights: Any, processor: Any, found: Mapping[str, Any]) -> None:
    """Check that every weight is the checkpoint's, and that it has no others.

    Keys that the architecture itself declares ignorable are not among those that are given.

    Raises:
        UserError: some are not.
    """
    kinds = {
        "missing, which would be random": sorted(found["missing_keys"]),
        "of other shapes": sorted(name for name, *_ in found["mismatched_keys"]),
        "left over": sorted(found["unexpected_keys"]),
    }
    if wrong := [f"{len(names)} {kind} ({listed(names)})" for kind, names in kinds.items() if names]:
        raise UserError(
            f"{checkpoint}: its tensors are not those of {type(weights).__name__}: {'; '.join(wrong)}. It "
            "was saved with other names or layers; save it again with the library that made it, merged and "
            "without prefixes"
        )
    if getattr(weights, "_hf_peft_config_loaded", False):
        raise UserError(
            f"{checkpoint}: holds an adapter; name its base as `checkpoint`, and the adapter as `adapter`"
        )
    tokens, rows = len(processor.tokenizer), weights.get_input_embeddings().num_embeddings
    if tokens > rows:
        raise UserError(f"{checkpoint}: its tokenizer has {tokens} tokens and its weights only {rows}")


def merge(model: "Vlm", adapter: Path, output: Path) -> None:
    """Write a model with an adapter merged into its weights, as a checkpoint folder like any other.

    Args:
        model: the base model.
        adapter: folder of the adapter.
        output: folder to write.
    """
    # the options stay with the model's file: written into the template, they could not be seen or set again
    processor, weights = load(pinned(model.model_copy(update={"template": {}})))
    with provenance.whole_folder(output) as part:
        load_adapter(weights, adapter).merge_and_unload().save_pretrained(part)
        processor.save_pretrained(part)


def generates_otherwise(model: "Vlm") -> bool:
    """Return whether a checkpoint's `generation_config` would change what is written, were it followed.

    Of a hub's, where it is in the cache. The settings that every request had always said do not count.
    """
    from huggingface_hub import try_to_load_from_cache

    file: Any = Path(model.checkpoint) / _GENERATION
    if not Path(model.checkpoint).is_dir():
        file = try_to_load_from_cache(model.checkpoint, _GENERATION, revision=model.revision)
    if not isinstance(file, str | Path) or not Path(file).is_file():
        return False
    try:
        said = json.loads(Path(file).read_text(encoding="utf-8"))
    except ValueError:
        return False  # it is refused when the model is loaded
    return any(said.get(name) for name in _FOLLOWED)


def generate_as_told(weights: Any) -> None:
    """Have a model generate as it is told alone.

    A checkpoint's `generation_config` may suppress tokens, punish repetition or draw: one way of generating
    would follow it and another not. What is kept of it is which tokens begin, end and fill a text.

    Args:
        weights: the model, changed in place.
    """
    from transformers import GenerationConfig

    own = weights.generation_config
    kept = {name: getattr(own, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    weights.generation_config = GenerationConfig(**kept)
