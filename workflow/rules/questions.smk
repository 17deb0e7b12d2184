rule embed:
    input:
        unpack(plan.questions.embed.reads),
    output:
        image_vectors=layout.IMAGE_VECTORS,
        taxon_vectors=layout.TAXON_VECTORS,
    log:
        layout.log("embed/{encoder}/{dataset}"),
    benchmark:
        layout.benchmark("embed/{encoder}/{dataset}")
    threads: lambda wildcards: plan.questions.embed(wildcards).threads
    resources:
        gpu=1,
        mem_mb=lambda wildcards, attempt: attempt
        * plan.models.memory(wildcards.encoder),
        batch_size=lambda wildcards: plan.questions.embed(wildcards).batch_size,
    params:
        task=plan.questions.embed,
        shaping=plan.questions.embed.shaping,
    message:
        "Embedding images and taxa of {wildcards.dataset} with {wildcards.encoder}"
    script:
        "../scripts/embed.py"


rule mine:
    input:
        unpack(plan.questions.mine.reads),
    output:
        questions=layout.fix(layout.QUESTIONS, choices="similar"),
    log:
        layout.log("mine/{dataset}"),
    benchmark:
        layout.benchmark("mine/{dataset}")
    threads: 8
    params:
        task=plan.questions.mine,
        shaping=plan.questions.mine.shaping,
    message:
        "Mining similar distractors for {wildcards.dataset}"
    script:
        "../scripts/mine.py"


rule calibrate_templates:
    input:
        unpack(plan.questions.calibrate_templates.reads),
    output:
        table=layout.CALIBRATION,
        text=layout.CALIBRATION_TEXT,
    log:
        layout.log("calibrate_templates/{encoder}/{dataset}"),
    benchmark:
        layout.benchmark("calibrate_templates/{encoder}/{dataset}")
    resources:
        gpu=1,
        mem_mb=lambda wildcards, attempt: attempt
        * plan.models.memory(wildcards.encoder),
    params:
        task=plan.questions.calibrate_templates,
        shaping=plan.questions.calibrate_templates.shaping,
    message:
        "Comparing templates of {wildcards.encoder} with the published distractors of {wildcards.dataset}"
    script:
        "../scripts/calibrate_templates.py"


rule draw:
    input:
        unpack(plan.questions.draw.reads),
    output:
        questions=layout.fix(layout.QUESTIONS, choices="random"),
    log:
        layout.log("draw/{dataset}"),
    benchmark:
        layout.benchmark("draw/{dataset}")
    params:
        task=plan.questions.draw,
        shaping=plan.questions.draw.shaping,
    message:
        "Drawing random distractors for {wildcards.dataset}"
    script:
        "../scripts/draw.py"


rule partition:
    input:
        unpack(plan.questions.partition.reads),
    output:
        parts=layout.PARTS,
    log:
        layout.log("partition/{dataset}"),
    benchmark:
        layout.benchmark("partition/{dataset}")
    params:
        task=plan.questions.partition,
        shaping=plan.questions.partition.shaping,
    message:
        "Parting the species of {wildcards.dataset}"
    script:
        "../scripts/partition.py"
