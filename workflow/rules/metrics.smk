rule score:
    input:
        unpack(lambda wildcards: plan.score_inputs()),
        sql=sorted(str(path) for path in METRICS.rglob("*.sql")),
    output:
        scores="results/metrics/scores.parquet",
        database="results/benchmark.duckdb",
    log:
        "results/logs/score.log",
    benchmark:
        "results/benchmarks/score.jsonl"
    threads: 8
    params:
        code=code_version("vltaxon.metrics.run"),
        sources=plan.score_values(),
        bootstrap=plan.config.bootstrap,
        seed=plan.config.seed,
    message:
        "Scoring all predictions"
    script:
        "../scripts/score.py"


rule tabulate:
    input:
        scores="results/metrics/scores.parquet",
    output:
        csv="results/tables/main.csv",
        md=report(
            "results/tables/main.md",
            caption="../report/main_table.rst",
            category="Tables",
            labels={"table": "main"},
        ),
        tex="results/tables/main.tex",
    log:
        "results/logs/tabulate.log",
    benchmark:
        "results/benchmarks/tabulate.jsonl"
    params:
        code=code_version("vltaxon.report.tables"),
        labels=plan.labels(),
    message:
        "Writing the main table"
    script:
        "../scripts/tabulate.py"
