"""Designs of FTCP: from around the training crystals nearest to a target, judged by what they were made for.

A design counts as a success when its composition is not among the known crystals, its atoms keep their distance, and
its properties lie within the target's window as the CGCNN authors' released weights predict them for the crystal as it
is made. The authors relaxed their designs and computed the properties with DFT.
"""

import numpy as np
import pandas as pd

from replimat.cards import ScaleSettings
from replimat.datasets.base import Structures
from replimat.evaluation.generation import MADE
from replimat.experiments.base import Made
from replimat.experiments.bench import Bench
from replimat.experiments.ftcp_latent import Generator, Scaled, Window
from replimat.experiments.judging import judge_crystals, valid_crystals
from replimat.experiments.random_structures import random_crystals
from replimat.representations.conversion import packed

LOOKED_AT = 40  # designs kept to be looked at
NEAREST = 10  # training crystals that the designs for a target start from
NEAR = 0.1  # eV/atom: the looser window of the first version of the paper
UNIT = {"formation_energy": "eV/atom", "band_gap": "eV", "power_factor": "1"}


def designs(bench: Bench, data: Scaled, trained: Generator, first: Generator, settings: ScaleSettings) -> Made:
    """Designs of every window by the trained network, by the untrained one, and random crystals."""
    windows, draws = data.case.windows, int(settings.model["perturbations"])
    window = np.repeat(np.arange(len(windows)), NEAREST * draws)
    made = []
    for generator in (trained, first):
        rng = np.random.default_rng(bench.seed)
        centres = np.concatenate([np.tile(generator.encode(starts(data, generator, w)), (draws, 1)) for w in windows])
        z = around(centres, settings.model["step"], rng)
        made.append(data.ftcp.decode(generator.matrices(z)))
    made.append((random_crystals(data.crystals.take(data.train), len(window), bench.seed), {}))
    tables = [judge(bench, data, *one, window) for one in made]
    keep(bench, data, made[0][0], tables[0], tables[2], window)
    own, *others = (without_properties(table) for table in tables)
    return Made(own, dict(zip(("untrained", "random_structure"), others, strict=True)))


def starts(data: Scaled, generator: Generator, window: Window) -> np.ndarray:
    """Training crystals that designs start from [NEAREST]: those that fulfil `where` with the property nearest to its
    aim. A property that few crystals have and that shall be as high as can be is predicted for all, as in the authors'
    script. Raises ValueError when there are too few.
    """
    usable = np.ones(len(data.train), dtype=bool)
    for name, (low, high) in window.where.items():
        values = data.values(name)[data.train]
        usable &= (values >= low) & (values <= high)
    name, aim = window.aim
    if np.isinf(aim):
        column = data.case.names.index(name)
        distance = -generator.predict(generator.encode(data.train))[:, column]
    else:
        distance = np.abs(data.values(name)[data.train] - aim)
    usable &= np.isfinite(distance)
    if usable.sum() < NEAREST:
        raise ValueError(f"{usable.sum()} training crystals to start from; {NEAREST} are needed.")
    order = np.argsort(np.where(usable, distance, np.inf), kind="stable")
    return data.train[order[:NEAREST]]


def around(centres: np.ndarray, step: float, rng: np.random.Generator) -> np.ndarray:
    """Latent points near others [m, L]."""
    return (centres + step * rng.normal(size=centres.shape)).astype(np.float32)


def judge(
    bench: Bench, data: Scaled, crystals: Structures | None, failed: dict[int, str], window: np.ndarray
) -> pd.DataFrame:
    """The shared judgement and what a design is for; window [n]: which one each is to hit. Columns `property.<name>`
    hold the predicted properties and are no metrics.
    """
    table = judge_crystals(crystals, failed, known=data.crystals, data=data.crystals.take(data.test))
    made = (table["of"] == MADE).to_numpy()
    decoded = np.flatnonzero(made & (table["failed"] == "").to_numpy())
    new, properties = np.full(made.sum(), np.nan), {}
    if crystals is not None:
        new[decoded] = new_composition(crystals, data.crystals)
    for name in sorted({name for one in data.case.windows for name in one.wanted}):
        properties[name] = np.full(made.sum(), np.nan)
        if crystals is not None:
            properties[name][decoded] = surrogate(name, crystals, bench.device)
    apart = table["share.structure_validity"].to_numpy()[made] == 1
    columns = scores(data, properties, window, apart, new)
    for name, values in (columns | {f"property.{name}": values for name, values in properties.items()}).items():
        table[name] = np.nan
        table.loc[made, name] = values
    return table


