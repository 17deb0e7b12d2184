from pathlib import Path

import pytest

from vltaxon import checkpoint as module
from vltaxon.config import Vlm
from vltaxon.errors import UserError


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_load_in_the_dtype_of_the_model_file(vlm: Vlm, dtype: str) -> None:
    import torch

    _, weights = module.load(vlm.model_copy(update={"dtype": dtype}))
    assert {parameter.dtype for parameter in weights.parameters()} == {getattr(torch, dtype)}


def test_load_of_a_folder_that_is_no_checkpoint(vlm: Vlm, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not loadable"):
        module.load(vlm.model_copy(update={"checkpoint": str(tmp_path)}))


def test_digest_is_of_the_content_or_of_the_pinned_revision(vlm: Vlm, tmp_path: Path) -> None:
    assert module.digest(vlm.model_copy(update={"checkpoint": "org/model", "revision": "abc"})) == "org/model@abc"
    (tmp_path / "weights").write_text("1")
    local = vlm.model_copy(update={"checkpoint": str(tmp_path)})
    before = module.digest(local)
    (tmp_path / "weights").write_text("2")
    assert module.digest(local) != before
