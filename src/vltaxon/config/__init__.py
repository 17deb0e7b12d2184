"""The config: closed models for config.yaml and for every small file beside it."""

from vltaxon.config.base import HOW, MOVING, Choices, Closed, Name, Raw, RawFile, Shards, Source, local
from vltaxon.config.datasets import Dataset, Published, Questions, RawDataset, Size, Split
from vltaxon.config.engines import Model
from vltaxon.config.experiment import (
    Config,
    Demo,
    Experiment,
    Partition,
    Repeats,
    Report,
    Sweep,
    System,
    Tables,
    Training,
)
from vltaxon.config.files import read_model
from vltaxon.config.load import json_schema, load
from vltaxon.config.models import GenerativeSpec, ModelSpec, Price, Speed
from vltaxon.config.protocols import Prompt, Protocol, Stage
from vltaxon.config.recipes import Recipe
from vltaxon.config.steps import Lora, Samples, Step
from vltaxon.inference.engines.chance import Chance
from vltaxon.inference.engines.server import Endpoint, Managed
from vltaxon.inference.engines.transformers import Vlm
from vltaxon.inference.engines.zero_shot import Clip

__all__ = [
    "HOW",
    "MOVING",
    "Chance",
    "Choices",
    "Clip",
    "Closed",
    "Config",
    "Dataset",
    "Demo",
    "Endpoint",
    "Experiment",
    "GenerativeSpec",
    "Lora",
    "Managed",
    "Model",
    "ModelSpec",
    "Name",
    "Partition",
    "Price",
    "Prompt",
    "Protocol",
    "Published",
    "Questions",
    "Raw",
    "RawDataset",
    "RawFile",
    "Recipe",
    "Repeats",
    "Report",
    "Samples",
    "Shards",
    "Size",
    "Source",
    "Speed",
    "Split",
    "Stage",
    "Step",
    "Sweep",
    "System",
    "Tables",
    "Training",
    "Vlm",
    "json_schema",
    "load",
    "local",
    "read_model",
]  # fmt: skip
