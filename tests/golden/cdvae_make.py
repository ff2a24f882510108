"""Makes the golden file of CDVAE's metrics: runs the authors' own evaluation. Run by hand, never by the tests.

    python tests/golden/cdvae_make.py --author-code CHECKOUT --smact FOLDER

CHECKOUT: github.com/txie-93/cdvae at commit f857f598, of which scripts/ and cdvae/common/ are used. FOLDER: smact
2.2.1, the version of their environment, unpacked from its source package. pymatgen and matminer are ours, not theirs;
Magpie is asked not to fill in missing values, as their matminer 0.7.3 did not. What the two scripts import for other
purposes is replaced by empty modules, and the network that predicts properties by the density.

Crystals: TRUE of mp_flla; the same displaced and strained, some with an element changed; random ones; odd ones made by
hand. cdvae_author.safetensors: the crystals, what the authors' code says of each of those made, and their scores.
"""

import argparse
import json
import sys
import warnings
from importlib.metadata import version
from pathlib import Path
from types import ModuleType

import numpy as np
from pymatgen.core import Lattice
from safetensors.numpy import save_file

from replimat.datasets import load
from replimat.datasets.base import Structures
from replimat.experiments.random_structures import random_crystals
from replimat.files import atomic

HERE = Path(__file__).parent
COMMIT = "f857f598d6f6cca5dc1ea0582d228f12dcc2c2ea"
TRUE, RANDOM, SEED = 48, 20, 7
LARGEST = 8  # atoms
STARTS, DECODES = 12, 4  # of the search for a property, cut out of the crystals made
EMPTY = (
    "hydra hydra.experimental p_tqdm torch_scatter cdvae.pl_data cdvae.pl_data.dataset cdvae.pl_data.datamodule "
    "cdvae.common.utils"
).split()
NAMES = "compose initialize_config_dir p_map p_umap scatter TensorCrystDataset worker_init_fn".split()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--author-code", type=Path, required=True)
    parser.add_argument("--smact", type=Path, required=True)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    theirs = author_metrics(options.author_code, options.smact)
    true, made = crystals()
    arrays = {f"{name}_{part}": value for name, part, value in (*stored("true", true), *stored("made", made))}
    arrays |= judged(theirs, as_theirs(theirs, true), as_theirs(theirs, made))
    with atomic(HERE / "cdvae_author.safetensors") as temporary:
        save_file(arrays, temporary, metadata={"provenance": json.dumps(provenance())})


def author_metrics(checkout: Path, smact: Path) -> ModuleType:
    """Their compute_metrics.py, with empty modules for what is not used."""
    for path in (smact, checkout, checkout / "scripts"):
        sys.path.insert(0, str(path))
    for name in EMPTY:
        sys.modules[name] = ModuleType(name)
        for needed in NAMES:
            setattr(sys.modules[name], needed, None)
    import compute_metrics
    from matminer.featurizers.composition.composite import ElementProperty

    compute_metrics.CompFP = ElementProperty.from_preset("magpie", impute_nan=False)
    compute_metrics.tqdm = lambda rows: rows
    return compute_metrics


def crystals() -> tuple[Structures, Structures]:
    """True ones, and the made ones: the first TRUE of them in the order of the true ones."""
    rng = np.random.default_rng(SEED)
    pool = load("mp_flla").structures
    true = pool.take(rng.choice(np.flatnonzero(pool.sizes <= LARGEST), TRUE, replace=False))
    made = []
    for s in range(TRUE):
        z, x, cell = true[s]
        strain = np.eye(3) + rng.normal(0, rng.choice([0.0, 0.02, 0.08]), (3, 3))
        moved = x + rng.normal(0, rng.choice([0.0, 0.1, 0.3, 0.6]), x.shape)
        if s % 8 == 7:
            z = np.where(np.arange(len(z)) == 0, rng.choice(true.numbers), z)
        made.append((z, moved @ strain, cell @ strain))
    unlike = random_crystals(true, RANDOM, SEED)
    made += [unlike[s] for s in range(RANDOM)] + odd()
    return as_parameters(true), as_parameters(Structures.pack(made, periodic=True))


