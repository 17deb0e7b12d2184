"""Readers of raw data: each a file of a folder, with what the config and ingest ask of it."""

import shutil
import sys
from pathlib import Path

import pytest

import vltaxon
from vltaxon import code_versions
from vltaxon.config.datasets import Dataset, Split, readers
from vltaxon.data import sources
from vltaxon.plugins import find_plugins
from vltaxon.tasks.data import IngestTask

WORDS = {"word": "plant", "questions": "inat21", "licence": "-", "scored_levels": (1,), "ranks": ("species",)}


def _collection(source: str) -> Dataset:
    return Dataset(source=source, test=Split(table=Path("t.csv")), **WORDS)


@pytest.mark.parametrize("name", readers())
def test_a_reader_has_what_is_asked_of_it(name: str) -> None:
    reader = readers()[name]
    assert reader.TAKES in Split.model_fields
    assert set(reader.NEEDS) <= set(Dataset.model_fields)
    assert all(callable(getattr(reader, function)) for function in ("check", "tables", "read"))


def test_a_new_file_is_a_new_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r'"folders" is not one of cub200, folder, .*Did you mean "folder"'):
        _collection("folders")
    shutil.copy(Path(sources.__file__).with_name("folder.py"), tmp_path / "folders.py")
    monkeypatch.setattr(sources, "__path__", [*sources.__path__, str(tmp_path)])
    find_plugins.cache_clear()
    try:
        assert _collection("folders").reader.__file__ == str(tmp_path / "folders.py")
    finally:
        find_plugins.cache_clear()
        sys.modules.pop("vltaxon.data.sources.folders", None)


def test_the_code_of_a_reader_reads_its_own_data_sets_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = shutil.copytree(
        Path(vltaxon.__file__).parent,
        tmp_path / "vltaxon",
        ignore=shutil.ignore_patterns("*.safetensors", "__pycache__"),
    )
    monkeypatch.setattr(code_versions.vltaxon, "__file__", str(package / "__init__.py"))
    paths = {name: Path(name) for name in ("archives", "taxa", "images", "rejected")}
    lists = {name: () for name in ("tars", "indexes", "tables")}

    def code() -> str:
        code_versions.code_version.cache_clear()
        code_versions._module.cache_clear()
        task = IngestTask(dataset=_collection("folder").raw, seed=0, **lists, **paths)
        return str(task.shaping()["code"])

    try:
        before = code()
        with (package / "data" / "sources" / "inat21.py").open("a") as file:
            file.write("MORE = 1\n")
        assert code() == before
        with (package / "data" / "sources" / "folder.py").open("a") as file:
            file.write("MORE = 1\n")
        assert code() != before
    finally:
        code_versions.code_version.cache_clear()
        code_versions._module.cache_clear()
