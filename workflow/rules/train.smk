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
    priority: plan.train_priority
    threads: lambda wildcards: plan.model(wildcards.model).threads
    resources:
        gpu=1,
        device_batch_size=lambda wildcards: plan.step(wildcards).device_batch_size,
    params:
        version=VERSIONS["vltaxon.train.run"],
        model=lambda wildcards: plan.model_values(wildcards.model),
        training=plan.train_values,
        seed=plan.config.seed,
    message:
        "Training {wildcards.model}: {wildcards.recipe}, step {wildcards.step}"
    script:
        "../scripts/train.py"
