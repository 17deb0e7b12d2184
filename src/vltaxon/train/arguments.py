"""What SFT and GRPO are told alike: optimiser, precision, batches, logging, where checkpoints go."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from vltaxon.config import Step


def common(step: "Step", dtype: str, *, state: Path, seed: int, world: int, gpu: bool) -> dict[str, Any]:
    """Keyword arguments that `SFTConfig` and `GRPOConfig` share.

    `remove_unused_columns` is off because rows are rendered on the fly from columns that TRL does not know, and
    `logging_nan_inf_filter` because it would replace a diverged loss by the average of the others.
    """
    return {
        "output_dir": str(state),
        "seed": seed,
        "data_seed": seed,
        "learning_rate": step.learning_rate,
        "lr_scheduler_type": step.scheduler,
        "warmup_steps": step.warmup,  # a fraction of the steps where below 1
        "weight_decay": step.weight_decay,
        "num_train_epochs": step.epochs,
        "per_device_train_batch_size": step.device_batch_size,
        "gradient_accumulation_steps": step.accumulation(world),
        "gradient_checkpointing": gpu,
        "use_cpu": not gpu,
        "bf16": dtype == "bfloat16",
        "fp16": dtype == "float16",
        "dataloader_num_workers": min(4, torch.get_num_threads()) if gpu else 0,
        "dataloader_pin_memory": gpu,
        "remove_unused_columns": False,
        "logging_steps": 1,
        "logging_nan_inf_filter": False,
        "report_to": "none",
        "save_strategy": "no",  # `checkpoints.keep` says when
        "save_only_model": False,
    }
