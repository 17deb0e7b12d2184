# Tables and figures of papers, each of its own systems and data sets only, comparisons, sweeps and repeats. All on demand:
# `snakemake vl_taxon.table4` trains, asks and scores what Table 4 needs; a paper with aliases has them as `table4`, too.
rule plot_paper:
    input:
        unpack(plan.scoring.plot_paper.reads),
    output:
        svg=report(
            f"{layout.PAPER_FIGURE}.svg",
            caption="../report/paper_figure.rst",
            category="Figures",
            labels={"figure": "{paper}, {figure}"},
        ),
        png=f"{layout.PAPER_FIGURE}.png",
    log:
        layout.log("plot_paper/{paper}.{figure}"),
    benchmark:
        layout.benchmark("plot_paper/{paper}.{figure}")
    params:
        task=plan.scoring.plot_paper,
        shaping=plan.scoring.plot_paper.shaping,
    message:
        "Drawing {wildcards.figure} of {wildcards.paper}"
    script:
        "../scripts/plot_paper.py"


for target in plan.scoring.targets.names:

    rule:
        name:
            target
        input:
            lambda wildcards, name=target: plan.scoring.targets.files(name),
