"""What the benchmarks share: timing, peers that may be missing, the csv and the table made of it."""

import csv
import datetime
import os
import platform
import resource
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from multiprocessing import get_context
from pathlib import Path

from replimat.files import atomic

HERE = Path(__file__).parent
RESULTS, README = HERE / "results.csv", HERE / "README.md"
COLUMNS = ["benchmark", "case", "implementation", "version", "value", "unit", "ratio", "hardware", "date"]
OURS = "replimat"


class Missing(Exception):
    """A peer that is not here."""


def peer(module: str):
    """Import a peer. Raises Missing with the reason when it is not installed or does not import."""
    try:
        return import_module(module)
    except ImportError as error:
        raise Missing(f"{module}: {error}") from error


def seconds(calls: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Best time of each call. Rounds go through all calls in turn, so that a busy machine slows all alike."""
    best = dict.fromkeys(calls, float("inf"))
    for call in calls.values():
        call()  # caches, lazy imports
    for _ in range(repeats):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            best[name] = min(best[name], time.perf_counter() - start)
    return best


def in_own_process(function: Callable, *arguments) -> tuple[float, float]:
    """Seconds `function` took in a fresh process, and the peak memory of that process in MB."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(_measured, function, *arguments).result()


def rows(benchmark: str, case: str, values: dict[str, float], unit: str) -> list[dict]:
    """One csv row per implementation; ratio: its value over ours."""
    ours = values.get(OURS)
    return [
        {
            "benchmark": benchmark,
            "case": case,
            "implementation": name,
            "version": _version(name.split()[0]),
            "value": f"{value:.4g}",
            "unit": unit,
            "ratio": f"{value / ours:.2f}" if ours else "",
            "hardware": hardware(),
            "date": datetime.date.today().isoformat(),
        }
        for name, value in values.items()
    ]


def keep(new: list[dict]) -> None:
    """Put rows into results.csv, in place of those of the same benchmark and hardware, and make README.md anew."""
    replaced = {(row["benchmark"], row["hardware"]) for row in new}
    kept = [row for row in read() if (row["benchmark"], row["hardware"]) not in replaced]
    everything = sorted(kept + new, key=lambda row: row["benchmark"])  # stable: cases stay in the order measured
    with atomic(RESULTS) as temporary, open(temporary, "w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(everything)
    with atomic(README) as temporary:
        temporary.write_text(table(everything), encoding="utf-8")
    for row in new:
        print("{benchmark:20} {case:34} {implementation:28} {value:>9} {unit:12} x{ratio}".format(**row))


def read() -> list[dict]:
    if not RESULTS.exists():
        return []
    with open(RESULTS, newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def table(results: list[dict]) -> str:
    """README.md: one table per benchmark and machine."""
    lines = [(HERE / "INTRODUCTION.md").read_text(encoding="utf-8").rstrip(), ""]
    for benchmark, machine in dict.fromkeys((row["benchmark"], row["hardware"]) for row in results):
        lines += [f"## {benchmark} ({machine})", "", "| case | implementation | version | value | ratio to ours |"]
        lines.append("|---|---|---|---|---|")
        lines += [
            "| {case} | {implementation} | {version} | {value} {unit} | {ratio} |".format(**row)
            for row in results
            if (row["benchmark"], row["hardware"]) == (benchmark, machine)
        ]
        lines.append("")
    return "\n".join(lines)


def hardware() -> str:
    return f"{os.cpu_count()} cores {platform.machine()}"


def _measured(function: Callable, *arguments) -> tuple[float, float]:
    start = time.perf_counter()
    function(*arguments)
    return time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""
