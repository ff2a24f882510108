"""Zuo et al. on their own frames: what the official potentials give, twins across the split, every experiment built."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from replimat import cards, datasets
from replimat.cards import SCALES
from replimat.datasets.base import atoms_of
from replimat.datasets.splits import leakage
from replimat.errors import ExperimentError
from replimat.experiments.base import AuthorWeights, Potential
from replimat.experiments.catalogue import plan_one
from replimat.experiments.mlip_zuo import CRYSTALS, PHYSICS, studies
from replimat.experiments.prepare import prepare
from replimat.experiments.run import Run
from replimat.experiments.weights import identity_of
from replimat.models.snap import read_snap
from replimat.physics.crystals import Crystal
from replimat.physics.relaxation import relaxed_crystal
from replimat.representations.cutoff_graph import CutoffGraph
from replimat.sources import store
from replimat.training.fit import predict_with_forces
from replimat.training.graphs import graphs_of

# RMSE of energies (meV/atom) and forces (meV/angstrom) of the official files on the test frames, computed by LAMMPS.
LAMMPS = {
    ("ni", False): (1.174, 84.7),
    ("ni", True): (1.038, 74.8),
    ("cu", False): (0.747, 82.9),
    ("cu", True): (0.771, 54.9),
    ("li", False): (1.309, 37.9),
    ("li", True): (0.850, 44.3),
    ("mo", False): (9.252, 376.0),
    ("mo", True): (4.040, 332.7),
    ("si", False): (8.064, 205.3),
    ("si", True): (5.506, 176.9),
    ("ge", False): (9.746, 295.1),
    ("ge", True): (10.553, 200.5),
}
TWINS = {"ni": 13, "cu": 13, "li": 3, "mo": 0, "si": 3, "ge": 3}  # test frames that are a training frame, turned


@pytest.fixture(scope="module", params=CRYSTALS)
def frames(request):
    """The frames of one element, fetched when they are not here."""
    name = f"mlearn_{request.param}"
    store.fetch(name)
    return request.param, datasets.load(name)


def test_the_official_potentials_give_what_lammps_gives(frames):
    element, data = frames
    store.fetch("zuo_snap_weights")
    rows = np.flatnonzero(data.splits["published"] == 2)
    structures = data.structures.take(rows)
    arrays = CutoffGraph(cutoff=5.5)(structures, progress=False)
    arrays = {name: torch.from_numpy(array) for name, array in arrays.items()}
    graphs = graphs_of("CutoffGraph", arrays, torch.zeros(len(rows), dtype=torch.float64))
    for quadratic in (False, True):
        model = read_snap(store.folder_of("zuo_snap_weights"), element.capitalize(), quadratic)
        found = predict_with_forces(model, graphs, torch.arange(len(rows)), batch_size=8)
        energy = found["energy"] / structures.sizes - data.targets["energy_per_atom"][rows]
        forces = found["forces"] - data.per_atom["forces"][atoms_of(data.structures.offsets, rows)]
        errors = [1e3 * np.sqrt(np.mean(error**2)) for error in (energy, forces)]
        assert errors == pytest.approx(LAMMPS[element, quadratic], abs=0.06, rel=1e-3)


def test_strained_test_frames_stand_among_the_training_frames(frames):
    element, data = frames
    found, twins = leakage(data.ids, data.structures, data.splits["published"], frames=True)
    assert found == {"same_id": 0, "same_structure": TWINS[element]} and len(twins) == TWINS[element]


def test_every_experiment_of_the_card_can_be_built():
    planned = 0
    for name, card in cards.paper("mlip_zuo").experiments.items():
        for scale in [scale for scale in SCALES if card.at(scale)]:
            experiment = plan_one("mlip_zuo", name, scale).experiment
            assert isinstance(experiment, AuthorWeights if card.weights else Potential)
            assert experiment.double and set(experiment.studies) == set(PHYSICS[scale])
            planned += 1
    assert planned > 48


def test_potentials_of_an_element_share_one_prepared_file():
    for element in CRYSTALS:
        names = [name for name in cards.paper("mlip_zuo").experiments if name.startswith(f"{element}-")]
        for scale in ("laptop", "paper"):
            plans = [
                plan_one("mlip_zuo", name, scale)
                for name in names
                if cards.paper("mlip_zuo").experiments[name].at(scale)
            ]
            assert len(plans) >= 4 and len({one.prepared for one in plans}) == 1


def test_claims_are_answered_by_the_potential_they_are_about():
    claims = {claim.claim_id: claim for claim in cards.claims("mlip_zuo")}
    for name, card in cards.paper("mlip_zuo").experiments.items():
        element, _, potential = name.partition("-")
        for target, named in card.claims_by_target.items():
            for claim in (claims[one] for one in named):
                assert claim.model.lower() == potential.removesuffix("-official")
                assert claim.dataset == f"mlearn {element.capitalize()}"
                assert target.startswith(claim.target)


def test_settings_of_a_study_may_depend_on_the_lattice():
    """Nothing is computed: the calculator says what it was given."""

    class Asked(Exception):
        pass

    class Calculator:
        implemented_properties = ("energy", "forces", "stress")

        def __getattr__(self, name):
            raise Asked(name)

    for name, study in studies("mo", "laptop").items():
        with pytest.raises(Asked):
            study(Calculator())
        assert name in PHYSICS["laptop"]


@pytest.fixture
def smoke(tmp_path, monkeypatch):
    """A project with the smallest of Mo's prepared files, in which nothing has been fitted."""
    store.fetch("mlearn_mo")
    store.fetch("zuo_snap_weights")
    planned = plan_one("mlip_zuo", "mo-snap-official", "smoke")
    path = prepare(planned.experiment)
    for name in ("papers", "datasets", "data"):
        (tmp_path / name).symlink_to(cards.project_root() / name)
    (tmp_path / "prepared").mkdir()
    (tmp_path / "prepared" / path.name).symlink_to(path)
    monkeypatch.setenv("REPLIMAT_ROOT", str(tmp_path))
    return tmp_path


def test_a_run_measures_energies_forces_and_properties_and_is_a_calculator(smoke):
    run = Run(plan_one("mlip_zuo", "mo-snap-official", "smoke"), device="cpu")
    record = run.fit()
    (seed,) = record["seeds"]
    assert {"mae", "rmse", "train_rmse"} <= set(seed["metrics"]) & set(record["parts"]["forces"]["seeds"][0]["metrics"])
    assert record["property_units"]["lattice_constant"] == "angstrom"
    found = relaxed_crystal(run.calculator(), Crystal("Mo", "bcc", 3.1)).a
    assert seed["properties"]["lattice_constant"] == pytest.approx(found, abs=1e-4)
    kept = smoke / run.planned.folder / "seed0" / "physics" / "lattice.json"
    assert json.loads(kept.read_text())["calls"] > 0


def test_a_potential_that_was_not_fitted_is_no_calculator(smoke):
    with pytest.raises(ExperimentError, match="no weights of these settings"):
        Run(plan_one("mlip_zuo", "mo-snap", "smoke"), device="cpu").calculator()


def test_weights_of_other_settings_are_not_taken(smoke):
    """Epochs and learning rate of a fit that is solved, and not trained, decide its weights too."""
    planned = plan_one("mlip_zuo", "mo-nnp", "smoke")
    identities = set()
    for changes in ({}, {"epochs": 6}, {"lr": 0.01}, {"seeds": 3}):
        settings = planned.settings.model_copy(update=changes)
        identities.add(identity_of(replace(planned, settings=settings), 0))
    assert len(identities) == 3  # the number of seeds does not
