"""Engine zero_shot: a dual encoder, which answers by the similarity of an image to the options' texts.

It is asked nothing: what it has embedded is compared (see `stages.similarity`).
"""

from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, PositiveInt, model_validator

from vltaxon.config.base import HOW, Commit
from vltaxon.config.models import ModelSpec


class Clip(ModelSpec):
    """A dual encoder of open_clip: mines distractors and answers zero-shot."""

    answers: ClassVar[frozenset[str]] = frozenset({"similarity"})
    encodes: ClassVar[bool] = True

    engine: Literal["zero_shot"]
    name: str = Field(
        description="open_clip name, hf-hub:OWNER/REPOSITORY or local-dir:FOLDER.",
        examples=["hf-hub:imageomics/bioclip-2"],
    )
    pretrained: str | None = Field(
        None, description="open_clip tag of the weights; none for hf-hub: and local-dir: names."
    )
    revision: Commit | None = Field(
        None, description="Commit of the hub repository; required for hf-hub: names, else none."
    )
    template: str = Field("a photo of a {}.", description="Text of a label; {} is the taxon.")
    case: Literal["keep", "lower"] = "keep"
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    batch_size: Annotated[PositiveInt, HOW] = 64
    threads: Annotated[PositiveInt, HOW] = Field(
        8, description="CPU cores of a job that embeds with it: images made ready at once."
    )
    memory: Annotated[PositiveInt, HOW] = Field(
        16, description="GB of main memory of a job that runs it, asked of a cluster."
    )

    @property
    def memory_mb(self) -> int:
        """Return the MB of main memory of a job that runs it."""
        return 1000 * self.memory

    @property
    def together(self) -> int:
        """Return how many images are embedded together."""
        return self.batch_size

    def files(self) -> tuple[Path, ...]:
        """Return the local files of its weights, and of its tokenizer where the folder has one."""
        if not self.name.startswith("local-dir:"):
            return ()
        folder = Path(self.name.removeprefix("local-dir:"))
        fixed = folder / "open_clip_config.json", folder / "open_clip_model.safetensors"
        return *fixed, *sorted(folder.glob("tokenizer*.json"))

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.template.count("{}") != 1:
            raise ValueError('template: must hold "{}" once')
        if self.name.startswith("hf-hub:") and not self.revision:
            raise ValueError(f'"{self.name}" is a hub id, which needs a revision')
        if self.revision and not self.name.startswith("hf-hub:"):
            raise ValueError(
                f'revision: open_clip has none for "{self.name}", only for hf-hub:OWNER/REPOSITORY'
            )
        if self.pretrained and self.name.startswith(("hf-hub:", "local-dir:")):
            raise ValueError(f'pretrained: "{self.name}" brings its own weights')
        return self
