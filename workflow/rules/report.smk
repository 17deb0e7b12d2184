rule plot:
    input:
        scores="results/metrics/scores.parquet",
        curves=list(plan.trained("curve.parquet").values()),
    output:
        level_accuracy=report(
            "results/figures/level_accuracy.svg",
            caption="../report/level_accuracy.rst",
            category="Figures",
        ),
        hca_leaf=report(
            "results/figures/hca_leaf.svg",
            caption="../report/hca_leaf.rst",
            category="Figures",
        ),
        training=report(
            "results/figures/training.svg",
            caption="../report/training.rst",
            category="Figures",
        ),
        png=expand(
            "results/figures/{name}.png",
            name=["level_accuracy", "hca_leaf", "training"],
        ),
    log:
        "results/logs/plot.log",
    benchmark:
        "results/benchmarks/plot.jsonl"
    params:
        code=code_version("vltaxon.report.figures"),
        labels=plan.labels(),
        curves=plan.trained("curve.parquet"),
        ranks=plan.ranks(),
    message:
        "Drawing the figures"
    script:
        "../scripts/plot.py"


rule report:
    input:
        scores="results/metrics/scores.parquet",
        database="results/benchmark.duckdb",
        images=f"results/data/{plan.config.report.dataset}/images.parquet",
        level_accuracy="results/figures/level_accuracy.svg",
        hca_leaf="results/figures/hca_leaf.svg",
        training="results/figures/training.svg",
        records=list(plan.trained("record.json").values()),
        site=sorted(str(path) for path in SITE.iterdir()),
    output:
        report(
            "results/report/index.html",
            caption="../report/report.rst",
            category="Report",
        ),
    log:
        "results/logs/report.log",
    benchmark:
        "results/benchmarks/report.jsonl"
    params:
        code=code_version("vltaxon.report.page"),
        values=plan.report_values(),
        systems={
            name: system.model_dump() for name, system in plan.config.shown.items()
        },
        records=plan.trained("record.json"),
    message:
        "Writing the report page"
    script:
        "../scripts/report.py"


# On demand: what the jobs took so far, for the time and memory of a cluster's profile.
rule usage:
    log:
        "results/logs/usage.md",
    localrule: True
    message:
        "Adding up the time and memory that jobs took"
    script:
        "../scripts/usage.py"
