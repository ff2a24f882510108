"""Interatomic potentials beside each other: errors, physical properties and cost, one table and figures per material.

results/<scale>/papers/<key>/: potentials.csv, potentials.md, figures/cost-*.png and figures/physics-*.png. Only runs
that measured physical properties are here. An experiment is called <material>-<potential>, as in ni-snap.
"""

import json
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from functools import reduce
from pathlib import Path

import numpy as np

from replimat.cards import Claim
from replimat.files import write_text
from replimat.records import Run, finite, number
from replimat.reporting.comparison import Outcome
from replimat.reporting.style import BLACK, BLUE, GREEN, GREY, ORANGE, PURPLE, SKY, VERMILION, canvas, unit_label
from replimat.reporting.tables import as_number, read_table, write_csv

COLUMNS = ("material", "potential", "quantity", "unit", "value", "std", "n_seeds", "reference", "seen", "experiment")
NAMES = {
    "snap-official": "SNAP, official",
    "qsnap-official": "qSNAP, official",
    "snap": "SNAP",
    "qsnap": "qSNAP",
    "gap": "GAP",
    "mtp": "MTP",
    "nnp": "NNP",
    "nnp-official": "NNP, released",
}
ERRORS = ("rmse", "train_rmse", "mae", "train_mae", "unseen_rmse")
FACTORS = {"eV/atom": ("meV/atom", 1e3), "eV/angstrom": ("meV/angstrom", 1e3)}  # errors as people print them
REFERENCES = {  # property -> the target of the DFT value that stands beside it
    "lattice_constant": "lattice parameter a",
    "c11": "C11",
    "c12": "C12",
    "c44": "C44",
    "bulk_modulus": "bulk modulus",
    "vacancy_formation_energy": "vacancy formation energy",
    "vacancy_migration_energy": "vacancy migration energy",
    "vacancy_diffusion_barrier": "vacancy diffusion barrier",
}
COLOURS = dict(zip(NAMES, (BLACK, GREY, BLUE, SKY, GREEN, ORANGE, VERMILION, PURPLE), strict=True))
MARKS = dict(zip(NAMES, "sDoP^vX*", strict=True))


@dataclass(frozen=True)
class Row:
    """One quantity of one potential for one material; reference: the claim it stands beside."""

    run: Run
    quantity: str
    unit: str
    values: tuple[float, ...]
    reference: Claim | None = None

    @property
    def material(self) -> str:
        return material_of(self.run)

    @property
    def potential(self) -> str:
        return self.run.experiment.partition("-")[2]


def material_of(run: Run) -> str:
    """The material an experiment is about, "Ni" for ni-snap."""
    return run.experiment.partition("-")[0].capitalize()


def write_potentials(folder: Path, outcomes: Iterable[Outcome], claims: Iterable[Claim]) -> set[Path]:
    """Write tables and figures of all potentials among the outcomes; returns the figures (none: nothing to show)."""
    of_run = defaultdict(list)
    for one in outcomes:
        if one.run and any(seed.properties for seed in one.run.seeds):
            of_run[one.name].append(one)
    rows = [row for group in of_run.values() for row in _rows_of(group, list(claims))]
    if not rows:
        return set()
    write_csv(folder / "potentials.csv", COLUMNS, [_cells(row) for row in rows])
    table = read_table(folder / "potentials.csv")
    write_text(folder / "potentials.md", _markdown(table))
    drawn = {draw_cost(folder / "figures" / "cost-errors.png", table, _reported_forces(of_run, claims))}
    runs = {name: group[0] for name, group in of_run.items()}
    for material in dict.fromkeys(material_of(one.run) for one in runs.values()):
        drawn |= _draw_physics(
            folder / "figures", material, [one for one in runs.values() if material_of(one.run) == material]
        )
    return drawn - {None}


# -------------------------------------------------------------------- rows


def _rows_of(group: list[Outcome], claims: list[Claim]) -> list[Row]:
    """Errors of energies and forces, then every property of one experiment."""
    rows = []
    for one in group:
        unit, factor = FACTORS.get(one.run.unit, (one.run.unit, 1.0))
        what = "energy" if one.target.startswith("energy") else one.target
        for metric in ERRORS:
            values = _finite(seed.metrics.get(metric) for seed in one.run.seeds if seed.status == "ok")
            if values:
                rows.append(Row(one.run, f"{what} {metric}", unit, tuple(factor * value for value in values)))
    run = group[0].run
    for name in dict.fromkeys(name for seed in run.seeds for name in seed.properties):
        values = _finite(seed.properties.get(name) for seed in run.seeds)
        rows.append(Row(run, name, run.property_units.get(name, ""), tuple(values), _reference(run, name, claims)))
    return rows


