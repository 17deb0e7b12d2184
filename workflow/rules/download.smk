# The checksum alone is what the file is: a mirror or a local copy are resources, not params, so that a move repeats nothing.
# A local rule: the nodes of a cluster commonly have no network.
rule download:
    output:
        "results/raw/{file}",
    log:
        "results/logs/download/{file}.log",
    benchmark:
        "results/benchmarks/download/{file}.jsonl"
    wildcard_constraints:
        file=plan.raw_names,
    localrule: True
    resources:
        source=lambda wildcards: str(plan.raw[wildcards.file].source),
        size=lambda wildcards: plan.raw[wildcards.file].bytes or 0,
        licence=lambda wildcards: plan.licences[wildcards.file],
        unpacked=plan.raw_unpacked,
    params:
        checksums=plan.raw_checksums,
    message:
        "Getting {wildcards.file} from {resources.source} (licence: {resources.licence}); size, disk and progress: {log}"
    script:
        "../scripts/download.py"
