"""Generators: the table of samples and its scores, the record and its audit, figures, files, trivial baselines."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from replimat import cards
from replimat.audit import check_run, faults, rescore_samples
from replimat.datasets.base import Structures
from replimat.errors import DataError, ExperimentError
from replimat.evaluation.generation import DATA, generation, judged
from replimat.experiments.base import Learned, Made, Selection, Target, prepared_key, prepared_path
from replimat.experiments.catalogue import Planned
from replimat.experiments.learning import Learning
from replimat.experiments.properties import thickness
from replimat.experiments.random_structures import random_crystals
from replimat.records import read_run, read_samples
from replimat.reporting.comparison import compare_paper
from replimat.reporting.expected import expected_of
from replimat.representations import prepared
from replimat.representations.conversion import as_atoms, as_pymatgen, from_pymatgen, packed, unpacked
from replimat.representations.powder import PowderReflections
from runs import claim, write_project

ROCK_SALT = Structures.pack([(np.array([12, 8]), np.array([[0.0, 0, 0], [2.1, 2.1, 2.1]]), 4.2 * np.eye(3))], True)


def table() -> pd.DataFrame:
    """Four samples, the third undecodable, and two of the data."""
    made = judged(
        list("abcd"),
        failed={2: "no atoms"},
        **{
            "share.validity": [1, 1, 0, 0],
            "share.novelty": [1, 0, np.nan, np.nan],
            "mean.rmse": [0.1, 0.3, np.nan, np.nan],
            "count.new": [1, 0, 0, 0],
            "emd.density": [1.0, 3.0, np.nan, np.nan],
        },
    )
    data = judged(["p", "q"], DATA, **{"emd.density": [2.0, 4.0], "share.cov_r": [1, 0]})
    return pd.concat([made, data], ignore_index=True)


def columns(samples: pd.DataFrame) -> dict[str, np.ndarray]:
    return {name: samples[name].to_numpy() for name in samples}


# ------------------------------------------------------------------ scores


def test_scores_by_hand():
    found = generation(table())
    assert found["validity"] == 50.0  # of all four, the undecodable one included
    assert found["novelty"] == 50.0  # of the two it was asked of
    assert found["cov_r"] == 50.0 and found["rmse"] == pytest.approx(0.2)
    assert found["new"] == 1 and found["emd_density"] == pytest.approx(1.0)
    assert (found["evaluated"], found["failed"]) == (3, 1)


def test_what_nothing_is_known_of_has_no_value():
    found = generation(judged(["a"], **{"share.novelty": [np.nan], "emd.density": [1.0]}))
    assert np.isnan(found["novelty"]) and np.isnan(found["emd_density"])  # no rows of data to compare with


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t.drop(columns="failed"), "lacks the columns failed"),
        (lambda t: t.assign(of="test"), "not 'test'"),
        (lambda t: t.assign(id="same"), "same id"),
        (lambda t: t.rename(columns={"mean.rmse": "rmse"}), "Column 'rmse'"),
        (lambda t: t.assign(**{"share.validity": 0.5}), "something else than 0 and 1"),
        (lambda t: t[t["of"] == DATA], "Nothing was made"),
    ],
)
def test_malformed_tables_are_refused(change, said):
    with pytest.raises(DataError, match=said):
        generation(change(table()))


def test_the_audit_scores_alike_without_our_code():
    ours, again = generation(table()), rescore_samples(columns(table()))
    assert set(again) == set(ours) - {"evaluated", "failed"}
    for name, value in again.items():
        assert value == pytest.approx(ours[name]), name


def test_the_audits_distance_is_scipys():
    from scipy.stats import wasserstein_distance

    rng = np.random.default_rng(0)
    made, data = rng.standard_normal(50), 2 * rng.standard_normal(70) + 1
    samples = {"of": np.repeat(["made", "data"], [50, 70]), "emd.x": np.concatenate([made, data])}
    samples |= {"id": np.arange(120).astype(str), "failed": np.full(120, "")}
    assert rescore_samples(samples)["emd_x"] == pytest.approx(wasserstein_distance(made, data))


# ------------------------------------------------------ a whole experiment


def generate(bench):
    made = table()
    worse = made.assign(**{"share.validity": [0, 1, 0, 0, np.nan, np.nan]})
    bench.keep("crystals", **packed(ROCK_SALT), captions=np.array(["rock salt"]))
    return {"made": Made(made, {"untrained": worse, "random_structure": worse})}


@pytest.fixture
def planned(tmp_path, monkeypatch):
    """A generator that makes the samples of `table`, in a project of one paper."""
    from projects import Project

    project = Project(tmp_path, monkeypatch)
    project.card("toy", {"kind": "url", "url": "http://nowhere/", "members": project.raw("toy", x_csv="x")})
    said = claim(claim_id="gen/validity", metric="validity", unit="%", value=60.0, digits=0, direction="higher")
    card = {"key": "gen", "title": "t", "authors": ["A"], "year": 2020, "venue": "v", "family": "generation"}
    experiment = {"dataset": "toy", "target": "made", "origin": "substitute", "claims": ["gen/validity"]}
    experiment |= {"laptop": {"n_train": 3, "n_test": 2}}
    write_project(project.root, card | {"summary": "s", "experiments": {"one": experiment}}, [said])
    cards.paper.cache_clear()
    cards.claims.cache_clear()
    learned = Learned(
        data=Selection("toy", (), 3, 0, 2),
        representation=PowderReflections(),
        targets={"made": Target("generation", primary="validity", units={"emd_density": "g/cm^3"})},
        learn=lambda bench: generate(bench),
    )
    metadata = {"key": prepared_key(learned), "ids": list("abcde"), "split": "rebuilt", "data_sha256": "d"}
    metadata |= {"split_sha256": "s", "leakage": {}, "warnings": [], "test_ids_sha256": {}, "test_targets_sha256": {}}
    prepared.save(project.root / prepared_path(learned), {"part": np.array([0, 0, 0, 2, 2], np.int8)}, metadata)
    card = cards.paper("gen").experiments["one"]
    yield Planned("gen", "one", "laptop", card, card.at("laptop"), learned)
    cards.paper.cache_clear()
    cards.claims.cache_clear()


def test_the_record_of_a_generator(planned):
    record = Learning(planned, "cpu").fit()
    assert record["primary_metric"] == "validity" and record["n_test"] == 4
    assert record["metric_units"] == {"validity": "%", "novelty": "%", "cov_r": "%", "emd_density": "g/cm^3"}
    assert record["baselines"]["untrained"]["validity"] == 25.0
    seed = record["seeds"][0]
    assert (seed["evaluated"], seed["failed"], seed["metrics"]["validity"]) == (3, 1, 50.0)


def test_planted_errors_in_a_generators_record_are_caught(planned):
    Learning(planned, "cpu").fit()
    folder = cards.project_root() / planned.folder
    run, found = read_run(folder), {0: read_samples(folder, 0)}
    assert faults(check_run(run, found, expected_of(run))) == []
    for metric in ("validity", "rmse", "new", "emd_density"):
        lied = run.model_copy(deep=True)
        lied.seeds[0].metrics[metric] = 0.77
        assert any(metric in fault for fault in faults(check_run(lied, found, expected_of(run)))), metric
    fewer = {0: {name: values[1:] for name, values in found[0].items()}}
    assert any("rows" in fault for fault in faults(check_run(run, fewer, expected_of(run))))
    passing = {0: found[0] | {"share.validity": np.array([1.0, 1, 1, 0, np.nan, np.nan])}}
    assert any("could not be decoded" in fault for fault in faults(check_run(run, passing, expected_of(run))))
    invented = run.model_copy(deep=True)
    invented.seeds[0].metrics["sr5"] = 1.0
    assert any("says nothing of sr5" in fault for fault in faults(check_run(invented, found, expected_of(run))))


def test_table_figures_and_files_of_a_generator(planned):
    Learning(planned, "cpu").fit()
    root = cards.project_root()
    folder = compare_paper("gen", "laptop", root / "runs", root / "results")
    assert {path.name for path in (folder / "figures").iterdir()} == {
        "rates-one.png",
        "spread-one.png",
        "crystals-one.png",
    }
    text = (folder / "generation.md").read_text()
    assert "| one | made | validity | 50 % | same generator without training 25; random structures 25 | 60 |" in text
    ours = json.loads((folder / "metrics.json").read_text())["ours"]
    assert ours["gen/validity"]["one"] == 50
    from ase.io import read

    (path,) = (folder / "crystals" / "one").iterdir()
    assert path.name == "01-MgO.cif" and np.allclose(read(path).cell.lengths(), 4.2)


def test_a_generator_no_better_than_random_failed(planned):
    object.__setattr__(
        planned.experiment, "learn", lambda bench: {"made": Made(table(), {"random_structure": table()})}
    )
    Learning(planned, "cpu").fit()
    root = cards.project_root()
    folder = compare_paper("gen", "laptop", root / "runs", root / "results")
    assert "not better than the random structures" in (folder / "comparison.md").read_text()


def test_judging_without_its_libraries_says_what_to_do(monkeypatch):
    import sys

    from replimat.experiments.judging import judge_crystals

    monkeypatch.setitem(sys.modules, "smact", None)
    with pytest.raises(ExperimentError, match="replimat evaluate"):
        judge_crystals(ROCK_SALT, {}, ROCK_SALT)


# -------------------------------------------------------- crystals and sets


def test_conversion_keeps_a_skew_crystal():
    rng = np.random.default_rng(0)
    cell = np.array([[3.0, 0, 0], [1.0, 4, 0], [0.5, 0.7, 5]])
    skew = Structures.pack([(np.array([22, 8, 8]), rng.random((3, 3)) @ cell, cell)], periodic=True)
    again = from_pymatgen(as_pymatgen(skew))
    for name, values in packed(skew).items():
        assert np.allclose(getattr(again, name), values), name
    assert unpacked(packed(skew)).periodic and as_atoms(skew)[0].pbc.all()
    molecule = replace(skew, cells=np.zeros((1, 3, 3)), periodic=False)
    assert not unpacked(packed(molecule)).periodic


def test_random_crystals_have_the_marginals_they_are_drawn_from():
    like = Structures.pack(
        [
            (np.array([12, 8]), np.zeros((2, 3)), 4.0 * np.eye(3)),
            (np.array([25, 8, 8]), np.zeros((3, 3)), 5.0 * np.eye(3)),
        ],
        periodic=True,
    )
    made = random_crystals(like, 400, seed=1)
    assert set(made.sizes) == {2, 3} and set(made.numbers) == {8, 12, 25}
    assert (made.numbers == 8).mean() == pytest.approx(0.45, abs=0.04)  # in 9 of 10 pairs, and half of the atoms there
    volumes = np.abs(np.linalg.det(made.cells)) / made.sizes
    assert np.allclose(np.min(np.abs(volumes[:, None] - [32.0, 125 / 3]), axis=1), 0)
    inside = made.positions[made.offsets[0] : made.offsets[1]] @ np.linalg.inv(made.cells[0])
    assert ((inside >= 0) & (inside <= 1)).all()
    again = random_crystals(like, 400, seed=1)
    assert np.array_equal(again.positions, made.positions)


def test_thickness_of_cells_by_hand():
    flat = np.array([[1.0, 0, 0], [0, 1, 0], [0.99, 0, 0.1]])
    found = thickness(np.stack([np.diag([2.0, 3, 4]), flat]))
    assert found[0] == pytest.approx(2.0) and found[1] == pytest.approx(0.1)  # 0.1 over the unit face


def test_the_authors_weights_know_magnesia_and_leave_flat_cells_out():
    from replimat import sources
    from replimat.errors import SourceError
    from replimat.experiments.properties import author_property

    try:
        folder = sources.fetch("cgcnn_weights")
    except SourceError as error:
        pytest.skip(f"the released weights are not here: {error}")
    primitive = 2.1 * (np.ones((3, 3)) - np.eye(3))
    salt = (np.array([12, 8]), np.array([[0.0, 0, 0], [2.1, 2.1, 2.1]]), primitive)
    flat = (np.array([12, 8]), np.zeros((2, 3)), np.diag([4.0, 4.0, 0.01]))
    found = author_property("formation_energy", Structures.pack([salt, flat], periodic=True), folder)
    assert found[0] == pytest.approx(-3.0, abs=0.15)  # eV/atom: -3.05 in the Materials Project
    assert np.isnan(found[1])
