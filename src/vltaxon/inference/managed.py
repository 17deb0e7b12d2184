"""vLLM for the time of a job: started on the job's devices and on free ports, and ended whatever happens.

A server gets a process group of its own, which is killed when the job leaves the block, by an error or not.
Should the job itself be killed, the kernel tells the server (PR_SET_PDEATHSIG, Linux), which ends its own
children, and keeps the devices leased until it is gone.
"""

import functools
import json
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx2

from vltaxon import chat, checkpoint, layout
from vltaxon.adapters import adapted, read_weights
from vltaxon.devices import inheritable_leases
from vltaxon.engines.server import Endpoint, Managed
from vltaxon.engines.transformers import Vlm
from vltaxon.errors import UserError
from vltaxon.inference.served import Served
from vltaxon.processes import signal_when_parent_dies

_VISION = re.compile(r"\.(visual|vision\w*|image\w*|\w*projector|merger|mlp1)\.")
_GRACE = 20.0  # seconds for a server to end by itself


@dataclass(frozen=True)
class Weights:
    """What is served.

    Attributes:
        base: the model.
        adapter: its folder, None of a base alone.
        merged: folder of both merged, where that is what is served.
    """

    base: Vlm
    adapter: Path | None = None
    merged: Path | None = None

    @property
    def digest(self) -> str:
        """Return the digest of weights and adapter, the same as of the engine that merges them itself."""
        of_base = checkpoint.digest(self.base)
        return of_base if self.adapter is None else adapted(of_base, self.adapter)


@contextmanager
def serving(spec: Endpoint, weights: Weights, devices: Sequence[str], log: Path) -> Iterator[Served]:
    """Serve a model for the block, by as many servers as the devices allow; by one on the CPU without any.

    Args:
        spec: the model file; `managed` says how.
        weights: what to serve.
        devices: ids of the job's devices.
        log: where the servers log; with several, a number is added for each.

    Raises:
        UserError: vLLM is absent, does not start, or cannot serve the adapter.
    """
    managed, base = spec.managed, checkpoint.pinned(weights.base)
    assert managed is not None
    name, key, processor = spec.model or managed.model, secrets.token_hex(16), checkpoint.load_processor(base)
    if weights.adapter is not None and managed.lora:
        read_weights(weights.adapter)  # which vLLM reads itself, and believes
    groups = [devices[i : i + base.gpus] for i in range(0, len(devices) - base.gpus + 1, base.gpus)] or [[]]
    with ExitStack() as held:
        media = (
            Path(held.enter_context(tempfile.TemporaryDirectory(prefix="vltaxon-images-")))
            if spec.image_as == "path"
            else None
        )
        arguments = [*_arguments(base, weights, name, managed.lora), *managed.arguments]
        if media is not None:
            arguments += ["--allowed-local-media-path", str(media.resolve())]
        servers = []
        for number, group in enumerate(groups):
            path = log if len(groups) == 1 else log.with_suffix(f".{number}{log.suffix}")
            command = [_program(managed.environment), "serve", *arguments]
            servers.append(held.enter_context(_server(command, group, key, path)))
        deadline = time.monotonic() + managed.startup
        for server in servers:
            server.wait(name, key, deadline)
        urls = [f"{server.address}/v1" for server in servers]
        digest = Weights(base, weights.adapter).digest
        checked = functools.partial(chat.check_requests, processor, base.checkpoint)

        def check() -> None:
            for server in servers:
                server.check()

        opens = chat.opens_reasoning(processor)
        yield Served(urls, name, digest, key, media, check, checked, opens)


def version(managed: Managed) -> str:
    """Return which vLLM an environment has.

    Raises:
        UserError: it has none.
    """
    program = _program(managed.environment)
    said = subprocess.run([program, "--version"], capture_output=True, text=True, check=False)
    if said.returncode or not said.stdout.strip():
        raise UserError(f"{program} does not tell its version: {said.stderr.strip()[-200:]}")
    return f"vllm {said.stdout.split()[-1]}"


