"""Load a LoRA adapter, and believe nothing: what is in the model must be what is in the file.

PEFT warns where names of an adapter do not fit the model, and goes on with the bare base. Here that is an
error. An adapter of ours must also be the one that its training recorded; one that another tool has made is
scored as it is, or refused.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vltaxon import layout, provenance
from vltaxon.errors import UserError, flat, listed

if TYPE_CHECKING:
    from peft import PeftConfig, PeftModel
    from transformers import PreTrainedModel


def adapted(weights: str, adapter: Path) -> str:
    """Return the identity of weights with an adapter.

    How an adapter of ours is applied follows from its training, whose record is checked when it is loaded. Of
    one that another tool has made, the file that says how it is applied is part of the identity.

    Args:
        weights: identity of the weights alone.
        adapter: folder of the adapter.
    """
    files = [layout.WEIGHTS] + ([] if (adapter / layout.RECORD).exists() else [layout.ADAPTER_CONFIG])
    if missing := [name for name in files if not (adapter / name).is_file()]:
        raise UserError(
            f"{adapter}: no adapter there, {listed(missing)} missing. It takes {layout.ADAPTER_CONFIG} and "
            f"{layout.WEIGHTS} of PEFT's format; weights in .bin are pickles, which are never read"
        )
    return "+".join([weights, *(provenance.digest_file(adapter / name) for name in files)])


def read_config(adapter: Path) -> "PeftConfig":
    """Return how an adapter is applied.

    Raises:
        UserError: the file is absent, damaged, or of something else than LoRA.
    """
    from peft import LoraConfig, PeftConfig, PeftType

    try:
        found = PeftConfig.from_pretrained(str(adapter))
    except Exception as error:  # of PEFT's whole world: absent, no JSON, of an unknown kind
        raise UserError(f"{adapter}: its {layout.ADAPTER_CONFIG} cannot be read: {error}") from error
    if not isinstance(found, LoraConfig) or found.peft_type != PeftType.LORA:
        raise UserError(
            f"{adapter}: is a {found.peft_type} adapter; only LoRA (with rslora or DoRA) is taken"
        )
    return found


def load_adapter(
    base: "PreTrainedModel", adapter: Path, config: "PeftConfig | None" = None, trainable: bool = False
) -> "PeftModel":
    """Return a model with an adapter in it, of which every tensor is the file's.

    Args:
        base: without adapter; its layers are replaced in place.
        adapter: folder of the adapter.
        config: how it is applied, in place of what the folder says.
        trainable: whether it is to be trained.

    Raises:
        UserError: names or shapes do not fit the model, tensors are left over, or it is not the adapter that
            its training recorded.
    """
    from peft import PeftModel

    config, there = config or read_config(adapter), read_weights(adapter)
    try:
        policy = PeftModel.from_pretrained(base, str(adapter), config=config, is_trainable=trainable)
    except Exception as error:  # of PEFT's whole world: other shapes, no such modules
        words = flat(f"{type(error).__name__}: {error}")[:500]
        raise UserError(f"{adapter}: does not fit {type(base).__name__}: {words}") from error
    _check_whole(policy, adapter, there)
    return policy


def _check_whole(policy: "PeftModel", adapter: Path, there: Mapping[str, Any]) -> None:
    """Check that the model's adapter is the file's: as many tensors, of the same content.

    Their names may differ, as PEFT renames those of other versions of transformers where it knows how.

    Args:
        policy: the model with the adapter.
        adapter: folder of the adapter.
        there: the tensors of its file.

    Raises:
        UserError: it is not.
    """
    from peft import get_peft_model_state_dict

    inside = get_peft_model_state_dict(policy, adapter_name="default", save_embedding_layers=False)
    rest = policy.state_dict()  # embeddings, which PEFT may write beside an adapter
    lost = [
        name for name, tensor in there.items() if name not in inside and not _same(rest.get(name), tensor)
    ]
    new = [name for name in inside if name not in there]
    if (lost or new) and _content(there.values()) != _content(inside.values()):
        kind = type(policy.get_base_model()).__name__
        raise UserError(
            f"{adapter}: is no adapter of a {kind}: {len(lost)} of its {len(there)} tensors are left over "
            f"({listed(lost)}), {len(new)} of {len(inside)} are not in the file ({listed(new)}). It was made "
            "for another model, or by another version of transformers, which calls the modules otherwise; "
            "merge it into its base there, and score the merged checkpoint"
        )
    if wrong := [name for name in inside.keys() & there.keys() if not _same(inside[name], there[name])]:
        raise UserError(f"{adapter}: {len(wrong)} tensors are not those of the file ({listed(wrong)})")


def _same(loaded: Any, tensor: Any) -> bool:
    """Return whether a tensor is the file's, in the number format of the model."""
    return (
        loaded is not None
        and loaded.shape == tensor.shape
        and bool((loaded.cpu() == tensor.to(loaded.dtype)).all())
    )


