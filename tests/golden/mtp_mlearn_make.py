"""Makes mtp_mlearn.json: a potential fitted by MLIP, read and evaluated with its own tables in plain loops.

    python tests/golden/mtp_mlearn_make.py PATH      # a checkout of github.com/materialsvirtuallab/mlearn

The package's tests hold a fitted level-8 potential of Mo (mlearn/potentials/tests/MTP/fitted.mtp) and ten frames with
DFT energies and forces. Needs numpy alone; shares nothing with the code that is tested.
"""

import itertools
import json
import re
import sys
from pathlib import Path

import numpy as np

FRAMES = 1


def main() -> None:
    tests = Path(sys.argv[1]) / "mlearn" / "potentials" / "tests"
    text = (tests / "MTP" / "fitted.mtp").read_text()
    frames = [frame(one, text) for one in json.loads((tests / "datapool.json").read_text())[:FRAMES]]
    out = Path(__file__).with_name("mtp_mlearn.json")
    out.write_text(json.dumps({"mtp": text, "frames": frames}) + "\n")


def frame(one: dict, text: str) -> dict:
    cell = np.array(one["structure"]["lattice"]["matrix"])
    positions = np.array([site["xyz"] for site in one["structure"]["sites"]])
    return {
        "cell": cell.tolist(),
        "positions": positions.tolist(),
        "dft_energy": one["outputs"]["energy"],
        "dft_forces": one["outputs"]["forces"],
        "energy": energy(text, positions, cell),
    }


def energy(text: str, positions: np.ndarray, cell: np.ndarray) -> float:
    """Energy in eV as the file's tables say it."""
    number = lambda name: float(re.search(rf"{name} = (\S+)", text)[1])  # noqa: E731
    table = lambda name: json.loads(re.search(rf"{name} = (.*)", text)[1].replace("{", "[").replace("}", "]"))  # noqa: E731
    low, high, scaling = number("min_dist"), number("max_dist"), number("scaling")
    radial = np.array([json.loads("[" + row + "]") for row in re.findall(r"^\s*\{(.*)\}\s*$", text, re.M)])
    basic, times, mapping = (table("alpha_" + name) for name in ("index_basic", "index_times", "moment_mapping"))
    total = 0.0
    images = np.array(list(itertools.product((-1, 0, 1), repeat=3))) @ cell
    for here in positions:
        vectors = (positions[:, None] + images - here).reshape(-1, 3)
        r = np.linalg.norm(vectors, axis=1)
        near = (r > 1e-6) & (r < high)
        u, r = vectors[near] / r[near, None], r[near]
        t = np.polynomial.chebyshev.chebvander((2 * r - low - high) / (high - low), radial.shape[1] - 1)
        f = scaling * (t * (r - high)[:, None] ** 2) @ radial.T
        moment = np.zeros(int(number("alpha_moments_count")))
        for k, (mu, a, b, c) in enumerate(basic):
            moment[k] = (f[:, mu] * u[:, 0] ** a * u[:, 1] ** b * u[:, 2] ** c).sum()
        for one, two, factor, target in times:
            moment[target] += factor * moment[one] * moment[two]
        total += table("species_coeffs")[0] + np.dot(table("moment_coeffs"), moment[mapping])
    return total


if __name__ == "__main__":
    main()
