"""Snakemake's jobs as Kubernetes Jobs, through kubectl: submit one, say how it is, cancel some."""

import argparse
import json
import os
import re
import subprocess
import sys
import uuid
from pathlib import Path

IMAGE = os.environ.get("REPLIMAT_IMAGE", "replimat:cpu")
CLAIM = os.environ.get("REPLIMAT_CLAIM", "replimat")
NAMESPACE = os.environ.get("REPLIMAT_NAMESPACE", "default")
USER = 1000  # of the image
DAY = 86_400  # seconds a finished job can still be asked about


def manifest(rule: str, script: str, cores: int, memory: int, minutes: int, gpus: int) -> dict:
    """A Job that runs a script of this folder. memory in MB; gpus of NVIDIA."""
    needs = {"cpu": str(cores), "memory": f"{memory}M"} | ({"nvidia.com/gpu": str(gpus)} if gpus else {})
    folder = str(Path.cwd())
    container = {
        "name": "snakemake",
        "image": IMAGE,
        "command": ["/bin/sh", script],
        "workingDir": folder,
        "resources": {"requests": needs, "limits": needs},
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
        "volumeMounts": [{"name": "project", "mountPath": folder}, {"name": "memory", "mountPath": "/dev/shm"}],
    }
    pod = {
        "restartPolicy": "Never",  # Snakemake's `retries` decides
        "securityContext": {"runAsNonRoot": True, "runAsUser": USER, "runAsGroup": USER, "fsGroup": USER},
        "containers": [container],
        "volumes": [
            {"name": "project", "persistentVolumeClaim": {"claimName": CLAIM}},
            {"name": "memory", "emptyDir": {"medium": "Memory"}},  # what processes of one training share
        ],
    }
    name = f"replimat-{re.sub('[^a-z0-9]+', '-', rule.lower())[:40].strip('-')}-{uuid.uuid4().hex[:8]}"
    spec = {"backoffLimit": 0, "activeDeadlineSeconds": 60 * minutes, "ttlSecondsAfterFinished": DAY}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name, "labels": {"app": "replimat", "rule": rule[:63]}},
        "spec": spec | {"template": {"metadata": {"labels": {"app": "replimat"}}, "spec": pod}},
    }


def submit(arguments: argparse.Namespace) -> str:
    """Create the job; returns its name."""
    job = manifest(
        arguments.rule, arguments.script, arguments.cores, arguments.memory, arguments.minutes, arguments.gpus
    )
    kubectl("create", "--validate=false", "--filename", "-", given=json.dumps(job))
    return job["metadata"]["name"]


def status(arguments: argparse.Namespace) -> str:
    """What Snakemake wants to hear: running, success or failed. A job that is gone has failed."""
    found = kubectl("get", "job", arguments.name, "--ignore-not-found", "--output", "json")
    if not found:
        return "failed"
    state = json.loads(found).get("status", {})
    ended = {each["type"] for each in state.get("conditions", []) if each["status"] == "True"}
    return "success" if "Complete" in ended else "failed" if "Failed" in ended else "running"


def cancel(arguments: argparse.Namespace) -> str:
    """Delete the jobs and their pods."""
    return kubectl("delete", "job", *arguments.names, "--ignore-not-found", "--wait=false")


def kubectl(*words: str, given: str | None = None) -> str:
    """What kubectl prints. Ends the program with what it complained about."""
    done = subprocess.run(["kubectl", "--namespace", NAMESPACE, *words], input=given, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"kubectl {' '.join(words)}: {done.stderr.strip()}")
    return done.stdout.strip()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(required=True)
    one = commands.add_parser("submit", help=submit.__doc__)
    one.add_argument("rule")
    for need in ("cores", "memory", "minutes", "gpus"):
        one.add_argument(f"--{need}", type=int, required=True)
    one.add_argument("script")
    one.set_defaults(does=submit)
    one = commands.add_parser("status", help=status.__doc__)
    one.add_argument("name")
    one.set_defaults(does=status)
    one = commands.add_parser("cancel", help=cancel.__doc__)
    one.add_argument("names", nargs="+")
    one.set_defaults(does=cancel)
    arguments = parser.parse_args()
    print(arguments.does(arguments))


if __name__ == "__main__":
    main()
