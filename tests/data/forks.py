"""Snakemake without its imports: a process that has them and forks for each command.

Half of the time of a dry run goes into importing Snakemake and its plugins, and the tests make many. A fork
finds them there, and nothing of vltaxon, which it imports from the folder that it is started in.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path


class Forks:
    """The process, started at the first command; ends when it is closed."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None

    def snakemake(self, folder: Path, environment: dict[str, str], *args: str) -> tuple[int, str]:
        """Run Snakemake as `python -m snakemake` does there; exit status and all it printed."""
        if self._process is None:
            pipe = subprocess.PIPE
            self._process = subprocess.Popen([sys.executable, __file__], stdin=pipe, stdout=pipe, text=True)
        process = self._process
        assert process.stdin is not None and process.stdout is not None
        with tempfile.NamedTemporaryFile("r") as output:
            print(json.dumps([str(folder), environment, output.name, args]), file=process.stdin, flush=True)
            return int(process.stdout.readline()), output.read()

    def close(self) -> None:
        if self._process is not None:
            self._process.communicate()


def serve() -> None:
    """Answer lines of folder, environment, output and arguments with exit statuses."""
    from snakemake import cli

    cli.get_argument_parser()  # imports the plugins
    assert not any(name.partition(".")[0] in ("vltaxon", "torch") for name in sys.modules)
    statuses = os.fdopen(os.dup(1), "w")
    for line in sys.stdin:
        folder, environment, output, arguments = json.loads(line)
        if (child := os.fork()) == 0:
            _become(folder, environment, output)
            sys.argv[1:] = arguments
            cli.main(arguments)  # exits
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), file=statuses, flush=True)


def _become(folder: str, environment: dict[str, str], output: str) -> None:
    """Be where and what a process of its own would be."""
    os.setsid()
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    for number, path in enumerate((os.devnull, output, output)):
        os.dup2(os.open(path, os.O_RDONLY if number == 0 else os.O_WRONLY | os.O_APPEND), number)
    sys.path[:1] = [folder, *filter(None, environment.get("PYTHONPATH", "").split(os.pathsep))]


if __name__ == "__main__":
    serve()
