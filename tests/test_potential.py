"""Energies with forces: the gradient, the loss, the baselines, and a run that measures both."""

import shutil

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

from replimat import cards
from replimat.datasets.base import Structures, atoms_of
from replimat.errors import DataError, ExperimentError
from replimat.experiments.baselines import potential_baselines
from replimat.models.forces import energy_and_forces
from replimat.models.schnet import SchNet
from replimat.records import Run
from replimat.representations.arrays import test_values
from replimat.representations.cutoff_graph import CutoffGraph
from replimat.training.fit import predict_with_forces, train
from replimat.training.graphs import graphs_of
from replimat.training.settings import Training

test_values.__test__ = False  # a function of the package, not a test
WATER = np.array([8, 1, 1])
REST = np.array([[0.0, 0.0, 0.0], [0.96, 0.0, 0.0], [-0.24, 0.93, 0.0]])  # angstrom
SPRING = 30.0  # eV/angstrom^2


def springs(positions: np.ndarray) -> tuple[float, np.ndarray]:
    """Energy and forces of the three pairs as springs: E = k/2 (r - r0)^2, F_i = -k (r - r0) r_ij / r."""
    energy, forces = 0.0, np.zeros((3, 3))
    for i, j in ((0, 1), (0, 2), (1, 2)):
        vec = positions[i] - positions[j]
        r, rest = np.linalg.norm(vec), np.linalg.norm(REST[i] - REST[j])
        energy += 0.5 * SPRING * (r - rest) ** 2
        pull = -SPRING * (r - rest) * vec / r
        forces[i] += pull
        forces[j] -= pull
    return energy, forces


@pytest.fixture(scope="module")
def waters():
    """80 shaken molecules: structures, energies [80] and forces [240, 3]."""
    rng = np.random.default_rng(0)
    shaken = [REST + rng.normal(scale=0.05, size=(3, 3)) for _ in range(80)]
    energies, forces = zip(*map(springs, shaken), strict=True)
    packed = Structures.pack([(WATER, x, np.zeros((3, 3))) for x in shaken], periodic=False)
    return packed, np.array(energies), np.concatenate(forces)


def batch_of(structures, energies, forces):
    arrays = {k: torch.from_numpy(v) for k, v in CutoffGraph(cutoff=4.0)(structures, progress=False).items()}
    return graphs_of("CutoffGraph", arrays, torch.from_numpy(energies).float(), torch.from_numpy(forces).float())


def test_forces_of_a_batch_equal_numeric_gradients(waters):
    torch.manual_seed(1)
    model = SchNet(features=8, filters=8, interactions=2, cutoff=4.0, gaussians=8).double()
    torch.nn.init.normal_(model.readout[-1].weight)
    inputs, _ = batch_of(*waters).__getitems__([3, 0])
    inputs = {k: v.double() if torch.is_tensor(v) and v.is_floating_point() else v for k, v in inputs.items()}
    forces = energy_and_forces(model, inputs)["forces"]
    step = 1e-4
    for atom in range(6):
        for axis in range(3):
            either = []
            for sign in (1, -1):
                moved = inputs["pos"].clone()
                moved[atom, axis] += sign * step
                either.append(model(**inputs | {"pos": moved}).sum().item())
            assert float(forces[atom, axis]) == pytest.approx(-(either[0] - either[1]) / (2 * step), abs=1e-6)
    for molecule in (slice(0, 3), slice(3, 6)):
        np.testing.assert_allclose(forces[molecule].sum(dim=0), 0, atol=1e-10)  # Newton's third law


def test_a_batch_takes_the_forces_of_its_own_atoms(waters):
    _, target = batch_of(*waters).__getitems__([5, 2])
    np.testing.assert_allclose(target["forces"][:3], waters[2][15:18], rtol=1e-6)
    np.testing.assert_allclose(target["forces"][3:], waters[2][6:9], rtol=1e-6)


