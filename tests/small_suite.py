"""The project with one paper of two small experiments: every stage of a run in seconds, for tests that run it often.

`crystals` is fetched from an archive in a local folder, `md-water` is computed in three blocks; SchNet learns both.
"""

import json
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import yaml
from safetensors.numpy import load_file

from projects import member, registry_source, tar_gz
from suites import PARTS, ROOT, copy_project, environment

SUITE = ("snakemake", "--cores", "2", "--config", "scale=smoke")
PAPER, FETCHED, COMPUTED = "schnet", "crystals", "md-water"
MADE = ("data", "prepared", "runs", "results", ".quarantine", ".snakemake")  # by the suite, and nothing else
RUNS = f"runs/smoke/{PAPER}"
TABLE = f"results/smoke/papers/{PAPER}/comparison.csv"
REPORT = "results/smoke/report.html"
TIMES = ["seconds", "hardware"]  # columns of a comparison that may differ between equal runs
EPOCHS = 12
SMOKE = {"epochs": EPOCHS, "batch_size": 8, "lr": 0.01}
MODEL = {"cutoff": 4.0, "gaussians": 10, "interactions": 1, "features": 16, "filters": 16}
CRYSTALS, FRAMES = 60, 300  # the latter in three blocks


class SmallSuite:
    """A copy of the project in `folder`, and an own cache and package index beside it."""

    def __init__(self, folder: Path):
        self.root = folder
        self.folder, self.links, self.cache = folder / "project", folder / "links", folder / "cache"
        copy_project(self.folder, tuple(part for part in PARTS if part not in ("papers", "datasets")))
        self._write_crystals()
        self._write_trajectory()
        self._write_paper()

    def environment(self) -> dict[str, str]:
        """Nothing of the user's: package files come from the folder of links alone."""
        kept = {name: value for name, value in environment(self.folder).items() if not name.startswith("PIP_")}
        pip = {"PIP_CONFIG_FILE": os.devnull, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(self.links)}
        return kept | pip | {"REPLIMAT_CACHE": str(self.cache)}

    def start(self, *words: str, **environment: str) -> subprocess.Popen:
        """Start a command as the head of an own process group; what it says comes from `communicate`."""
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        own = self.environment() | environment
        return subprocess.Popen(words, cwd=self.folder, env=own, start_new_session=True, **pipes)

    def run(self, *words: str, **environment: str) -> tuple[int, str]:
        """Run a command to its end: exit code, and what it said."""
        process = self.start(*words, **environment)
        said, _ = process.communicate()
        return process.returncode, said

    def clear(self) -> None:
        """Back to a project that was only cloned; downloads included."""
        for path in [*(self.folder / name for name in MADE), self.cache]:
            shutil.rmtree(path, ignore_errors=True)

    # ----------------------------------------------------------------------------------------------- what is there

    def results(self) -> dict[str, object]:
        """By file, all that equal runs have in common: predictions and prepared files byte for byte, weights, what was
        measured, tables without times. What is not there is left out.
        """
        patterns = ("data/**/*", "prepared/*.safetensors", f"{RUNS}/**/*.*", "results/smoke/**/*.csv")
        paths = sorted(path for pattern in patterns for path in self.folder.glob(pattern) if path.is_file())
        found = {str(path.relative_to(self.folder)): _content(path) for path in paths}
        return {name: content for name, content in found.items() if content is not None}

    def half_written(self) -> list[str]:
        """What only an unfinished run needs."""
        kinds = ("*.tmp", "checkpoints", "*.unfinished", "*.part")
        roots = [self.folder / name for name in MADE] + [self.cache]
        return sorted(str(path.relative_to(self.root)) for root in roots for kind in kinds for path in root.rglob(kind))

    # ------------------------------------------------------------------------------------------------ what it is of

    def _write_crystals(self) -> None:
        """Rock salt of made-up size, whose energy follows from its edge; packed as a published package."""
        rng = np.random.default_rng(0)
        rows = [_crystal(f"salt-{k}", 4.0 + 1.5 * rng.random()) for k in range(CRYSTALS)]
        content = "\n".join(["# made up", "material_id,energy,structure", *rows]) + "\n"
        archive = self.links / "salts-1.0.tar.gz"
        tar_gz(archive, salts_csv=content.encode())
        energy = {"unit": "eV/atom", "description": "Made up.", "column": "energy"}
        source = registry_source(archive, [member("package/salts.csv", content.encode())], package="salts")
        self._write_card("crystals", source, {"formation_energy": energy}, reader="matminer_csv")

    def _write_trajectory(self) -> None:
        """Ethanol's card, with fewer steps of a smaller molecule."""
        card = yaml.safe_load((ROOT / "datasets/md_ethanol.yaml").read_text())
        steps = {"start": {"molecule": "H2O"}, "equilibration": 50, "every": 4, "frames": FRAMES}
        source = card["source"] | {"settings": card["source"]["settings"] | steps}
        targets = {
            name: {k: v for k, v in target.items() if k not in ("range", "count")}
            for name, target in card["targets"].items()
        }
        self._write_card("md_water", source, targets, reader="gfn2_md", periodic=False)

    def _write_card(self, name: str, source: dict, targets: dict, **fields) -> None:
        text = {key: "made up" for key in ("title", "summary", "licence", "citation")}
        path = self.folder / "datasets" / f"{name}.yaml"
        path.parent.mkdir(exist_ok=True)
        path.write_text(yaml.safe_dump({"name": name, "source": source, "targets": targets} | text | fields))

    def _write_paper(self) -> None:
        folder = self.folder / "papers" / PAPER
        shutil.copytree(ROOT / "papers" / PAPER, folder)
        card = yaml.safe_load((folder / "card.yaml").read_text())
        published = card["experiments"]
        crystals, trajectory = published["mp-formation-energy"], published["md-ethanol"]
        crystals |= {"dataset": "crystals", "smoke": SMOKE | {"n_train": 32, "n_val": 8, "n_test": 12, "model": MODEL}}
        trajectory |= {
            "dataset": "md_water",
            "smoke": SMOKE | {"n_train": 40, "n_val": 8, "n_test": 32, "model": MODEL},
        }
        card["experiments"] = {FETCHED: crystals, COMPUTED: trajectory}
        (folder / "card.yaml").write_text(yaml.safe_dump(card))


