"""The suite as one DAG: fetch -> prepare -> fit -> compare -> report. Settings: params.yaml.

snakemake --cores all                                            everything, to results/<scale>/report.html
snakemake --cores all results/laptop/papers/cgcnn/comparison.csv one paper
snakemake --cores all --config scale=smoke                       the quick version that the tests run
"""

import os
from pathlib import Path

from replimat import cards
from replimat.experiments.catalogue import plan
from replimat.experiments.provenance import code_commit

configfile: "params.yaml"

SCALE = config["scale"]
PLAN = plan(SCALE, config["data"])  # paper -> its experiments
RUNS = {(one.paper, one.name): one for planned in PLAN.values() for one in planned}

# What a cluster is asked for (profiles/slurm, profiles/kubernetes). A job that is stopped at its limit is started again
# there, and continues.
DEVICES = int(config["devices"])
ON_GPUS = config["device"] == "cuda"
MINUTES = {"smoke": 30, "laptop": 120, "paper": 1440}[SCALE]
MEMORY_MB = {"smoke": 3000, "laptop": 4000, "paper": 8000}[SCALE]


def sources(*patterns):
    """Source files a rule's result depends on: an edited one runs it again."""
    return sorted(str(path) for pattern in patterns for path in Path("src/replimat").glob(pattern))


container: config["container"]


onstart:
    # To limit jobs per second, Snakemake looks at all waiting jobs again each second, and once more for every job that has
    # ended: by the end of the suite that takes a core. `--cores` and `--jobs` are limit enough.
    workflow.scheduler.job_rate_limiter = None


# An image has no git, and the code that runs in it is that of this folder.
os.environ["APPTAINERENV_REPLIMAT_COMMIT"] = code_commit()


wildcard_constraints:
    paper="[a-z0-9_]+",
    experiment="[a-z0-9-]+",


rule all:
    default_target: True
    input:
        f"results/{SCALE}/report.html",


include: "workflow/lock.smk"
include: "workflow/fetch.smk"
include: "workflow/prepare.smk"
include: "workflow/fit.smk"
include: "workflow/compare.smk"
include: "workflow/report.smk"
include: "workflow/dft.smk"
