"""Tries faults on a copy of the project and says what was lost:

python tests/faults.py --rounds 50 --out results/published/faults

A fault is survived if the same command, typed again, ends with the results of an unbroken run, byte for byte, and
leaves nothing half-written. Full disks and read-only folders are real mounts, which need root.
"""

import argparse
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from damage import flip, killed_at, poison, truncate
from grounds import Ground, NotHere, end, refused, remove, small_disk, until, unwritable
from replimat.experiments.provenance import code_commit, hardware
from small_suite import COMPUTED, FETCHED, PAPER, RUNS, SUITE

SCALE = ("--scale", "smoke")
FETCH = ("replimat", "fetch", "crystals")
VERIFY = ("replimat", "verify", "crystals")
PREPARE = ("replimat", "prepare", PAPER, FETCHED, *SCALE)
COMPUTE = ("replimat", "prepare", PAPER, COMPUTED, *SCALE)
FIT = ("replimat", "fit", PAPER, FETCHED, *SCALE)
COMPARE = ("replimat", "compare", PAPER, *SCALE)
REPORT = ("replimat", "report", *SCALE)
SEED = f"{RUNS}/{FETCHED}/seed0"
CHECKPOINT = f"{SEED}/checkpoints/last.ckpt"
OF = {  # command -> what it makes
    FETCH: ["data", "../cache"],
    COMPUTE: ["prepared/md_water-*", "prepared/datasets/md_water-*"],
    FIT: [f"{RUNS}/{FETCHED}"],
    COMPARE: [f"results/smoke/papers/{PAPER}"],
    REPORT: ["results/smoke/report.html"],
}
Tried = Iterator[tuple[bool, str]]  # of each try: whether it was survived, and what was said


@dataclass
class Tally:
    """What became of a fault: tries, how many were survived and how many were not, what was said."""

    fault: str
    tries: int = 0
    survived: int = 0
    lost: int = 0
    said: str = ""
    seconds: float = 0.0


# -------------------------------------------------------------------------------------------------------- the faults


def killed_suite(ground: Ground, rng: np.random.Generator, tries: int, number: int = signal.SIGKILL) -> Tried:
    """Snakemake and all its jobs killed at random moments, again and again until a run ends before its kill."""
    kills = of_this_run = 0
    ground.suite.clear()
    while kills < tries:
        process = ground.suite.start(*SUITE)
        try:
            process.communicate(timeout=ground.seconds * rng.uniform(0.1, 0.9))
            ended = True
        except subprocess.TimeoutExpired:
            end(process, number)
            kills, of_this_run, ended = kills + 1, of_this_run + 1, False
        if ended or kills == tries:
            yield from [ground.again(*SUITE)] * of_this_run
            of_this_run = 0
            ground.suite.clear()


def stopped_suite(number: int) -> Callable:
    """Snakemake told to end, as a scheduler or ctrl-C does."""
    return lambda ground, rng, tries: killed_suite(ground, rng, tries, number)


def killed_command(command: tuple[str, ...], operations: int) -> Callable:
    """A command killed before a random one of its file operations, of which there are about so many."""

    def fault(ground: Ground, rng: np.random.Generator, tries: int) -> Tried:
        suite = ground.suite
        for _ in range(tries):
            ground.restore(*OF[command])
            operation, path = int(rng.integers(1, operations + 1)), suite.environment()["PYTHONPATH"]
            code, _ = suite.run(*command, **killed_at(operation, suite.root, suite.root / "killer", path))
            survived, said = ground.again(*command)
            yield survived and code in (0, -signal.SIGKILL), said

    return fault


def stopped_fit(number: int) -> Callable:
    """One training that is told to end after its first epoch."""

    def fault(ground: Ground, rng: np.random.Generator, tries: int) -> Tried:
        for _ in range(tries):
            ground.restore(*OF[FIT])
            process = begun(ground)
            time.sleep(rng.uniform(0, 0.3))
            said = end(process, number)
            survived, _ = ground.again(*FIT)
            yield survived and process.returncode != 0, said

    return fault


