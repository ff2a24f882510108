"""A Slurm of one node, for as long as a command runs: python tests/slurm.py snakemake --profile profiles/slurm ...

Needs Debian's packages slurmctld, slurmd, slurm-client and munge; nothing of them is configured or left running. The
node offers the processors and memory of this machine, and up to two GPUs that are none, so that jobs can ask for them.
"""

import argparse
import contextlib
import os
import pwd
import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

from daemons import found, free_ports, wait

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue")
DEVICES = ("/dev/null", "/dev/zero")  # stand for GPUs: Slurm counts them and hands them out, nobody opens them
CONFIGURATION = """
ClusterName=here
SlurmctldHost={host}(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/filetxt
JobCompLoc={folder}/jobs.txt
MpiDefault=none
ReturnToService=2
SchedulerParameters=batch_sched_delay=0,sched_interval=1
KillWait=10
{gres}
NodeName={host} NodeAddr=127.0.0.1 CPUs={cores} RealMemory={memory} State=UNKNOWN{node_gres}
PartitionName=all Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


def missing() -> list[str]:
    """Programs of Slurm that are not installed here."""
    return [name for name in PROGRAMS if not found(name)]


@contextlib.contextmanager
def slurm(folder: Path, gpus: int = 0):
    """Start Slurm in an empty folder; yields the environment that its commands need. Ends all of it afterwards."""
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o755)  # munge wants a path that nobody else can write to
    for name in ("state", "spool"):
        (folder / name).mkdir()
    environment = os.environ | {"SLURM_CONF": str(folder / "slurm.conf"), "PATH": f"{folder}/bin:{os.environ['PATH']}"}
    _configure(folder, gpus)
    _srun(folder)
    running = []
    try:
        running.append(_munge(folder))
        for name in ("slurmctld", "slurmd"):
            log = (folder / f"{name}.out").open("w")
            running.append(subprocess.Popen([found(name), "-D"], env=environment, stdout=log, stderr=log))
        _wait_for_node(environment, folder)
        yield environment
    finally:
        subprocess.run([found("scancel"), "--state=RUNNING"], env=environment, capture_output=True)
        subprocess.run([found("scancel"), "--state=PENDING"], env=environment, capture_output=True)
        for process in reversed(running):
            process.terminate()
            process.wait(timeout=30)


def _configure(folder: Path, gpus: int) -> None:
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2**20
    values = {
        "host": socket.gethostname().split(".")[0],
        "user": pwd.getpwuid(os.getuid()).pw_name,
        "ports": free_ports(2),
        "folder": folder,
        "cores": os.cpu_count(),
        "memory": memory,
        "gres": "GresTypes=gpu" if gpus else "",
        "node_gres": f" Gres=gpu:{gpus}" if gpus else "",
    }
    (folder / "slurm.conf").write_text(CONFIGURATION.format(**values))
    (folder / "gres.conf").write_text("".join(f"Name=gpu File={device}\n" for device in DEVICES[:gpus]))


def _srun(folder: Path) -> None:
    """An srun that finds this configuration: inside a job Snakemake removes every SLURM_ variable."""
    path = folder / "bin" / "srun"
    path.parent.mkdir()
    path.write_text(f'#!/bin/sh\nSLURM_CONF={folder}/slurm.conf exec {found("srun")} "$@"\n')
    path.chmod(0o755)


def _munge(folder: Path) -> subprocess.Popen:
    key = folder / "munge.key"
    key.write_bytes(os.urandom(128))
    key.chmod(0o600)
    places = {"key-file": key, "socket": folder / "munge.socket", "pid-file": folder / "munge.pid"}
    places |= {"seed-file": folder / "munge.seed", "log-file": folder / "munge.log"}
    words = [found("munged"), "--foreground", "--force", *(f"--{name}={path}" for name, path in places.items())]
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait(lambda: (folder / "munge.socket").exists(), f"munged does not answer, see {folder}/munge.log")
    return process


def _wait_for_node(environment: dict, folder: Path) -> None:
    def idle() -> bool:
        words = [found("sinfo"), "--noheader", "--format=%t"]
        return "idle" in subprocess.run(words, env=environment, capture_output=True, text=True).stdout

    wait(idle, f"the node does not become idle, see the logs in {folder}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--gpus", type=int, default=0, choices=range(len(DEVICES) + 1), help="GPUs the node claims to have"
    )
    parser.add_argument("--jobs", type=Path, help="where Slurm's list of completed jobs is kept")
    parser.add_argument("command", nargs=argparse.REMAINDER)
    arguments = parser.parse_args()
    if lacking := missing():
        sys.exit(f"Not installed: {', '.join(lacking)} (Debian: apt install slurmctld slurmd slurm-client munge).")
    with tempfile.TemporaryDirectory(prefix="slurm-") as temporary:
        folder = Path(temporary) / "slurm"
        with slurm(folder, arguments.gpus) as environment:
            code = subprocess.run(arguments.command, env=environment).returncode
        if arguments.jobs:
            shutil.copy(folder / "jobs.txt", arguments.jobs)
    return code


if __name__ == "__main__":
    sys.exit(main())
