"""The adapter of a step: fresh, or that of the step before."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from vltaxon.adapters import load_adapter, read_config
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
        UserError: the step before has an adapter of another shape, or not the one that it recorded; or no
            layer is to be adapted.
    """
    from peft import LoraConfig, get_peft_model

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
    config: Any = read_config(previous)
    for field in ("r", "lora_alpha", "target_modules"):
        if getattr(config, field) != getattr(wanted, field):
            raise UserError(
                f"{previous}: its adapter has {field} {getattr(config, field)}, this step asks for "
                f"{getattr(wanted, field)}. Steps of a recipe continue one adapter: give them the same "
                "`lora`."
            )
    config.lora_dropout, config.inference_mode = lora.dropout, False
    return load_adapter(base, previous, config, trainable=True)
