"""Every path under results/, as Snakemake's patterns: what stands in braces is a wildcard.

Light: read while the Snakefile is parsed.
"""

from pathlib import Path

# raw files and data sets
RAW = "results/raw/{file}"
ARCHIVES = Path("results/data/archives")
TAR = "results/data/archives/{archive}.tar"
INDEX = "results/data/archives/{archive}.parquet"
IMAGES = "results/data/{dataset}/images.parquet"
TAXA = "results/data/{dataset}/taxa.parquet"
REJECTED = "results/data/{dataset}/rejected.parquet"

# questions
IMAGE_VECTORS = "results/embeddings/{encoder}/{dataset}/images.parquet"
TAXON_VECTORS = "results/embeddings/{encoder}/{dataset}/taxa.parquet"
QUESTIONS = "results/questions/{dataset}/{choices}.parquet"
RECORDS = "results/questions/{dataset}/published_records.parquet"
PARTS = "results/splits/{dataset}.parquet"
CALIBRATION = "results/calibration/{dataset}/{encoder}.parquet"
CALIBRATION_TEXT = "results/calibration/{dataset}/{encoder}.csv"

# the benchmark's formats
PUBLISHED_TAXA = "results/published/{dataset}/taxa.parquet"
QUESTIONS_EXPORT = "results/published/{dataset}/{choices}.jsonl"
ANSWERS_EXPORT = "results/published/{system}/{dataset}/{choices}.json"

# training
ADAPTER = "results/adapters/{model}/{recipe}/{step}/{file}"
ADAPTERS = Path("results/adapters")
WEIGHTS = "adapter_model.safetensors"
ADAPTER_CONFIG = "adapter_config.json"
RECORD = "record.json"
CURVE = "curve.parquet"
OWN = "results/own/{model}/{recipe}/{step}.parquet"
MERGED = "results/merged/{model}/{recipe}"

# prediction
PREDICTIONS = Path("results/predictions")
LEAF = "results/predictions/{system}/{dataset}/leaf/{shard}.parquet"
LEAF_SHARDS = "results/predictions/{system}/{dataset}/leaf/shards.json"
ANSWERS = "results/predictions/{system}/{dataset}/{choices}/{shard}.parquet"

# scores, tables, figures, report; of the main scope, `of` is empty, of any other `.` and its name
SCORES = "results/metrics/scores{of}.parquet"
DATABASE = "results/benchmark{of}.duckdb"
TABLE = "results/tables/{scope}"
FIGURE = "results/figures/{name}"
PAPER_FIGURE = "results/figures/{paper}.{figure}"
REPORT = "results/report/index.html"
BENCHMARKS = Path("results/benchmarks")

# the embedded demo
DEMO_RAW = "results/demo/raw/{file}"
DEMO_SIGLIP = "results/demo/siglip/{file}"
DEMO_BASE = "results/demo/base/model.safetensors"

# What survives a job that is killed: no rule declares it, since Snakemake deletes the declared outputs of a
# failed job.
STATE = Path("results/.state")
JOURNAL = STATE / "journal"
TRAINER_STATES = STATE / "train"
DOWNLOADS = STATE / "downloads"
ERRORS = STATE / "errors"
SPENT = STATE / "spent"


def fill(pattern: str, **values: object) -> Path:
    """Return the path of a pattern with all its wildcards filled in.

    Args:
        pattern: one of the patterns above.
        **values: value of each wildcard.
    """
    return Path(pattern.format(**values))


def fix(pattern: str, **values: object) -> str:
    """Return a pattern with some of its wildcards filled in.

    Args:
        pattern: one of the patterns above.
        **values: values of these wildcards.
    """
    for name, value in values.items():
        pattern = pattern.replace(f"{{{name}}}", str(value))
    return pattern


def log(name: str, suffix: str = "log") -> str:
    """Return the pattern of a job's log.

    Args:
        name: rule and wildcards, `rule/{wildcard}`.
        suffix: ending of the file, without its dot.
    """
    return f"results/logs/{name}.{suffix}"


def benchmark(name: str) -> str:
    """Return the pattern of the file in which Snakemake keeps what a job took."""
    return f"{BENCHMARKS}/{name}.jsonl"
