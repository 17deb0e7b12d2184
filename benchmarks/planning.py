"""How long Snakemake plans: parsing, the plan of all jobs of a large experiment, and the check that it is
finished.

Run by hand: `python benchmarks/planning.py`: 20 systems on 6 data sets in 32 shards where not given
(`--help`). The experiment is made of the paper's own config in a temporary folder. Its finished layout has
empty files in place of results, and Snakemake's own records of them, so that nothing is to be done. Prints a
table and writes results/benchmarks/planning.json.
"""

import argparse
import asyncio
import json
import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml
from tabulate import tabulate

ROOT = Path(__file__).parents[1]
# Those of config/paper.yaml that a local model answers.
SYSTEMS = (
    "base", "default_sft", "hierarchical_sft", "vl_taxon", "vl_taxon_lookup", "vl_taxon_constrained", "vl_taxon_no_reasoning",
    "vl_taxon_no_first_stage", "full_grpo", "vl_taxon_kl_0.04", "vl_taxon_gold", "vl_taxon_own", "vl_taxon_random",
    "vl_taxon_organism", "tan_lora", "llava_onevision_7b", "internvl2_5_8b", "internvl3_8b", "qwen2_5_vl_32b", "qwen2_5_vl_72b",
)  # fmt: skip


def build(folder: Path, systems: int, datasets: int, shards: int) -> None:
    """A copy of the workflow with an experiment of that size; the archives are empty files."""
    for name in ("Snakefile", "config", "profiles", "workflow"):
        (shutil.copytree if (ROOT / name).is_dir() else shutil.copy)(ROOT / name, folder / name)
    given = yaml.safe_load((folder / "config/datasets/inat21_plants.yaml").read_text())
    (folder / "raw").mkdir()
    names = [f"plants_{number}" for number in range(datasets)]
    for name in names:
        splits = {
            split: {
                key: f"raw/{name}_{split}.{end}"
                for key, end in (("archive", "tar.gz"), ("annotations", "json.tar.gz"))
            }
            for split in ("train", "test")
        }
        for path in (path for split in splits.values() for path in split.values()):
            (folder / path).touch()
        kept = {key: value for key, value in given.items() if key != "published"}
        (folder / f"config/datasets/{name}.yaml").write_text(yaml.safe_dump(kept | splits))
    paper = yaml.safe_load((folder / "config/paper.yaml").read_text())
    chosen = {name: paper["systems"][name] | {"variant": 0} for name in SYSTEMS[:systems]}
    for (
        system
    ) in chosen.values():  # a wording of their own some have by data set, and some protocols ask without one
        if system["protocol"] not in ("direct", "direct_plain"):
            del system["variant"]
    paper |= {
        "datasets": names,
        "systems": chosen,
        "main": [],
        "tables": None,
        "comparisons": {},
        "sweeps": {},
        "repeats": {},
    }
    paper |= {"shards": shards, "training": paper["training"] | {"dataset": names[0]}}
    paper["report"] |= {"dataset": names[0], "system": SYSTEMS[0]}
    (folder / "config/config.yaml").write_text(yaml.safe_dump(paper, sort_keys=False))


def finish(folder: Path) -> None:
    """Make every output as an empty file, each job's after those of the jobs before it, and let Snakemake
    record the jobs.
    """
    from snakemake.settings.types import ExecutionSettings

    from vltaxon.why import planned

    os.chdir(folder)
    dag = planned()
    dag.workflow.iocache.deactivate()
    dag.workflow.execution_settings = ExecutionSettings()
    for level in dag.toposorted():
        for job in level:
            for path in map(Path, job.output):
                path.parent.mkdir(parents=True, exist_ok=True)
                path.touch()
            asyncio.run(dag.workflow.persistence.finished(job))


def timed(folder: Path, *command: str) -> tuple[float, float, str]:
    """Seconds of a command in a folder on the clock and on a CPU, and all it printed."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run([sys.executable, *command], cwd=folder, capture_output=True, text=True)
    took, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode != 0:
        sys.exit(done.stdout + done.stderr)
    return (
        took,
        after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
        done.stdout + done.stderr,
    )


def main(given: argparse.Namespace, folder: Path) -> None:
    build(folder, given.systems, given.datasets, given.shards)
    lines: list[dict[str, object]] = []

    def measure(what: str, bound: str, *command: str) -> str:
        took, worked, said = timed(folder, *command)
        lines.append(
            {"measure": what, "seconds": round(took, 1), "of a CPU": round(worked, 1), "wanted": bound}
        )
        print(f"{what}: {took:.1f} s", flush=True)
        return said

    measure("parsing alone (snakemake --list-rules)", "", "-m", "snakemake", "--list-rules")
    said = measure(
        "planning all jobs (snakemake --dry-run --quiet rules)",
        "< 30",
        "-m",
        "snakemake",
        "--dry-run",
        "--quiet",
        "rules",
    )
    jobs = {rule: int(count) for rule, count in re.findall(r"^(\w+) +(\d+)$", said, re.MULTILINE)}
    measure("making the finished layout and its records", "", __file__, "--finish", str(folder))
    for what, *command in (
        ("no-op, planned (snakemake --dry-run)", "--dry-run"),
        ("no-op, run (snakemake --cores all)", "--cores", "all"),
    ):
        said = measure(what, "< 20", "-m", "snakemake", *command)
        if "Nothing to be done" not in said:
            sys.exit(f"the finished layout is not finished:\n{said[-3000:]}")
    print(tabulate(lines, headers="keys", tablefmt="github"))
    print(", ".join(f"{count} {rule}" for rule, count in jobs.items()))
    target = ROOT / "results/benchmarks/planning.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    size = {key: getattr(given, key) for key in ("systems", "datasets", "shards")}
    target.write_text(
        json.dumps(size | {"cores": os.cpu_count(), "jobs": jobs, "rows": lines}, indent=1) + "\n"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--systems", type=int, default=20, help="of at most 20")
    parser.add_argument("--datasets", type=int, default=6)
    parser.add_argument("--shards", type=int, default=32)
    parser.add_argument("--finish", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.finish is not None:
        finish(arguments.finish)
        sys.exit()
    with tempfile.TemporaryDirectory() as temporary:
        main(arguments, Path(temporary))