def full_disk(command: tuple[str, ...], folder: str, kilobytes: int) -> Callable:
    """A command whose folder lies on a disk without room; afterwards there is."""

    def fault(ground: Ground, rng: np.random.Generator, tries: int) -> Tried:
        for _ in range(tries):
            ground.restore(*OF[command])
            with small_disk(ground.path(folder), kilobytes * 1024) as free:
                code, said = ground.suite.run(*command)
                clean = refused(code, said) and ground.whole_files_only()
                free()
                yield ground.again(*command)[0] and clean, said

    return fault


def short_files(command: tuple[str, ...], kilobytes: int) -> Callable:
    """A command that may write no file larger than a limit; afterwards it may."""

    def fault(ground: Ground, rng: np.random.Generator, tries: int) -> Tried:
        for _ in range(tries):
            ground.restore(*OF[command])
            code, said = ground.suite.run("bash", "-c", f'ulimit -f {kilobytes}; exec "$@"', "-", *command)
            clean = refused(code, said) and ground.whole_files_only()
            yield ground.again(*command)[0] and clean, said

    return fault


def read_only(command: tuple[str, ...], folder: str, refuse: bool = True) -> Callable:
    """A command one of whose folders cannot be written. refuse: whether it has to be."""

    def fault(ground: Ground, rng: np.random.Generator, tries: int) -> Tried:
        for _ in range(tries):
            ground.restore(*OF.get(command, []))
            place = ground.path(folder)
            place.mkdir(parents=True, exist_ok=True)
            with unwritable(place):
                code, said = ground.suite.run(*command, HOME=str(ground.suite.root / "home"))
            as_expected = refused(code, said) if refuse else code == 0
            yield ground.again(*command)[0] and as_expected, said

    return fault


def two_at_once(command: tuple[str, ...], without: list[str], one_may_refuse: bool = False) -> Callable:
    """The same command typed in two windows."""

    def fault(ground: Ground, rng: np.random.Generator, tries: int) -> Tried:
        for _ in range(tries):
            ground.restore(*without)
            both = [ground.suite.start(*command) for _ in range(2)]
            said = [process.communicate()[0] for process in both]
            codes = sorted(process.returncode for process in both)
            survived = ground.same() and (codes == [0, 0] or (one_may_refuse and codes == [0, 1]))
            yield survived, max(said, key=lambda text: "error" in text.lower() or "waiting" in text)

    return fault


def damaged(name: str, harm: Callable, command: tuple[str, ...], mend: list[tuple], *without: str) -> Callable:
    """A file, whose name may hold *, that the disk did not keep as it was. command: where that must be noticed, or the
    file made anew; mend: what is typed after the file was deleted, where its error asks for that; without: what is not
    there when the command is tried.
    """

    def fault(ground: Ground, rng: np.random.Generator, tries: int) -> Tried:
        for _ in range(tries):
            ground.restore(*without)
            path = next(ground.suite.folder.glob(name))
            harm(path, rng)
            code, said = ground.suite.run(*command)
            noticed = code == 0 or (refused(code, said) and path.name in "".join(said.split()))
            if code:
                remove(path)
            mended = [ground.suite.run(*again)[0] == 0 for again in mend] if code else []
            yield noticed and all(mended) and ground.same(), said

    return fault


def damaged_checkpoint(harm: Callable) -> Callable:
    """The checkpoint of a killed training."""

    def fault(ground: Ground, rng: np.random.Generator, tries: int) -> Tried:
        for _ in range(tries):
            ground.restore(*OF[FIT])
            end(begun(ground), signal.SIGKILL)
            harm(ground.path(CHECKPOINT), rng)
            yield ground.again(*FIT)

    return fault


def poisoned_checkpoint(ground: Ground, rng: np.random.Generator, tries: int) -> Tried:
    """A checkpoint that somebody put there, with code in it."""
    for _ in range(tries):
        ground.restore(*OF[FIT])
        end(begun(ground), signal.SIGKILL)
        checkpoint, marker = ground.path(CHECKPOINT), ground.suite.root / "executed"
        poison(checkpoint, marker)
        code, said = ground.suite.run(*FIT)
        unharmed = refused(code, said) and not marker.exists()
        remove(checkpoint.parent)
        yield ground.again(*FIT)[0] and unharmed, said


