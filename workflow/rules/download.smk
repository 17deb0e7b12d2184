# The checksum alone is what the file is: a mirror or a local copy run nothing again.
# A local rule: the nodes of a cluster commonly have no network.
rule download:
    output:
        target=layout.RAW,
    log:
        layout.log("download/{file}"),
    benchmark:
        layout.benchmark("download/{file}")
    wildcard_constraints:
        file=plan.data.raw_names,
    localrule: True
    params:
        task=plan.data.download,
        shaping=plan.data.download.shaping,
    message:
        "Getting {wildcards.file} from {params.task.file.source} (licence: {params.task.licence}); size, disk and progress: {log}"
    script:
        "../scripts/download.py"