def scores(
    data: Scaled, properties: dict[str, np.ndarray], window: np.ndarray, apart: np.ndarray, new: np.ndarray
) -> dict[str, np.ndarray]:
    """Columns of n samples. Successes are asked of designs of a new composition; one that is no crystal, and so has no
    composition (NaN), is a miss. improvement: a success over the share of training crystals that lie in the window.
    """
    windows = data.case.windows
    hit = np.zeros(len(window), dtype=bool)
    chance = np.ones(len(window))
    for k, one in enumerate(windows):
        inside = np.logical_and.reduce([within(properties[name], span) for name, span in one.wanted.items()])
        hit |= (window == k) & inside
        chance[window == k] = share_inside(data, one)
    asked = np.where(new == 0, np.nan, 1.0)
    success = (hit & apart) * asked
    main = np.where(window == 0, 1.0, np.nan)
    found = {"share.success_rate": success * main, "mean.improvement": success / chance * main}
    if len(windows) > 1:
        found["share.success_rate_all"] = success
        centres = np.array([one.aim[1] for one in windows])[window]
        found["share.near_rate"] = (np.abs(properties[windows[0].aim[0]] - centres) <= NEAR) * apart * asked
    return found | {"share.hit_rate": (hit & apart) * main, "share.new_composition": new}


def within(values: np.ndarray, span: tuple[float, float]) -> np.ndarray:
    return (values >= span[0]) & (values <= span[1])


def share_inside(data: Scaled, window: Window) -> float:
    """Share of the training crystals with known properties that lie in a window: what a random choice would score."""
    values = {name: data.values(name)[data.train] for name in window.wanted}
    known = np.logical_and.reduce([np.isfinite(one) for one in values.values()])
    inside = np.logical_and.reduce([within(values[name], span) for name, span in window.wanted.items()])
    return float(max(inside[known].mean(), 1 / known.sum()))


def new_composition(made: Structures, known: Structures) -> np.ndarray:
    """Whether no known crystal has the formula [n]: the authors' own check of what is new."""
    from replimat.evaluation.validity import formulas

    old = set(formulas(known))
    return np.array([one not in old for one in formulas(made)], dtype=float)


def surrogate(name: str, crystals: Structures, device: str) -> np.ndarray:
    """A property as the CGCNN authors' weights predict it [n]; NaN where they do not know an element."""
    from replimat.experiments.properties import author_property
    from replimat.models.elements import N_ELEMENTS
    from replimat.sources.store import verified_folder

    values = np.full(len(crystals), np.nan)
    known = np.flatnonzero(np.maximum.reduceat(crystals.numbers, crystals.offsets[:-1]) < N_ELEMENTS)
    if len(known):
        values[known] = author_property(name, crystals.take(known), verified_folder("cgcnn_weights"), device)
    return values


def without_properties(table: pd.DataFrame) -> pd.DataFrame:
    """The table with metrics alone."""
    return table.drop(columns=[name for name in table if name.startswith("property.")])


# ------------------------------------------------------------------- figures


def keep(
    bench: Bench,
    data: Scaled,
    crystals: Structures | None,
    table: pd.DataFrame,
    chance: pd.DataFrame,
    window: np.ndarray,
) -> None:
    """Arrays of the figures: the first valid designs, and what was asked of all beside what they have."""
    rows = table[table["of"] == MADE]
    name = data.case.windows[0].aim[0]
    name = name if f"property.{name}" in rows else "band_gap"
    valid = valid_crystals(crystals, table)
    if valid is not None:
        first = rows[rows["share.validity"] == 1][:LOOKED_AT]
        captions = [
            f"{name.replace('_', ' ')} {value:.2f} {UNIT[name]}" if np.isfinite(value) else "not predicted"
            for value in first[f"property.{name}"]
        ]
        shown = valid.take(np.arange(len(first)))
        bench.keep("crystals", **packed(shown), captions=np.array(captions))
    bench.keep(
        "windows",
        of=np.array(name.replace("_", " ")),
        unit=np.array(UNIT[name]),
        bounds=np.array([one.wanted[name] for one in data.case.windows]),
        window=window,
        made=rows[f"property.{name}"].to_numpy(),
        success=(rows["share.success_rate_all"] if len(data.case.windows) > 1 else rows["share.success_rate"]) == 1,
        apart=rows["share.structure_validity"].to_numpy() == 1,
        chance=chance[chance["of"] == MADE][f"property.{name}"].to_numpy(),
        training=data.values(name)[data.train],
    )
