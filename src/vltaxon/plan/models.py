"""The models of a plan: their files, and the devices and memory of a job that runs or trains one."""

from pathlib import Path

from vltaxon.config.experiment import Experiment
from vltaxon.config.models import GenerativeSpec, ModelSpec
from vltaxon.engines.transformers import Vlm
from vltaxon.engines.zero_shot import Clip


class Models:
    """The models of an experiment, by name.

    A model of the wrong kind raises a `TypeError`. It is a defect of ours, since the config is checked.
    """

    def __init__(self, experiment: Experiment) -> None:
        self._specs = experiment.models

    def __getitem__(self, name: str) -> ModelSpec:
        return self._specs[name]

    def vlm(self, name: str) -> Vlm:
        """Return the model whose weights a model has, which a job loads, trains or serves.

        Raises:
            TypeError: it has no weights of ours.
        """
        spec = self._specs[self.base(name)]
        if not isinstance(spec, Vlm):
            raise TypeError(f"{name} has no weights of ours")
        return spec

    def clip(self, name: str) -> Clip:
        """Return a dual encoder.

        Raises:
            TypeError: the model is none.
        """
        spec = self._specs[name]
        if not isinstance(spec, Clip):
            raise TypeError(f"{name} is no dual encoder")
        return spec

    def generative(self, name: str) -> GenerativeSpec:
        """Return a model that writes text, as its file has it.

        Raises:
            TypeError: the model writes none.
        """
        spec = self._specs[name]
        if not isinstance(spec, GenerativeSpec):
            raise TypeError(f"{name} writes no text")
        return spec

    def asked(self, name: str) -> GenerativeSpec:
        """Return a model that writes text, capped as the model that it serves, if its own file has no cap."""
        spec, served = self.generative(name), self.served(name)
        if served is None or spec.max_new_tokens is not None:
            return spec
        return spec.model_copy(update={"max_new_tokens": served.max_new_tokens})

    def served(self, name: str) -> Vlm | None:
        """Return the model whose weights a server of ours serves, None for any other model."""
        return self.vlm(name) if self._specs[name].serves is not None else None

    def base(self, name: str) -> str:
        """Return the model whose weights a model has: what a server of ours serves, else itself."""
        return self._specs[name].serves or name

    def generators(self) -> dict[str, Vlm]:
        """Return every model of ours that generates, by name."""
        return {name: spec for name, spec in self._specs.items() if isinstance(spec, Vlm)}

    def encoders(self) -> set[str]:
        """Return the names of the dual encoders."""
        return {name for name, spec in self._specs.items() if isinstance(spec, Clip)}

    def files(self, name: str) -> tuple[Path, ...]:
        """Return the local files of a model; none for one of a hub or behind a url."""
        return self._specs[self.base(name)].files()

    def gpus(self, name: str) -> int:
        """Return how many devices of a job hold a model's weights: 0 behind a url."""
        return self._specs[name].copies * self._specs[self.base(name)].devices

    def train_gpus(self, name: str) -> int:
        """Return the devices of a training job: one a process, or those that hold the weights of one."""
        spec = self.vlm(name)
        return spec.processes if spec.processes > 1 else spec.gpus

    def memory(self, name: str) -> int:
        """Return the MB of main memory of a job that runs or trains a model."""
        return self._specs[name].copies * self._specs[self.base(name)].memory_mb