def test_training_on_forces_learns_them(waters, tmp_path):
    torch.manual_seed(0)
    model = SchNet(features=16, filters=16, interactions=2, cutoff=4.0, gaussians=40)
    graphs = batch_of(*waters)
    settings = Training(epochs=25, batch_size=8, lr=0.01, schedule="onecycle", weights={"energy": 0.01, "forces": 3.0})
    rows = {"train": torch.arange(60), "val": torch.arange(60, 80)}
    model = train(model, graphs, rows, settings, tmp_path, seed=0, identity="x", device="cpu")
    log = pd.read_csv(tmp_path / "log.csv")
    still = np.abs(waters[2][180:]).mean()  # the error of predicting no force
    assert log["val_forces_mae"].min() < 0.3 * still
    found = predict_with_forces(model, graphs, rows["val"], 7)
    assert np.abs(found["forces"] - waters[2][180:]).mean() == pytest.approx(log["val_forces_mae"].min(), rel=0.2)
    assert found["energy"].shape == (20,)


def test_the_ridge_baseline_is_exact_for_a_coulomb_like_energy():
    rng = np.random.default_rng(3)
    shaken = [REST + rng.normal(scale=0.05, size=(3, 3)) for _ in range(50)]
    charges = {(0, 1): 2.0, (0, 2): -1.0, (1, 2): 0.5}  # eV angstrom
    energies, forces = np.zeros(50), np.zeros((50, 3, 3))
    for s, x in enumerate(shaken):
        for (i, j), q in charges.items():
            vec = x[i] - x[j]
            r = np.linalg.norm(vec)
            energies[s] += q / r
            forces[s, i] += q * vec / r**3
            forces[s, j] -= q * vec / r**3
    packed = Structures.pack([(WATER, x, np.zeros((3, 3))) for x in shaken], periodic=False)
    train_rows, test_rows = np.arange(40), np.arange(40, 50)
    arrays = {"target.energy": energies, "atoms.forces": forces.reshape(-1, 3)}
    found = potential_baselines(packed, arrays, "energy", train_rows, test_rows)
    assert found["energy"]["pair_ridge"]["mae"] < 1e-4 < found["energy"]["mean"]["mae"]
    assert found["forces"]["pair_ridge"]["mae"] < 1e-3
    assert found["forces"]["mean"]["mae"] == pytest.approx(np.abs(forces[40:]).mean())


def test_molecules_of_several_kinds_have_no_ridge_baseline(waters):
    packed, energies, forces = waters
    packed = Structures(packed.numbers.copy(), packed.positions, packed.cells, packed.offsets, False)
    packed.numbers[0] = 7
    arrays = {"target.energy": energies, "atoms.forces": forces}
    found = potential_baselines(packed, arrays, "energy", np.arange(60), np.arange(60, 80))
    assert set(found["forces"]) == {"mean"}


