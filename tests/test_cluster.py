"""The profiles for clusters: what jobs ask for, and small workflows that really go through Slurm and kubectl."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import kubernetes_api
import slurm

ROOT = Path(__file__).resolve().parents[1]
BIN = Path(sys.executable).parent
WORKFLOW = """
rule all:
    input: "second.txt"

rule first:
    output: "first.txt"
    threads: 2
    resources: mem_mb=300, runtime=7{gpu}
    shell: "test -e tried || {{{{ touch tried; exit 3; }}}}; env > {{output}}"

rule second:
    input: "first.txt"
    output: "second.txt"
    shell: "cp {{input}} {{output}}"
"""


def project(folder: Path, gpu: str = "") -> Path:
    """A folder with the profiles and a workflow of two jobs, the first of which fails when it is first tried."""
    shutil.copytree(ROOT / "profiles", folder / "profiles")
    (folder / "Snakefile").write_text(WORKFLOW.format(gpu=gpu))
    return folder


def run(folder: Path, *words: str, **environment: str) -> subprocess.CompletedProcess:
    path = f"{BIN}{os.pathsep}{environment.pop('PATH', os.environ['PATH'])}"
    environment = os.environ | environment | {"PATH": path}
    words = ("snakemake", *words)
    return subprocess.run(words, cwd=folder, capture_output=True, text=True, env=environment, timeout=300)


def trainings(*config: str) -> dict[str, list[str]]:
    """What the suite's own workflow says about each training of two papers, were it to run anew."""
    papers = [f"results/smoke/papers/{paper}/comparison.csv" for paper in ("cgcnn", "edm")]
    words = ("--dry-run", "--forceall", "--cores", "8", "--config", "scale=smoke", *config)
    done = run(ROOT, *papers, *words, REPLIMAT_ROOT=str(ROOT), PYTHONPATH=str(ROOT / "src"))
    assert done.returncode == 0, done.stderr[-2000:]
    jobs = (done.stdout + done.stderr).split("\n[")
    return {paper: [job for job in jobs if f"rule fit_{paper}" in job.split("input:")[0]] for paper in ("cgcnn", "edm")}


def test_every_training_says_what_it_needs():
    """A paper that writes its own training takes one device."""
    for paper, jobs in trainings("device=cuda", "devices=2").items():
        gpus = {"cgcnn": 2, "edm": 1}[paper]
        assert jobs and all(f"runtime=30, gpu={gpus}, mem_mb=3000" in job and "threads: " not in job for job in jobs)


def test_without_gpus_processes_are_threads():
    jobs = trainings("device=cpu", "devices=2")
    assert all("threads: 2" in job and "gpu=0" in job for job in jobs["cgcnn"])
    assert all("threads: " not in job and "gpu=0" in job for job in jobs["edm"])


# ------------------------------------------------------------------------------------------------------ Slurm


SQUEUE = """#!/bin/sh
echo asked >> {asked}
test $(wc -l < {asked}) -gt 20 && exec {squeue} "$@"
exit 1
"""


@pytest.mark.skipif(bool(slurm.missing()), reason=f"not installed: {', '.join(slurm.missing())}")
def test_a_workflow_runs_under_slurm(tmp_path):
    """Whose scheduler gives no answer to the first 20 questions, as one does that is started again."""
    folder = project(tmp_path / "project", gpu=", gpu=1")
    with slurm.slurm(tmp_path / "slurm", gpus=1) as environment:
        squeue = tmp_path / "slurm" / "bin" / "squeue"
        squeue.write_text(SQUEUE.format(asked=tmp_path / "asked", squeue=shutil.which("squeue")))
        squeue.chmod(0o755)
        words = ["--profile", "profiles/slurm", "--slurm-init-seconds-before-status-checks", "1"]
        done = run(folder, *words, "--seconds-between-status-checks", "1", **environment)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert "SLURM_GPUS_ON_NODE=1" in (folder / "second.txt").read_text()
    lines = (tmp_path / "slurm" / "jobs.txt").read_text().splitlines()
    assert [line.split("JobState=")[1].split()[0] for line in lines] == ["FAILED", "COMPLETED", "COMPLETED"]
    assert "TimeLimit=7 " in lines[0] and "cpu=2,mem=300M" in lines[0]


# ------------------------------------------------------------------------------------------------- Kubernetes


@pytest.mark.skipif(not shutil.which("kubectl"), reason="kubectl is not installed")
def test_a_workflow_runs_through_kubectl(tmp_path):
    folder = project(tmp_path / "project", gpu=", gpu=1")
    with kubernetes_api.cluster(tmp_path) as (jobs, config):
        names = {"REPLIMAT_IMAGE": "images.example/replimat:gpu", "REPLIMAT_CLAIM": "shelf", "KUBECONFIG": str(config)}
        done = run(folder, "--profile", "profiles/kubernetes", "--seconds-between-status-checks", "1", **names)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert (folder / "second.txt").exists()
    assert [job["metadata"]["labels"]["rule"] for job in jobs.values()] == ["first", "first", "second"]
    first, *_, second = jobs.values()
    container = first["spec"]["template"]["spec"]["containers"][0]
    assert container["image"] == "images.example/replimat:gpu"
    assert container["resources"]["limits"] == {"cpu": "2", "memory": "300M", "nvidia.com/gpu": "1"}
    assert first["spec"]["activeDeadlineSeconds"] == 420 and first["spec"]["backoffLimit"] == 0
    assert first["spec"]["template"]["spec"]["securityContext"]["runAsNonRoot"] is True
    assert "nvidia.com/gpu" not in json.dumps(second)
    assert {"name": "project", "persistentVolumeClaim": {"claimName": "shelf"}} in first["spec"]["template"]["spec"][
        "volumes"
    ]


def test_what_kubernetes_needs_fits_the_profile():
    """The claim and the service account are those that jobs and pod name; the pod can do what job.py does."""
    things = {one["kind"]: one for one in yaml.safe_load_all((ROOT / "profiles/kubernetes/replimat.yaml").read_text())}
    pod = things["Deployment"]["spec"]["template"]["spec"]
    assert pod["serviceAccountName"] == things["ServiceAccount"]["metadata"]["name"]
    assert (
        pod["volumes"][0]["persistentVolumeClaim"]["claimName"] == things["PersistentVolumeClaim"]["metadata"]["name"]
    )
    (rule,) = things["Role"]["rules"]
    assert rule["resources"] == ["jobs"] and set(rule["verbs"]) == {"create", "get", "delete"}
    assert pod["containers"][0]["image"] == pod["initContainers"][0]["image"] == "replimat:cpu"
