rule demo_archives:
    output:
        archives=expand(
            layout.DEMO_RAW,
            file=[
                f"{split}.{kind}"
                for split in ("train_mini", "val")
                for kind in ("tar.gz", "json.tar.gz")
            ],
        ),
        cub=layout.DEMO_RAW.format(file="CUB_200_2011.tgz"),
        classes=layout.DEMO_RAW.format(file="cub_classes.csv"),
    log:
        layout.log("demo_archives"),
    benchmark:
        layout.benchmark("demo_archives")
    params:
        task=plan.data.demo_archives,
        shaping=plan.data.demo_archives.shaping,
    message:
        "Drawing the synthetic clades into raw archives"
    script:
        "../scripts/demo_archives.py"


# Makes again, from its seed, the encoder that is shipped in src/vltaxon/demo/siglip; on one thread, so that its sums are
# the same on any number of cores.
rule demo_siglip:
    output:
        config=layout.DEMO_SIGLIP.format(file="open_clip_config.json"),
        weights=layout.DEMO_SIGLIP.format(file="open_clip_model.safetensors"),
    log:
        layout.log("demo_siglip"),
    benchmark:
        layout.benchmark("demo_siglip")
    params:
        task=plan.data.demo_siglip,
        shaping=plan.data.demo_siglip.shaping,
    message:
        "Training the tiny dual encoder with SigLIP's loss"
    script:
        "../scripts/demo_siglip.py"


# Makes again, from its seed, the checkpoint that is shipped in src/vltaxon/demo/base.
rule demo_base:
    output:
        weights=layout.DEMO_BASE,
    log:
        layout.log("demo_base"),
    benchmark:
        layout.benchmark("demo_base")
    params:
        task=plan.data.demo_base,
        shaping=plan.data.demo_base.shaping,
    message:
        "Pre-training the tiny vision-language model"
    script:
        "../scripts/demo_base.py"
