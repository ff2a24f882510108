# Graphs, targets, split and baselines of an experiment; experiments with the same rows and representation share one file.

PREPARED = {str(one.prepared): one for one in RUNS.values() if one.prepared}


def raw_files(wildcards):
    one = PREPARED[f"prepared/{wildcards.name}.safetensors"]
    return [path for dataset in one.datasets for path in DATA_FILES[dataset]]


def command(wildcards):
    one = PREPARED[f"prepared/{wildcards.name}.safetensors"]
    return f"{one.paper} {one.name}"


rule prepare:
    input:
        raw_files,
    output:
        "prepared/{name}.safetensors",
    params:
        command=command,
    resources:
        mem_mb=MEMORY_MB,
        runtime=MINUTES,
    log:
        "runs/logs/prepare-{name}.log",
    shell:
        f"replimat prepare {{params.command}} --scale {SCALE} > {{log}} 2>&1"
