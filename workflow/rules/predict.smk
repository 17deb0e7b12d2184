rule predict_leaf:
    input:
        unpack(plan.prediction.predict_leaf.reads),
    output:
        predictions=layout.LEAF,
    log:
        layout.log("predict_leaf/{system}/{dataset}/{shard}"),
    benchmark:
        layout.benchmark("predict_leaf/{system}/{dataset}/{shard}")
    threads: lambda wildcards: plan.prediction.predict_leaf(wildcards).threads
    resources:
        gpu=lambda wildcards: plan.prediction.predict_leaf(wildcards).gpu,
        mem_mb=lambda wildcards, attempt: attempt
        * plan.prediction.predict_leaf(wildcards).mem_mb,
        batch_size=lambda wildcards: plan.prediction.predict_leaf(wildcards).batch_size,
    params:
        task=plan.prediction.predict_leaf,
        shaping=plan.prediction.predict_leaf.shaping,
    message:
        "Stage 1: {wildcards.system} names the leaves of {wildcards.dataset}"
    script:
        "../scripts/predict_leaf.py"


# Between many shards and many shards, or the plan would grow with their square.
rule list_leaves:
    input:
        unpack(plan.prediction.list_leaves.reads),
    output:
        shards=layout.LEAF_SHARDS,
    log:
        layout.log("list_leaves/{system}/{dataset}"),
    localrule: True
    params:
        task=plan.prediction.list_leaves,
        shaping=plan.prediction.list_leaves.shaping,
    message:
        "Listing what {wildcards.system} has named of {wildcards.dataset}"
    script:
        "../scripts/list_leaves.py"


rule answer_questions:
    input:
        unpack(plan.prediction.answer_questions.reads),
    output:
        predictions=layout.ANSWERS,
    log:
        layout.log("answer_questions/{system}/{dataset}/{choices}/{shard}"),
    benchmark:
        layout.benchmark("answer_questions/{system}/{dataset}/{choices}/{shard}")
    threads: lambda wildcards: plan.prediction.answer_questions(wildcards).threads
    resources:
        gpu=lambda wildcards: plan.prediction.answer_questions(wildcards).gpu,
        mem_mb=lambda wildcards, attempt: attempt
        * plan.prediction.answer_questions(wildcards).mem_mb,
        batch_size=lambda wildcards: plan.prediction.answer_questions(
            wildcards
        ).batch_size,
    params:
        task=plan.prediction.answer_questions,
        shaping=plan.prediction.answer_questions.shaping,
    message:
        "Stage 2: {wildcards.system} answers {wildcards.choices} questions of {wildcards.dataset}"
    script:
        "../scripts/answer_questions.py"


# On demand: what is kept of all answers that were ever given, in results/.state/journal. Deleting it loses time only.
rule journal:
    log:
        layout.log("journal"),
    localrule: True
    params:
        task=plan.prediction.journal,
    message:
        "Counting the answers that are kept"
    script:
        "../scripts/journal.py"


rule prune_journal:
    log:
        layout.log("prune_journal"),
    localrule: True
    params:
        task=plan.prediction.prune_journal,
    message:
        "Deleting the answers of models and adapters that do not exist any more"
    script:
        "../scripts/prune_journal.py"