def test_the_pair_potential_is_exact_for_pairs_and_not_for_more():
    """Frames of a shaken crystal whose energy is a Gaussian of every distance; its forces are the exact gradient."""
    from replimat.experiments.baselines import PAIR_FUNCTIONS, PAIR_REACH

    centre = np.linspace(*PAIR_REACH, PAIR_FUNCTIONS)[3]
    width, cutoff = (PAIR_REACH[1] - PAIR_REACH[0]) / (PAIR_FUNCTIONS - 1), PAIR_REACH[1]
    rng, cell = np.random.default_rng(0), np.eye(3) * 7.0
    grid = np.stack(np.meshgrid(*[np.arange(2)] * 3), -1).reshape(-1, 3) * 3.5
    frames = [(np.full(8, 29), grid + rng.normal(scale=0.15, size=(8, 3)), cell) for _ in range(30)]
    arrays = CutoffGraph(cutoff=cutoff)(Structures.pack(frames, periodic=True), progress=False)

    def energy_of(x, edges, shift, many_body):
        r = np.linalg.norm(x[edges[0]] + shift @ cell - x[edges[1]], axis=1)
        pair = np.exp(-0.5 * ((r - centre) / width) ** 2) * (1 - (r / cutoff) ** 2) ** 2
        atom = np.bincount(edges[1], 0.5 * pair, minlength=8)
        return atom.sum() + many_body * np.sqrt(atom).sum()

    for many_body in (0.0, 1.0):
        energies, forces = np.empty(30), np.zeros((30, 8, 3))
        for s, (_, x, _) in enumerate(frames):
            own = slice(*arrays["edge_offsets"][s : s + 2])
            given = arrays["edge_index"][:, own], arrays["shift"][own], many_body
            energies[s] = energy_of(x, *given) / 8
            for atom, axis in np.ndindex(8, 3):
                step = np.zeros((8, 3))
                step[atom, axis] = 1e-5
                forces[s, atom, axis] = -(energy_of(x + step, *given) - energy_of(x - step, *given)) / 2e-5
        found = potential_baselines(
            Structures.pack(frames, periodic=True),
            arrays | {"target.energy_per_atom": energies, "atoms.forces": forces.reshape(-1, 3)},
            "energy_per_atom",
            np.arange(20),
            np.arange(20, 30),
        )
        exact = found["forces"]["pair_potential"]["mae"] < 1e-6 and found["energy"]["pair_potential"]["mae"] < 1e-8
        assert exact == (many_body == 0.0)
        assert found["forces"]["pair_potential"]["mae"] < found["forces"]["mean"]["mae"]


def test_components_of_the_test_set_have_names():
    arrays = {
        "part": np.array([0, 2, 2]),
        "offsets": np.array([0, 1, 3, 4]),
        "target.energy": np.array([1.0, 2.0, 3.0]),
        "atoms.forces": np.arange(12.0).reshape(4, 3),
    }
    found = test_values(arrays, np.array(["a", "b", "c"]))
    assert found["energy"][0].tolist() == ["b", "c"]
    ids, values = found["forces"]
    assert ids.tolist()[:4] == ["b:0:0", "b:0:1", "b:0:2", "b:1:0"]
    assert ids.tolist()[-1] == "c:0:2"
    assert values.tolist() == list(range(3, 12))
    assert atoms_of(arrays["offsets"], np.array([2, 0])).tolist() == [3, 0]


def test_a_part_of_a_run_is_a_run_of_its_own():
    seed = {"seed": 0, "status": "ok", "metrics": {"mae": 0.1}}
    run = Run(
        paper="p", experiment="md", scale="laptop", dataset="d", data_origin="computed", target="energy", unit="eV",
        rung=6, status="ok", primary_metric="mae", n_test=10, seeds=[seed], provenance={"data_sha256": "d", "x": 1},
        parts={"forces": {"unit": "eV/angstrom", "n_test": 90, "seeds": [seed | {"metrics": {"mae": 0.2}}],
                          "provenance": {"x": 2}}},
    )  # fmt: skip
    part = run.part("forces")
    assert (part.unit, part.n_test, part.seeds[0].metrics["mae"], part.scale) == ("eV/angstrom", 90, 0.2, "laptop")
    assert part.provenance == {"data_sha256": "d", "x": 2}
    assert (part.label, run.part("energy").label) == ("md-forces", "md")
    with pytest.raises(ExperimentError, match="measures energy, forces, not stress"):
        run.part("stress")


