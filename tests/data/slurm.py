"""A real Slurm on this machine for as long as something runs: one node on loopback with pretended GPUs.

The programs come with Debian's packages slurmctld, slurmd, slurm-client and munge. Nothing of the system's
own configuration is read or changed, and no root is needed. `python -m tests.data.slurm COMMAND ...` runs a
command with the Slurm that answers here already, or else with one that is started for it.
"""

import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

PROGRAMS = ("munged", "slurmctld", "slurmd", "sinfo")
PACKAGES = "apt-get install --no-install-recommends slurmctld slurmd slurm-client munge"

# Nothing here needs cgroups, accounting or mail. The node claims more than the machine has, so that jobs
# overlap as on a big one.
CONFIG = """\
ClusterName=vltaxon
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
CommunicationParameters={bind}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=15
CredType=cred/munge
SlurmUser={user}
SlurmdUser={user}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
PlugStackConfig={folder}/plugstack.conf
MailProg=/bin/true
MpiDefault=none
SwitchType=switch/none
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
ProctrackType=proctrack/linuxproc
Epilog={folder}/epilog
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SlurmdParameters=config_overrides
SchedulerParameters=batch_sched_delay=0,sched_interval=1,bf_interval=1
GresTypes=gpu
ReturnToService=2
KillWait=5
MinJobAge=3600
SlurmctldTimeout=30
SlurmdTimeout=15
NodeName={host} NodeAddr=127.0.0.1 CPUs=8 RealMemory=64000 Gres=gpu:{gpus} State=UNKNOWN
PartitionName=local Nodes={host} Default=YES DefaultTime=60 MaxTime=INFINITE State=UP
"""

# A process that lost its parent, as a cancelled job's may, escapes linuxproc: it is known by its environment.
EPILOG = """\
#!/bin/sh
exec env -i PATH=/usr/bin:/bin JOB="SLURM_JOB_ID=$SLURM_JOB_ID" CONF="SLURM_CONF={conf}" sh -c '
grep -lzxF "$JOB" /proc/[0-9]*/environ 2>/dev/null | xargs -r grep -lzxF "$CONF" | cut -d / -f 3 | xargs -r kill -9
exit 0' 2>/dev/null
"""


