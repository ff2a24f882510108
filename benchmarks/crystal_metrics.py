"""What judges generated crystals, on crystals of mp_flla: ours against the loops that CDVAE's evaluation makes.

    python benchmarks/crystal_metrics.py

Before they are timed, the answers are compared. The peers are pymatgen (distances), smact (oxidation states, one
combination after another) and matminer (fingerprints, one site after another), called as CDVAE calls them: making
pymatgen's structures is part of their time.
"""

import itertools
import warnings

import numpy as np
from common import OURS, keep, peer, rows, seconds

from replimat.datasets import load
from replimat.evaluation.coverage import composition_features, structure_features
from replimat.evaluation.validity import compositionally_valid, structurally_valid
from replimat.representations.conversion import as_pymatgen

MANY, FEW = 500, 20  # crystals; the second for fingerprints
AGREE = 1e-5  # of features


def main() -> None:
    warnings.simplefilter("ignore")  # matminer on oxidation states
    pool = load("mp_flla").structures
    order = np.random.default_rng(0).permutation(len(pool))
    some, few = pool.take(order[:MANY]), pool.take(order[:FEW])
    new = measure("structural validity", some, structurally_valid, "pymatgen", distances)
    new += measure("compositional validity", some, cold(compositionally_valid), "smact", combinations)
    new += measure("composition features", some, cold(composition_features), "matminer", magpie())
    keep(new + measure("structure features", few, structure_features, "matminer", sites()))


def measure(case: str, structures, ours, name: str, theirs) -> list[dict]:
    """Milliseconds per crystal of both, once they agree."""
    calls = {OURS: lambda: ours(structures), name: lambda: [theirs(one) for one in as_pymatgen(structures)]}
    difference = np.abs(np.array(calls[OURS](), dtype=float) - np.array(calls[name](), dtype=float))
    if not difference.max() <= AGREE:
        raise SystemExit(f"{case}: answers differ by {difference.max():.1e}")
    case = f"{case}, {len(structures)} crystals, {structures.sizes.mean():.0f} sites on average"
    times = {key: 1e3 * value / len(structures) for key, value in seconds(calls, repeats=2).items()}
    return rows("crystal metrics", case, times, "ms/crystal")


def cold(function):
    """The function without what it remembers of formulas seen before."""
    from replimat.evaluation import coverage, validity

    def call(structures):
        coverage._magpie.cache_clear()
        validity._balances.cache_clear()
        return function(structures)

    return call


def distances(crystal) -> bool:
    between = crystal.distance_matrix + 10 * np.eye(len(crystal))
    return between.min() >= 0.5 and crystal.volume >= 0.1


def combinations(crystal) -> bool:
    smact, screening = peer("smact"), peer("smact.screening")
    numbers, counts = np.unique(crystal.atomic_numbers, return_counts=True)
    elements = [smact.Element(smact.ordered_elements(z, z)[0]) for z in numbers.tolist()]
    if len(elements) == 1 or all(element.symbol in smact.metals for element in elements):
        return True
    amounts = [(count,) for count in (counts // np.gcd.reduce(counts)).tolist()]
    scale = [element.pauling_eneg for element in elements]
    return any(
        smact.neutral_ratios(states, stoichs=amounts, threshold=int(counts.max()))
        and screening.pauling_test(states, scale)
        for states in itertools.product(*[element.oxidation_states_smact14 or [] for element in elements])
    )


def magpie():
    featurizer = peer("matminer.featurizers.composition").ElementProperty.from_preset("magpie", impute_nan=False)
    return lambda crystal: featurizer.featurize(crystal.composition)


def sites():
    featurizer = peer("matminer.featurizers.site").CrystalNNFingerprint.from_preset("ops")
    return lambda crystal: np.mean([featurizer.featurize(crystal, site) for site in range(len(crystal))], axis=0)


if __name__ == "__main__":
    main()
