"""MEGNet: shared physics, its equations by hand, and the released weights against the authors' own package
(golden/megnet_make.py made the numbers).
"""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from torch.nn.functional import softplus

from graph_models import GraphModelTests, crystal, supercell
from replimat import cards
from replimat.datasets.base import Structures
from replimat.errors import DataError, ReplimatError
from replimat.experiments.base import Selection
from replimat.experiments.catalogue import plan_one
from replimat.experiments.megnet import ALL_PAIRS, released
from replimat.files import sha256
from replimat.models.megnet import MEGNet, load_author_model
from replimat.representations.cutoff_graph import CutoffGraph
from replimat.training.graphs import graphs_of

GOLDEN = Path(__file__).parent / "golden"
OFFICIAL = json.loads((GOLDEN / "megnet_official.json").read_text())
OUTPUTS = OFFICIAL["outputs"]
FORWARD = 2e-5  # standardised output: float32 round-off of 20 layers; seen: 1.2e-5 (omega1), else below 5e-6
NOISE = 1e-9  # double precision


class TestMEGNet(GraphModelTests):
    representation = CutoffGraph(cutoff=4.0)
    differentiable = True  # not smooth: means over bonds jump when a bond appears

    def model(self):
        return MEGNet(gaussians=20, wide=16, narrow=8, pooled=6, blocks=2)

    def test_equations_by_a_plain_loop(self, trained_like):
        """Bond by bond and atom by atom, with pymatgen's neighbours: catches swapped senders and receivers."""
        from pymatgen.core import Structure

        z, x, cell = crystal(21)
        model = trained_like
        act = lambda a: softplus(a) - np.log(2)  # noqa: E731
        v = [act_dense(model.dense[1], model.elements(torch.tensor(n))) for n in z]
        u = act_dense(model.dense[2], torch.zeros(2, dtype=torch.float64))
        near = Structure(cell, z, x, coords_are_cartesian=True).get_all_neighbors(4.0)
        bonds = [(i, n.index, n.nn_distance) for i, site in enumerate(near) for n in site]  # receiver, sender
        centres = torch.linspace(0, 5.0, 20, dtype=torch.float64)
        e = [act_dense(model.dense[0], torch.exp(-((d - centres) ** 2) / 0.25)) for _, _, d in bonds]
        for block in model.blocks:
            f_e, f_v, f_u = block.dense or (lambda a: a,) * 3
            ein, vin, uin = [f_e(a) for a in e], [f_v(a) for a in v], f_u(u)
            phi = lambda part, *inputs: part.rest(part.first(torch.cat(inputs)))  # noqa: E731
            new = [phi(block.layer.bond, vin[i], vin[j], a, uin) for (i, j, _), a in zip(bonds, ein, strict=True)]
            own = [[a for (i, _, _), a in zip(bonds, new, strict=True) if i == k] for k in range(len(z))]
            atoms = [phi(block.layer.atom, torch.stack(mine).mean(0), a, uin) for mine, a in zip(own, vin, strict=True)]
            state = phi(block.layer.state, torch.stack(new).mean(0), torch.stack(atoms).mean(0), uin)
            e = [a + b for a, b in zip(e, new, strict=True)]
            v = [a + b for a, b in zip(v, atoms, strict=True)]
            u = u + state
        last = torch.cat([set2set(model.pool_atoms, v), set2set(model.pool_bonds, e), u])
        for linear in (model.readout[0], model.readout[2]):
            last = act(linear(last))
        expected = model.readout[4](last).item()
        assert self.predict(model, (z, x, cell))[0] == pytest.approx(expected, abs=1e-8)

    def test_extensive_output_is_per_atom_times_atoms(self, trained_like):
        one = crystal(22, 4)
        mean = self.predict(trained_like, one)
        trained_like.extensive = True
        np.testing.assert_allclose(self.predict(trained_like, supercell(*one, (1, 2, 3))), 24 * mean, atol=24e-5)

    def test_classes_are_log_probabilities(self):
        model = MEGNet(gaussians=20, wide=8, narrow=8, blocks=1, outputs=2).double()
        np.testing.assert_allclose(np.exp(self.predict(model, crystal(23))).sum(axis=1), 1.0)

    def test_unknown_element_is_refused(self, trained_like):
        z, x, cell = crystal(24)
        with pytest.raises(DataError, match="no vector for Z = 105"):
            self.predict(trained_like, (np.full_like(z, 105), x, cell))

    def test_outputs_are_checked(self):
        with pytest.raises(ValueError, match="outputs"):
            MEGNet(outputs=3)