def odd() -> list:
    """A lone atom; atoms in one place; no room; elements without electronegativity; noble gases; an alloy; Na O."""
    cube, faces = np.eye(3) * 4.2, [[2.1, 2.1, 0], [0, 2.1, 2.1], [2.1, 0, 2.1]]
    spread = np.array([[0, 0, 0], [2.1, 2.1, 2.1], *faces])
    rocksalt = spread[[0, 1]]
    return [
        (np.array([26]), np.zeros((1, 3)), np.eye(3) * 2.8),
        (np.array([11, 17]), np.array([[0, 0, 0], [0.1, 0, 0]]), cube),
        (np.array([11, 17]), rocksalt / 10, cube / 10),
        (np.array([3, 61, 8, 8]), spread[:4], cube),
        (np.array([8, 8, 8, 61, 61]), spread, cube),
        (np.array([8, 86]), rocksalt, cube),
        (np.array([10, 18]), rocksalt, cube),
        (np.array([29, 79]), rocksalt, cube),
        (np.array([11, 8]), rocksalt, cube),
    ]


def as_parameters(structures: Structures) -> Structures:
    """The same crystals with the cell that lengths and angles give: their code knows no other."""
    made = []
    for s in range(len(structures)):
        z, x, cell = structures[s]
        turned = Lattice.from_parameters(*Lattice(cell).parameters).matrix
        made.append((z, x @ np.linalg.inv(cell) @ turned, turned))
    return Structures.pack(made, periodic=True)


def as_theirs(theirs: ModuleType, structures: Structures) -> list:
    """Their Crystal objects, which judge themselves."""
    found = []
    for s in range(len(structures)):
        z, x, cell = structures[s]
        lattice = Lattice(cell)
        arrays = {"frac_coords": x @ np.linalg.inv(cell), "atom_types": z.astype(int)}
        found.append(theirs.Crystal(arrays | {"lengths": np.array(lattice.abc), "angles": np.array(lattice.angles)}))
    return found


def judged(theirs: ModuleType, true: list, made: list) -> dict[str, np.ndarray]:
    """What their code says of each crystal and of all."""
    import eval_utils

    features = len(true[0].struct_fp)
    found = {name: np.array([getattr(one, name) for one in made]) for name in ("comp_valid", "struct_valid", "valid")}
    for name, group in (("made", made), ("true", true)):
        rows = [np.full(features, np.nan) if one.struct_fp is None else one.struct_fp for one in group]
        found[f"{name}_features"] = np.array(rows).astype(np.float32)
    judge = theirs.RecEval(made[: len(true)], true)
    pairs = zip(judge.preds, judge.gts, strict=True)
    rms = [judge.matcher.get_rms_dist(a.structure, b.structure) if a.valid else None for a, b in pairs]
    found["rms"] = np.array([np.nan if one is None else one[0] for one in rms])
    whole = judge.get_metrics()
    found["match_rate"] = np.array([whole["match_rate"], whole["rms_dist"]], dtype=float)
    for name, wide in (("mp20", (0.4, 10.0)), ("narrow", (0.1, 3.0))):
        scores, distances = eval_utils.compute_cov(made, true, *wide)
        found[f"coverage_{name}"] = np.array([scores["cov_recall"], scores["cov_precision"]])
    for name, values in distances.items():
        found[name] = np.array(values)
    judge = theirs.GenEval(made, true, n_samples=int(found["valid"].sum()))
    found["emd"] = np.array([judge.get_density_wdist()["wdist_density"], judge.get_num_elem_wdist()["wdist_num_elems"]])
    found |= {"scaler_means": theirs.CompScaler.means, "scaler_stds": theirs.CompScaler.stds}
    return found | searched(theirs, made[: STARTS * DECODES])


def searched(theirs: ModuleType, made: list) -> dict[str, np.ndarray]:
    """Success rates of a search for a low density, which stands in for the property of their network.

    Their list of decodes is [DECODES, STARTS], row by row.
    """
    theirs.prop_model_eval = lambda _, arrays: [theirs.Crystal(one).structure.density for one in arrays]
    densities = np.array([one.structure.density for one in made])
    theirs.Percentiles = {"density": np.percentile(densities, [5, 10, 15])}
    rates = theirs.OptEval(made, num_opt=STARTS, eval_model_name="density").get_success_rate()
    return {
        "search_rates": np.array([rates["SR5"], rates["SR10"], rates["SR15"]]),
        "search_thresholds": theirs.Percentiles["density"],
    }


def stored(name: str, structures: Structures) -> list[tuple]:
    parts = ("numbers", "positions", "cells", "offsets")
    return [(name, part, np.ascontiguousarray(getattr(structures, part))) for part in parts]


def provenance() -> dict[str, str]:
    import smact

    used = {name: version(name) for name in ("pymatgen", "matminer", "numpy")}
    return used | {"author_code": f"txie-93/cdvae {COMMIT}", "smact": Path(smact.__file__).parents[1].name}


if __name__ == "__main__":
    main()
