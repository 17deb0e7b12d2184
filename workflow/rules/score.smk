# Scores and tables of scopes: systems, data sets and choices that are scored together (`vltaxon.plan.scopes`).
rule score:
    input:
        unpack(plan.scoring.score.reads),
    output:
        scores=layout.SCORES,
        database=layout.DATABASE,
    log:
        layout.log("score{of}"),
    benchmark:
        layout.benchmark("score{of}")
    threads: 8
    params:
        task=plan.scoring.score,
        shaping=plan.scoring.score.shaping,
    message:
        "Scoring all predictions of {params.task.scope}"
    script:
        "../scripts/score.py"


rule tabulate:
    input:
        unpack(plan.scoring.tabulate.reads),
    output:
        csv=f"{layout.TABLE}.csv",
        md=report(
            f"{layout.TABLE}.md",
            caption="../report/table.rst",
            category="Tables",
            labels={"table": "{scope}"},
        ),
        tex=f"{layout.TABLE}.tex",
    log:
        layout.log("tabulate/{scope}"),
    benchmark:
        layout.benchmark("tabulate/{scope}")
    params:
        task=plan.scoring.tabulate,
        shaping=plan.scoring.tabulate.shaping,
    message:
        "Writing the table of {wildcards.scope}"
    script:
        "../scripts/tabulate.py"