def test_the_authors_split_is_taken_as_it_is():
    from replimat.datasets.splits import author_split

    ids, part = np.array(list("abcdefgh")), np.array([0, 0, 0, 1, 2, 2, -1, 0])
    usable = np.array([True] * 7 + [False])
    whole = author_split(ids, usable, part, 0, 0, 0, seed=1)
    assert (sorted(whole.train), sorted(whole.val), sorted(whole.test)) == ([0, 1, 2], [3], [4, 5])
    fewer = author_split(ids, usable, part, 2, 1, 1, seed=1)
    assert set(fewer.train) < {0, 1, 2} and len(fewer.train) == 2 and len(fewer.test) == 1
    without = author_split(ids, usable, np.where(part == 1, 0, part), 0, 2, 0, seed=1)
    assert len(without.train) == len(without.val) == 2 and {*without.train, *without.val} == {0, 1, 2, 3}
    with pytest.raises(DataError, match="leaves 3 usable training rows, 4 were asked for"):
        author_split(ids, usable, part, 4, 0, 0, seed=1)


@pytest.fixture
def small_project(tmp_path, monkeypatch):
    """SchNet's card with one experiment on a trajectory of 40 frames."""
    root, folder = cards.project_root(), tmp_path / "papers" / "schnet"
    folder.mkdir(parents=True)
    shutil.copy(root / "papers/schnet/claims.csv", folder)
    card = yaml.safe_load((root / "papers/schnet/card.yaml").read_text())
    model = {"cutoff": 5.0, "gaussians": 10, "interactions": 1, "features": 16, "filters": 16}
    sizes = {"n_train": 20, "n_val": 8, "n_test": 12}
    ethanol = card["experiments"]["md-ethanol"] | {
        "smoke": sizes | {"epochs": 2, "batch_size": 5, "lr": 0.01, "model": model}
    }
    (folder / "card.yaml").write_text(yaml.safe_dump(card | {"experiments": {"md-ethanol": ethanol}}))
    data = yaml.safe_load((root / "datasets/md_ethanol.yaml").read_text())
    data["source"]["settings"] |= {"frames": 40, "every": 2, "equilibration": 40}
    data["rows"] = data["targets"]["energy"]["count"] = 40
    data["targets"]["forces"]["count"] = 360
    (tmp_path / "datasets").mkdir()
    (tmp_path / "datasets" / "md_ethanol.yaml").write_text(yaml.safe_dump(data))
    monkeypatch.setenv("REPLIMAT_ROOT", str(tmp_path))
    for cached in (cards.paper, cards.claims, cards.dataset):
        cached.cache_clear()
    yield tmp_path
    for cached in (cards.paper, cards.claims, cards.dataset):
        cached.cache_clear()


def test_a_trajectory_from_the_card_to_the_table(small_project):
    from replimat.experiments.catalogue import plan_one
    from replimat.experiments.prepare import prepare
    from replimat.experiments.run import Run as Experiment
    from replimat.reporting.comparison import compare_paper

    planned = plan_one("schnet", "md-ethanol", "smoke")
    prepare(planned.experiment)
    record = Experiment(planned, "cpu").fit()
    assert (record["n_test"], record["parts"]["forces"]["n_test"]) == (12, 12 * 9 * 3)
    compare_paper("schnet", "smoke", small_project / "runs", small_project / "results")
    table = pd.read_csv(small_project / "results/smoke/papers/schnet/comparison.csv").set_index("claim_id")
    for kind, unit in (("energy", "kcal/mol"), ("force", "kcal/mol/angstrom")):
        row = table.loc[f"schnet/md17/md17-ethanol/{kind}/mae/n1000"]
        assert (row["verdict"], row["unit"], row["checks"]) == ("REDUCED", unit, "10/10")
        assert row["ours"] > 0 and row["baseline_other"] > 0
    forces = small_project / "runs/smoke/schnet/md-ethanol/seed0/predictions-forces.parquet"
    found = pd.read_parquet(forces)
    pd.DataFrame({**found, "prediction": found["prediction"] + 0.5}).to_parquet(forces)  # not what was scored
    with pytest.raises(ExperimentError, match=r"predictions-forces.parquet: changed after it was written"):
        compare_paper("schnet", "smoke", small_project / "runs", small_project / "results")
