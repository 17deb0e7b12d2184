rule plot:
    input:
        unpack(plan.scoring.plot.reads),
    output:
        level_accuracy=report(
            layout.FIGURE.format(name="level_accuracy") + ".svg",
            caption="../report/level_accuracy.rst",
            category="Figures",
        ),
        hca_leaf=report(
            layout.FIGURE.format(name="hca_leaf") + ".svg",
            caption="../report/hca_leaf.rst",
            category="Figures",
        ),
        training=report(
            layout.FIGURE.format(name="training") + ".svg",
            caption="../report/training.rst",
            category="Figures",
        ),
        png=expand(
            f"{layout.FIGURE}.png", name=["level_accuracy", "hca_leaf", "training"]
        ),
    log:
        layout.log("plot"),
    benchmark:
        layout.benchmark("plot")
    params:
        task=plan.scoring.plot,
        shaping=plan.scoring.plot.shaping,
    message:
        "Drawing the figures"
    script:
        "../scripts/plot.py"


rule report:
    input:
        unpack(plan.scoring.report.reads),
    output:
        page=report(
            layout.REPORT,
            caption="../report/report.rst",
            category="Report",
        ),
    log:
        layout.log("report"),
    benchmark:
        layout.benchmark("report")
    params:
        task=plan.scoring.report,
        shaping=plan.scoring.report.shaping,
    message:
        "Writing the report page"
    script:
        "../scripts/report.py"


# On demand: what the jobs took so far, for the time and memory of a cluster's profile.
rule usage:
    log:
        layout.log("usage", "md"),
    localrule: True
    params:
        task=plan.scoring.usage,
    message:
        "Adding up the time and memory that jobs took"
    script:
        "../scripts/usage.py"
