rule demo_archives:
    output:
        archives=expand(
            "results/demo/raw/{split}.{kind}",
            split=["train_mini", "val"],
            kind=["tar.gz", "json.tar.gz"],
        ),
        cub="results/demo/raw/CUB_200_2011.tgz",
        classes="results/demo/raw/cub_classes.csv",
    log:
        "results/logs/demo_archives.log",
    benchmark:
        "results/benchmarks/demo_archives.jsonl"
    params:
        code=code_version("vltaxon.demo.archives"),
        seed=plan.config.seed,
        sizes=plan.config.demo.model_dump(),
    message:
        "Drawing the synthetic clades into raw archives"
    script:
        "../scripts/demo_archives.py"


# On one thread, so that its sums are the same on any number of cores; another draws the archives meanwhile.
rule demo_siglip:
    output:
        config="results/demo/siglip/open_clip_config.json",
        weights="results/demo/siglip/open_clip_model.safetensors",
    log:
        "results/logs/demo_siglip.log",
    benchmark:
        "results/benchmarks/demo_siglip.jsonl"
    params:
        code=code_version("vltaxon.demo.tiny_siglip"),
    message:
        "Training the tiny dual encoder with SigLIP's loss"
    script:
        "../scripts/demo_siglip.py"


# Makes again, from its seed, the checkpoint that is shipped in src/vltaxon/demo/base.
rule demo_base:
    output:
        "results/demo/base/model.safetensors",
    log:
        "results/logs/demo_base.log",
    benchmark:
        "results/benchmarks/demo_base.jsonl"
    message:
        "Pre-training the tiny vision-language model"
    script:
        "../scripts/demo_base.py"