def _reported_forces(of_run: dict[str, list[Outcome]], claims: Iterable[Claim]) -> dict[tuple[str, str], float]:
    """Reported RMSE of forces, meV/angstrom, by material and potential."""
    by_id = {claim.claim_id: claim for claim in claims}
    found = {}
    for name, group in of_run.items():
        for claim in (by_id[one] for outcome in group for one in outcome.claims):
            if claim.metric == "rmse" and claim.unit == "meV/angstrom" and claim.value is not None:
                potential = name.partition("-")[2].removesuffix("-official")
                found[material_of(group[0].run), potential] = claim.value
    return found


def _finite(values: Iterable[float | None]) -> list[float]:
    return [value for value in values if finite(value)]


def _reference(run: Run, name: str, claims: list[Claim]) -> Claim | None:
    """The DFT value that stands beside a property: one that was read rather than one recalled."""
    found = [c for c in claims if c.target == REFERENCES.get(name) and material_of(run) in c.dataset.split()]
    return min(found, key=lambda claim: claim.seen == "recalled", default=None)


def _cells(row: Row) -> dict:
    value = float(np.mean(row.values)) if row.values else None
    std = float(np.std(row.values, ddof=1)) if len(row.values) > 1 else None
    return {
        "material": row.material,
        "potential": row.potential,
        "quantity": row.quantity,
        "unit": row.unit,
        "value": value,
        "std": std,
        "n_seeds": len(row.values),
        "reference": row.reference.value if row.reference else None,
        "seen": row.reference.seen if row.reference else "",
        "experiment": row.run.experiment,
    }


# ------------------------------------------------------------------ tables


def pivot(table: list[dict]) -> list[dict]:
    """One table per material: potentials as columns, quantities as lines, the DFT value last.

    [{"material", "potentials": [names], "lines": [{"quantity", "unit", "cells": [text], "reference", "seen"}]}]
    """
    found = []
    for material in dict.fromkeys(row["material"] for row in table):
        own = [row for row in table if row["material"] == material]
        keys = sorted({row["potential"] for row in own}, key=lambda key: (*NAMES, key).index(key))
        by_place = {(row["quantity"], row["potential"]): row for row in own}
        lines = []
        quantities = dict.fromkeys((row["quantity"], row["unit"]) for row in own)
        for quantity, unit in sorted(quantities, key=_place):
            cells = [_value(by_place.get((quantity, key))) for key in keys]
            beside = next((row for row in own if row["quantity"] == quantity and row["reference"]), None)
            lines.append(
                {
                    "quantity": label(quantity),
                    "unit": unit_label(unit),
                    "cells": cells,
                    "reference": beside["reference"] if beside else "",
                    "seen": beside["seen"] if beside else "",
                }
            )
        found.append({"material": material, "potentials": [NAMES.get(key, key) for key in keys], "lines": lines})
    return found


def _place(pair: tuple[str, str]) -> int:
    """Errors first, in the order of ERRORS, then what else there is as it was measured."""
    order = [f"{what} {metric}" for what in ("energy", "forces") for metric in ERRORS]
    return order.index(pair[0]) if pair[0] in order else len(order)


def label(quantity: str) -> str:
    """A quantity as it stands in a table."""
    words = quantity.replace("_", " ").replace("rmse", "RMSE").replace("mae", "MAE")
    return (
        words.replace("train RMSE", "RMSE, train")
        .replace("train MAE", "MAE, train")
        .replace("unseen RMSE", "RMSE, test without twins")
    )


def _value(row: dict | None) -> str:
    if row is None:
        return ""
    if row["value"] == "":
        return "not measured"
    spread = f" ± {number(as_number(row['std']))}" if row["std"] else ""
    return number(as_number(row["value"])) + spread


def _markdown(table: list[dict]) -> str:
    lines = ["# Potentials beside each other", ""]
    for one in pivot(table):
        heads = ["quantity", "unit", *one["potentials"], "DFT"]
        lines += [f"## {one['material']}", "", "| " + " | ".join(heads) + " |", "|" + " --- |" * len(heads)]
        for line in one["lines"]:
            recalled = " (*recalled*)" if line["seen"] == "recalled" else ""
            cells = [line["quantity"], line["unit"], *line["cells"], f"{line['reference']}{recalled}"]
            lines.append("| " + " | ".join(cells) + " |")
        lines.append("")
    lines.append("*recalled*: read from memory, not from the source; shown and never counted.")
    return "\n".join(lines) + "\n"


# ----------------------------------------------------------------- figures


