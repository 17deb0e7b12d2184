"""A server for the time of a job: what it is started with, that it ends whatever happens, and what real vLLM
answers.

The quick tests start a small program in vLLM's place. Those marked slow need the real one: VLTAXON_VLLM names
its environment.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub
import pyarrow.parquet as pq
import pytest
import yaml
from safetensors.numpy import load_file, save_file

from tests.unit.conftest import PROMPTS, World
from tests.unit.inference.tasks import asking, leaf_task
from vltaxon import checkpoint as checkpoints
from vltaxon.config.protocols import Stage
from vltaxon.data.images import ImageStore
from vltaxon.engines.server import Endpoint
from vltaxon.engines.transformers import Vlm
from vltaxon.errors import UserError
from vltaxon.inference import managed
from vltaxon.inference.engine import Decoding, Request, Response
from vltaxon.inference.ledger import Ledger
from vltaxon.inference.served import Patience, digest
from vltaxon.inference.server_engine import ServerEngine
from vltaxon.inference.source import source_of
from vltaxon.inference.transformers_engine import TransformersEngine
from vltaxon.layout import WEIGHTS

ROOT = Path(__file__).parents[3]

# Serves /v1/models and completions that name the devices it was given; says in its log what it was started
# with.
PROGRAM = """#!{python}
import json, os, subprocess, sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

given = sys.argv[1:]
if given == ["--version"]:
    print("9.9.9")
    sys.exit()
print(json.dumps(given), flush=True)
if "--break" in given:
    print("no kernel image is available", flush=True)
    sys.exit(3)
subprocess.Popen(["sleep", "600"])
devices = os.environ.get("CUDA_VISIBLE_DEVICES")

class Handler(BaseHTTPRequestHandler):
    def send(self, body):
        right = self.headers["Authorization"] == "Bearer " + os.environ["VLLM_API_KEY"]
        body = json.dumps(body).encode()
        self.send_response(200 if right else 401)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        self.send({{"data": [{{"id": given[given.index("--served-model-name") + 1]}}]}})

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        if "--die" in given:
            os._exit(9)
        message = {{"content": devices}}
        self.send({{"choices": [{{"message": message, "finish_reason": "stop"}}]}})

    def log_message(self, *_):
        pass

if "--deaf" not in given:
    ThreadingHTTPServer(("127.0.0.1", int(given[given.index("--port") + 1])), Handler).serve_forever()