def _content(tensors: Any) -> list[str]:
    """Return the digests of tensors whatever they are called."""
    return sorted(hashlib.sha256(_bytes(tensor)).hexdigest() for tensor in tensors)


def _bytes(tensor: Any) -> bytes:
    content: bytes = tensor.detach().float().cpu().contiguous().numpy().tobytes()
    return content


def read_weights(adapter: Path) -> dict[str, Any]:
    """Return the tensors of an adapter by name; one of ours is also what its training has recorded.

    Raises:
        UserError: the file is damaged, changes nothing or holds what is no number; or an adapter of ours is
            not the one that its training recorded, or would not be applied as it was trained.
    """
    import torch
    from safetensors.torch import load_file

    try:
        tensors: dict[str, Any] = load_file(adapter / layout.WEIGHTS)
    except Exception as error:  # absent, or half a file
        raise UserError(f"{adapter / layout.WEIGHTS}: cannot be read: {flat(error)}") from error
    if not all(bool(torch.isfinite(tensor).all()) for tensor in tensors.values()):
        raise UserError(f"{adapter}: has weights that are no numbers")
    if not any(bool(tensor.any()) for name, tensor in tensors.items() if ".lora_A." not in name):
        raise UserError(f"{adapter}: has zeros alone, and would change nothing; its training has not worked")
    if (adapter / layout.RECORD).exists():
        _check_recorded(adapter, tensors)
    return tensors


def _check_recorded(adapter: Path, tensors: Mapping[str, Any]) -> None:
    """Check that an adapter of ours is the one that its training recorded, applied as it was trained."""
    file, other = adapter / layout.RECORD, f"is not what its {layout.RECORD} says was trained; {_AGAIN}"
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
        wanted, lora = record["adapter_after"], record["step"]["lora"]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{file}: is no record of a training ({error}); {_AGAIN}") from error
    config: Any = read_config(adapter)
    applied = {"rank": config.r, "alpha": config.lora_alpha, "targets": config.target_modules}
    plain = not (config.use_rslora or config.use_dora or config.alpha_pattern or config.rank_pattern)
    if not plain or any(applied[name] != lora[name] for name in applied):
        raise UserError(f"{adapter / layout.ADAPTER_CONFIG}: {other}")
    if _digest(tensors) != wanted:
        raise UserError(f"{adapter / layout.WEIGHTS}: {other}")


_AGAIN = "delete the folder and run again, so that it is trained again"


def digest_adapter(policy: "PeftModel", weights: Mapping[str, Any] | None = None) -> str:
    """Return the SHA-256 of the adapter's weights, by name.

    Args:
        policy: the model with the adapter.
        weights: of the whole model, by name, where `policy` holds only a share of them.
    """
    from peft import get_peft_model_state_dict

    return _digest(get_peft_model_state_dict(policy, weights, adapter_name="default"))


def _digest(tensors: Mapping[str, Any]) -> str:
    total = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        total.update(name.encode() + _bytes(tensor))
    return total.hexdigest()