def act_dense(dense, x):
    """Two dense layers, each followed by softplus2."""
    for linear in (dense[0], dense[2]):
        x = softplus(linear(x)) - np.log(2)
    return x


def set2set(pool, vectors):
    """One set at a time; the cell of the LSTM starts at zero in every pass, as in the authors' code."""
    memory = torch.stack([pool.memory(x) for x in vectors])
    query = torch.zeros(pool.gates.in_features, dtype=torch.float64)
    gate = lambda a: torch.clip(0.2 * a + 0.5, 0, 1)  # noqa: E731
    for _ in range(pool.passes):
        i, f, c, o = pool.gates(query).chunk(4)
        h = gate(o) * torch.tanh(gate(f) * 0.0 + gate(i) * torch.tanh(c))  # the cell before is 0
        query = torch.cat([h, torch.softmax(memory @ h, 0) @ memory])
    return query


def test_one_pass_of_set2set_by_hand():
    """With no weights but a bias of 5 on candidate and output gate: h = tanh(tanh(5) / 2), equal attention."""
    from replimat.models.megnet import Set2Set

    pool = Set2Set(1, 1, 1)
    with torch.no_grad():
        for weights in pool.parameters():
            weights.zero_()
        pool.memory.weight.fill_(1.0)
        pool.gates.bias[2:] = 5.0
    out = pool(torch.tensor([[2.0], [2.0], [7.0]]), torch.tensor([0, 0, 1]), 2)
    h = np.tanh(0.5 * np.tanh(5.0))
    np.testing.assert_allclose(out.detach().numpy(), [[h, 2.0], [h, 7.0]], rtol=1e-6)


# ------------------------------------------------------------------------------------------- the authors' weights


@pytest.fixture(scope="module")
def weights():
    """Folder of the released weights; skips when they are not here and cannot be fetched."""
    from replimat.sources import store

    pytest.importorskip("h5py", reason="h5py is needed to read Keras weights")
    try:
        return store.fetch("megnet_weights")
    except ReplimatError as error:
        pytest.skip(f"released MEGNet weights not available: {error}")


@pytest.fixture(scope="module")
def structures():
    """The golden structures: molecules, crystals."""
    a = load_file(GOLDEN / "megnet_structures.safetensors")
    everything = Structures(a["numbers"], a["positions"], a["cells"], a["offsets"], periodic=True)
    n = OFFICIAL["molecules"]
    molecules, crystals = everything.take(np.arange(n)), everything.take(np.arange(n, len(everything)))
    flat = Structures(molecules.numbers, molecules.positions, molecules.cells, molecules.offsets, periodic=False)
    return {False: flat, True: crystals}


def answers(path, structures: dict, fidelities: bool = False) -> tuple[np.ndarray, np.ndarray, float]:
    """Our predictions of the golden structures in the target's unit [n], atoms by which to divide [n], and the unit of
    the standardised output.
    """
    model, author = load_author_model(path)
    chosen = structures[author.cutoff is not None]
    graph = CutoffGraph(author.cutoff or ALL_PAIRS)(chosen, progress=False)
    n, sizes = len(chosen), np.diff(chosen.offsets)
    tensors = {name: torch.from_numpy(array) for name, array in graph.items()}
    inputs = graphs_of("CutoffGraph", tensors, torch.zeros(n)).inputs(torch.arange(n))
    if fidelities:
        inputs["state"] = torch.arange(n) % 4
    with torch.no_grad():
        out = model(**inputs).double()
    out = out[:, 1].exp().numpy() if out.dim() == 2 else out.numpy()
    atoms = sizes if author.per_atom else np.ones(n)
    return out * author.std + author.mean * atoms, atoms, author.std


