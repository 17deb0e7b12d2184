rule unpack_archive:
    input:
        unpack(plan.data.unpack_archive.reads),
    output:
        tar=layout.TAR,
        index=layout.INDEX,
    log:
        layout.log("unpack_archive/{archive}"),
    benchmark:
        layout.benchmark("unpack_archive/{archive}")
    params:
        task=plan.data.unpack_archive,
        shaping=plan.data.unpack_archive.shaping,
    message:
        "Unpacking and indexing {wildcards.archive}"
    script:
        "../scripts/unpack_archive.py"


rule ingest:
    input:
        unpack(plan.data.ingest.reads),
    output:
        taxa=layout.TAXA,
        images=layout.IMAGES,
        rejected=layout.REJECTED,
    log:
        layout.log("ingest/{dataset}"),
    benchmark:
        layout.benchmark("ingest/{dataset}")
    threads: 8
    params:
        task=plan.data.ingest,
        shaping=plan.data.ingest.shaping,
    message:
        "Reading images and taxa of {wildcards.dataset}"
    script:
        "../scripts/ingest.py"
