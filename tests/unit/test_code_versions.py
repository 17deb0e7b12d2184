"""Versions of code: what an edit must run again, and what it must not."""

from pathlib import Path

import pytest

from vltaxon import code_versions


def test_code_version_sees_code_not_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "vltaxon"
    package.mkdir()
    (package / "__init__.py").write_text("")
    deep, top = package / "deep.py", package / "top.py"
    top.write_text("from vltaxon.deep import f\n")
    deep.write_text('"""Words."""\ndef f(x):\n    return x + 1\n')
    monkeypatch.setattr(code_versions.vltaxon, "__file__", str(package / "__init__.py"))

    def version() -> str:
        code_versions.code_version.cache_clear()
        code_versions._module.cache_clear()
        return code_versions.code_version("vltaxon.top")

    try:
        before = version()
        deep.write_text(
            '"""Other words."""\n# a comment\ndef f(x):\n    """What it does."""\n    return x + 1\n'
        )
        assert version() == before
        deep.write_text("def f(x):\n    return x + 2\n")
        assert version() != before
    finally:
        code_versions.code_version.cache_clear()
        code_versions._module.cache_clear()


def test_code_version_counts_the_schemas_that_are_named_and_what_these_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "vltaxon"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "top.py").write_text("from vltaxon import deep\n")
    (package / "deep.py").write_text(
        "from vltaxon import schemas\ndef f():\n    return schemas.LONG, schemas.wide(3)\n"
    )
    tables = {"HEAD": "(1,)", "LONG": "(*HEAD, 2)", "SCORES": "(3,)", "WIDE": "(4,)"}
    monkeypatch.setattr(code_versions.vltaxon, "__file__", str(package / "__init__.py"))

    def version(**edits: str) -> str:
        lines = [f"{name} = {value}" for name, value in (tables | edits).items()]
        (package / "schemas.py").write_text("\n".join(["def wide(n):\n    return (*WIDE, n)", *lines]))
        code_versions.code_version.cache_clear()
        code_versions._module.cache_clear()
        return code_versions.code_version("vltaxon.top")

    try:
        before = version()
        assert version(SCORES="(5,)") == before
        assert len({before, version(HEAD="(5,)"), version(LONG="(*HEAD, 5)"), version(WIDE="(5,)")}) == 4
    finally:
        code_versions.code_version.cache_clear()
        code_versions._module.cache_clear()


def test_code_version_counts_plugins_which_nobody_imports(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "vltaxon"
    (package / "kinds").mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "kinds" / "__init__.py").write_text("")
    (package / "top.py").write_text(
        'from vltaxon import plugins\nKINDS = plugins.find_plugins("vltaxon.kinds")\n'
    )
    (package / "kinds" / "one.py").write_text("A = 1\n")
    monkeypatch.setattr(code_versions.vltaxon, "__file__", str(package / "__init__.py"))

    def version() -> str:
        code_versions.code_version.cache_clear()
        code_versions._module.cache_clear()
        return code_versions.code_version("vltaxon.top")

    try:
        before = version()
        (package / "kinds" / "one.py").write_text("A = 2\n")
        edited = version()
        (package / "kinds" / "two.py").write_text("B = 1\n")
        assert len({before, edited, version()}) == 3
    finally:
        code_versions.code_version.cache_clear()
        code_versions._module.cache_clear()


def test_schemas_are_called_so_wherever_they_are_used() -> None:
    """Their names are what code_version looks for."""
    source = "\n".join(path.read_text() for path in Path(code_versions.__file__).parent.rglob("*.py"))
    assert "schemas as" not in source and "vltaxon.schemas import" not in source


def test_code_version_of_a_name_that_is_no_module() -> None:
    with pytest.raises(ValueError, match="no such module"):
        code_versions.code_version("vltaxon.nothing")


@pytest.mark.parametrize(
    ("module", "counted"),
    [
        (
            "vltaxon.train.step",
            {"train.objectives.grpo", "train.objectives.sft", "train.rewards.accuracy", "train.guards"},
        ),
        (
            "vltaxon.inference.run",
            {"inference.endpoint", "inference.local_model", "inference.shared_prefix", "engines.server"},
        ),
        ("vltaxon.encoders.embedding", {"encoders.towers"}),
    ],
)
def test_what_computes_counts_however_it_is_found(module: str, counted: set[str]) -> None:
    """An edit there must ask for a decision about the number in versions.py."""
    assert {f"vltaxon.{name}" for name in counted} <= code_versions.counted_modules(module).keys()