@pytest.mark.parametrize("name", OUTPUTS)
def test_released_model_answers_as_in_the_authors_package(name, weights, structures):
    golden = OUTPUTS[name]
    assert sha256(weights / name) == golden["sha256"]
    ours, atoms, std = answers(weights / name, structures, fidelities=name.startswith("mf_2020"))
    theirs = np.array(golden["values"])
    np.testing.assert_allclose(ours / (atoms * std), theirs / (atoms * std), atol=FORWARD, rtol=2e-6)


def test_all_released_models_are_there():
    assert len(OUTPUTS) == 34
    assert len(OFFICIAL["ids"]) == 50


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("mp-2018.6.1/formation_energy.hdf5", 167_761),  # the number Matbench Discovery prints for MEGNet
        ("qm9-2018.6.1/U0.hdf5", 161_265 + 16),  # its 9 element rows become 10, indexed by atomic number
    ],
)
def test_parameters_are_counted_as_elsewhere(name, count, weights):
    model, _ = load_author_model(weights / name)
    assert sum(parameters.numel() for parameters in model.parameters()) == count


def test_methane_of_the_authors_notebook(weights):
    """Their notebook prints -17.166 eV for U0 of methane, an atomisation energy; QM9 holds -40.47893 hartree."""
    z = np.array([6, 1, 1, 1, 1], np.int16)
    x = np.array(
        [
            [-0.0126981359, 1.0858041578, 0.0080009958],
            [0.002150416, -0.0060313176, 0.0019761204],
            [1.0117308433, 1.4637511618, 0.0002765748],
            [-0.540815069, 1.4475266138, -0.8766437152],
            [-0.5238136345, 1.4379326443, 0.9063972942],
        ]
    )
    model, scaling = released("qm9-2018.6.1/U0.hdf5", "u0", ALL_PAIRS)(weights, {})
    edges = torch.tensor([(j, i) for i in range(5) for j in range(5) if i != j]).T
    with torch.no_grad():
        out = model(torch.from_numpy(z).long(), torch.from_numpy(x).float(), edges, torch.zeros(5, dtype=torch.long), 1)
    counts = np.bincount(z, minlength=119)[None].astype(float)
    total = scaling.inverse(out.double().numpy(), counts)[0]
    assert total == pytest.approx(-40.47893 * 27.211386, abs=0.02)
    assert total - (-39.847864 * 27.211386) == pytest.approx(-17.166, abs=0.002)  # their own prediction


def test_moduli_of_2018_have_one_pass_and_energies_of_2019_a_longer_cutoff(weights):
    moduli, author = load_author_model(weights / "mp-2018.6.1/log10K.hdf5")
    assert (moduli.pool_atoms.passes, author.cutoff, author.std) == (1, 4.0, 1.0)
    energy, author = load_author_model(weights / "mp-2019.4.1/formation_energy.hdf5")
    assert (energy.pool_atoms.passes, author.cutoff, float(energy.basis.centres[-1])) == (2, 5.0, 6.0)


def test_the_classifier_knows_copper_from_salt(weights):
    """The authors' class 1 is the non-metal, ours the metal."""
    model, _ = released("mp-2018.6.1/band_classification.hdf5", "is_metal", 4.0)(weights, {})
    fcc = np.array([[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]])
    copper = (np.full(4, 29), fcc * 3.61, np.eye(3) * 3.61)
    salt = (np.repeat([11, 17], 4), np.concatenate([fcc, np.add(fcc, [0.5, 0, 0])]) * 5.64, np.eye(3) * 5.64)
    crystals = Structures.pack([copper, salt], periodic=True)
    graph = {name: torch.from_numpy(array) for name, array in CutoffGraph(4.0)(crystals, progress=False).items()}
    with torch.no_grad():
        metal = model(**graphs_of("CutoffGraph", graph, torch.zeros(2)).inputs(torch.arange(2)))[:, 1].exp()
    assert metal[0] > 0.9 and metal[1] < 0.1


def test_a_molecule_model_refuses_what_it_never_saw(weights):
    model, _ = load_author_model(weights / "qm9-2018.6.1/U0.hdf5")
    with pytest.raises(DataError, match="Z = 16"):
        model(
            torch.tensor([16, 1]),
            torch.eye(3)[:2],
            torch.tensor([[0, 1], [1, 0]]),
            torch.zeros(2, dtype=torch.long),
            1,
        )


