"""Plugins: data sources, engines, objectives and rewards, each one file of its folder.

A new one is a new file; nothing lists them. They are found by looking into the folder, so the code that uses
them imports none of them by name.
"""

import functools
import importlib
import pkgutil
from collections.abc import Mapping
from types import ModuleType


@functools.cache
def find_plugins(package: str) -> Mapping[str, ModuleType]:
    """Import every module of a package, by its name, in the order of the names.

    Call it with the package's name written out: `code_versions` reads it there and counts the code of all its
    modules.
    """
    folder = importlib.import_module(package).__path__
    names = sorted(module.name for module in pkgutil.iter_modules(folder))
    return {name: importlib.import_module(f"{package}.{name}") for name in names}
