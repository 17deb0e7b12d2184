"""Supervised fine-tuning on prompt and completion, loss on the completion alone, by TRL's SFTTrainer."""

from typing import TYPE_CHECKING, Any

from vltaxon.train import guards

if TYPE_CHECKING:
    import datasets
    from peft import PeftModel
    from transformers import ProcessorMixin
    from trl import SFTTrainer


def trainer(
    policy: "PeftModel", processor: "ProcessorMixin", rows: "datasets.Dataset", arguments: dict[str, Any]
) -> "SFTTrainer":
    """An SFTTrainer for rows of `samples.dataset`.

    Args:
        policy: base model with the adapter to train.
        processor: of the base model.
        rows: prompt, completion and image.
        arguments: `arguments.common`.
    """
    from trl import SFTConfig, SFTTrainer

    config = SFTConfig(
        **arguments,
        max_length=None,
        completion_only_loss=True,
        packing=False,
        pad_to_multiple_of=None,
        shuffle_dataset=False,  # the sampler shuffles
    )
    made = SFTTrainer(model=policy, args=config, train_dataset=rows, processing_class=processor)
    guards.uncut(made.args.max_length)
    first = [rows[i] for i in range(min(8, len(rows)))]
    guards.tokens_trained(made.data_collator(first)["labels"])
    return made