def _crystal(name: str, edge: float) -> str:
    """A line of the table."""
    half = edge / 2
    cell = {"matrix": [[0, half, half], [half, 0, half], [half, half, 0]]}
    sites = [
        {"abc": [at] * 3, "species": [{"element": element, "occu": 1}]} for at, element in ((0, "Na"), (0.5, "Cl"))
    ]
    structure = {"lattice": cell, "sites": sites}
    return f'{name},{(edge - 5.0) ** 2 - 2.0},"{structure}"'


def _content(path: Path) -> object:
    """Of a file, what must be the same in equal runs; None if nothing must."""
    if path.suffix == ".parquet":
        return _columns(path)
    match path.name:
        case "model.safetensors":
            return {name: array.tobytes() for name, array in load_file(path).items()}
        case "run.json":
            return _measured(json.loads(path.read_text()))
        case "log.csv":
            return pd.read_csv(path).drop(columns="seconds").to_csv()
        case "comparison.csv":
            return pd.read_csv(path).drop(columns=TIMES).to_csv()
        case "provenance.json" | "training.json":
            return None
    return path.read_bytes()


def _columns(path: Path) -> dict[str, bytes | list] | None:
    """Values of a table by column; None if it cannot be read."""
    try:
        table = pd.read_parquet(path)
    except Exception:  # whatever the reader stumbles over in a damaged file
        return None
    return {name: np.asarray(column.tolist()).tobytes() for name, column in table.items()}


def _measured(record: dict) -> dict:
    """A record without when, where and how fast."""
    seeds = [{k: v for k, v in seed.items() if k not in ("seconds", "peak_memory_mb")} for seed in record["seeds"]]
    parts = {name: _measured(part) for name, part in record.get("parts", {}).items()}
    return {k: record.get(k) for k in ("status", "baselines", "n_test", "leakage")} | {"seeds": seeds, "parts": parts}
