"""The order of SFT samples: the same whatever the number of devices, and after any interruption."""

from collections.abc import Iterator
from typing import Any


class EpochSampler:
    """All samples, shuffled anew each epoch by seed and epoch alone, and then the fillers.

    The epoch is read off the trainer's position. (accelerate's own sampler counts epochs itself, and counts
    from 0 again where several processes go on from a checkpoint.) Which samples an effective batch has does
    not depend on the number of
    processes: accelerate deals the batches out in turn.
    """

    def __init__(self, trainer: Any, samples: int, fillers: int) -> None:
        self.trainer, self.samples, self.fillers = trainer, samples, fillers

    def __len__(self) -> int:
        return self.samples + self.fillers

    def __iter__(self) -> Iterator[int]:
        import torch

        args = self.trainer.args
        of_batch = args.per_device_train_batch_size * args.gradient_accumulation_steps * args.world_size
        epoch = self.trainer.state.global_step // -(-self.samples // of_batch)
        yield from torch.randperm(
            self.samples, generator=torch.Generator().manual_seed(args.data_seed + epoch)
        ).tolist()
        yield from range(self.samples, len(self))


class FilledRows:
    """Rows, and after them fillers, which stand for none: so every process has as many and as full batches.

    accelerate would take samples a second time for that, and the last batch of an epoch would depend on the
    number of devices.
    """

    def __init__(self, rows: Any, fillers: int) -> None:
        self.rows, self.fillers = rows, fillers

    def __len__(self) -> int:
        return len(self.rows) + self.fillers

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {**self.rows[index % len(self.rows)], "filler": index >= len(self.rows)}


def without_fillers(collate: Any) -> Any:
    """Return a collator that labels no token of a filler, so that none counts in the loss."""

    def collate_filled(rows: list[dict[str, Any]]) -> Any:
        batch = collate(rows)
        batch["labels"][[row["filler"] for row in rows]] = -100
        return batch

    return collate_filled
