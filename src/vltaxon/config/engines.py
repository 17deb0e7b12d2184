"""The engines that there are, each a file of engines, and what a model file of each may say."""

from functools import reduce
from operator import or_
from typing import TYPE_CHECKING, Annotated, TypeAlias

from pydantic import Field

from vltaxon.config.base import Closed
from vltaxon.config.models import ModelSpec
from vltaxon.config.protocols import Protocol
from vltaxon.plugins import find_plugins

SPECS: dict[str, type[ModelSpec]] = {
    name: spec
    for name, module in find_plugins("vltaxon.engines").items()
    for spec in vars(module).values()
    if isinstance(spec, type) and issubclass(spec, ModelSpec) and spec.__module__ == module.__name__
}

if TYPE_CHECKING:
    Spec: TypeAlias = ModelSpec
else:
    Spec = Annotated[reduce(or_, SPECS.values()), Field(discriminator="engine")]


class Model(Closed):
    """A model file: what is loaded, and by which engine."""

    spec: Spec


def engines_for(protocol: Protocol) -> set[str]:
    """Return the engines whose models can follow a protocol."""
    by = {stage.by for stage in protocol.stages}
    held = any(stage.constrained or stage.read == "letters" for stage in protocol.stages)
    return {name for name, spec in SPECS.items() if by <= spec.answers and (spec.restrainable or not held)}
