"""Supervised fine-tuning on prompt and completion, loss on the completion alone, by TRL's SFTTrainer.

Of a conversation of several turns, the loss is on every answer.
"""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal

from vltaxon.config.steps import Column, Curve, Panel, Step
from vltaxon.errors import UserError

if TYPE_CHECKING:
    from trl import SFTTrainer

    from vltaxon.prepared import Prepared


class SftStep(Step):
    """A step of supervised fine-tuning."""

    kind: Literal["sft"]

    @classmethod
    def columns(cls) -> Mapping[str, Column]:
        """Return the columns of the curve: the loss is drawn."""
        drawn = Column("loss", Panel("SFT loss", "loss (nats per token)"))
        return {**super().columns(), "loss": drawn, "mean_token_accuracy": Column("token_accuracy")}

    def trainer(self, prepared: "Prepared") -> "SFTTrainer":
        """Return an SFTTrainer.

        Raises:
            UserError: several turns, and the chat template does not tell which tokens are the assistant's.
        """
        from transformers import set_seed
        from trl import SFTConfig, SFTTrainer

        from vltaxon.train import guards, sampler

        rows = prepared.rows

        class Ordered(SFTTrainer):  # type: ignore[misc]  # a class of a library without types
            def _get_train_sampler(self, train_dataset: Any = None) -> sampler.EpochSampler:
                return sampler.EpochSampler(self, len(rows), fillers)

        several = "messages" in rows[0]
        config = SFTConfig(
            **prepared.arguments,
            max_length=None,
            completion_only_loss=None if several else True,
            assistant_only_loss=several,
            packing=False,
            pad_to_multiple_of=None,
            shuffle_dataset=False,  # the sampler shuffles
        )
        try:
            trainer = Ordered(
                prepared.policy, args=config, train_dataset=rows, processing_class=prepared.processor
            )
        except ValueError as error:
            if not several:
                raise
            raise UserError(
                "turns multi: the loss cannot be kept to the answers with this model's chat template: "
                f"{error}"
            ) from error
        # Qwen2.5-VL's class says that it takes no count of tokens. transformers would then average over each
        # device batch and weigh these alike, however many tokens they have, and the loss would depend on
        # device_batch_size and on the number of devices. TRL takes the loss itself and knows the count: the
        # mean is over all tokens of the effective batch.
        trainer.model_accepts_loss_kwargs = True
        if not several:
            trainer.data_collator = _as_asked(trainer.data_collator, prepared.processor)
        guards.check_max_length(trainer.args.max_length)
        first = [rows[i] for i in range(min(8, len(rows)))]
        guards.check_labels(trainer.data_collator(first)["labels"])
        guards.check_prompts(prepared, lambda row: _learnt(trainer.data_collator([row])))
        guards.check_targets(prepared)
        world = trainer.args.world_size
        if fillers := -len(rows) % (config.per_device_train_batch_size * world) if world > 1 else 0:
            trainer.train_dataset = sampler.FilledRows(rows, fillers)
            trainer.data_collator = sampler.without_fillers(trainer.data_collator)
        if rank := trainer.args.process_index:
            set_seed(trainer.args.seed + rank)  # of dropout
        return trainer

    def findings(self, curve: Curve, prepared: "Prepared") -> dict[str, Any]:
        """Return how many tokens of a sample are learnt, on average.

        Args:
            curve: of the training.
            prepared: what it was trained with.
        """
        return {"trained_tokens_per_sample": prepared.lengths.target}


def _as_asked(collate: Callable[[list[Any]], Any], processor: Any) -> Callable[[list[Any]], Any]:
    """Return a collator whose samples are rendered as they are asked: see `chat.render_answered`."""
    from vltaxon import chat

    def rendered(row: Mapping[str, Any]) -> dict[str, Any]:
        prompt, completion = chat.render_answered(processor, row["prompt"], row["completion"])
        return {"prompt": prompt, "completion": completion, "image": row["image"]}

    return lambda rows: collate(list(map(rendered, rows)))


def _learnt(batch: Mapping[str, Any]) -> tuple[list[int], list[int]]:
    """Return the tokens of a sample before the first that is learnt, and those that are, to the first gap."""
    there = batch["attention_mask"][0].bool()
    ids, labels = (batch[name][0][there].tolist() for name in ("input_ids", "labels"))
    start = next((at for at, label in enumerate(labels) if label != -100), len(ids))
    end = next((at for at in range(start, len(ids)) if labels[at] == -100), len(ids))
    return ids[:start], ids[start:end]
