"""The config: what is wrong is said at once, in words; what is right is one frozen object."""

import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from vltaxon.config.base import RawFile, local
from vltaxon.config.datasets import Split
from vltaxon.config.experiment import Config, Experiment
from vltaxon.config.files import KINDS, check, read_yaml
from vltaxon.config.load import json_schema, load
from vltaxon.config.protocols import Protocol
from vltaxon.errors import UserError
from vltaxon.plan.whole import Plan

ROOT = Path(__file__).parents[2]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of config/ to spoil, seen from the workflow root."""
    shutil.copytree(ROOT / "config", tmp_path / "config")
    monkeypatch.chdir(ROOT)
    return tmp_path / "config"


def edit(path: Path, **changes: Any) -> None:
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | changes))


SFT = {"kind": "sft", "part": "sft", "learning_rate": 1e-3, "samples": [{"task": "leaf", "prompt": "stage1"}]}
BASE = {name: {"model": "tiny_vlm", "protocol": "direct"} for name in ("base", "vl_taxon")}


def problems(folder: Path) -> str:
    with pytest.raises(UserError) as caught:
        load(folder / "config.yaml", folder)
    return str(caught.value)


def test_the_default_is_valid(folder: Path) -> None:
    experiment = load(folder / "config.yaml", folder)
    owners = experiment.leaf_systems()
    assert owners["vl_taxon_lookup"] == "vl_taxon" and owners["base_open"] == "base_open"


@pytest.mark.parametrize("kind", ["datasets", "models", "questions", "prompts", "protocols", "recipes"])
def test_every_file_beside_config_yaml_is_valid(kind: str, folder: Path) -> None:
    edit(folder / "config.yaml", main=[], sweeps={}, repeats={}, comparisons={}, compare=[])
    for path in (ROOT / "config" / kind).glob("*.yaml"):
        content = yaml.safe_load(path.read_text())
        if kind == "recipes":
            mine = {"model": "tiny_vlm", "recipe": path.stem, "protocol": "two_stage"}
            edit(folder / "config.yaml", systems=BASE | {"mine": mine})
            assert (
                load(folder / "config.yaml", folder).recipes[path.stem].description == content["description"]
            )
        else:
            KINDS[kind].model_validate({"spec": content} if kind == "models" else content)


def test_schema_is_in_sync() -> None:
    path = ROOT / "config" / "schema.json"
    if "--fix" in sys.argv:
        path.write_text(json_schema())
    assert path.read_text() == json_schema(), "run: python -m vltaxon.config.load"


def test_an_error_names_the_files_that_were_given(folder: Path) -> None:
    """Those of the command line, as Snakemake merges them."""
    mine = ROOT / "config" / "paper.yaml", folder / "mine.yaml"
    mine[1].write_text("bootstraps: 3\n")
    content = yaml.safe_load(mine[0].read_text()) | {"bootstraps": 3}
    for files, named in (([mine[1]], str(mine[1])), (mine, f"config/paper.yaml with {mine[1]}")):
        with pytest.raises(UserError, match=f"\n  {named}: bootstraps: unknown key"):
            load(content, folder, files)


def test_unknown_keys_are_refused_with_the_nearest_legal_name_in_all_files_at_once(folder: Path) -> None:
    edit(folder / "config.yaml", bootstraps=10)
    edit(folder / "datasets" / "demo_birds.yaml", scored_level=[1])
    edit(folder / "models" / "tiny_vlm.yaml", batchsize=3)
    edit(folder / "recipes" / "default_sft.yaml", descriptions="x")
    said = problems(folder)
    for line in (
        "config.yaml: bootstraps: unknown key",
        'Did you mean "bootstrap"?',
        "demo_birds.yaml: scored_level: unknown key",
        'Did you mean "scored_levels"?',
        "tiny_vlm.yaml: batchsize: unknown key",
        'Did you mean "batch_size"?',
        "default_sft.yaml: descriptions: unknown key",
    ):
        assert line in said


def spoil(data: dict[str, Any], where: str, value: Any) -> dict[str, Any]:
    """Set a dotted key deep in YAML data."""
    *path, last = where.split(".")
    node: Any = data
    for part in path:
        node = node[int(part)] if part.isdigit() else node[part]
    node[int(last) if last.isdigit() else last] = value
    return data


MD5 = "d41d8cd98f00b204e9800998ecf8427e"
WRONG = [
    # file, key, value, what the message must say
    (
        "config.yaml",
        "systems.base.model",
        "tiny_vml",
        ['systems.base.model: model "tiny_vml" is not one of', 'Did you mean "tiny_vlm"?'],
    ),
    ("config.yaml", "systems.base.protocol", "directly", ['protocol "directly"', 'Did you mean "direct"?']),
    (
        "config.yaml",
        "systems.base.protocol",
        "zero_shot",
        ["protocol zero_shot is for zero_shot, not for engine transformers"],
    ),
    ("config.yaml", "systems.chance.recipe", "vl_taxon", ["engine chance is not trained"]),
    (
        "config.yaml",
        "encoder",
        "tiny_vlm",
        ["encoder: tiny_vlm is of engine transformers, needed is zero_shot"],
    ),
    (
        "config.yaml",
        "training.dataset",
        "demo_birds",
        ["demo_birds has no train split, and a test split is never trained on"],
    ),
    ("config.yaml", "choices", ["similer"], ['"similer" is not one of', 'Did you mean "similar"?']),
    ("config.yaml", "report.dataset", "demo_plant", ["report.dataset", 'Did you mean "demo_plants"?']),
    ("config.yaml", "report.baseline", "bas", ['report.baseline: "bas" is not', 'Did you mean "base"?']),
    ("config.yaml", "report.baseline", "base_open", ["base_open answers no questions (protocol open_set)"]),
    (
        "config.yaml",
        "systems.chance.modle",
        "chance",
        ["systems.chance.modle: unknown key", 'Did you mean "model"?'],
    ),
    ("config.yaml", "systems.chance.label", "Base", ["labels of systems: Base stands twice"]),
    (
        "config.yaml",
        "systems.chance.label",
        " base",
        ['config.yaml: labels of systems: "Base" and " base" differ by case or spaces alone'],
    ),
    ("config.yaml", "systems.chance.label", "", ["systems.chance.label: '' has nothing that can be seen"]),
    ("config.yaml", "systems.chance.label", "\u200b ", ["'\\u200b ' has nothing that can be seen"]),
    ("config.yaml", "systems.chance.label", "\x1b[2J", ["systems.chance.label", "a terminal, U+001B"]),
    (
        "config.yaml",
        "systems.chance.label",
        "base_again, run 0",
        ["labels of systems: base_again, run 0 stands twice"],
    ),
    ("config.yaml", "systems.Chance", {"model": "chance"}, ['systems.Chance: "Chance" is no name']),
    ("config.yaml", "systems.chance.word", " ", ["systems.chance.word: ' ' has nothing"]),
    ("config.yaml", "seed", 2**32, ["config.yaml: seed: Input should be less than 4294967296"]),
    ("config.yaml", "seed", float("inf"), ["config.yaml: seed: Input should be a finite number"]),
    (
        "config.yaml",
        "training.settings.grpo.learning_rate",
        float("inf"),
        ["recipes/vl_taxon.yaml", "steps.1.learning_rate: Input should be a finite number (given: inf)"],
    ),
    (
        "config.yaml",
        "training.settings.grpo.batch_size",
        4096,
        [
            "config.yaml): steps.1: by the size in config/datasets/demo_plants.yaml, 840 "
            "samples make 1 optimiser step (batch_size 4096, epochs 1)",
            "and warmup 0.1 gives the first a learning rate of 0",
            "or set `warmup: 0`",
        ],
    ),
    (
        "config.yaml",
        "training.partition.held_out",
        71,
        [
            "config.yaml: training.partition: of the 72 species of config/datasets/demo_plants.yaml: size.leaves, "
            "held_out 71 and sft_share 0.5 leave 0 for sft and 1 for grpo; each needs at least one"
        ],
    ),
    (
        "config.yaml",
        "training.partition.sft_share",
        float("nan"),
        ["training.partition.sft_share: Input should be a finite number (given: nan)"],
    ),
    ("datasets/demo_plants.yaml", "ranks", ["", *"bcdefg"], ["ranks.0: '' has nothing that can be seen"]),
    (
        "datasets/demo_plants.yaml",
        "ranks",
        ["Genus", "genus ", *"abcde"],
        ['demo_plants.yaml: ranks: "Genus" and "genus " differ by case or spaces alone'],
    ),
    ("config.yaml", "datasets", ["demo_birds", "demo_birds"], ["datasets: demo_birds stands twice"]),
    ("config.yaml", "shards", 0, ["config.yaml: shards: Input should be greater than 0"]),
    (
        "config.yaml",
        "shards",
        "atuo",
        ['config.yaml: shards: "atuo" is not one of auto. Did you mean "auto"?'],
    ),
    (
        "datasets/demo_plants.yaml",
        "scored_levels",
        [2, 9],
        ["scored_levels [9]: out of range, there are 7 ranks"],
    ),
    ("datasets/demo_plants.yaml", "variant", 5, ["variant: 5 is out of range, there are 5"]),
    ("datasets/demo_plants.yaml", "source", "inat", ['Did you mean "inat21"?']),
    ("datasets/demo_plants.yaml", "ranks", ["genus", "genus", *"abcde"], ["ranks: genus stands twice"]),
    ("datasets/demo_plants.yaml", "test", {"archive": "x.tar.gz"}, ["annotations: inat21 needs"]),
    (
        "datasets/demo_birds.yaml",
        "test.archive",
        {"source": {"url": "http://x/a.tgz"}},
        ["test.archive: needs md5 or sha256"],
    ),
    (
        "datasets/demo_birds.yaml",
        "test.archive",
        {"md5": MD5},
        ["test.archive.source: is missing; for example `source: {url: "],
    ),
    (
        "datasets/demo_birds.yaml",
        "test.archive",
        {"source": {}, "md5": MD5},
        ["test.archive.source: needs one of url and path"],
    ),
    (
        "datasets/demo_birds.yaml",
        "test.archive",
        {"sorce": {"url": "http://x/a.tgz"}, "md5": MD5},
        ["test.archive.sorce: unknown key", 'Did you mean "source"?'],
    ),
    (
        "datasets/demo_birds.yaml",
        "test.archive",
        {"source": {"ulr": "http://x/a.tgz"}, "md5": MD5},
        ["test.archive.source.ulr: unknown key", 'Did you mean "url"?'],
    ),
    (
        "datasets/demo_birds.yaml",
        "test.archive",
        {"source": {"url": "s3://x/a.tgz"}, "md5": MD5},
        ["is no http or https address"],
    ),
    (
        "datasets/demo_birds.yaml",
        "test.archive",
        {"source": {"url": "http://x/a.tgz"}, "md5": "f6f6"},
        ["test.archive.md5"],
    ),
    (
        "datasets/demo_birds.yaml",
        "test.archive",
        {"source": {"url": "http://x/files/content?id=3"}, "md5": MD5},
        [
            'file: "content" (of http://x/files/content?***) is no file name with an ending; give one as `file`'
        ],
    ),
    (
        "datasets/demo_animals.yaml",
        "test.annotations",
        {"source": {"url": "http://x/a.json.tar.gz"}, "md5": MD5, "bytes": 0},
        ["test.annotations.bytes: Input should be greater than 0"],
    ),
    ("datasets/demo_birds.yaml", "test.archive", 3, ["test.archive: Input is not a valid path"]),
    ("datasets/demo_birds.yaml", "test", {"folder": "x"}, ["cub200 takes `archive`, and was given folder"]),
    ("datasets/demo_birds.yaml", "source", "folder", ["folder takes `table`, and was given archive"]),
    (
        "datasets/demo_birds.yaml",
        "test",
        {"archive": "x.tgz", "table": "x.csv"},
        ["and was given archive, table"],
    ),
    (
        "datasets/demo_birds.yaml",
        "subset",
        "novel",
        ["subset: terra_incognita needs one", "no other source has any"],
    ),
    (
        "datasets/demo_birds.yaml",
        "max_rejected",
        1.5,
        ["max_rejected: Input should be less than or equal to 1"],
    ),
    (
        "config.yaml",
        "choices",
        ["similar", "published"],
        ["choices: published, but no data set's file has `published`"],
    ),
    (
        "config.yaml",
        "training.choices",
        "published",
        ["training.choices", '"published" is not one of random, similar'],
    ),
    (
        "datasets/demo_birds.yaml",
        "published",
        {"blob": "0" * 40},
        ["published.annotations: is missing; for example `annotations: data/"],
    ),
    (
        "datasets/demo_birds.yaml",
        "published",
        {"annotations": "a.jsonl", "blob": "sha1"},
        ["published.blob: String should match"],
    ),
    ("datasets/demo_birds.yaml", "published", {"annotation": "a.jsonl"}, ['Did you mean "annotations"?']),
    (
        "models/tiny_vlm.yaml",
        "engine",
        "transformer",
        ['engine "transformer" is not', 'Did you mean "transformers"?'],
    ),
    ("models/tiny_vlm.yaml", "checkpoint", "Qwen/Qwen2.5-VL-7B-Instruct", ["a hub id needs a revision"]),
    (
        "models/tiny_vlm.yaml",
        "revision",
        "v1.0",
        ['revision: "v1.0" is no commit (40 hex digits)', '"main" where none is known'],
    ),
    ("models/tiny_vlm.yaml", "gpus", 0, ["gpus: Input should be greater than 0"]),
    (
        "models/tiny_vlm.yaml",
        "train_gpus",
        2,
        ["train_gpus: step vl_taxon/1: device_batch_size 32 on 2 devices does not divide"],
    ),
    (
        "models/tiny_siglip.yaml",
        "name",
        "hf-hub:imageomics/bioclip-2",
        ["is a hub id, which needs a revision"],
    ),
    ("models/tiny_siglip.yaml", "revision", "0" * 40, ["revision: open_clip has none for"]),
    ("models/tiny_siglip.yaml", "revision", "main", ["revision: String should match pattern"]),
    ("models/tiny_siglip.yaml", "pretrained", "webli", ["brings its own weights"]),
    ("config.yaml", "calibration", {"templates": ["a {"]}, ["must each hold"]),
    ("prompts/stage2.yaml", "text", "{leef}", ["placeholder ['leef'] is unknown"]),
    ("protocols/two_stage.yaml", "stages.1.condition", "none", ["stage2 has the placeholder ['leaf']"]),
    (
        "protocols/two_stage.yaml",
        "stages.1.prompt",
        "stage1",
        ["stage1 lacks the placeholder ['leaf', 'options', 'question']"],
    ),
    ("recipes/vl_taxon.yaml", "steps.1.samples.1.condition", "none", ["stage2 has the placeholder ['leaf']"]),
    ("recipes/vl_taxon.yaml", "steps.0.lora", {"targets": "("}, ["not a regular expression"]),
    (
        "protocols/two_stage.yaml",
        "stages",
        [{"name": "answer", "prompt": "stage2", "condition": "leaf"}],
        ["needs a leaf stage"],
    ),
    ("recipes/vl_taxon.yaml", "steps.1.group_size", 7, ["group_size 7 does not fit batch_size", "8, 16, 32"]),
    (
        "config.yaml",
        "training.settings.grpo.device_batch_size",
        48,
        ["device_batch_size 48 on 1 device does not divide", "4 devices: 1, 2, 4, 8"],
    ),
    ("recipes/vl_taxon.yaml", "steps.0.generate", "vllm_server", ["generate: is for grpo"]),
    (
        "recipes/vl_taxon.yaml",
        "steps.0.kl",
        0.1,
        ["steps.0.kl: is for grpo, not for sft; legal is one of batch_size"],
    ),
    (
        "recipes/vl_taxon.yaml",
        "steps.0.epoch",
        2,
        ["steps.0.epoch: unknown key; legal is", 'Did you mean "epochs"?'],
    ),
    (
        "recipes/vl_taxon.yaml",
        "steps.1.group_sizes",
        4,
        ["steps.1.group_sizes: unknown key", 'Did you mean "group_size"?'],
    ),
    (
        "recipes/vl_taxon.yaml",
        "steps.0.kind",
        "sftt",
        ['steps.0: kind "sftt" is not one of grpo, sft. Did you mean "sft"?'],
    ),
    ("recipes/vl_taxon.yaml", "steps.0", {"part": "sft"}, ["steps.0: kind is missing"]),
    (
        "recipes/vl_taxon.yaml",
        "steps.1.rewards",
        [{"name": "fromat"}],
        ['reward "fromat" is not', 'Did you mean "format"?'],
    ),
    ("recipes/vl_taxon.yaml", "steps.1.rewards", [], ["steps.1.rewards: Tuple should have at least 1 item"]),
    (
        "recipes/vl_taxon.yaml",
        "steps.1.rewards",
        [{"name": "format"}] * 2,
        ["steps.1: rewards: format stands twice"],
    ),
    (
        "recipes/vl_taxon.yaml",
        "steps.1.rewards",
        [{"name": "format", "wieght": 2}],
        ['Did you mean "weight"?'],
    ),
    (
        "recipes/vl_taxon.yaml",
        "steps.1.samples.1.turns",
        "multi",
        ["turns: multi is for the answer task, with all levels"],
    ),
    ("recipes/vl_taxon.yaml", "steps.1.lora", {"rank": 8}, ["the same `lora` rank"]),
    ("recipes/vl_taxon.yaml", "steps.0.split", "test", ["split", '"test" is not one of train']),
    (
        "recipes/vl_taxon.yaml",
        "steps.1.samples.0.prompt",
        "stage3",
        ['prompt "stage3" is not one of', 'Did you mean "stage2"?'],
    ),
]


@pytest.mark.parametrize(("file", "key", "value", "said"), WRONG, ids=[f"{f}:{k}" for f, k, *_ in WRONG])
def test_what_is_wrong_is_said(folder: Path, file: str, key: str, value: Any, said: list[str]) -> None:
    path = folder / file
    if file.startswith("recipes/"):  # of which the experiment replaces no value here
        top = yaml.safe_load((folder / "config.yaml").read_text())["training"]
        edit(folder / "config.yaml", training=top | {"settings": {}})
    path.write_text(yaml.safe_dump(spoil(yaml.safe_load(path.read_text()), key, value)))
    message = problems(folder)
    for part in said:
        assert part in message
    assert Path(file).name in message


KEY = "sk-proj-Ab3xYz0123456789"
WRONG_ENDPOINTS = [
    (
        "models/gpt_4o.yaml",
        "key",
        KEY,
        ["key: give the NAME of an environment variable (OPENAI_API_KEY), never the key itself"],
    ),
    ("models/gpt_4o.yaml", "body", {"top_p": float("nan")}, ["body: cannot be sent as JSON"]),
    ("models/gpt_4o.yaml", "key", KEY.upper().replace("-", "_"), ["never the key itself"]),
    (
        "models/gpt_4o.yaml",
        "url",
        f"https://me:{KEY}@api.openai.com/v1",
        ["url: give http(s)://HOST/PATH, without user and key"],
    ),
    ("models/gpt_4o.yaml", "url", f"https://api.openai.com/v1?key={KEY}", ["its query seems to hold a key"]),
    ("models/gpt_4o.yaml", "url", f"https://api.openai.com/v1?{KEY}", ["its query seems to hold a key"]),
    (
        "models/gpt_4o.yaml",
        "url",
        "https://api.openai.com/v1/chat/completions",
        ["url: give the base address"],
    ),
    (
        "models/gpt_4o.yaml",
        "headers",
        {"api-key": KEY},
        ["headers.api-key: give the NAME of an environment variable"],
    ),
    ("models/gpt_4o.yaml", "headers", {"api key": "A_KEY"}, ["headers.api key"]),
    (
        "models/gpt_4o.yaml",
        "headers",
        {"authorization": "A_KEY"},
        ["Authorization is sent of what `key` names"],
    ),
    ("models/gpt_4o.yaml", "server", "vlm", ['"vlm" is not one of sglang, vllm', 'Did you mean "vllm"?']),
    (
        "models/qwen2_5_vl_7b_vllm.yaml",
        "server",
        "vllm",
        ["server: is for a url; a managed server is your own"],
    ),
    ("models/gpt_4o.yaml", "url", None, ["needs one of url and managed"]),
    ("models/gpt_4o.yaml", "model", None, ["model: the name that requests carry is missing"]),
    ("models/gpt_4o.yaml", "budget", -1, ["budget: Input should be greater than 0"]),
    ("models/gpt_4o.yaml", "image_as", "path", ["media: needed where image_as is path"]),
    ("models/gpt_4o.yaml", "detail", "hihg", ['"hihg" is not one of', 'Did you mean "high"?']),
    ("models/gpt_4o.yaml", "prise", {}, ["prise: unknown key", 'Did you mean "price"?']),
    ("models/qwen2_5_vl_7b_vllm.yaml", "key", "MY_KEY", ["key: is for a url; a managed server is your own"]),
    (
        "models/qwen2_5_vl_7b_vllm.yaml",
        "managed.model",
        "chance",
        ["chance is of engine chance, needed is transformers"],
    ),
    (
        "models/qwen2_5_vl_7b_vllm.yaml",
        "managed.modle",
        "x",
        ["managed.modle: unknown key", 'Did you mean "model"?'],
    ),
    (
        "config.yaml",
        "systems.gpt_4o.recipe",
        "vl_taxon",
        ["a model behind a url is not trained; name one with `managed`"],
    ),
    (
        "config.yaml",
        "systems.gpt_4o.protocol",
        "constrained",
        ["protocol constrained is for transformers, not for engine server"],
    ),
    (
        "config.yaml",
        "systems.gpt_4o.protocol",
        "zero_shot",
        ["protocol zero_shot is for zero_shot, not for engine server"],
    ),
    (
        "protocols/direct.yaml",
        "stages.0.repetition_penalty",
        1.1,
        ["systems.gpt_4o: protocol direct has a repetition_penalty"],
    ),
    ("protocols/direct.yaml", "stages.0.samples", 4, ["samples and top_p are for a temperature above 0"]),
    ("protocols/direct.yaml", "stages.0.top_p", 0.9, ["samples and top_p are for a temperature above 0"]),
    ("protocols/direct.yaml", "stages.0.temperature", 99, ["stages.0.temperature"]),
    (
        "protocols/direct.yaml",
        "stages.0.choose",
        "best",
        ["choose: best is for several samples of the leaf stage"],
    ),
]


@pytest.mark.parametrize(
    ("file", "key", "value", "said"), WRONG_ENDPOINTS, ids=[f"{f}:{k}" for f, k, *_ in WRONG_ENDPOINTS]
)
def test_what_is_wrong_with_an_endpoint_is_said_but_never_its_key(
    folder: Path, file: str, key: str, value: Any, said: list[str]
) -> None:
    systems = {name: {"model": name, "protocol": "direct"} for name in ("gpt_4o", "qwen2_5_vl_7b_vllm")}
    edit(folder / "config.yaml", systems=BASE | systems, main=[], sweeps={}, comparisons={}, compare=[])
    load(folder / "config.yaml", folder)
    path = folder / file
    path.write_text(yaml.safe_dump(spoil(yaml.safe_load(path.read_text()), key, value)))
    message = problems(folder)
    for part in said:
        assert part in message
    assert KEY not in message and KEY.upper().replace("-", "_") not in message


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ({"temperature": None}, "temperature is null"),
        ({"body": {"top_p": 1, "seed": 3}}, "body sets seed, top_p"),
    ],
)
def test_an_endpoint_that_takes_no_temperature_is_not_asked_for_samples(
    folder: Path, model: dict[str, Any], said: str
) -> None:
    systems = BASE | {"gpt_4o": {"model": "gpt_4o", "protocol": "two_stage_voted"}}
    edit(folder / "config.yaml", systems=systems, main=[], sweeps={}, comparisons={}, compare=[])
    load(folder / "config.yaml", folder)
    edit(folder / "models" / "gpt_4o.yaml", **model)
    assert (
        f"systems.gpt_4o: protocol two_stage_voted draws samples, and config/models/gpt_4o.yaml: {said}"
        in problems(folder)
    )


@pytest.mark.parametrize(
    ("protocol", "change", "said"),
    [
        ("direct_letters", {"temperature": 0.5}, "temperature: for stages in which the model writes freely"),
        ("constrained", {"temperature": 0.5}, "temperature: for stages in which the model writes freely"),
        ("two_stage_voted", {"choose": "best"}, "choose: best is an oracle, from which no answers are made"),
    ],
)
def test_what_cannot_be_drawn_is_refused(
    folder: Path, protocol: str, change: dict[str, Any], said: str
) -> None:
    given = yaml.safe_load((folder / "protocols" / f"{protocol}.yaml").read_text())
    Protocol.model_validate(given)
    given["stages"][0] |= change
    with pytest.raises(ValueError, match=said):
        Protocol.model_validate(given)


def test_the_report_is_about_questions_that_there_are(folder: Path) -> None:
    edit(folder / "datasets" / "demo_birds.yaml", published={"annotations": "a.jsonl"})
    edit(folder / "config.yaml", choices=["similar", "published"])
    load(folder / "config.yaml", folder)
    about = yaml.safe_load((folder / "config.yaml").read_text())["report"]
    edit(folder / "config.yaml", report=about | {"choices": "published"})
    assert "report.choices: published, but config/datasets/demo_plants.yaml has no `published`" in problems(
        folder
    )
    edit(folder / "config.yaml", report=about | {"choices": "published", "dataset": "demo_birds"})
    load(folder / "config.yaml", folder)


def test_all_errors_come_at_once(folder: Path) -> None:
    edit(folder / "datasets" / "demo_plants.yaml", scored_levels=[9])
    edit(folder / "models" / "tiny_siglip.yaml", template="a photo")
    (folder / "prompts" / "direct.yaml").write_text("text: [")
    (folder / "recipes" / "vl_taxon.yaml").unlink()
    said = problems(folder)
    for part in (
        "scored_levels [9]",
        "template: must hold",
        "direct.yaml: not readable",
        'recipe "vl_taxon" is not one of',
    ):
        assert part in said


def test_a_key_that_stands_twice_is_refused(folder: Path) -> None:
    path = folder / "config.yaml"
    path.write_text(path.read_text().replace("  chance: ", "  base: "))
    assert 'key "base" stands twice' in problems(folder)


def test_a_missing_config(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        load(tmp_path / "config.yaml", tmp_path)


def test_data_sets_share_a_raw_file_only_if_they_agree_on_it(folder: Path) -> None:
    given = {"source": {"url": "https://x/2021/val.tar.gz"}, "md5": MD5}
    for name in ("demo_plants", "demo_animals"):
        path = folder / "datasets" / f"{name}.yaml"
        path.write_text(yaml.safe_dump(spoil(yaml.safe_load(path.read_text()), "test.archive", given)))
    experiment = load(folder / "config.yaml", folder)
    splits = [experiment.datasets[name].test for name in ("demo_plants", "demo_animals")]
    assert [split.archive for split in splits] == [RawFile.model_validate(given)] * 2
    given["source"] = {"url": "https://mirror/val.tar.gz"}
    path.write_text(yaml.safe_dump(spoil(yaml.safe_load(path.read_text()), "test.archive", given)))
    said = problems(folder)
    assert "demo_animals.yaml: test.archive: val.tar.gz from https://mirror/val.tar.gz" in said
    assert (
        "is not the file of config/datasets/demo_plants.yaml: test.archive, from https://x/2021/val.tar.gz"
        in said
    )


@pytest.mark.parametrize(
    ("source", "more", "name"),
    [
        ({"url": "https://x/2021/val.tar.gz"}, {}, "val.tar.gz"),
        ({"url": "https://x/CUB_200_2011.tgz?download=1"}, {}, "CUB_200_2011.tgz"),
        ({"url": "https://x/a%2Bb.tar.gz"}, {}, "a+b.tar.gz"),
        ({"url": "https://x/content"}, {"file": "val.tar.gz"}, "val.tar.gz"),
        ({"path": "/data/val.tar.gz"}, {}, "val.tar.gz"),
    ],
)
def test_a_raw_file_lies_in_one_place_whatever_its_source(
    source: dict[str, str], more: dict[str, str], name: str
) -> None:
    file = RawFile.model_validate({"source": source, "md5": MD5.upper(), **more})
    assert (local(file), file.md5) == (Path("results/raw") / name, MD5)
    assert Split(archive=file).stem == name.removesuffix(".gz").removesuffix(".tgz").removesuffix(".tar")


# -- recipes that are based on others, and an experiment's own sizes


def _recipes(folder: Path, **files: dict[str, Any]) -> Experiment:
    """The default with further recipes, each used by a system of its name."""
    for name, content in files.items():
        (folder / "recipes" / f"{name}.yaml").write_text(yaml.safe_dump({"description": name} | content))
    systems = {name: {"model": "tiny_vlm", "recipe": name, "protocol": "two_stage"} for name in files}
    edit(
        folder / "config.yaml",
        systems=BASE | systems,
        main=[],
        sweeps={},
        repeats={},
        comparisons={},
        compare=[],
    )
    return load(folder / "config.yaml", folder)


def test_a_recipe_takes_the_steps_of_another_and_its_own_changes(folder: Path) -> None:
    found = _recipes(
        folder,
        mild={"based_on": "vl_taxon", "changes": {"2-grpo": {"kl": 0.1}}},
        odd={"based_on": "mild", "word": "organism"},
    )
    base, mild, odd = (found.recipes[name] for name in ("vl_taxon", "mild", "odd"))
    assert mild.steps == (base.steps[0], base.steps[1].model_copy(update={"kl": 0.1}))
    assert odd.steps == mild.steps and odd.word == "organism"


def test_a_step_that_recipes_share_is_trained_once(folder: Path) -> None:
    found = _recipes(
        folder,
        mild={"based_on": "vl_taxon", "changes": {"2-grpo": {"kl": 0.1}}},
        milder={"based_on": "mild", "changes": {"2-grpo": {"kl": 0.01}}},
        odd={"based_on": "mild", "word": "organism"},
        first={"based_on": "vl_taxon", "changes": {"1-sft": {"epochs": 9}}},
    )
    owners = {
        name: [found.step_recipe(name, step) for step in ("1-sft", "2-grpo")]
        for name in ("mild", "milder", "odd", "first")
    }
    assert owners["mild"] == ["vl_taxon", "mild"] and owners["milder"] == ["vl_taxon", "milder"]
    assert owners["odd"] == ["odd", "odd"], "other words are other samples"
    assert owners["first"] == ["first", "first"], "a second step after another first one is another step"


def test_a_recipe_may_end_earlier_than_the_one_that_it_is_based_on(folder: Path) -> None:
    found = _recipes(folder, short={"based_on": "vl_taxon", "until": "1-sft"}, whole={"based_on": "vl_taxon"})
    assert found.recipes["short"].steps == found.recipes["vl_taxon"].steps[:1]
    assert found.step_recipe("short", "1-sft") == "vl_taxon", "so it is trained once"
    shown = Plan(found).training.trained("curve.parquet")
    assert list(shown) == ["short 1-sft", "whole 2-grpo"], "and drawn once"


def test_settings_of_the_experiment_come_last_and_the_narrower_wins(folder: Path) -> None:
    top = yaml.safe_load((folder / "config.yaml").read_text())["training"]
    settings = {
        "sft": {"epochs": 2, "lora": {"rank": 8}},
        "grpo": {"lora": {"rank": 8}},
        "vl_taxon": {"epochs": 3},
        "vl_taxon/2-grpo": {"epochs": 4},
        "mild": {"temperature": 0.5},
    }
    edit(folder / "config.yaml", training=top | {"settings": settings})
    found = _recipes(folder, mild={"based_on": "vl_taxon", "changes": {"1-sft": {"epochs": 5}}})
    base, mild = found.recipes["vl_taxon"], found.recipes["mild"]
    assert [step.epochs for step in base.steps] == [3, 4] and {step.lora.rank for step in base.steps} == {8}
    assert [step.epochs for step in mild.steps] == [5, 4] and mild.steps[1].temperature == 0.5
    assert "temperature" not in mild.steps[0].model_fields_set, (
        "what a kind of step has not is for the others"
    )
    assert base.steps[0].lora.alpha == 64, "what a setting does not name stays"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"based_on": "vl_taxons"}, 'recipe "vl_taxons" is not one of'),
        ({"based_on": "mine"}, "based_on: mine gives no steps"),
        ({"based_on": "vl_taxon", "steps": []}, "gives `changes` by step, and no `steps`"),
        (
            {"based_on": "vl_taxon", "changes": {"3-grpo": {"kl": 1}}},
            'changes: "3-grpo" is not one of 1-sft, 2-grpo',
        ),
        ({"based_on": "vl_taxon", "changes": {"2-grpo": {"kll": 1}}}, "unknown key; legal is"),
        ({"based_on": "vl_taxon", "changes": {"2-grpo": {"group_size": 7}}}, "group_size 7 does not fit"),
        ({"based_on": "vl_taxon", "until": "1-stf"}, 'until: "1-stf" is not one of 1-sft, 2-grpo'),
        (
            {"based_on": "vl_taxon", "until": "1-sft", "changes": {"2-grpo": {"kl": 1}}},
            "changes: 2-grpo comes after 1-sft",
        ),
        (
            {"steps": [SFT], "until": "1-sft"},
            "until: is for a recipe that is `based_on` another",
        ),
    ],
)
def test_a_wrong_recipe_of_changes(folder: Path, content: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError) as caught:
        _recipes(folder, mine=content)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("sftt", 'recipe "sftt" is not one of'),
        ("vl_taxon/2-grp", 'vl_taxon has no step one of 1-sft, 2-grpo. Did you mean "2-grpo"?'),
    ],
)
def test_settings_for_what_is_not_there(folder: Path, key: str, said: str) -> None:
    top = yaml.safe_load((folder / "config.yaml").read_text())["training"]
    edit(folder / "config.yaml", training=top | {"settings": top["settings"] | {key: {"epochs": 1}}})
    assert said in problems(folder)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"main": ["base", "bse"]}, 'main: "bse" is not'),
        ({"main": ["base", "base"]}, "main: base stands twice"),
        ({"main": ["base", "chance"]}, 'report.system: "vl_taxon" is not one of base, chance'),
        (
            {"tables": {"animal": "demo_animals", "plant": "plants", "bird": "demo_birds"}},
            'tables.plant: "plants" is not',
        ),
        ({"comparisons": {"c": ["base", "bse"]}}, 'comparisons.c: "bse" is not'),
        ({"compare": [["base", "bse"]]}, 'compare: "bse" is not'),
        ({"compare": [["base"]]}, "compare.0"),
        ({"sweeps": {"s": {"system": "bass"}}}, 'sweeps.s.system: "bass" is not'),
        ({"sweeps": {"s": {"system": "base", "variants": [0, 5]}}}, "sweeps.s.variants: 5 is out of range"),
        (
            {
                "systems": BASE
                | {"base": {"model": "tiny_vlm", "protocol": "direct", "variant": {"demo_plant": 1}}},
                "main": [],
            },
            'systems.base.variant: "demo_plant" is not one of',
        ),
        (
            {
                "systems": BASE | {"base": {"model": "tiny_vlm", "protocol": "direct", "variant": 7}},
                "main": [],
            },
            "systems.base.variant: 7 is out of range, inat21 has 5 wordings",
        ),
        ({"sweeps": {"s": {"system": "chance"}}}, "no question that a model answers"),
        ({"sweeps": {"s": {"system": "vl_taxon_lookup"}}}, "no question that a model answers"),
        ({"repeats": {"r": {"system": "bass"}}}, 'repeats.r.system: "bass" is not'),
        ({"repeats": {"r": {"system": "base", "times": 1}}}, "repeats.r.times"),
        ({"repeats": {"r": {"system": "chance"}}}, "repeats.r: protocol chance asks no model"),
        (
            {
                "repeats": {"base": {"system": "base"}},
                "systems": BASE | {"base.n1": BASE["base"]},
                "main": [],
            },
            "systems: base.n1 is the name of one that repeats.base makes; call yours otherwise",
        ),
        (
            {"sweeps": {"s": {"system": "base"}}, "systems": BASE | {"s.v4.r0": BASE["base"]}, "main": []},
            "systems: s.v4.r0 is the name of one that sweeps.s makes",
        ),
        ({"sweeps": {"s": {"system": "base", "rotations": [1, 1]}}}, "sweeps.s.rotations: 1 stands twice"),
        ({"comparisons": {"c": ["base", "base"]}}, "comparisons.c: base stands twice"),
    ],
)
def test_what_the_tables_and_sweeps_name_is_there(folder: Path, changes: dict[str, Any], said: str) -> None:
    edit(folder / "config.yaml", **changes)
    assert said in problems(folder)


def test_a_sweep_is_a_system_for_each_wording_and_rotation(folder: Path) -> None:
    edit(
        folder / "config.yaml", sweeps={"s": {"system": "vl_taxon", "variants": [0, 2], "rotations": [0, 3]}}
    )
    found = load(folder / "config.yaml", folder)
    members = found.config.swept("s")
    assert list(members) == ["s.v0.r0", "s.v0.r3", "s.v2.r0", "s.v2.r3"]
    assert (members["s.v2.r3"].variant, members["s.v2.r3"].rotation, members["s.v2.r3"].recipe) == (
        2,
        3,
        "vl_taxon",
    )
    assert {found.leaf_systems()[name] for name in members} == {"vl_taxon"}, (
        "stage 1 asks no question, so it is not asked again"
    )


def test_a_repeat_asks_every_stage_anew_but_for_the_first_run(folder: Path) -> None:
    edit(folder / "config.yaml", repeats={"again": {"system": "vl_taxon_lookup", "times": 3}})
    found = load(folder / "config.yaml", folder)
    runs = found.config.repeated("again")
    assert [(name, run.repeat, run.recipe) for name, run in runs.items()] == [
        (f"again.n{i}", i, "vl_taxon") for i in range(3)
    ]
    assert [found.leaf_systems()[name] for name in runs] == ["vl_taxon", "again.n1", "again.n2"]
    assert found.leaf_systems()["vl_taxon_open"] == "vl_taxon"


def test_weights_of_several_devices_are_shared_where_several_processes_train(folder: Path) -> None:
    edit(folder / "models" / "tiny_vlm.yaml", gpus=4, train_gpus=8)
    assert (
        "train_gpus: with ddp each of 8 devices holds all weights, which take 4 (`gpus`); distributed: fsdp"
        in problems(folder)
    )


BOMB = "a0: &a0 {k: v}\n" + "".join(
    f"a{i}: &a{i} {{{', '.join(f'k{j}: *a{i - 1}' for j in range(9))}}}\n" for i in range(1, 9)
)
ENDLESS = {
    "bomb of aliases": (BOMB, "more than 100,000 values, with those of its aliases"),
    "bomb of merges": (BOMB.replace("k0: ", "<<: "), "more than 100,000 values"),
    "contains itself": ("a: &a [1, *a]\n", "contains itself"),
    "contains itself as a mapping": ("&a {b: {c: *a}}\n", "contains itself"),
    "deep": ("a: " + "[" * 100_000, "nested more than 60 deep"),
    "deep blocks": ("".join(" " * i + "a:\n" for i in range(2000)), "nested more than 60 deep"),
    "deep lists": ("\n".join("-  " * i for i in range(1100)), "nested more than 60 deep"),
    "long": ("a: [" + "1, " * 150_000 + "1]", "more than 100,000 values"),
    "no date": ("a: 2020-99-99\n", "month must be in 1..12"),
    "no number": ("a: !!int x\n", "invalid literal"),
    "too long a number": ("a: " + "9" * 5000, "4300"),
    "no truth": ("a: !!bool x\n", "not readable as YAML"),
    "no time": ("a: !!timestamp x\n", "not readable as YAML"),
    "code": ("a: !!python/object/apply:os.system [id]\n", "could not determine a constructor"),
}


@pytest.mark.parametrize("name", ENDLESS)
@pytest.mark.parametrize("file", ["config.yaml", "models/tiny_vlm.yaml"])
def test_yaml_without_end_or_sense_is_refused_in_words_and_in_time(
    folder: Path, file: str, name: str
) -> None:
    content, words = ENDLESS[name]
    (folder / file).write_text(content)
    began = time.process_time()
    said = problems(folder)
    assert f"{file}: not readable as YAML: " in said and words in said
    assert time.process_time() - began < 20 and len(said) < 5000


def test_many_keys_are_read_in_time(tmp_path: Path) -> None:
    keys = "".join(f"key{i}: {i}\n" for i in range(40_000))
    (tmp_path / "a.yaml").write_text(keys)
    began, said = time.process_time(), []  # type: ignore[var-annotated]
    assert len(read_yaml(tmp_path / "a.yaml", said)) == 40_000 and not said
    assert time.process_time() - began < 60, "a comparison of each with each would take hours"


def test_aliases_of_an_honest_file_are_followed(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("base: &base {x: 1, y: [1, 2]}\nmore: {<<: *base, z: *base}\n")
    assert read_yaml(tmp_path / "a.yaml", [])["more"] == {"x": 1, "y": [1, 2], "z": {"x": 1, "y": [1, 2]}}


def test_snakemake_itself_follows_no_bomb(tmp_path: Path) -> None:
    """The door of users: Snakemake reads config.yaml before anything of ours, if it is let."""
    (tmp_path / "config").mkdir()
    (tmp_path / "config/config.yaml").write_text(BOMB)
    command = [sys.executable, "-m", "snakemake", "--snakefile", ROOT / "Snakefile", "--dry-run"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "error: config/config.yaml: not readable as YAML: more than 100,000 values" in done.stderr


@pytest.mark.parametrize(("kind", "model"), {"config": Config, **KINDS}.items())
def test_every_required_key_has_an_example_that_its_error_shows(kind: str, model: type[BaseModel]) -> None:
    schema = model.model_json_schema()
    for name, part in {kind: schema, **schema.get("$defs", {})}.items():
        for key in part.get("required", ()):
            told = part["properties"][key]
            assert told.keys() & {"examples", "const", "enum"} or name == "models", f"{name}: {key}"
    problems: list[str] = []
    check(model, {"spec": {"engine": "transformers"}} if kind == "models" else {}, "f.yaml", problems)
    missing = [line for line in problems if "is missing" in line]
    assert missing and all("; for example `" in line for line in missing)