def test_the_card_must_name_the_model_s_cutoff(weights):
    with pytest.raises(DataError, match=r"trained on graphs of 5\.0 angstrom; the card says 4\.0"):
        released("mp-2019.4.1/efermi.hdf5", "fermi_energy", 4.0)(weights, {})


class TestBadFiles:
    @pytest.fixture
    def copy(self, weights, tmp_path):
        """A released model and its description, to be damaged."""
        for name in ("log10K.hdf5", "log10K.hdf5.json"):
            (tmp_path / name).write_bytes((weights / "mp-2018.6.1" / name).read_bytes())
        return tmp_path / "log10K.hdf5"

    def test_not_hdf5(self, copy):
        copy.write_bytes(b"no model")
        with pytest.raises(DataError, match="not a Keras model in hdf5"):
            load_author_model(copy)

    def test_no_description(self, copy):
        copy.with_name("log10K.hdf5.json").unlink()
        with pytest.raises(DataError, match=r"log10K\.hdf5\.json: not the description"):
            load_author_model(copy)

    def test_another_architecture(self, copy):
        _edit(copy, "softplus2", "relu")
        with pytest.raises(DataError, match="softplus2 is expected"):
            load_author_model(copy)

    def test_another_gate(self, copy):
        _edit(copy, "hard_sigmoid", "sigmoid")
        with pytest.raises(DataError, match="recurrent_activation 'sigmoid' where 'hard_sigmoid' is known"):
            load_author_model(copy)

    def test_weights_of_another_shape(self, copy):
        _edit(copy, '"n_hidden": 16', '"n_hidden": 8')
        with pytest.raises(DataError, match="weights of shape"):
            load_author_model(copy)


def _edit(path, old: str, new: str) -> None:
    """Change the configuration stored in a Keras file."""
    h5py = pytest.importorskip("h5py")
    with h5py.File(path, "r+") as file:
        config = file.attrs["model_config"]
        config = config.decode() if isinstance(config, bytes) else config
        assert old in config
        file.attrs["model_config"] = config.replace(old, new)


# -------------------------------------------------------------------------------------------------- experiments


def test_all_rows_of_a_dataset_are_shared_with_the_other_papers():
    """The same rows of QM9 are tested as for SchNet, so that the two can be ranked."""
    ours, theirs = (plan_one(paper, "qm9-homo", "paper").experiment.data for paper in ("megnet", "schnet"))
    assert isinstance(ours, Selection)
    assert ours.seed == theirs.seed and set(theirs.require) < set(ours.require)


def test_extensive_targets_are_those_of_the_released_scalers(weights):
    """Per atom in the released description means extensive in our training, target by target."""
    for name, experiment in cards.paper("megnet").experiments.items():
        if experiment.weights and experiment.dataset == "qm9":
            _, author = load_author_model(weights / experiment.paper.model["file"])
            trained = plan_one("megnet", name.removeprefix("official-"), "paper").experiment
            assert trained.model({}).extensive == author.per_atom, name


# -------------------------------------------------------------------------------------------------------- peer


@pytest.mark.peer
@pytest.mark.parametrize("name", ["qm9-2018.6.1/mu.hdf5", "mp-2018.6.1/formation_energy.hdf5"])
def test_live_against_the_authors_package(name, weights, structures):
    megnet = pytest.importorskip("megnet.models", reason="the authors' package and TensorFlow are not installed")
    pymatgen = pytest.importorskip("pymatgen.core")
    theirs, periodic = megnet.MEGNetModel.from_file(str(weights / name)), name.startswith("mp")
    ours, atoms, std = answers(weights / name, structures)
    for row in range(5):
        z, x, cell = structures[periodic][row]
        one = pymatgen.Structure(cell, z, x, coords_are_cartesian=True) if periodic else pymatgen.Molecule(z, x)
        expected = float(theirs.predict_structure(one).ravel()[0])
        assert ours[row] == pytest.approx(expected, abs=FORWARD * atoms[row] * std, rel=2e-6)
