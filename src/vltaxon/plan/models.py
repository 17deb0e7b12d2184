"""What the plan knows of models: their files, and the devices and memory of a job that runs or trains one."""

from pathlib import Path

from vltaxon.config import Chance, Clip, Endpoint, Experiment, Vlm

Spec = Vlm | Endpoint | Clip | Chance
MEMORY = 2  # GB of a job without a model of ours


class Models:
    """The models of an experiment."""

    def __init__(self, experiment: Experiment) -> None:
        self._specs = experiment.models

    def __getitem__(self, name: str) -> Spec:
        return self._specs[name]

    def vlm(self, name: str) -> Vlm:
        """Return the model whose weights a model has, which a job loads, trains or serves."""
        spec = self._specs[self.base(name)]
        if not isinstance(spec, Vlm):
            raise TypeError(f"{name} has no weights of ours")  # the config is checked for that
        return spec

    def clip(self, name: str) -> Clip:
        """Return a dual encoder."""
        spec = self._specs[name]
        if not isinstance(spec, Clip):
            raise TypeError(f"{name} is no dual encoder")  # the config is checked for that
        return spec

    def base(self, name: str) -> str:
        """Return the model whose weights a model has: what a server of ours serves, else itself."""
        spec = self._specs[name]
        return spec.managed.model if isinstance(spec, Endpoint) and spec.managed is not None else name

    def generators(self) -> dict[str, Vlm]:
        """Return every model of ours that generates, by name."""
        return {name: spec for name, spec in self._specs.items() if isinstance(spec, Vlm)}

    def files(self, name: str) -> tuple[Path, ...]:
        """Return the local files of a model; none for one of a hub or behind a url."""
        spec = self._specs[self.base(name)]
        if isinstance(spec, Clip):
            folder = spec.name.removeprefix("local-dir:") if spec.name.startswith("local-dir:") else ""
            both = ("open_clip_config.json", "open_clip_model.safetensors")
            return tuple(Path(folder, file) for file in both) if folder else ()
        if isinstance(spec, Vlm) and (root := Path(spec.checkpoint)).is_dir():
            suffixes = (".json", ".safetensors", ".jinja")
            return tuple(sorted(path for path in root.iterdir() if path.suffix in suffixes))
        return ()

    def gpus(self, name: str) -> int:
        """Return how many devices hold a model's weights: none of one behind a url, those of all servers of ours."""
        spec = self._specs[name]
        if isinstance(spec, Endpoint):
            return spec.managed.replicas * self.gpus(spec.managed.model) if spec.managed is not None else 0
        return spec.gpus if isinstance(spec, Vlm) else 1

    def train_gpus(self, name: str) -> int:
        """Return the devices of a training job: one a process, or those that hold the weights of one."""
        spec = self.vlm(name)
        return spec.processes if spec.processes > 1 else spec.gpus

    def memory(self, name: str) -> int:
        """Return the MB of main memory of a job that runs or trains a model."""
        spec = self._specs[name]
        if isinstance(spec, Endpoint) and spec.managed is not None:
            return spec.managed.replicas * self.memory(spec.managed.model)
        return 1000 * (spec.memory if isinstance(spec, Vlm | Clip) else MEMORY)
