rule embed:
    input:
        model=plan.encoder_files,
        images="results/data/{dataset}/images.parquet",
        taxa="results/data/{dataset}/taxa.parquet",
    output:
        images="results/embeddings/{encoder}/{dataset}/images.parquet",
        taxa="results/embeddings/{encoder}/{dataset}/taxa.parquet",
    log:
        "results/logs/embed/{encoder}/{dataset}.log",
    benchmark:
        "results/benchmarks/embed/{encoder}/{dataset}.jsonl"
    threads: lambda wildcards: plan.model(wildcards.encoder).threads
    resources:
        gpu=1,
        mem_mb=lambda wildcards, attempt: attempt * plan.memory(wildcards.encoder),
        batch_size=lambda wildcards: plan.model(wildcards.encoder).batch_size,
    params:
        version=VERSIONS["vltaxon.distractors.embedding"],
        encoder=lambda wildcards: plan.model_values(wildcards.encoder),
    message:
        "Embedding images and taxa of {wildcards.dataset} with {wildcards.encoder}"
    script:
        "../scripts/embed.py"


rule mine:
    input:
        images="results/data/{dataset}/images.parquet",
        taxa="results/data/{dataset}/taxa.parquet",
        image_vectors=f"results/embeddings/{plan.config.encoder}/{{dataset}}/images.parquet",
        taxon_vectors=f"results/embeddings/{plan.config.encoder}/{{dataset}}/taxa.parquet",
    output:
        "results/questions/{dataset}/similar.parquet",
    log:
        "results/logs/mine/{dataset}.log",
    benchmark:
        "results/benchmarks/mine/{dataset}.jsonl"
    threads: 8
    params:
        code=code_version("vltaxon.distractors.mining"),
        values=plan.mining_values,
    message:
        "Mining similar distractors for {wildcards.dataset}"
    script:
        "../scripts/mine.py"


rule calibrate_templates:
    input:
        unpack(plan.calibration_inputs),
    output:
        table="results/calibration/{dataset}/{encoder}.parquet",
        text="results/calibration/{dataset}/{encoder}.csv",
    log:
        "results/logs/calibrate_templates/{encoder}/{dataset}.log",
    benchmark:
        "results/benchmarks/calibrate_templates/{encoder}/{dataset}.jsonl"
    resources:
        gpu=1,
        mem_mb=lambda wildcards, attempt: attempt * plan.memory(wildcards.encoder),
    params:
        code=code_version("vltaxon.distractors.calibration"),
        encoder=lambda wildcards: plan.model_values(wildcards.encoder),
        texts=plan.config.calibration.model_dump(mode="json"),
    message:
        "Comparing templates of {wildcards.encoder} with the published distractors of {wildcards.dataset}"
    script:
        "../scripts/calibrate_templates.py"


rule draw:
    input:
        images="results/data/{dataset}/images.parquet",
        taxa="results/data/{dataset}/taxa.parquet",
    output:
        "results/questions/{dataset}/random.parquet",
    log:
        "results/logs/draw/{dataset}.log",
    benchmark:
        "results/benchmarks/draw/{dataset}.jsonl"
    params:
        code=code_version("vltaxon.questions"),
        values=plan.question_values,
    message:
        "Drawing random distractors for {wildcards.dataset}"
    script:
        "../scripts/draw.py"


rule partition:
    input:
        taxa="results/data/{dataset}/taxa.parquet",
        images="results/data/{dataset}/images.parquet",
    output:
        "results/splits/{dataset}.parquet",
    log:
        "results/logs/partition/{dataset}.log",
    benchmark:
        "results/benchmarks/partition/{dataset}.jsonl"
    params:
        code=code_version("vltaxon.partition"),
        partition=plan.config.training.partition.model_dump(),
        seed=plan.config.seed,
    message:
        "Parting the species of {wildcards.dataset}"
    script:
        "../scripts/partition.py"
