"""The config: closed models for config.yaml and for every small file beside it."""

from vltaxon.config.base import HOW, MOVING, Choices, Closed, Name, Raw, RawFile, Shards, Source, local
from vltaxon.config.datasets import CUB200_CLASSES, Dataset, Published, Questions, RawDataset, Size, Split
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
from vltaxon.config.load import json_schema, load, read_model
from vltaxon.config.models import Chance, Clip, Endpoint, Managed, Model, Price, Speed, Vlm
from vltaxon.config.protocols import Prompt, Protocol, Stage
from vltaxon.config.recipes import Lora, Recipe, Samples, Step

__all__ = [
    "CUB200_CLASSES", "HOW", "MOVING", "Chance", "Choices", "Clip", "Closed", "Config", "Dataset", "Demo", "Endpoint",
    "Experiment", "Lora", "Managed", "Model", "Name", "Partition", "Price", "Prompt", "Protocol", "Published", "Questions",
    "Raw", "RawDataset", "RawFile", "Recipe", "Repeats", "Report", "Samples", "Shards", "Size", "Source", "Speed", "Split", "Stage", "Step",
    "Sweep", "System", "Tables", "Training", "Vlm", "json_schema", "load", "local", "read_model",
]  # fmt: skip
