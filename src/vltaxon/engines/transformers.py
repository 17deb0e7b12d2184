"""Engine transformers: a checkpoint that the job itself loads, by `from_pretrained`."""

import re
from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self

from pydantic import (
    Field,
    FiniteFloat,
    PositiveInt,
    StrictBool,
    StrictInt,
    StrictStr,
    field_validator,
    model_validator,
)

from vltaxon.config.base import HOW, MOVING
from vltaxon.config.models import GenerativeSpec
from vltaxon.layout import ADAPTER_CONFIG

# of a chat template, filled by whoever renders it
_GIVEN = ("messages", "tools", "documents", "add_generation_prompt", "continue_final_message")


class Vlm(GenerativeSpec):
    """A generative model, loaded by `from_pretrained`."""

    source: ClassVar[str] = "vltaxon.inference.local_model"
    restrainable: ClassVar[bool] = True
    trainable: ClassVar[bool] = True

    engine: Literal["transformers"]
    checkpoint: str = Field(description="Local folder, or hub id.", examples=["Qwen/Qwen2.5-VL-7B-Instruct"])
    revision: str | None = Field(
        None,
        description="Commit of the hub repository, 40 hex digits; required for a hub id. `main`, where no "
        "commit is known, is looked up when the model is loaded, and its commit of that moment is stamped on "
        "all that comes of it.",
    )
    adapter: Path | None = Field(
        None,
        description="Folder of a LoRA in PEFT's format (as PEFT, ms-swift or LLaMA-Factory write it), merged "
        "into these weights; a recipe goes on from both.",
    )
    dtype: Literal["float32", "bfloat16", "float16"] = "bfloat16"
    template: dict[str, StrictBool | StrictInt | FiniteFloat | StrictStr] = Field(
        default_factory=dict,
        description="Values of variables of its chat template, in training and inference alike: "
        "`enable_thinking: false`.",
    )
    batch_size: Annotated[PositiveInt, HOW] = Field(32, description="Requests generated together, at most.")
    batch_tokens: Annotated[PositiveInt, HOW] = Field(
        65_536, description="Tokens of these together, at most; prompts, images and new ones."
    )
    threads: Annotated[PositiveInt, HOW] = Field(
        8, description="CPU cores of a job that runs or trains it, at most those of Snakemake."
    )
    gpus: Annotated[PositiveInt, HOW] = Field(1, description="Devices that hold its weights.")
    train_gpus: Annotated[PositiveInt | None, HOW] = Field(
        None,
        description="Devices that train it, a process on each, where several share the work; else one "
        "process on `gpus`.",
    )
    distributed: Annotated[Literal["ddp", "fsdp"], HOW] = Field(
        "ddp",
        description="What these processes hold: all weights each, or a share. Its file is in "
        "config/accelerate.",
    )
    memory: Annotated[PositiveInt, HOW] = Field(
        32, description="GB of main memory of a job that runs or trains it, asked of a cluster."
    )

    @property
    def processes(self) -> int:
        """Return the processes of a training job."""
        return self.train_gpus or 1

    @property
    def devices(self) -> int:
        """Return how many devices hold the weights."""
        return self.gpus

    @property
    def memory_mb(self) -> int:
        """Return the MB of main memory of a job that runs or trains it."""
        return 1000 * self.memory

    @property
    def asking_threads(self) -> int:
        """Return the CPU cores of a job that asks it."""
        return self.threads

    @property
    def together(self) -> int:
        """Return how many requests are generated together, at most."""
        return self.batch_size

    @property
    def shares_images(self) -> bool:
        """Return True: see `inference.shared_prefix`."""
        return True

    def files(self) -> tuple[Path, ...]:
        """Return the local files of its weights, and of the adapter that is merged into them."""
        suffixes = (".json", ".safetensors", ".jinja")
        roots = [root for root in (Path(self.checkpoint), self.adapter) if root is not None and root.is_dir()]
        return tuple(path for root in roots for path in sorted(root.iterdir()) if path.suffix in suffixes)

    @field_validator("template")
    @classmethod
    def _free(cls, value: dict[str, bool | int | float | str]) -> dict[str, bool | int | float | str]:
        for name in value:
            if not name.isidentifier() or name in _GIVEN:
                raise ValueError(
                    f'template: "{name}" is no variable that a file may set, as enable_thinking is'
                )
        return value

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.processes > 1 and self.gpus > 1 and self.distributed == "ddp":
            raise ValueError(
                f"train_gpus: with ddp each of {self.train_gpus} devices holds all weights, which take "
                f"{self.gpus} (`gpus`); distributed: fsdp gives each a share"
            )
        return self

    @model_validator(mode="after")
    def _adapts(self) -> Self:
        if self.adapter is not None and not (self.adapter / ADAPTER_CONFIG).is_file():
            raise ValueError(
                f'adapter: "{self.adapter}" is no folder with {ADAPTER_CONFIG}; a LoRA of a hub is '
                "downloaded first (hf download ID --revision COMMIT --local-dir FOLDER)"
            )
        return self

    @model_validator(mode="after")
    def _pinned(self) -> Self:
        if not Path(self.checkpoint).is_dir() and not self.revision:
            raise ValueError(f'"{self.checkpoint}" is no local folder, and a hub id needs a revision')
        if self.revision and self.revision != MOVING and not re.fullmatch(r"[0-9a-f]{40}", self.revision):
            raise ValueError(
                f'revision: "{self.revision}" is no commit (40 hex digits). Branches and tags move; give the '
                "commit, or "
                f'"{MOVING}" where none is known'
            )
        return self
