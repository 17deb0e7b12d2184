# The tables and figures of the paper (VL-Taxon), each of its own systems and data sets only, sweeps and repeats. All on demand:
# `snakemake table4` trains, asks and scores what Table 4 needs.
PAPER = [*TITLES, *FIGURES]


rule score_table:
    input:
        unpack(lambda wildcards: plan.score_inputs(plan.table_scope(wildcards.table))),
        sql=sorted(str(path) for path in METRICS.rglob("*.sql")),
    output:
        scores="results/metrics/paper/{table}.parquet",
        database="results/metrics/paper/{table}.duckdb",
    log:
        "results/logs/score_table/{table}.log",
    benchmark:
        "results/benchmarks/score_table/{table}.jsonl"
    threads: 8
    params:
        code=code_version("vltaxon.metrics.run"),
        sources=lambda wildcards: plan.score_values(plan.table_scope(wildcards.table)),
        bootstrap=plan.config.bootstrap,
        seed=plan.config.seed,
    message:
        "Scoring the systems of the paper's {wildcards.table}"
    script:
        "../scripts/score.py"


rule tabulate_paper:
    input:
        scores=lambda wildcards: plan.table_scores(wildcards.table),
        published=str(TABLES / "paper.csv"),
    output:
        csv="results/tables/{table}.csv",
        md=report(
            "results/tables/{table}.md",
            caption="../report/paper_table.rst",
            category="Tables",
            labels={"table": "paper, {table}"},
        ),
        tex="results/tables/{table}.tex",
    log:
        "results/logs/tabulate_paper/{table}.log",
    benchmark:
        "results/benchmarks/tabulate_paper/{table}.jsonl"
    params:
        code=code_version("vltaxon.report.paper"),
        setting=lambda wildcards: plan.table_values(wildcards.table),
    message:
        "Writing the paper's {wildcards.table}, published and ours"
    script:
        "../scripts/tabulate_paper.py"


rule plot_paper:
    input:
        scores=lambda wildcards: plan.figure_scores(wildcards.figure),
        published=str(TABLES / "paper.csv"),
    output:
        svg=report(
            "results/figures/{figure}.svg",
            caption="../report/paper_figure.rst",
            category="Figures",
            labels={"figure": "paper, {figure}"},
        ),
        png="results/figures/{figure}.png",
    log:
        "results/logs/plot_paper/{figure}.log",
    benchmark:
        "results/benchmarks/plot_paper/{figure}.jsonl"
    params:
        code=code_version("vltaxon.report.paper_figures"),
        setting=lambda wildcards: plan.table_values(FIGURES[wildcards.figure]),
        labels=lambda wildcards: plan.labels(
            plan.table_scope(FIGURES[wildcards.figure]).systems
        ),
        ranks=plan.ranks(),
    message:
        "Drawing {wildcards.figure} of the paper"
    script:
        "../scripts/plot_paper.py"


rule score_sweep:
    input:
        unpack(lambda wildcards: plan.score_inputs(plan.sweep_scope())),
        sql=sorted(str(path) for path in METRICS.rglob("*.sql")),
    output:
        scores="results/metrics/sweep.parquet",
        database="results/metrics/sweep.duckdb",
    log:
        "results/logs/score_sweep.log",
    benchmark:
        "results/benchmarks/score_sweep.jsonl"
    threads: 8
    params:
        code=code_version("vltaxon.metrics.run"),
        sources=lambda wildcards: plan.score_values(plan.sweep_scope()),
        bootstrap=plan.config.bootstrap,
        seed=plan.config.seed,
    message:
        "Scoring the sweeps over wordings and rotations"
    script:
        "../scripts/score.py"


rule tabulate_sweep:
    input:
        scores="results/metrics/sweep.parquet",
    output:
        csv="results/tables/sweep.csv",
        md=report(
            "results/tables/sweep.md",
            caption="../report/sweep.rst",
            category="Tables",
            labels={"table": "sweep"},
        ),
        tex="results/tables/sweep.tex",
    log:
        "results/logs/tabulate_sweep.log",
    benchmark:
        "results/benchmarks/tabulate_sweep.jsonl"
    params:
        code=code_version("vltaxon.report.sweeps"),
        sweeps=plan.sweep_values(),
    message:
        "Writing the table of the sweeps"
    script:
        "../scripts/tabulate_sweep.py"


for target in PAPER:

    rule:
        name:
            target
        input:
            lambda wildcards, name=target: plan.paper_files(name),


rule paper:
    input:
        lambda wildcards: plan.paper_files(*PAPER),


rule sweep:
    input:
        rules.tabulate_sweep.output,


rule tabulate_repeats:
    input:
        lambda wildcards: plan.repeat_files(),
    output:
        csv="results/tables/repeats.csv",
        md=report(
            "results/tables/repeats.md",
            caption="../report/repeats.rst",
            category="Tables",
            labels={"table": "repeats"},
        ),
    log:
        "results/logs/tabulate_repeats.log",
    benchmark:
        "results/benchmarks/tabulate_repeats.jsonl"
    params:
        code=code_version("vltaxon.report.repeats"),
        repeats=plan.repeat_values(),
    message:
        "Writing the table of the repeats"
    script:
        "../scripts/tabulate_repeats.py"


rule repeats:
    input:
        rules.tabulate_repeats.output,


rule score_comparison:
    input:
        unpack(
            lambda wildcards: plan.score_inputs(plan.comparison_scope(wildcards.name))
        ),
        sql=sorted(str(path) for path in METRICS.rglob("*.sql")),
    output:
        scores="results/metrics/comparison/{name}.parquet",
        database="results/metrics/comparison/{name}.duckdb",
    log:
        "results/logs/score_comparison/{name}.log",
    benchmark:
        "results/benchmarks/score_comparison/{name}.jsonl"
    threads: 8
    params:
        code=code_version("vltaxon.metrics.run"),
        sources=lambda wildcards: plan.score_values(
            plan.comparison_scope(wildcards.name)
        ),
        bootstrap=plan.config.bootstrap,
        seed=plan.config.seed,
    message:
        "Scoring the systems of {wildcards.name}"
    script:
        "../scripts/score.py"


rule tabulate_comparison:
    input:
        scores="results/metrics/comparison/{name}.parquet",
    output:
        csv="results/tables/comparison/{name}.csv",
        md=report(
            "results/tables/comparison/{name}.md",
            caption="../report/main_table.rst",
            category="Tables",
            labels={"table": "{name}"},
        ),
        tex="results/tables/comparison/{name}.tex",
    log:
        "results/logs/tabulate_comparison/{name}.log",
    benchmark:
        "results/benchmarks/tabulate_comparison/{name}.jsonl"
    params:
        code=code_version("vltaxon.report.tables"),
        labels=lambda wildcards: plan.labels(plan.config.comparisons[wildcards.name]),
    message:
        "Writing the table of {wildcards.name}"
    script:
        "../scripts/tabulate.py"


rule comparisons:
    input:
        lambda wildcards: plan.comparison_files(),
