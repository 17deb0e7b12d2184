"""Prompts, and protocols: what a system is asked, stage by stage."""

from typing import Annotated, Literal, Self

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from vltaxon import prompts
from vltaxon.config.base import HOW, Closed, Name
from vltaxon.parsing import Form


class Prompt(Closed):
    """A template of config/prompts. Placeholders: word, rank, ranks, question, options, leaf."""

    source: Annotated[str, HOW] = Field(
        description="Where the text comes from.", examples=["our own wording"]
    )
    system: str | None = None
    text: str = Field(examples=["What is the {rank} of this {word}?"])

    @model_validator(mode="after")
    def _known_fields(self) -> Self:
        if odd := prompts.fields(self.text) - prompts.FIELDS:
            raise ValueError(
                f"text: placeholder {sorted(odd)} is unknown; there are {sorted(prompts.FIELDS)}"
            )
        return self


class Stage(Closed):
    """One thing that a system is asked."""

    name: Literal["leaf", "answer"] = Field(
        description="leaf: name the taxon, once an image; answer: each question."
    )
    by: Literal["model", "lookup", "similarity", "chance"] = Field("model", description="Who answers.")
    prompt: Name | None = Field(None, description="File in config/prompts; needed where the model answers.")
    condition: Literal["none", "leaf", "gold"] = Field(
        "none",
        description="The leaf that the prompt is given: none, the one that stage 1 named, or the true one "
        "(an oracle).",
    )
    form: Form = Field(
        "tagged",
        description="How the answer is marked; listing (leaf): `Rank: taxon` for every rank, no tags.",
    )
    read: Literal["text", "letters"] = Field(
        "text",
        description="answer: what the model writes; or, in one forward pass, which option's letter is the "
        "likeliest to.",
    )
    constrained: bool = Field(
        False, description="leaf: only lineages of the taxonomy can be written, each to its end."
    )
    max_new_tokens: PositiveInt = 512
    repetition_penalty: PositiveFloat = Field(
        1.0, description="1 is plain greedy; the checkpoint's own value is not used."
    )
    samples: PositiveInt = Field(
        1, description="Completions drawn for each prompt; one of them counts, all are kept."
    )
    temperature: Annotated[float, Field(ge=0, le=10, description="0 is greedy; above, tokens are drawn.")] = (
        0.0
    )
    top_p: Annotated[
        float, Field(gt=0, le=1, description="Drawn from the likeliest tokens of this probability together.")
    ] = 1.0
    choose: Literal["vote", "best"] = Field(
        "vote",
        description="Which of several samples counts: the first with the answer that most of them give; or "
        "(leaf) the first that "
        "names the most specific true taxon, and of these the one with most of the true lineage (an oracle).",
    )

    @model_validator(mode="after")
    def _drawn(self) -> Self:
        if (self.samples > 1 or self.top_p < 1) and not self.temperature:
            raise ValueError("samples and top_p are for a temperature above 0, where tokens are drawn")
        if self.temperature and (self.by != "model" or self.constrained or self.read == "letters"):
            raise ValueError("temperature: for stages in which the model writes freely")
        if self.choose == "best" and (self.name != "leaf" or self.samples == 1):
            raise ValueError("choose: best is for several samples of the leaf stage")
        return self

    @model_validator(mode="after")
    def _sound(self) -> Self:
        if (self.by == "model") != (self.prompt is not None):
            raise ValueError("prompt: needed where `by` is model, and only there")
        if self.name == "leaf" and (self.by != "model" or self.condition == "leaf"):
            raise ValueError(
                "the leaf stage is answered by the model, and it is what names the leaf: "
                "no condition but gold"
            )
        if self.name != "leaf" and (self.constrained or self.form == "listing"):
            raise ValueError("constrained and form listing are for the leaf stage")
        if self.read == "letters" and (self.name != "answer" or self.by != "model" or self.form != "bare"):
            raise ValueError("read: letters is for the answer stage, answered by the model in form bare")
        return self


class Protocol(Closed):
    """What a system is asked: a list of stages, in order."""

    description: str = Field(examples=["Every question is asked by itself."])
    stages: tuple[Stage, ...] = Field(
        min_length=1, max_length=2, examples=[[{"name": "answer", "prompt": "direct"}]]
    )

    @model_validator(mode="after")
    def _order(self) -> Self:
        names = [stage.name for stage in self.stages]
        if names not in (["leaf"], ["answer"], ["leaf", "answer"]):
            raise ValueError(f"stages: {names}; legal are leaf, answer, or leaf then answer")
        for stage in self.stages:
            if stage.condition != "leaf" and stage.by != "lookup":
                continue
            if names[0] != "leaf":
                raise ValueError(f"stage {stage.name}: needs a leaf stage before it")
            if self.stages[0].choose == "best":
                raise ValueError(
                    f"stage {stage.name}: choose: best is an oracle, from which no answers are made"
                )
        return self

    def stage(self, name: str) -> Stage | None:
        """Return the stage of a name, None where the protocol has none."""
        return next((stage for stage in self.stages if stage.name == name), None)
