"""Batch arithmetic of a training step, free of torch so that the config can be checked with it."""

from collections.abc import Sequence

from vltaxon.errors import UserError

WORLDS = (1, 2, 4, 8)


def legal_batches(batch_size: int, worlds: Sequence[int] = WORLDS) -> dict[int, list[int]]:
    """Return the `device_batch_size` values that fill `batch_size` in whole steps, per number of devices.

    Args:
        batch_size: samples or completions of one optimiser step.
        worlds: numbers of devices to look at.
    """
    return {
        world: [n for n in range(1, batch_size // world + 1) if batch_size % (n * world) == 0]
        for world in worlds
    }


def legal_groups(batch_size: int) -> list[int]:
    """Return the group sizes that divide a batch of completions."""
    return [n for n in range(2, batch_size + 1) if batch_size % n == 0]


def accumulation(batch_size: int, device_batch_size: int, world: int, group_size: int | None = None) -> int:
    """Return the accumulation steps that make `batch_size` of `device_batch_size` on `world` devices.

    Args:
        batch_size: samples, or completions where these are generated, of one optimiser step, all devices.
        device_batch_size: of these, how many at once on one device.
        world: number of devices.
        group_size: completions per prompt; None where none are generated.

    Raises:
        UserError: the numbers do not divide, with those that do for 1, 2, 4 and 8 devices.
    """
    if group_size is not None and (group_size < 2 or batch_size % group_size):
        raise UserError(
            f"group_size {group_size} does not fit batch_size {batch_size}: a group holds at least 2 "
            "completions and a batch holds whole groups. Legal group sizes: "
            f"{_listed(legal_groups(batch_size))}."
        )
    if batch_size % (device_batch_size * world):
        legal = legal_batches(batch_size, sorted({*WORLDS, world}))
        table = "\n".join(f"  {n} device{'s' * (n > 1)}: {_listed(sizes)}" for n, sizes in legal.items())
        raise UserError(
            f"device_batch_size {device_batch_size} on {world} device{'s' * (world > 1)} does not divide "
            f"batch_size {batch_size}. Legal values of device_batch_size:\n{table}"
        )
    return batch_size // (device_batch_size * world)


def _listed(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers)) or "none; change batch_size"
