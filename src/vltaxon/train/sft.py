"""Supervised fine-tuning on prompt and completion, loss on the completion alone, by TRL's SFTTrainer.

Of a conversation of several turns, the loss is on every answer.
"""

from typing import TYPE_CHECKING, Any

from vltaxon.errors import UserError
from vltaxon.train import guards, order

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
        rows: prompt, completion and image; or messages and image.
        arguments: `arguments.common`.

    Raises:
        UserError: several turns, and the chat template does not tell which tokens are the assistant's.
    """
    from trl import SFTConfig, SFTTrainer

    class Ordered(SFTTrainer):  # type: ignore[misc]  # a class of a library without types
        def _get_train_sampler(self, train_dataset: Any = None) -> order.Order:
            return order.Order(self, len(rows), fillers)

    several = "messages" in rows[0]
    config = SFTConfig(
        **arguments,
        max_length=None,
        completion_only_loss=None if several else True,
        assistant_only_loss=several,
        packing=False,
        pad_to_multiple_of=None,
        shuffle_dataset=False,  # the sampler shuffles
    )
    try:
        made = Ordered(model=policy, args=config, train_dataset=rows, processing_class=processor)
    except ValueError as error:
        if not several:
            raise
        raise UserError(
            f"turns multi: the loss cannot be kept to the answers with this model's chat template: {error}"
        ) from error
    # Qwen2.5-VL's class says that it takes no count of tokens. transformers would then average over each device batch and weigh
    # these alike, however many tokens they have, and the loss would hang on device_batch_size and on the number of devices.
    # TRL takes the loss itself and knows the count: the mean is over all tokens of the effective batch.
    made.model_accepts_loss_kwargs = True
    guards.uncut(made.args.max_length)
    first = [rows[i] for i in range(min(8, len(rows)))]
    guards.tokens_trained(made.data_collator(first)["labels"])
    world = made.args.world_size
    if fillers := -len(rows) % (config.per_device_train_batch_size * world) if world > 1 else 0:
        made.train_dataset, made.data_collator = order.Filled(rows, fillers), order.unlearnt(made.data_collator)
    return made
