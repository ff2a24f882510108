# Train every seed of an experiment and predict its test rows. A killed job continues from its last epoch.
#
# A process takes seconds to import torch, so below paper scale one job runs all experiments of a paper that share a
# prepared file, one after another; at paper scale every experiment is a job of its own.

from itertools import groupby

from replimat.experiments.base import Learned
from replimat.experiments.provenance import PACKAGE, sources_of


def together(one):
    """What experiments of one job share."""
    return one.paper, one.name if SCALE == "paper" else str(one.prepared or one.datasets)


def fit_inputs(group):
    """Files the runs of a job depend on, by kind."""
    first, weights = group[0], {one.card.weights for one in group if one.card.weights}
    inputs = {
        "card": f"papers/{first.paper}/card.yaml",
        "released": [path for name in sorted(weights) for path in DATA_FILES[name]],
        "evaluation": sources("evaluation/*.py"),
    }
    if first.prepared is None:  # released predictions, scored again
        data = {name for one in group for name in one.datasets}
        code = sources("experiments/re*.py", "datasets/jarvis_dft.py")
        return inputs | {"code": code, "data": [path for name in sorted(data) for path in DATA_FILES[name]]}
    code = [f"src/replimat/{path.relative_to(PACKAGE)}" for path in sources_of(first.paper)]
    if any(getattr(one.experiment, "studies", None) for one in group):
        code += sources("physics/*.py")
    return inputs | {"code": code, "prepared": str(first.prepared)}


def devices_of(group):
    """Processes or GPUs of each training of a job: papers that write their own training know one."""
    return 1 if isinstance(group[0].experiment, Learned) else DEVICES


for _, group in groupby(sorted(RUNS.values(), key=together), key=together):
    group = list(group)

    rule:
        name:
            f"fit_{group[0].paper}_{group[0].name}".replace("-", "_")
        input:
            **fit_inputs(group),
        output:
            [f"{one.folder}/run.json" for one in group],
        params:
            what=f"{group[0].paper} {' '.join(one.name for one in group)}",
            options=f"--scale {SCALE} --device {config['device']} --devices {devices_of(group)} --seeds {config['seeds']}",
        threads: 1 if ON_GPUS else devices_of(group)
        resources:
            mem_mb=MEMORY_MB,
            runtime=MINUTES,
            gpu=devices_of(group) if ON_GPUS else 0,
        log:
            f"runs/logs/fit-{SCALE}-{group[0].paper}-{group[0].name}.log",
        shell:
            "replimat fit {params.what} {params.options} --threads {threads} > {log} 2>&1"