def refuse_vision(adapter: Path) -> None:
    """Refuse an adapter of vision modules: vLLM would leave these out with no more than a warning.

    Raises:
        UserError: it has some.
    """
    from safetensors import safe_open

    with safe_open(adapter / layout.WEIGHTS, "np") as file:
        names = [name for name in file.keys() if _VISION.search(name)]  # noqa: SIM118 (it is no mapping)
    if names:
        raise UserError(
            f"{adapter}: adapts vision modules ({names[0]} and {len(names) - 1} more), which vLLM would "
            "leave out; serve the merged checkpoint: `lora: false` under `managed` in the model's file"
        )


def _arguments(base: Vlm, weights: Weights, name: str, lora: bool) -> list[str]:
    where = base.checkpoint if weights.merged is None else str(weights.merged)
    named, extra = name, list[str]()
    if weights.merged is None and not Path(base.checkpoint).is_dir():
        extra += ["--revision", str(base.revision), "--tokenizer-revision", str(base.revision)]
    if weights.adapter is not None and lora:
        refuse_vision(weights.adapter)
        rank = json.loads((weights.adapter / layout.ADAPTER_CONFIG).read_text(encoding="utf-8"))["r"]
        extra += [
            "--enable-lora",
            "--max-lora-rank",
            str(rank),
            "--lora-modules",
            f"{name}={weights.adapter.resolve()}",
        ]
        named = f"{name}-base"
    if base.gpus > 1:
        extra += ["--tensor-parallel-size", str(base.gpus)]
    return [
        *(where, "--served-model-name", named, "--host", "127.0.0.1", "--dtype", base.dtype),
        *(
            "--limit-mm-per-prompt",
            '{"image":1,"video":0}',
            "--enable-prefix-caching",
            "--enable-prompt-tokens-details",
        ),
        *extra,
    ]


def _program(environment: Path | None) -> str:
    program = shutil.which("vllm") if environment is None else str(environment / "bin" / "vllm")
    if program is None or not os.access(program, os.X_OK):
        raise UserError(
            f"{program or 'vllm'}: no such program; make a virtual environment with vLLM (python -m venv "
            "FOLDER; FOLDER/bin/pip install vllm) and name it as `managed: {environment: FOLDER}` in "
            "the model's file"
        )
    return program


@dataclass(frozen=True)
class _Server:
    process: subprocess.Popen[bytes]
    address: str
    log: Path

    def check(self) -> None:
        """Check that the server runs.

        Raises:
            UserError: it has ended; the end of its log is quoted.
        """
        if (status := self.process.poll()) is not None:
            raise UserError(f"vLLM has ended (status {status}); the end of {self.log}:\n{_tail(self.log)}")

    def wait(self, name: str, key: str, deadline: float) -> None:
        """Wait until it serves the model.

        Args:
            name: of the model.
            key: of the server.
            deadline: by the monotonic clock.

        Raises:
            UserError: it has ended, or does not answer in time.
        """
        while time.monotonic() < deadline:
            self.check()
            try:
                told = httpx2.get(
                    f"{self.address}/v1/models",
                    headers={"Authorization": f"Bearer {key}"},
                    timeout=5,
                    trust_env=False,
                )
                if told.status_code == 200 and name in [model["id"] for model in told.json()["data"]]:
                    return
            except (httpx2.TransportError, ValueError, KeyError, TypeError):
                pass
            time.sleep(0.25)
        raise UserError(
            f"vLLM does not answer in time (see `startup`); the end of {self.log}:\n{_tail(self.log)}"
        )


@contextmanager
def _server(command: Sequence[str], devices: Sequence[str], key: str, log: Path) -> Iterator[_Server]:
    """Start a process in a group of its own, which is ended with the block."""
    port = _free_port()
    shown: Mapping[str, str] = {"CUDA_VISIBLE_DEVICES": ",".join(devices)} if devices else {}
    quiet = {"VLLM_API_KEY": key, "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as out, inheritable_leases() as leases:
        process = subprocess.Popen(
            [*command, "--port", str(port)],
            stdout=out,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env={**os.environ, **shown, **quiet},
            start_new_session=True,
            pass_fds=leases,
            preexec_fn=signal_when_parent_dies(signal.SIGTERM),
        )
    try:
        yield _Server(process, f"http://127.0.0.1:{port}", log)
    finally:
        _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a process and all of its group: asked first, then killed."""
    if process.poll() is None:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(_GRACE)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)  # what it left behind, itself included
    process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _tail(log: Path, lines: int = 25) -> str:
    return "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])