def draw_cost(path: Path, table: list[dict], reported: dict[tuple[str, str], float]) -> Path | None:
    """Error of forces against time per atom and step, a panel per material; lower left is better.

    reported: RMSE of forces by material and potential, meV/angstrom, drawn as a dotted line.
    """
    points = _points(table)
    materials = list(dict.fromkeys(material for material, _ in points))
    if not materials:
        return None
    columns = min(3, len(materials))
    lines = -(-len(materials) // columns)
    size = (3.6 * columns + 0.6, 3.1 * lines + 1.0)
    with canvas(path, size, nrows=lines, ncols=columns, squeeze=False, sharex=True) as (figure, axes):
        for panel, material in zip(axes.flat, materials, strict=False):
            _draw_material(panel, material, points, reported)
        for panel in list(axes.flat)[len(materials) :]:
            panel.axis("off")
        figure.supylabel("force RMSE on test frames (meV/Å)", fontsize=11)
        figure.supxlabel("time of a step (ms per atom, one core, this implementation)", fontsize=11)
        _legend(figure, axes, "outside upper center")
    return path


def _draw_material(panel, material: str, points: dict, reported: dict) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    for key in [key for name, key in points if name == material]:
        style = {"color": COLOURS[key], "marker": MARKS[key], "markersize": 8, "linestyle": ""}
        panel.plot(*points[material, key], label=NAMES[key], **style)
    for key in [key for name, key in reported if name == material]:
        panel.axhline(reported[material, key], color=COLOURS[key], linestyle=":", label=f"{NAMES[key]}, reported")
    panel.set(xscale="log", title=material)
    panel.set_ylim(0, 1.08 * panel.get_ylim()[1])
    panel.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    panel.xaxis.set_minor_locator(NullLocator())
    panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    panel.tick_params(labelbottom=True)


def _legend(figure, axes, place: str = "outside lower center") -> None:
    """One legend for all panels, each entry once."""
    handles = {}
    for panel in axes.flat:
        handles |= dict(zip(*reversed(panel.get_legend_handles_labels()), strict=True))
    figure.legend(handles.values(), handles.keys(), loc=place, ncols=4)


def _points(table: list[dict]) -> dict[tuple[str, str], tuple[float, float]]:
    """Cost and force error of every potential that has both, by material and potential."""
    wanted: dict[tuple[str, str], dict[str, float]] = defaultdict(dict)
    for row in table:
        if row["quantity"] in ("cost", "forces rmse") and row["value"]:
            wanted[row["material"], row["potential"]][row["quantity"]] = float(row["value"])
    return {key: (found["cost"], found["forces rmse"]) for key, found in wanted.items() if len(found) == 2}


def _draw_physics(folder: Path, material: str, runs: list[Outcome]) -> set[Path]:
    """Curves of all potentials of a material: every kind of curve that at least one of them has is a panel."""
    curves = {one.run.experiment.partition("-")[2]: _curves(one) for one in runs}
    panels = [panel for panel in PANELS if any(panel.study in found for found in curves.values())]
    if not panels:
        return set()
    columns = min(2, len(panels))
    lines = -(-len(panels) // columns)
    path = folder / f"physics-{material.lower()}.png"
    with canvas(path, (4.6 * columns, 3.4 * lines + 0.6), nrows=lines, ncols=columns, squeeze=False) as (figure, axes):
        for axis, panel in zip(axes.flat, panels, strict=False):
            for key, found in curves.items():
                if panel.study in found:
                    x, y = panel.points(found[panel.study])
                    style = {
                        "color": COLOURS[key],
                        "linewidth": 1.4,
                        "marker": panel.marker,
                        "markersize": 3.5,
                    }
                    axis.plot(x, y, label=NAMES.get(key, key), **style)
            axis.set(title=panel.title, xlabel=panel.x_label, ylabel=panel.y_label)
        for axis in list(axes.flat)[len(panels) :]:
            axis.axis("off")
        figure.suptitle(material, x=0.02, ha="left", fontsize=12, weight="bold")
        _legend(figure, axes)
    return {path}


def _curves(one: Outcome) -> dict[str, dict]:
    """Curves of the first seed by study, as the run kept them."""
    folder = one.folder / f"seed{one.run.seeds[0].seed}" / "physics"
    return {
        path.stem: kept["curves"]
        for path in sorted(folder.glob("*.json"))
        if (kept := json.loads(path.read_text(encoding="utf-8")))["curves"]
    }


@dataclass(frozen=True)
class Panel:
    """One kind of curve: the study that has it, its axes, and the places of its points among the study's curves."""

    study: str
    title: str
    x_label: str
    y_label: str
    x: str
    y: str
    marker: str = ""
    from_least: bool = False

    def points(self, curves: dict) -> tuple[np.ndarray, np.ndarray]:
        x, y = (np.array(reduce(dict.__getitem__, place.split("."), curves), float) for place in (self.x, self.y))
        return x, y - y.min() if self.from_least else y


PANELS = (
    Panel(
        "equation_of_state",
        "Equation of state",
        "volume (Å³/atom)",
        "energy (eV/atom)",
        "volumes",
        "energies",
        "o",
        True,
    ),
    Panel("vacancy", "Vacancy migration", "path (Å)", "energy (eV)", "path", "energies", "o"),
    Panel("stacking_fault", "Slip", "slip (Å)", "energy (mJ/m²)", "slip", "gamma", "o"),
    Panel("phonons", "Phonon density of states", "frequency (THz)", "states (1/THz)", "dos.frequency", "dos.density"),
    Panel("solid", "Pair distribution in dynamics", "distance (Å)", "g(r)", "distribution.r", "distribution.g"),
)
