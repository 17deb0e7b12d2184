"""What all files of config/models have in common, whatever the engine that runs the model.

Each engine is a file of engines, which declares what else a model file of it may say (see
`config.engines`).
"""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Self

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, model_validator

from vltaxon.config.base import HOW, Closed

if TYPE_CHECKING:
    from vltaxon.config.protocols import Protocol

VISUAL_TOKEN = 28 * 28  # pixels of a visual token of Qwen2.5-VL; other families differ by small factors
MEMORY_MB = 2000  # main memory of a job without a model of ours


class Speed(Closed):
    """What one device does with a model, for the estimate of costs before any answer was timed."""

    prompt: PositiveFloat = Field(
        description="Prompt tokens a second, image tokens among them.", examples=[8000]
    )
    new: PositiveFloat = Field(
        description="New tokens a second, all requests of a batch together.", examples=[1200]
    )
    train: PositiveFloat = Field(description="Tokens a second, forward and backward.", examples=[4000])
    source: str = Field(description="Where the figures come from.", examples=["benchmarks/gpu.py"])


class Price(Closed):
    """What an endpoint bills for a million tokens, in any one currency."""

    input: NonNegativeFloat = Field(description="Prompt tokens, image tokens among them.", examples=[2.5])
    output: NonNegativeFloat = Field(description="Completion tokens.", examples=[10])
    cached: NonNegativeFloat | None = Field(
        None, description="Prompt tokens found in a cache; as input where absent."
    )


class ModelSpec(Closed):
    """A model file: what is loaded or asked, by which engine, and what a job needs for it."""

    source: ClassVar[str] = ""  # module of the function `source`, where it is not the engine's own file
    answers: ClassVar[frozenset[str]] = frozenset()  # the stages that it can answer, by their `by`
    restrainable: ClassVar[bool] = False  # can be held to given texts, and tells how likely a letter is
    trainable: ClassVar[bool] = False  # its weights are a checkpoint, which adapters are trained for
    encodes: ClassVar[bool] = False  # gives images and texts vectors of one space

    engine: str
    description: Annotated[str, HOW] = ""
    licence: Annotated[str, HOW] = Field(examples=["Apache-2.0"])

    @property
    def serves(self) -> str | None:
        """Return the model whose weights it serves; None where they are its own, or not ours."""
        return None

    @property
    def serves_merged(self) -> bool:
        """Return whether an adapter is served merged into these weights, as a checkpoint of its own."""
        return False

    @property
    def untrained(self) -> str | None:
        """Return why a system of it can have no recipe, None where it can."""
        return None if self.trainable else f"engine {self.engine} is not trained"

    @property
    def copies(self) -> int:
        """Return how many times a job holds the weights."""
        return 1

    @property
    def devices(self) -> int:
        """Return how many devices hold the weights once."""
        return 1

    @property
    def memory_mb(self) -> int:
        """Return the MB of main memory of a job that runs or trains it."""
        return MEMORY_MB

    @property
    def processes(self) -> int:
        """Return the processes of a training job."""
        return 1

    @property
    def asking_threads(self) -> int:
        """Return the CPU cores of a job that asks it."""
        return 1

    @property
    def together(self) -> int:
        """Return how many requests or images are computed together, at most."""
        return 1

    def files(self) -> tuple[Path, ...]:
        """Return the local files of its weights; none of one of a hub or behind a url."""
        return ()

    def lacks(self, protocol: "Protocol", file: str) -> Iterator[str]:
        """Yield what a protocol asks that it cannot give, though its engine can.

        Args:
            protocol: what a system of it is to be asked.
            file: its own file, to be named.
        """
        yield from ()


class GenerativeSpec(ModelSpec):
    """A model that reads images and text, and writes text."""

    answers: ClassVar[frozenset[str]] = frozenset({"model", "lookup"})

    pixels: PositiveInt = Field(
        description="Pixel budget: larger images are scaled down to it, once, for every use.",
        examples=[200704],
    )
    min_pixels: PositiveInt = Field(3136, description="Smaller images are scaled up to it.")
    max_new_tokens: PositiveInt | None = Field(
        None, description="Cap on a stage's own limit, for a model of short words."
    )
    speed: Annotated[Speed | None, HOW] = Field(
        None, description="For `snakemake plan`, as long as no answer of the model was timed."
    )

    @property
    def own_system(self) -> str | None:
        """Return the system text that it gets in place of the prompts' own, None where it gets theirs."""
        return None

    @property
    def remote(self) -> bool:
        """Return whether it runs elsewhere, on no device of ours."""
        return False

    @property
    def shares_images(self) -> bool:
        """Return whether an image is read once for its prompts, and a prompt once for its samples."""
        return False

    def visual_tokens(self, pixels: int | None = None) -> float:
        """Return the tokens of an image.

        Args:
            pixels: of the image; where not known, as many as the model is shown at most.
        """
        shown = self.pixels if pixels is None else min(max(pixels, self.min_pixels), self.pixels)
        return max(1.0, shown / VISUAL_TOKEN)

    def money(self, prompt: float, new: float) -> float | None:
        """Return what tokens cost when none is found in a cache, None where nothing is paid.

        Args:
            prompt: tokens of prompts, image tokens among them.
            new: tokens that are written.
        """
        return None

    @model_validator(mode="after")
    def _pixels(self) -> Self:
        if self.min_pixels > self.pixels:
            raise ValueError(f"min_pixels {self.min_pixels} is above pixels {self.pixels}")
        return self
