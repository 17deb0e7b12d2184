rule train:
    input:
        unpack(plan.train_inputs),
    output:
        adapter="results/adapters/{model}/{recipe}/{step}/adapter_model.safetensors",
        config="results/adapters/{model}/{recipe}/{step}/adapter_config.json",
        record="results/adapters/{model}/{recipe}/{step}/record.json",
        curve="results/adapters/{model}/{recipe}/{step}/curve.parquet",
    log:
        "results/logs/train/{model}/{recipe}/{step}.log",
    benchmark:
        "results/benchmarks/train/{model}/{recipe}/{step}.jsonl"
    priority: plan.train_priority
    threads: lambda wildcards: plan.model(wildcards.model).threads
    resources:
        gpu=lambda wildcards: plan.train_gpus(wildcards.model),
        processes=lambda wildcards: plan.model(wildcards.model).processes,
        distributed=lambda wildcards: plan.model(wildcards.model).distributed,
        mem_mb=lambda wildcards, attempt: attempt
        * plan.memory(wildcards.model)
        * plan.model(wildcards.model).processes,
        device_batch_size=lambda wildcards: plan.step(wildcards).device_batch_size,
        checkpoint_minutes=lambda wildcards: plan.step(wildcards).checkpoint_minutes,
    params:
        version=VERSIONS["vltaxon.train.run"],
        model=lambda wildcards: plan.model_values(wildcards.model),
        training=plan.train_values,
        seed=plan.config.seed,
    message:
        "Training {wildcards.model}: {wildcards.recipe}, step {wildcards.step}"
    script:
        "../scripts/train.py"


# What the adapter of the step before names the training images, for samples that are conditioned on it.
rule name_training:
    input:
        unpack(plan.own_inputs),
    output:
        "results/own/{model}/{recipe}/{step}.parquet",
    log:
        "results/logs/name_training/{model}/{recipe}/{step}.log",
    benchmark:
        "results/benchmarks/name_training/{model}/{recipe}/{step}.jsonl"
    priority: plan.train_priority
    threads: lambda wildcards: plan.model(wildcards.model).threads
    resources:
        gpu=lambda wildcards: plan.gpus(wildcards.model),
        mem_mb=lambda wildcards, attempt: attempt * plan.memory(wildcards.model),
        batch_size=lambda wildcards: plan.model(wildcards.model).batch_size,
    params:
        version=VERSIONS["vltaxon.inference.run"],
        values=plan.own_values,
    message:
        "Naming training images before step {wildcards.step} of {wildcards.recipe}"
    script:
        "../scripts/name_training.py"


# On demand, for servers that take no adapter: `snakemake results/merged/MODEL/RECIPE` as a target keeps it.
rule merge_adapter:
    input:
        unpack(plan.merge_inputs),
    output:
        temp(directory("results/merged/{model}/{recipe}")),
    log:
        "results/logs/merge_adapter/{model}/{recipe}.log",
    benchmark:
        "results/benchmarks/merge_adapter/{model}/{recipe}.jsonl"
    resources:
        mem_mb=lambda wildcards, attempt: attempt * plan.memory(wildcards.model),
    params:
        version=VERSIONS["vltaxon.train.run"],
        model=lambda wildcards: plan.model_values(wildcards.model),
    message:
        "Merging the adapter of {wildcards.recipe} into {wildcards.model}"
    script:
        "../scripts/merge_adapter.py"
