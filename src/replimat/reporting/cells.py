"""Lattice lengths read from measured patterns, ours and those the paper reports, beside the refined cells."""

import re
from pathlib import Path

import numpy as np

from replimat import cards
from replimat.cards import Claim
from replimat.datasets.patterns import SYSTEMS
from replimat.evaluation.relative_errors import relative_errors
from replimat.records import Run, number
from replimat.reporting.style import BLUE, GREY, ORANGE, canvas

METRIC = "prediction"  # of the claims: one length of one sample
BAND = 10  # %, drawn for the eye


def draw(path: Path, run: Run, arrays: dict[str, np.ndarray]) -> None:
    """arrays: names [n], system [n], refined and ours: lengths in angstrom, ascending [n, 3]."""
    order = np.lexsort((arrays["names"], -arrays["system"]))
    names, system, refined, ours = (arrays[name][order] for name in ("names", "system", "refined", "ours"))
    theirs, titles = reported_lengths(cards.claims(run.paper), names)
    place = np.arange(len(names))[::-1]
    with canvas(path, (8.2, 0.42 * len(names) + 1.8)) as (_, axes):
        axes.axvspan(-BAND, BAND, color=GREY, alpha=0.13, linewidth=0)
        axes.axvline(0, color=GREY, linewidth=1.2)
        for said, lengths, mark, colour, above in (
            (f"{run.paper}, here", ours, "o", BLUE, 0.17),
            ("authors' released networks", theirs, "s", ORANGE, -0.17),
        ):
            known = np.isfinite(lengths)
            mape = relative_errors(refined[known], lengths[known])["mape"] if known.any() else None
            error = 100 * (lengths / refined - 1)
            axes.scatter(
                error,
                np.broadcast_to(place[:, None] + above, error.shape),
                s=34,
                marker=mark,
                color=colour,
                alpha=0.75,
                linewidth=0,
                label=f"{said}: MAPE {number(mape)} %, n = {known.sum()}",
            )
        axes.set_yticks(place, [f"{title}, {SYSTEMS[k]}" for title, k in zip(titles, system, strict=True)])
        axes.set_ylim(-0.7, len(names) - 0.3)
        axes.set_xlabel(f"error of a lattice length (%); shaded: within {BAND} %")
        axes.set_title(f"{run.paper} · {run.label}\n{len(names)} measured patterns, three lengths of each")
        axes.legend(loc="upper center", bbox_to_anchor=(0.4, -0.1))


def reported_lengths(claims: tuple[Claim, ...], names: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """The lengths that the paper's claims give for each sample, NaN where there is none [n, 3], and its compound, or
    its name where the claims know none.
    """
    found, titles = np.full((len(names), 3), np.nan), [str(name) for name in names]
    row_of = {slug(name): row for row, name in enumerate(names)}
    for claim in claims:
        sample = next((one for one in row_of if slug(claim.dataset.partition(": ")[2]).startswith(one)), None)
        position = re.search(r"lattice parameter (\d) of 3", claim.target)
        if claim.metric != METRIC or sample is None or position is None:
            continue
        row = row_of[sample]
        found[row, int(position[1]) - 1] = claim.value
        compound = claim.dataset.partition(": ")[2].rpartition(" (")[0][len(str(names[row])) :].strip()
        titles[row] = compound or titles[row]
    return found, titles


def slug(text: str) -> str:
    """Letters and digits of a name, small, joined by one dash."""
    return "-".join(re.findall(r"[a-z0-9]+", str(text).lower()))
