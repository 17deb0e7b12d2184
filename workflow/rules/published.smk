rule load_taxonomy:
    input:
        plan.taxonomy,
    output:
        "results/published/{dataset}/taxa.parquet",
    log:
        "results/logs/load_taxonomy/{dataset}.log",
    benchmark:
        "results/benchmarks/load_taxonomy/{dataset}.jsonl"
    params:
        code=code_version("vltaxon.data.taxa"),
        ranks=lambda wildcards: list(plan.dataset(wildcards.dataset).ranks),
    message:
        "Reading the benchmark's taxonomy of {wildcards.dataset}"
    script:
        "../scripts/load_taxonomy.py"


rule import_published:
    input:
        unpack(plan.published_inputs),
    output:
        questions="results/questions/{dataset}/published.parquet",
        records="results/questions/{dataset}/published_records.parquet",
    log:
        "results/logs/import_published/{dataset}.log",
    benchmark:
        "results/benchmarks/import_published/{dataset}.jsonl"
    params:
        code=code_version("vltaxon.distractors.published"),
        values=plan.published_values,
    message:
        "Importing the benchmark's questions about {wildcards.dataset}"
    script:
        "../scripts/import_published.py"


rule export_questions:
    input:
        unpack(plan.question_files),
    output:
        "results/published/{dataset}/{choices}.jsonl",
    log:
        "results/logs/export_questions/{dataset}/{choices}.log",
    benchmark:
        "results/benchmarks/export_questions/{dataset}/{choices}.jsonl"
    params:
        code=code_version("vltaxon.distractors.published"),
    message:
        "Writing {wildcards.choices} questions of {wildcards.dataset} in the benchmark's format"
    script:
        "../scripts/export_questions.py"


rule export_predictions:
    input:
        unpack(plan.question_files),
        answers=plan.answer_shards,
    output:
        "results/published/{system}/{dataset}/{choices}.json",
    log:
        "results/logs/export_predictions/{system}/{dataset}/{choices}.log",
    benchmark:
        "results/benchmarks/export_predictions/{system}/{dataset}/{choices}.jsonl"
    params:
        code=code_version("vltaxon.distractors.published"),
    message:
        "Writing answers of {wildcards.system} to {wildcards.choices} questions of {wildcards.dataset} in the benchmark's format"
    script:
        "../scripts/export_predictions.py"


# On demand: all questions and answers of the config, for the benchmark's own scripts.
rule export:
    input:
        plan.exports(),
