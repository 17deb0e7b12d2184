rule unpack_archive:
    input:
        lambda wildcards: plan.archives[wildcards.archive],
    output:
        tar="results/data/archives/{archive}.tar",
        index="results/data/archives/{archive}.parquet",
    log:
        "results/logs/unpack_archive/{archive}.log",
    benchmark:
        "results/benchmarks/unpack_archive/{archive}.jsonl"
    params:
        code=code_version("vltaxon.data.archives"),
    message:
        "Unpacking and indexing {wildcards.archive}"
    script:
        "../scripts/unpack_archive.py"


rule ingest:
    input:
        unpack(plan.ingest_inputs),
    output:
        taxa="results/data/{dataset}/taxa.parquet",
        images="results/data/{dataset}/images.parquet",
        rejected="results/data/{dataset}/rejected.parquet",
    log:
        "results/logs/ingest/{dataset}.log",
    benchmark:
        "results/benchmarks/ingest/{dataset}.jsonl"
    threads: 8
    params:
        code=code_version("vltaxon.data.ingest"),
        dataset=plan.dataset_values,
        splits=lambda wildcards: plan.splits(wildcards.dataset),
        seed=plan.config.seed,
    message:
        "Reading images and taxa of {wildcards.dataset}"
    script:
        "../scripts/ingest.py"
