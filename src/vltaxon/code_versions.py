"""Versions of code, so that an edit runs again what it can change.

Snakemake does not see edits in imported modules.
"""

import ast
import functools
import re
from collections.abc import Iterator
from pathlib import Path

import vltaxon
from vltaxon.provenance import digest_text
from vltaxon.versions import VERSIONS

# Modules and packages whose code cannot change a result: values reach a job by `params`, and the others only
# report or stamp things.
_NO_RESULTS = (
    *("code_versions", "config", "devices", "errors", "layout", "logs"),
    *("plan", "plugins", "processes", "provenance", "roundtrip", "tasks", "versions"),
)
_SCHEMAS = "vltaxon.schemas"


def _bare(tree: ast.AST) -> str:
    """Dump a syntax tree without docstrings, so that words do not count as code."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0] if node.body else None
            if (
                isinstance(first, ast.Expr)
                and isinstance(first.value, ast.Constant)
                and isinstance(first.value.value, str)
            ):
                node.body = node.body[1:] or [ast.Pass()]
    return ast.dump(tree)


def _imports(tree: ast.AST) -> set[str]:
    """Return the modules of ours that a module imports, or names in a text to find them by.

    The name of a package, as `find_plugins` takes it, stands for all its modules. What is imported for types
    alone does not count, nor do the names of versions.
    """
    names: set[str] = set()
    for node in _run(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value not in VERSIONS:
            named = re.findall(r"^vltaxon(?:\.\w+)+$", node.value)
            names |= set(named).union(*map(_modules, named))
    return {name for name in names if name.startswith("vltaxon.") and name.split(".")[1] not in _NO_RESULTS}


def _run(tree: ast.AST) -> Iterator[ast.AST]:
    """Yield all nodes but those below `if TYPE_CHECKING:`, which never run."""
    for node in ast.iter_child_nodes(tree):
        test = node.test if isinstance(node, ast.If) else None
        if not (isinstance(test, ast.Name) and test.id == "TYPE_CHECKING"):
            yield node
            yield from _run(node)


def _modules(package: str) -> set[str]:
    """Return the names of a package's modules; none of a name that is no package."""
    init = _source(package)
    if init is None or init.name != "__init__.py":
        return set()
    return {f"{package}.{path.stem}" for path in init.parent.glob("*.py") if path.stem != "__init__"}


def _source(name: str) -> Path | None:
    """Return the file of a module, None where the name is not a module (an attribute, say)."""
    stem = Path(vltaxon.__file__).parent.joinpath(*name.split(".")[1:])
    path = stem / "__init__.py" if stem.is_dir() else stem.with_suffix(".py")
    return path if path.exists() else None


@functools.cache
def _module(name: str) -> tuple[str, frozenset[str], frozenset[str]] | None:
    """Return a module's dumped tree, imports and named schemas, None where there is no such module."""
    if (path := _source(name)) is None:
        return None
    tree = ast.parse(path.read_text(encoding="utf-8"))
    named = {
        n.attr
        for n in ast.walk(tree)
        if isinstance(n, ast.Attribute)
        and "schemas" in (getattr(n.value, "id", ""), getattr(n.value, "attr", ""))
    }
    return _bare(tree), frozenset(_imports(tree)), frozenset(named)


def _schemas(named: set[str]) -> str:
    """Dump schemas.py with the tables that are named, and what they name, without all others."""
    path = _source(_SCHEMAS)
    assert path is not None, "a module imports it"
    tree = ast.parse(path.read_text(encoding="utf-8"))
    statements: list[ast.stmt] = []
    # A table that names another comes before that one, so that the other is known to be named.
    for node in sorted(reversed(tree.body), key=lambda node: isinstance(node, ast.Assign)):
        target = node.targets[0] if isinstance(node, ast.Assign) else None
        if isinstance(target, ast.Name) and target.id.isupper() and target.id not in named:
            continue
        named = named | {name.id for name in ast.walk(node) if isinstance(name, ast.Name)}
        statements.append(node)
    tree.body = statements
    return _bare(tree)


def counted_modules(name: str) -> dict[str, str]:
    """Return the code that counts for a module: its own, and that of all modules of ours that it imports.

    Raises:
        ValueError: there is no such module.
    """
    code: dict[str, str] = {}
    named: set[str] = set()
    queue = [name]
    while queue:
        current = queue.pop()
        if current in code or (module := _module(current)) is None:
            continue
        code[current], own, schemas = module
        queue.extend(own)
        named |= schemas
    if name not in code:
        raise ValueError(f"{name}: no such module")
    return code | ({_SCHEMAS: _schemas(named)} if _SCHEMAS in code else {})


@functools.cache
def code_version(name: str) -> str:
    """Return the hash of a module's code and of all modules of ours that it imports, however deep.

    Comments and docstrings are left out. Snakemake does not see edits in imported modules; a rule carries
    this in its `params` instead. Of the schemas only those count that the code names, or a new column of the
    scores would train all adapters anew.

    Raises:
        ValueError: there is no such module.
    """
    code = counted_modules(name)
    return digest_text(*(f"{key}\n{code[key]}" for key in sorted(code)))
