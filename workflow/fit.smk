# Train every seed of an experiment and predict its test rows. A killed job continues from its last epoch.

from replimat.experiments.provenance import PACKAGE, sources_of


def fit_inputs(wildcards):
    one = RUNS[wildcards.paper, wildcards.experiment]
    card = {"card": f"papers/{one.paper}/card.yaml"}
    if one.prepared is None:  # released predictions, scored again
        code = sources("experiments/re*.py", "datasets/jarvis_dft.py", "evaluation/*.py")
        return card | {"code": code, "data": [path for dataset in one.datasets for path in DATA_FILES[dataset]]}
    code = [f"src/replimat/{path.relative_to(PACKAGE)}" for path in sources_of(one.paper)]
    weights = DATA_FILES[one.card.weights] if one.card.weights else []
    code += sources("evaluation/*.py")
    return card | {"code": code, "prepared": str(one.prepared), "weights": weights}


rule fit:
    input:
        unpack(fit_inputs),
    output:
        f"runs/{SCALE}/{{paper}}/{{experiment}}/run.json",
    params:
        options=f"--scale {SCALE} --device {config['device']} --seeds {config['seeds']}",
    threads: 1
    resources:
        mem_mb=3000,
    log:
        f"runs/logs/fit-{SCALE}-{{paper}}-{{experiment}}.log",
    shell:
        "replimat fit {wildcards.paper} {wildcards.experiment} {params.options} --threads {threads} > {log} 2>&1"