def damaged_block(harm: Callable) -> Callable:
    """A finished block of a computation that was killed."""

    def fault(ground: Ground, rng: np.random.Generator, tries: int) -> Tried:
        for _ in range(tries):
            ground.restore(*OF[COMPUTE])
            process = ground.suite.start(*COMPUTE)
            until(process, lambda: block(ground, 100))
            end(process, signal.SIGKILL)
            harm(block(ground, 0), rng)
            yield ground.again(*COMPUTE)

    return fault


def block(ground: Ground, first: int) -> Path | None:
    """The block of the computation that begins with this frame, if it is there."""
    return next(ground.suite.folder.glob(f"prepared/datasets/*.unfinished/frames-{first}.npz"), None)


def begun(ground: Ground) -> subprocess.Popen:
    """A training that has kept its first epoch."""
    process = ground.suite.start(*FIT)
    return until(process, ground.path(CHECKPOINT).exists)


# --------------------------------------------------------------------------------------------------------- the table


def faults() -> dict[str, tuple[Callable, float]]:
    """Every fault, with its share of the rounds."""
    weights, predictions, record = (
        f"{SEED}/model.safetensors",
        f"{SEED}/predictions.parquet",
        f"{RUNS}/{FETCHED}/run.json",
    )
    files = {  # what is damaged -> see `damaged`
        "data/ member": ("data/crystals/salts.csv", VERIFY, [FETCH]),
        "downloaded package": ("../cache/downloads/*.tar.gz", FETCH, [FETCH], "data"),
        "read dataset": ("prepared/datasets/crystals-*.npz", PREPARE, [PREPARE], "prepared/crystals-*"),
        "prepared file": ("prepared/crystals-*.safetensors", FIT, [PREPARE, FIT]),
        "weights": (weights, FIT, [FIT]),
        "predictions": (predictions, COMPARE, [FIT, COMPARE]),
        "record": (record, COMPARE, [FIT, COMPARE]),
    }
    found = {
        "kill -9 of snakemake and its jobs": (killed_suite, 1.0),
        "SIGTERM to snakemake and its jobs": (stopped_suite(signal.SIGTERM), 0.1),
        "SIGINT to snakemake and its jobs": (stopped_suite(signal.SIGINT), 0.1),
        "kill -9 at a file operation of fetch": (killed_command(FETCH, 20), 0.2),
        "kill -9 at a file operation of prepare": (killed_command(COMPUTE, 40), 0.2),
        "kill -9 at a file operation of fit": (killed_command(FIT, 300), 0.2),
        "kill -9 at a file operation of compare": (killed_command(COMPARE, 60), 0.2),
        "kill -9 at a file operation of report": (killed_command(REPORT, 20), 0.1),
        "SIGTERM to fit": (stopped_fit(signal.SIGTERM), 0.06),
        "SIGINT to fit": (stopped_fit(signal.SIGINT), 0.06),
        "disk full: data/": (full_disk(FETCH, "data", 8), 0.02),
        "disk full: prepared/": (full_disk(COMPUTE, "prepared", 60), 0.02),
        "disk full: runs/": (full_disk(FIT, "runs", 60), 0.02),
        "disk full: results/": (full_disk(COMPARE, "results", 20), 0.02),
        "file size limit: fetch": (short_files(FETCH, 4), 0.02),
        "file size limit: prepare": (short_files(COMPUTE, 8), 0.02),
        "file size limit: fit": (short_files(FIT, 4), 0.02),
        "file size limit: compare": (short_files(COMPARE, 4), 0.02),
        "read-only: data/": (read_only(FETCH, "data"), 0.02),
        "read-only: prepared/": (read_only(COMPUTE, "prepared"), 0.02),
        "read-only: runs/": (read_only(FIT, "runs"), 0.02),
        "read-only: results/": (read_only(COMPARE, "results"), 0.02),
        "read-only: download cache": (read_only(FETCH, "../cache"), 0.02),
        "read-only: home": (read_only(COMPARE, "../home", refuse=False), 0.02),
        "two snakemake at once": (two_at_once(SUITE, ["results"], one_may_refuse=True), 0.04),
        "two fit of one experiment at once": (two_at_once(FIT, OF[FIT]), 0.04),
        "two fetch at once": (two_at_once(FETCH, OF[FETCH]), 0.06),
        "two prepare of one computed dataset at once": (two_at_once(COMPUTE, OF[COMPUTE]), 0.04),
        "checkpoint truncated": (damaged_checkpoint(truncate), 0.06),
        "checkpoint with a flipped bit": (damaged_checkpoint(flip), 0.06),
        "checkpoint with code in it": (poisoned_checkpoint, 0.02),
        "block of a computation truncated": (damaged_block(truncate), 0.06),
        "block of a computation with a flipped bit": (damaged_block(flip), 0.06),
    }
    for what, (name, *how) in files.items():
        found[f"{what} truncated"] = damaged(name, truncate, *how), 0.06
        found[f"{what} with a flipped bit"] = damaged(name, flip, *how), 0.06
    return found


