"""The adapter of a step: fresh, or that of the step before, and what identifies its weights."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vltaxon.errors import UserError

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel

    from vltaxon.config.steps import Lora


def with_adapter(base: "PreTrainedModel", lora: "Lora", previous: Path | None) -> "PeftModel":
    """Return the base with a trainable adapter: a fresh one, or that of the step before.

    Args:
        base: without adapter; its layers are replaced in place.
        lora: shape and dropout of the adapter.
        previous: folder of the adapter to continue; None for a fresh one.

    Raises:
        UserError: the step before has an adapter of another shape, or no layer is to be adapted.
    """
    from peft import LoraConfig, PeftModel, get_peft_model

    wanted: Any = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=lora.targets,
        task_type="CAUSAL_LM",
    )
    if previous is None:
        try:
            return get_peft_model(base, wanted)
        except ValueError as error:  # PEFT's word for a pattern that matches nothing
            raise UserError(f"`lora.targets` {lora.targets} does not fit the model: {error}") from error
    config: Any = LoraConfig.from_pretrained(str(previous))
    for field in ("r", "lora_alpha", "target_modules"):
        if getattr(config, field) != getattr(wanted, field):
            raise UserError(
                f"{previous}: its adapter has {field} {getattr(config, field)}, this step asks for "
                f"{getattr(wanted, field)}. Steps of a recipe continue one adapter: give them the same "
                "`lora`."
            )
    config.lora_dropout, config.inference_mode = lora.dropout, False
    return PeftModel.from_pretrained(base, str(previous), config=config, is_trainable=True)


def digest_adapter(policy: "PeftModel", weights: Mapping[str, Any] | None = None) -> str:
    """Return the SHA-256 of the adapter's weights, by name.

    Args:
        policy: the model with the adapter.
        weights: of the whole model, by name, where `policy` holds only a share of them.
    """
    from peft import get_peft_model_state_dict

    total = hashlib.sha256()
    for name, tensor in sorted(get_peft_model_state_dict(policy, weights, adapter_name="default").items()):
        total.update(name.encode() + tensor.detach().float().cpu().contiguous().numpy().tobytes())
    return total.hexdigest()