class Slurm:
    """The cluster. `environment` is what its users need; `start` and `stop` take a daemon by its name, for
    tests of failures.
    """

    def __init__(self, gpus: int = 4) -> None:
        if missing := [name for name in PROGRAMS if shutil.which(name, path=self._path()) is None]:
            raise FileNotFoundError(f"no {', '.join(missing)} here; on Debian: {PACKAGES}")
        self.gpus = gpus
        self.daemons: dict[str, subprocess.Popen[bytes]] = {}

    @staticmethod
    def _path() -> str:
        return f"{os.environ['PATH']}:/usr/sbin:/sbin"  # the daemons' folders, which users commonly lack

    @property
    def environment(self) -> Mapping[str, str]:
        """Snakemake's job step forgets SLURM_CONF, so an `srun` that remembers comes first on PATH."""
        return os.environ | {
            "SLURM_CONF": str(self.folder / "slurm.conf"),
            "PATH": f"{self.folder / 'bin'}:{self._path()}",
        }

    def __enter__(self) -> Self:
        self.folder = Path(tempfile.mkdtemp(prefix="slurm-"))  # a short path: sockets lie in it
        self.folder.chmod(0o755)
        for name in ("bin", "state", "spool", "dev"):
            (self.folder / name).mkdir()
        self._configure()
        try:
            self.start("munged")
            self._wait("munge", "--no-input", "--socket", str(self.folder / "munge.socket"))
            self.start("slurmctld")
            self._wait("scontrol", "ping")
            self.start("slurmd")
            self._wait("sh", "-c", "sinfo --noheader --format=%T | grep -qx idle")
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if {"slurmctld", "slurmd"} <= self.daemons.keys():
            self.tell("scancel", "--partition=local")
            deadline = time.monotonic() + 30
            while self.tell("squeue", "--noheader") and time.monotonic() < deadline:
                time.sleep(0.5)
        for name in list(self.daemons)[::-1]:
            self.stop(name)
        shutil.rmtree(self.folder)

    def start(self, name: str) -> None:
        """Start a daemon: munged, slurmctld or slurmd."""
        given = [
            f"--socket={self.folder}/munge.socket",
            f"--key-file={self.folder}/munge.key",
            "--origin=127.0.0.1",
        ]
        given += [f"--{file}-file={self.folder}/munged.{file}" for file in ("seed", "pid", "log")]
        options = (
            ["--foreground", *given] if name == "munged" else ["-D", "-f", str(self.folder / "slurm.conf")]
        )
        with (self.folder / f"{name}.out").open("ab") as out:
            # of a session of its own: Ctrl-C ends the jobs through Snakemake, not through their cluster
            self.daemons[name] = subprocess.Popen(
                [name, *options],
                cwd=self.folder,
                env=self.environment,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )

    def stop(self, name: str) -> None:
        """End a daemon; jobs go on without it."""
        daemon = self.daemons.pop(name)
        daemon.terminate()
        try:
            daemon.wait(20)
        except subprocess.TimeoutExpired:
            daemon.kill()
            daemon.wait()

    def lose_node(self) -> None:
        """End the node as a loss of power does: its daemon, and all that runs there."""
        self.stop("slurmd")
        conf = f"SLURM_CONF={self.folder / 'slurm.conf'}".encode()
        for process in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):  # it has ended
                names = (process / "environ").read_bytes().split(b"\0")
                step = (process / "comm").read_text().startswith("slurmstepd")
                if conf in names and (step or any(name.startswith(b"SLURM_JOB_ID=") for name in names)):
                    os.kill(int(process.name), signal.SIGKILL)

    def tell(self, *command: str) -> str:
        """Run one of Slurm's programs; what it printed."""
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=60)
        return done.stdout.strip()

    def _configure(self) -> None:
        host, conf, user = socket.gethostname().split(".")[0], self.folder / "slurm.conf", os.getuid()
        loopback = socket.gethostbyname(socket.gethostname()).startswith("127.")
        bind = (
            "NoCtldInAddrAny,NoInAddrAny" if loopback else "NoCtldInAddrAny"
        )  # else srun could not be called back
        written = {
            "folder": self.folder,
            "ports": _free_ports(2),
            "host": host,
            "user": user,
            "bind": bind,
            "gpus": self.gpus,
        }
        conf.write_text(CONFIG.format(**written))
        # slurmd asks for a device file per GPU and reads its number off the name
        for index in range(self.gpus):
            (self.folder / f"dev/gpu{index}").symlink_to("/dev/null")
        files = f"{self.folder}/dev/gpu[0-{self.gpus - 1}]"
        (self.folder / "gres.conf").write_text(
            f"AutoDetect=off\nNodeName={host} Name=gpu File={files} Flags=nvidia_gpu_env\n"
        )
        (self.folder / "cgroup.conf").write_text(
            "CgroupPlugin=cgroup/v1\n"
        )  # or slurmd looks for a mounted tree to choose by
        (self.folder / "munge.key").write_bytes(os.urandom(1024))
        (self.folder / "munge.key").chmod(0o400)
        srun = shlex.quote(str(shutil.which("srun", path=self._path())))
        scripts = {
            "epilog": EPILOG.format(conf=conf),
            "bin/srun": f'#!/bin/sh\nSLURM_CONF={conf} exec {srun} "$@"\n',
        }
        for name, text in scripts.items():
            (self.folder / name).write_text(text)
            (self.folder / name).chmod(0o755)

    def _wait(self, *command: str) -> None:
        deadline = time.monotonic() + 60
        while subprocess.run(
            command, env=self.environment, capture_output=True, stdin=subprocess.DEVNULL
        ).returncode:
            late = [name for name, daemon in self.daemons.items() if daemon.poll() is not None]
            if late or time.monotonic() > deadline:
                said = "\n".join(
                    path.read_text(errors="replace")[-2000:] for path in self.folder.glob("*.out")
                )
                raise RuntimeError(f"Slurm does not start ({', '.join(late) or 'nobody'} ended):\n{said}")
            time.sleep(0.3)


def _free_ports(count: int) -> list[int]:
    """Ports that were free a moment ago."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def answers() -> bool:
    """Whether a Slurm answers here."""
    return (
        shutil.which("sinfo") is not None and subprocess.run(["sinfo"], capture_output=True).returncode == 0
    )


if __name__ == "__main__":
    if answers():
        sys.exit(subprocess.run(sys.argv[1:]).returncode)
    try:
        slurm = Slurm()
    except FileNotFoundError as error:
        sys.exit(f"error: no Slurm answers (sinfo), and none can be started here: {error}")
    with slurm:
        print(f"a Slurm of four pretended GPUs for this command: {slurm.folder}", file=sys.stderr)
        sys.exit(subprocess.run(sys.argv[1:], env=slurm.environment).returncode)