def try_fault(name: str, fault: Callable, ground: Ground, tries: int, seed: int) -> Tally:
    """Try a fault so many times, at moments and places that the seed decides."""
    tally, started = Tally(name), time.monotonic()
    try:
        for survived, said in fault(ground, np.random.default_rng(seed), tries):
            tally.tries += 1
            tally.survived += survived
            tally.said = telling(said, ground) if survived or not tally.lost else tally.said
            tally.lost += not survived
    except NotHere as reason:
        tally.said = f"not tried: {reason}"
    tally.seconds = round(time.monotonic() - started, 1)
    return tally


def telling(said: str, ground: Ground) -> str:
    """The one line of what was said that tells a person about the fault; without the folder of this try."""
    for folder in (ground.suite.folder, ground.suite.root):
        said = said.replace(f"{folder}/", "")
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    words = ("error: ", "Error: ", "stopped by", "waiting", "not used", "starting anew", "computed again", "killed run")
    return next((line for word in words for line in lines if word in line), lines[-1] if lines else "")[:300]


def write(tallies: list[Tally], out: Path) -> None:
    """faults.csv and faults.md; faults that were tried before, and not this time, keep their rows."""
    out.mkdir(parents=True, exist_ok=True)
    path = out / "faults.csv"
    table = pd.DataFrame([asdict(tally) for tally in tallies]).assign(commit=code_commit(), hardware=hardware("cpu"))
    if path.exists():
        before = pd.read_csv(path, keep_default_na=False)
        table = pd.concat([before[~before["fault"].isin(table["fault"])], table])
    order = list(faults())
    table = table[table["fault"].isin(order)].sort_values("fault", key=lambda names: names.map(order.index))
    table.to_csv(path, index=False)
    columns = ["fault", "tries", "survived", "lost", "said", "seconds", "commit"]
    shown = table.assign(said=table["said"].str.replace("|", "/"), commit=table["commit"].str[:7])[columns]
    lines = [f"| {' | '.join(map(str, row))} |" for row in (columns, ["---"] * len(columns), *shown.to_numpy())]
    total = f"{table['tries'].sum()} tries of {len(table)} faults, {table['lost'].sum()} lost"
    where = f"{table['seconds'].sum() / 60:.0f} minutes, {', '.join(table['hardware'].unique())}"
    end = "Made by `python tests/faults.py`; what it means: docs/faults.md."
    (out / "faults.md").write_text("\n".join(["# Faults", "", f"{total}; {where}. {end}", "", *lines, ""]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=50, help="kills of the suite; other faults take a share of it")
    parser.add_argument("--out", type=Path, help="folder for faults.csv and faults.md")
    parser.add_argument("--only", default="", help="faults whose name holds these words; the table keeps the others")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    chosen = {name: fault for name, fault in faults().items() if given.only in name}
    tallies = []
    with tempfile.TemporaryDirectory(prefix="faults-") as folder:
        ground = Ground(Path(folder))
        for name, (fault, share) in chosen.items():
            tallies.append(try_fault(name, fault, ground, max(1, round(share * given.rounds)), given.seed))
            print(*vars(tallies[-1]).values(), sep="; ", flush=True)
    if given.out:
        write(tallies, given.out)
    raise SystemExit(any(tally.lost for tally in tallies))


if __name__ == "__main__":
    main()
