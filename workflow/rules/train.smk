rule train:
    input:
        unpack(plan.training.train.reads),
    output:
        adapter=layout.ADAPTER.replace("{file}", layout.WEIGHTS),
        config=layout.ADAPTER.replace("{file}", layout.ADAPTER_CONFIG),
        record=layout.ADAPTER.replace("{file}", layout.RECORD),
        curve=layout.ADAPTER.replace("{file}", layout.CURVE),
    log:
        layout.log("train/{model}/{recipe}/{step}"),
    benchmark:
        layout.benchmark("train/{model}/{recipe}/{step}")
    priority: plan.training.priority
    threads: plan.training.threads
    resources:
        gpu=lambda wildcards: plan.training.train(wildcards).gpu,
        processes=lambda wildcards: plan.training.train(wildcards).processes,
        distributed=lambda wildcards: plan.training.train(wildcards).distributed,
        mem_mb=lambda wildcards, attempt: attempt * plan.training.memory(wildcards),
        device_batch_size=lambda wildcards: plan.training.train(
            wildcards
        ).device_batch_size,
        checkpoint_minutes=lambda wildcards: plan.training.train(
            wildcards
        ).checkpoint_minutes,
    params:
        task=plan.training.train,
        shaping=plan.training.train.shaping,
    message:
        "Training {wildcards.model}: {wildcards.recipe}, step {wildcards.step}"
    script:
        "../scripts/train.py"


# What the adapter of the step before names the training images, for samples that are conditioned on it.
rule name_training:
    input:
        unpack(plan.training.name_training.reads),
    output:
        predictions=layout.OWN,
    log:
        layout.log("name_training/{model}/{recipe}/{step}"),
    benchmark:
        layout.benchmark("name_training/{model}/{recipe}/{step}")
    priority: plan.training.priority
    threads: plan.training.threads
    resources:
        gpu=lambda wildcards: plan.training.name_training(wildcards).gpu,
        mem_mb=lambda wildcards, attempt: attempt * plan.models.memory(wildcards.model),
        batch_size=lambda wildcards: plan.training.name_training(wildcards).batch_size,
    params:
        task=plan.training.name_training,
        shaping=plan.training.name_training.shaping,
    message:
        "Naming training images before step {wildcards.step} of {wildcards.recipe}"
    script:
        "../scripts/name_training.py"


# On demand, for servers that take no adapter: `snakemake results/merged/MODEL/RECIPE` as a target keeps it.
rule merge_adapter:
    input:
        unpack(plan.training.merge_adapter.reads),
    output:
        merged=temp(directory(layout.MERGED)),
    log:
        layout.log("merge_adapter/{model}/{recipe}"),
    benchmark:
        layout.benchmark("merge_adapter/{model}/{recipe}")
    resources:
        mem_mb=lambda wildcards, attempt: attempt * plan.models.memory(wildcards.model),
    params:
        task=plan.training.merge_adapter,
        shaping=plan.training.merge_adapter.shaping,
    message:
        "Merging the adapter of {wildcards.recipe} into {wildcards.model}"
    script:
        "../scripts/merge_adapter.py"
