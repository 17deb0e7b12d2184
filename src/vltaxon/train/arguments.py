"""What the trainers of all objectives are told alike: optimiser, precision, batches, logging, states."""

from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from vltaxon.tasks.training import TrainTask


def common_arguments(task: "TrainTask", world: int, gpu: bool) -> dict[str, Any]:
    """Return the keyword arguments that `SFTConfig` and `GRPOConfig` share.

    `remove_unused_columns` is off because rows are rendered on the fly from columns that TRL does not know,
    and `logging_nan_inf_filter` because it would replace a diverged loss by the average of the others.

    Args:
        task: the step, its base model, seed and folder of states.
        world: processes that share the work.
        gpu: whether they have devices.
    """
    step, dtype = task.running_step, task.model.dtype
    return {
        "output_dir": str(task.state),
        "seed": task.seed,
        "data_seed": task.seed,
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
        "save_strategy": "no",  # `trainer_state.save_states` says when
        "save_only_model": False,
    }
