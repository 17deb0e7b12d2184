rule load_taxonomy:
    input:
        unpack(plan.questions.load_taxonomy.reads),
    output:
        taxa=layout.PUBLISHED_TAXA,
    log:
        layout.log("load_taxonomy/{dataset}"),
    benchmark:
        layout.benchmark("load_taxonomy/{dataset}")
    params:
        task=plan.questions.load_taxonomy,
        shaping=plan.questions.load_taxonomy.shaping,
    message:
        "Reading the benchmark's taxonomy of {wildcards.dataset}"
    script:
        "../scripts/load_taxonomy.py"


rule import_published:
    input:
        unpack(plan.questions.import_published.reads),
    output:
        questions=layout.fix(layout.QUESTIONS, choices="published"),
        records=layout.RECORDS,
    log:
        layout.log("import_published/{dataset}"),
    benchmark:
        layout.benchmark("import_published/{dataset}")
    params:
        task=plan.questions.import_published,
        shaping=plan.questions.import_published.shaping,
    message:
        "Importing the benchmark's questions about {wildcards.dataset}"
    script:
        "../scripts/import_published.py"


rule export_questions:
    input:
        unpack(plan.questions.export_questions.reads),
    output:
        output=layout.QUESTIONS_EXPORT,
    log:
        layout.log("export_questions/{dataset}/{choices}"),
    benchmark:
        layout.benchmark("export_questions/{dataset}/{choices}")
    params:
        task=plan.questions.export_questions,
        shaping=plan.questions.export_questions.shaping,
    message:
        "Writing {wildcards.choices} questions of {wildcards.dataset} in the benchmark's format"
    script:
        "../scripts/export_questions.py"


rule export_predictions:
    input:
        unpack(plan.questions.export_predictions.reads),
    output:
        output=layout.ANSWERS_EXPORT,
    log:
        layout.log("export_predictions/{system}/{dataset}/{choices}"),
    benchmark:
        layout.benchmark("export_predictions/{system}/{dataset}/{choices}")
    params:
        task=plan.questions.export_predictions,
        shaping=plan.questions.export_predictions.shaping,
    message:
        "Writing answers of {wildcards.system} to {wildcards.choices} questions of {wildcards.dataset} in the benchmark's format"
    script:
        "../scripts/export_predictions.py"


# On demand: all questions and answers of the config, for the benchmark's own scripts.
rule export:
    input:
        plan.exports(),
