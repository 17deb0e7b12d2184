import pytest

from vltaxon.batches import accumulation, legal_batches, legal_groups
from vltaxon.errors import UserError


def test_legal_batches_per_number_of_devices() -> None:
    assert legal_batches(12) == {1: [1, 2, 3, 4, 6, 12], 2: [1, 2, 3, 6], 4: [1, 3], 8: []}


def test_legal_groups() -> None:
    assert legal_groups(12) == [2, 3, 4, 6, 12]


@pytest.mark.parametrize(
    ("batch", "device", "world", "group", "steps"),
    [(128, 8, 1, None, 16), (128, 16, 4, 8, 2), (8, 4, 2, 8, 1)],
)
def test_accumulation(batch: int, device: int, world: int, group: int | None, steps: int) -> None:
    assert accumulation(batch, device, world, group) == steps


@pytest.mark.parametrize(
    ("batch", "device", "world", "group", "words"),
    [
        (
            12,
            8,
            1,
            None,
            r"(?s)device_batch_size 8 on 1 device does not divide.*1 device: 1, 2, 3, 4, 6, 12.*8 devices: none",
        ),
        (12, 6, 4, None, r"(?s)6 on 4 devices.*4 devices: 1, 3"),
        (12, 4, 3, None, None),
        (15, 1, 2, None, r"2 devices: none; change batch_size"),
        (12, 4, 1, 8, "Legal group sizes: 2, 3, 4, 6, 12"),
        (12, 4, 1, 1, "at least 2 completions"),
    ],
)
def test_illegal(batch: int, device: int, world: int, group: int | None, words: str | None) -> None:
    if words is None:
        assert accumulation(batch, device, world, group) == 1
        return
    with pytest.raises(UserError, match=words):
        accumulation(batch, device, world, group)


@pytest.mark.parametrize("group", [2, 4, 8])
def test_trl_takes_what_we_call_legal(group: int) -> None:
    for device in legal_batches(16)[1]:
        assert trl_batch(device, accumulation(16, device, 1, group), group) == 16


def test_trl_refuses_what_we_refuse() -> None:
    with pytest.raises(ValueError, match="must be divisible by num_generations"):
        trl_batch(8, 2, 3)
    with pytest.raises(UserError):
        accumulation(16, 8, 1, 3)


def trl_batch(device: int, steps: int, group: int) -> int | None:
    from trl import GRPOConfig

    sizes = {
        "per_device_train_batch_size": device,
        "gradient_accumulation_steps": steps,
        "num_generations": group,
    }
    return GRPOConfig(output_dir="unused", use_cpu=True, bf16=False, **sizes).generation_batch_size
