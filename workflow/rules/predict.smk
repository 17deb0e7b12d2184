rule predict_leaf:
    input:
        unpack(plan.leaf_inputs),
    output:
        "results/predictions/{system}/{dataset}/leaf/{shard}.parquet",
    log:
        "results/logs/predict_leaf/{system}/{dataset}/{shard}.log",
    benchmark:
        "results/benchmarks/predict_leaf/{system}/{dataset}/{shard}.jsonl"
    threads: plan.threads
    resources:
        gpu=lambda wildcards: plan.needs_gpu(wildcards, "leaf"),
        mem_mb=lambda wildcards, attempt: attempt
        * plan.prediction_memory(wildcards, "leaf"),
        batch_size=plan.batch_size,
        settings=plan.settings,
    params:
        version=VERSIONS["vltaxon.inference.run"],
        values=lambda wildcards: plan.stage_values(wildcards, "leaf"),
    message:
        "Stage 1: {wildcards.system} names the leaves of {wildcards.dataset}"
    script:
        "../scripts/predict_leaf.py"


# Between many shards and many shards, or the plan would grow with their square.
rule list_leaves:
    input:
        lambda wildcards: plan.leaf_shards(wildcards.system, wildcards.dataset),
    output:
        "results/predictions/{system}/{dataset}/leaf/shards.json",
    log:
        "results/logs/list_leaves/{system}/{dataset}.log",
    localrule: True
    params:
        version=VERSIONS["vltaxon.inference.run"],
    message:
        "Listing what {wildcards.system} has named of {wildcards.dataset}"
    script:
        "../scripts/list_leaves.py"


rule answer_questions:
    input:
        unpack(plan.answer_inputs),
    output:
        "results/predictions/{system}/{dataset}/{choices}/{shard}.parquet",
    log:
        "results/logs/answer_questions/{system}/{dataset}/{choices}/{shard}.log",
    benchmark:
        "results/benchmarks/answer_questions/{system}/{dataset}/{choices}/{shard}.jsonl"
    threads: plan.threads
    resources:
        gpu=lambda wildcards: plan.needs_gpu(wildcards, "answer"),
        mem_mb=lambda wildcards, attempt: attempt
        * plan.prediction_memory(wildcards, "answer"),
        batch_size=plan.batch_size,
        settings=plan.settings,
    params:
        version=VERSIONS["vltaxon.inference.run"],
        values=lambda wildcards: plan.stage_values(wildcards, "answer"),
    message:
        "Stage 2: {wildcards.system} answers {wildcards.choices} questions of {wildcards.dataset}"
    script:
        "../scripts/answer_questions.py"


# On demand: what is kept of all answers that were ever given, in results/.state/journal. Deleting it loses time only.
rule journal:
    log:
        "results/logs/journal.log",
    localrule: True
    message:
        "Counting the answers that are kept"
    script:
        "../scripts/journal.py"


rule prune_journal:
    log:
        "results/logs/prune_journal.log",
    localrule: True
    params:
        models=plan.generators(),
    message:
        "Deleting the answers of models and adapters that are no more"
    script:
        "../scripts/prune_journal.py"