import time
time.sleep(600)
"""


@pytest.fixture
def environment(tmp_path: Path) -> Path:
    program = tmp_path / "venv" / "bin" / "vllm"
    program.parent.mkdir(parents=True)
    program.write_text(PROGRAM.format(python=sys.executable))
    program.chmod(0o755)
    return tmp_path / "venv"


def spec(environment: Path, **more: Any) -> Endpoint:
    given = {"model": "tiny_vlm", "environment": str(environment), "startup": 30} | more
    return Endpoint.model_validate(
        {"engine": "server", "managed": given, "pixels": 3136, "attempts": 2, "timeout": 20, "licence": "MIT"}
    )


def running(text: str) -> list[str]:
    """Processes whose command line holds a text, this one's not counted."""
    lines = subprocess.run(
        ["ps", "-ewwo", "pid,args"], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    return [line for line in lines if text in line and line.split()[0] != str(os.getpid())]


def started(log: Path) -> list[str]:
    arguments: list[str] = json.loads(log.read_text().splitlines()[0])
    return arguments


def test_its_version_is_told_by_itself(environment: Path, tmp_path: Path) -> None:
    """It is part of the identity under which answers are kept."""
    given = spec(environment).managed
    assert given is not None and managed.version(given) == "vllm 9.9.9"
    (environment / "bin/vllm").write_text("#!/bin/sh\necho broken >&2; exit 1\n")
    with pytest.raises(UserError, match="vllm does not tell its version: broken"):
        managed.version(given)


def test_its_answers_are_kept_by_what_is_served_and_how(environment: Path, vlm: Vlm, world: World) -> None:
    """Written down, so that answers which are kept stay found: neither devices nor batches nor the
    environment are in it.
    """
    file, running = (
        world.folder / "served.yaml",
        vlm.model_copy(update={"gpus": 2, "batch_size": 3, "threads": 1, "memory": 9}),
    )
    given = spec(environment, arguments=["--max-model-len", "512"]).model_copy(update={"temperature": 0.5})
    file.write_text(
        yaml.safe_dump(
            json.loads(given.model_dump_json(exclude_none=True)) | {"temperature": 0.7, "concurrency": 3}
        )
    )
    stage = asking(Stage(name="leaf", prompt="stage1"), PROMPTS["stage1"], given, served=running)
    task = leaf_task(world, world.folder / "leaf.parquet", stage, settings=file)
    source = source_of(task, stage, pq.read_table(world.tables["images"]))
    weights = digest(given, checkpoints.digest(vlm))
    assert (source.weights, source.identity) == (
        weights,
        {
            "engine": "server", "version": 2, "weights": weights, "package": "vllm 9.9.9",
            "served": {
                "engine": "transformers", "checkpoint": vlm.checkpoint, "revision": None, "dtype": "float32", "pixels": 3136,
                "min_pixels": 3136, "max_new_tokens": None, "licence": "none",
            },
            "serving": {"arguments": ["--max-model-len", "512"], "lora": False},
        },
    )  # fmt: skip


def test_a_server_is_asked_with_the_options_of_the_template_of_what_it_serves(
    environment: Path, vlm: Vlm, world: World
) -> None:
    file, given = world.folder / "served.yaml", spec(environment)
    file.write_text(yaml.safe_dump(json.loads(given.model_dump_json(exclude_none=True))))

    def weights(served: Vlm) -> str:
        stage = asking(Stage(name="leaf", prompt="stage1"), PROMPTS["stage1"], given, served=served)
        task = leaf_task(world, world.folder / "leaf.parquet", stage, settings=file)
        return source_of(task, stage, pq.read_table(world.tables["images"])).weights

    quiet = {"enable_thinking": False}
    body = given.model_copy(update={"body": {"chat_template_kwargs": quiet}})
    assert weights(vlm) == digest(given, checkpoints.digest(vlm))
    assert weights(vlm.model_copy(update={"template": quiet})) == digest(body, checkpoints.digest(vlm))


def test_a_server_gets_what_it_needs_and_nobody_else_its_key(
    environment: Path, vlm: Vlm, tmp_path: Path
) -> None:
    log = tmp_path / "vllm.log"
    with managed.serving(
        spec(environment, arguments=["--max-model-len", "512"]), managed.Weights(vlm), [], log
    ) as served:
        assert served.model == "tiny_vlm" and served.key not in repr(served)
        assert started(log)[:6] == [
            "serve",
            vlm.checkpoint,
            "--served-model-name",
            "tiny_vlm",
            "--host",
            "127.0.0.1",
        ]
        assert {
            "--dtype",
            "float32",
            "--enable-prefix-caching",
            "--enable-prompt-tokens-details",
            "--max-model-len",
        } < set(started(log))
        assert started(log)[started(log).index("--limit-mm-per-prompt") + 1] == '{"image":1,"video":0}'
        assert served.key not in " ".join(running("vllm")) and running(str(environment))
    assert not running(str(environment))


def test_a_hub_id_is_pinned(
    environment: Path, vlm: Vlm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = "0" * 40
    shutil.copytree(vlm.checkpoint, tmp_path / "models--owner--name" / "snapshots" / commit)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    pinned = vlm.model_copy(update={"checkpoint": "owner/name", "revision": commit, "gpus": 2})
    with managed.serving(
        spec(environment), managed.Weights(pinned), ["3", "4"], tmp_path / "vllm.log"
    ) as served:
        assert served.digest == f"owner/name@{commit}"
    said = " ".join(started(tmp_path / "vllm.log"))
    assert "owner/name --served-model-name tiny_vlm" in said and "--tensor-parallel-size 2" in said
    assert f"--revision {commit} --tokenizer-revision {commit}" in said


def test_each_server_has_its_devices_and_an_image_stays_with_one(
    environment: Path, vlm: Vlm, world: World
) -> None:
    images = world.column("images", "image_id")
    some = [Request(image, str(i)) for image in images for i in range(3)]
    log, given = world.folder / "logs" / "vllm.log", spec(environment)
    with managed.serving(given, managed.Weights(vlm), ["0", "1"], log) as served:
        engine = ServerEngine(given, served, ImageStore(world.tables["images"]), Ledger(world.folder))
        got = dict(engine.generate(some, Decoding(5)))
    by_image = [{got[3 * n + i].completion for i in range(3)} for n in range(len(images))]
    assert all(len(devices) == 1 for devices in by_image) and set.union(*by_image) == {"0", "1"}
    assert sorted(path.name for path in log.parent.iterdir()) == ["vllm.0.log", "vllm.1.log"]


def test_it_ends_with_an_error_and_with_all_its_children(environment: Path, vlm: Vlm, tmp_path: Path) -> None:
    with (
        pytest.raises(ZeroDivisionError),
        managed.serving(spec(environment), managed.Weights(vlm), [], tmp_path / "log"),
    ):
        group = os.getpgid(int(running(str(environment))[0].split()[0]))
        raise ZeroDivisionError
    lines = subprocess.run(
        ["ps", "-eo", "pgid,stat"], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert not [line for line in lines if line.split()[0] == str(group) and "Z" not in line]


def test_it_ends_when_the_job_is_killed(environment: Path, vlm: Vlm, tmp_path: Path) -> None:
    code = f"""
import sys, time
from pathlib import Path
from vltaxon.config.protocols import Stage
from vltaxon.engines.server import Endpoint
from vltaxon.engines.transformers import Vlm
from vltaxon.inference import managed
spec = Endpoint.model_validate_json({spec(environment).model_dump_json(exclude_none=True)!r})
weights = managed.Weights(Vlm.model_validate_json({vlm.model_dump_json()!r}))
with managed.serving(spec, weights, [], Path({str(tmp_path / "log")!r})):
    print("up", flush=True)
    time.sleep(600)
"""
    job = subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(ROOT / "src")},
    )
    assert job.stdout is not None and job.stdout.readline() == b"up\n"
    (server,) = running(f"{environment}/bin/vllm")
    group = os.getpgid(int(server.split()[0]))
    job.send_signal(signal.SIGKILL)
    job.wait()
    deadline = time.monotonic() + 10
    while left := running(f"{environment}/bin/vllm"):
        assert time.monotonic() < deadline, left
        time.sleep(0.05)
    os.killpg(group, signal.SIGKILL)  # the child of the program here, which unlike vLLM does not end its own


@pytest.mark.parametrize(
    "arguments, startup, said",
    [
        (["--break"], 30, r"vLLM has ended \(status 3\).*\n.*\nno kernel image"),
        (["--deaf"], 1, r"does not answer in time"),
    ],
)
def test_a_server_that_does_not_start_says_why(
    environment: Path, vlm: Vlm, tmp_path: Path, arguments: list[str], startup: int, said: str
) -> None:
    given = spec(environment, arguments=arguments, startup=startup)
    with (
        pytest.raises(UserError, match=said),
        managed.serving(given, managed.Weights(vlm), [], tmp_path / "log"),
    ):
        raise AssertionError
    assert not running(str(environment))


def test_a_server_that_ends_in_between_is_not_asked_on(environment: Path, vlm: Vlm, world: World) -> None:
    given = spec(environment, arguments=["--die"])
    with managed.serving(given, managed.Weights(vlm), [], world.folder / "log") as served:
        engine = ServerEngine(
            given, served, ImageStore(world.tables["images"]), Ledger(world.folder), Patience(first=0.5)
        )
        with pytest.raises(UserError, match=r"vLLM has ended \(status 9\); the end of .*log:"):
            list(engine.generate([Request(world.column("images", "image_id")[0], "q")], Decoding(5)))


def test_no_vllm_is_said_with_what_to_do(tmp_path: Path, vlm: Vlm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    given = spec(tmp_path)
    for one in (
        given,
        given.model_copy(
            update={"managed": given.managed and given.managed.model_copy(update={"environment": None})}
        ),
    ):
        with (
            pytest.raises(UserError, match="bin/pip install vllm"),
            managed.serving(one, managed.Weights(vlm), [], tmp_path / "log"),
        ):
            raise AssertionError


def test_an_adapter_is_served_merged_or_beside_its_base(
    environment: Path, vlm: Vlm, lettered: Path, tmp_path: Path
) -> None:
    weights = managed.Weights(vlm, lettered, tmp_path / "merged")
    with managed.serving(spec(environment), weights, [], tmp_path / "log") as served:
        assert started(tmp_path / "log")[1] == str(tmp_path / "merged")
        assert served.digest == TransformersEngine(vlm, lettered, ImageStore(_no_images())).digest
    with pytest.raises(UserError, match="does not answer in time"):  # the program here knows no adapters
        given = spec(environment, lora=True, startup=1)
        with managed.serving(given, managed.Weights(vlm, lettered), [], tmp_path / "log"):
            raise AssertionError
    said = " ".join(started(tmp_path / "log"))
    assert f"--enable-lora --max-lora-rank 4 --lora-modules tiny_vlm={lettered}" in said
    assert f"serve {vlm.checkpoint} --served-model-name tiny_vlm-base" in said


def _no_images() -> Any:
    from vltaxon import schemas

    return schemas.IMAGES.empty_table()


def test_an_adapter_of_vision_modules_is_refused_beside_its_base(
    environment: Path, vlm: Vlm, lettered: Path, tmp_path: Path
) -> None:
    managed.refuse_vision(lettered)
    tensors = load_file(lettered / "adapter_model.safetensors")
    some = next(iter(tensors.values()))
    save_file(
        {**tensors, "base_model.model.model.visual.blocks.0.attn.qkv.lora_A.weight": some},
        tmp_path / "adapter_model.safetensors",
    )
    (tmp_path / "adapter_config.json").write_text((lettered / "adapter_config.json").read_text())
    serving = managed.serving(
        spec(environment, lora=True), managed.Weights(vlm, tmp_path), [], tmp_path / "log"
    )
    refused = r"adapts vision modules .*visual.blocks.0.*serve the merged checkpoint: `lora: false`"
    with pytest.raises(UserError, match=refused), serving:
        raise AssertionError


# -- vLLM itself -----------------------------------------------------------------------------------------------------------------

CPU = [
    *("--max-model-len", "512", "--max-num-seqs", "32", "--enforce-eager"),
    *("--block-size", "32", "--kv-cache-memory-bytes", "1073741824"),
]


@pytest.fixture
def real() -> Path:
    if "VLTAXON_VLLM" not in os.environ:
        pytest.skip("VLTAXON_VLLM names no environment with vLLM")
    return Path(os.environ["VLTAXON_VLLM"])


def tiny() -> Vlm:
    given = yaml.safe_load((ROOT / "config/models/tiny_vlm.yaml").read_text())
    return Vlm.model_validate(given | {"checkpoint": str(ROOT / given["checkpoint"])})


def asked(world: World, engine: Any, tokens: int = 40) -> list[Response]:
    got = dict(engine.generate(prompts(world), Decoding(tokens)))
    return [got[at] for at in range(len(got))]


def prompts(world: World) -> list[Request]:
    """Stage 1 and questions of all images, in the words that the tiny model has read, all of one long
    beginning.
    """
    stage1 = yaml.safe_load((ROOT / "config/prompts/stage1.yaml").read_text())
    name = stage1["text"].format(
        word="plant", ranks="kingdom, phylum, class", rank="", question="", options="", leaf=""
    )
    texts = [
        name,
        *(
            f"Which {rank} is it?\nA. Aurea\nB. Belta\nC. Cirra\nD. Dona"
            for rank in ("class", "order", "family")
        ),
    ]
    preface = "Look at the plant in the image, at its stem, its leaves and its petals. " * 2
    return [Request(image, preface + text) for image in world.column("images", "image_id") for text in texts]


@pytest.mark.slow
@pytest.mark.parametrize("image_as", ["data", "path"])
def test_vllm_answers_as_transformers_does(real: Path, world: World, image_as: str) -> None:
    base, store = tiny(), ImageStore(world.tables["images"])
    alone = asked(world, TransformersEngine(base, None, store))
    given = spec(real, arguments=CPU, startup=600).model_copy(update={"image_as": image_as, "timeout": 120})
    with managed.serving(given, managed.Weights(base), [], world.folder / "vllm.log") as served:
        together = asked(world, ServerEngine(given, served, store, Ledger(world.folder)))
    for key in ("completion", "finish_reason", "prompt_tokens"):
        assert [getattr(r, key) for r in together] == [getattr(r, key) for r in alone], key
    assert sum(r.cached_tokens or 0 for r in together) > 0 and len({r.completion for r in alone}) > 3


@pytest.mark.slow
@pytest.mark.parametrize("lora", [False, True])
def test_vllm_answers_with_an_adapter_as_transformers_does(
    real: Path, world: World, tmp_path: Path, lora: bool, adapted: Callable[[Path], Path]
) -> None:
    base, store, adapter = tiny(), ImageStore(world.tables["images"]), adapted(tmp_path / "adapter")
    alone = asked(world, TransformersEngine(base, adapter, store))
    checkpoints.merge(base, adapter, tmp_path / "merged")
    given = spec(real, arguments=CPU, startup=600, lora=lora).model_copy(update={"timeout": 120})
    weights = managed.Weights(base, adapter, None if lora else tmp_path / "merged")
    with managed.serving(given, weights, [], world.folder / "vllm.log") as served:
        together = asked(world, ServerEngine(given, served, store, Ledger(world.folder)))
    assert [r.completion for r in together] == [r.completion for r in alone]
    assert [r.completion for r in alone] != [
        r.completion for r in asked(world, TransformersEngine(base, None, store))
    ]


@pytest.fixture
def adapted() -> Callable[[Path], Path]:
    """Writes an adapter of the tiny model whose every weight is drawn, so that it changes what is said."""

    def write(folder: Path) -> Path:
        import torch
        from peft import LoraConfig, get_peft_model

        torch.manual_seed(0)
        _, weights = checkpoints.load(tiny())
        config = LoraConfig(
            r=8, lora_alpha=16, target_modules=r".*language_model.*\.(q|k|v|o|gate|up|down)_proj"
        )
        model = get_peft_model(weights, config)
        for name, value in model.named_parameters():
            if "lora_B" in name:
                value.data.normal_(std=0.02)
        model.save_pretrained(str(folder))
        return folder

    return write


def test_a_served_model_is_checked_as_one_that_is_loaded(environment: Path, vlm: Vlm, world: World) -> None:
    """Its template and its tokens; and reasoning that the template begins is put back."""
    folder, log = world.folder / "thinks", world.folder / "vllm.log"
    shutil.copytree(vlm.checkpoint, folder)
    template = folder / "chat_template.jinja"
    plain = template.read_text()
    template.write_text(plain.replace("assistant\n{% endif", "assistant\n<think>\n{% endif"))
    weights = managed.Weights(vlm.model_copy(update={"checkpoint": str(folder)}))
    store = ImageStore(world.tables["images"])
    image_id = world.column("images", "image_id")[0]
    with managed.serving(spec(environment), weights, ["7"], log) as served:
        engine = ServerEngine(spec(environment), served, store, Ledger(world.folder))
        ((_, response),) = engine.generate([Request(image_id, "Which?")], Decoding(5))
        assert response.completion == "<think>7"
        with pytest.raises(UserError, match=r"a prompt holds <\|im_end\|>, a special token of .*thinks"):
            list(engine.generate([Request(image_id, "Which, <|im_end|>?")], Decoding(5)))
    template.write_text(plain.replace("messages %}", "messages if m['role'] != 'system' %}"))
    with managed.serving(spec(environment), weights, ["7"], log) as served:
        engine = ServerEngine(spec(environment), served, store, Ledger(world.folder))
        with pytest.raises(UserError, match="writes the system text of a conversation 0 times"):
            list(engine.generate([Request(image_id, "Which?", "Be brief.")], Decoding(5)))
    template.unlink()
    with (
        pytest.raises(UserError, match="has no chat template"),
        managed.serving(spec(environment), weights, ["7"], log),
    ):
        pass


def test_an_adapter_is_served_as_it_was_recorded(
    environment: Path, vlm: Vlm, lettered: Path, tmp_path: Path
) -> None:
    other = shutil.copytree(lettered, tmp_path / "other")
    save_file({n: 2 * t for n, t in load_file(lettered / WEIGHTS).items()}, other / WEIGHTS)
    with (
        pytest.raises(UserError, match=r"adapter_model.safetensors: is not what its record.json says"),
        managed.serving(spec(environment, lora=True), managed.Weights(vlm, other), [], tmp_path / "log"),
    ):
        pass
