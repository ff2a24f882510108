"""Experiments that learn in their own way: the record, its audit, stored weights, figures, and splits that keep kin."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn

from projects import Project
from replimat import cards
from replimat.audit import check_run, faults
from replimat.datasets.splits import folds, split
from replimat.errors import DataError, ExperimentError
from replimat.evaluation.multiclass import confusion, multiclass
from replimat.evaluation.reconstruction import reconstruction
from replimat.evaluation.relative_errors import relative_errors
from replimat.experiments.base import Learned, Predicted, Selection, Target, prepared_key, prepared_path
from replimat.experiments.catalogue import Planned
from replimat.experiments.learning import Learning
from replimat.experiments.prepare import chosen_by_id, shared_kin
from replimat.records import ids_sha256, read_predictions, read_run, targets_sha256
from replimat.reporting.comparison import compare_paper
from replimat.reporting.expected import expected_of
from replimat.representations import prepared
from replimat.representations.powder import PowderReflections
from replimat.training.patterns import FixedPatterns, FromPowders, PowderRows
from replimat.training.settings import Training
from runs import claim, write_project

CLASSES = ("even", "odd", "zero")


def test_metrics_of_several_classes_by_hand():
    target, prediction = np.array([0.0, 0, 0, 1, 1, 2]), np.array([0.0, 0, 1, 1, 0, 0])
    found = multiclass(target, prediction)
    assert found["accuracy"] == pytest.approx(3 / 6)
    assert found["balanced_accuracy"] == pytest.approx((2 / 3 + 1 / 2 + 0) / 3)
    assert found["precision"] == pytest.approx((2 / 4 + 1 / 2 + 0) / 3)
    assert found["f1"] == pytest.approx((4 / 7 + 1 / 2 + 0) / 3)
    assert confusion(target, prediction, 3).tolist() == [[2, 1, 0], [1, 1, 0], [1, 0, 0]]


def test_metrics_of_several_classes_are_scikit_learns():
    from sklearn import metrics

    rng = np.random.default_rng(0)
    target, scores = rng.integers(0, 5, 300).astype(float), rng.random((300, 7))
    prediction = scores.argmax(axis=1).astype(float)
    found = multiclass(target, prediction, scores)
    mean = {"average": "macro", "labels": np.arange(5), "zero_division": 0}
    assert found["f1"] == pytest.approx(metrics.f1_score(target, prediction, **mean))
    assert found["precision"] == pytest.approx(metrics.precision_score(target, prediction, **mean))
    assert found["balanced_accuracy"] == pytest.approx(metrics.recall_score(target, prediction, **mean))
    top2 = metrics.top_k_accuracy_score(target, scores, k=2, labels=np.arange(7))
    assert found["top2_accuracy"] == pytest.approx(top2)


def test_the_order_of_true_and_predicted_classes_matters():
    target, prediction = np.array([0.0, 0, 0, 1]), np.array([0.0, 0, 1, 1])
    assert multiclass(target, prediction)["precision"] != multiclass(prediction, target)["precision"]


def test_bad_classes_and_lengths_are_refused():
    with pytest.raises(DataError, match="whole numbers"):
        multiclass(np.array([0.5, 1.0]), np.array([0.0, 1.0]))
    with pytest.raises(DataError, match="rows of probabilities"):
        multiclass(np.array([0.0, 1.0]), np.array([0.0, 1.0]), np.ones((3, 2)))
    with pytest.raises(DataError, match="positive true values"):
        relative_errors(np.array([0.0, 1.0]), np.array([1.0, 1.0]))


def test_relative_and_reconstruction_errors_by_hand():
    assert relative_errors(np.array([2.0, 10.0]), np.array([3.0, 9.0]))["mape"] == pytest.approx(30.0)
    found = reconstruction(np.zeros(3), np.array([0.1, 0.3, np.nan]))
    assert found["reconstruction_error"] == pytest.approx(0.2) and found["failed"] == 1


# ------------------------------------------------------------------- splits


IDS = np.array([f"r{k}" for k in range(60)])
KIN = np.arange(60) // 4.0  # groups of four
EVERY = np.ones(60, dtype=bool)


def test_kin_stay_in_one_part():
    found = split(IDS, EVERY, 20, 8, 12, seed=1, kin=KIN)
    parts = [set(KIN[rows]) for rows in (found.train, found.val, found.test)]
    assert not (parts[0] & parts[1] or parts[0] & parts[2] or parts[1] & parts[2])
    assert [len(found.train), len(found.val), len(found.test)] == [20, 8, 12]
    with pytest.raises(DataError, match="when kin stay together"):
        split(IDS, EVERY, 47, 1, 12, seed=1, kin=KIN)  # the cut group's rest cannot be used


def test_large_groups_of_kin_are_not_tested_first():
    kin = np.repeat(np.arange(40), np.where(np.arange(40) < 4, 40, 4))  # four groups of 40, as large as all others
    ids, every = np.arange(len(kin)).astype(str), np.ones(len(kin), dtype=bool)
    tested = [split(ids, every, 100, 0, 60, seed, kin).test for seed in range(60)]
    large = np.mean([(kin[rows] < 4).mean() for rows in tested])
    assert 0.35 < large < 0.65  # half of all rows; by turn of the first row it would be 0.8 or more


@pytest.mark.parametrize("apart", [False, True])
def test_folds_test_every_row_once_with_all_classes(apart):
    classes = np.arange(60) % 12 // 4.0
    found, fold = folds(IDS, EVERY, classes, 5, 0, 3, KIN if apart else None)
    assert sorted(found.test) == list(range(60)) and set(fold) == set(range(5))
    assert all(set(classes[found.test[fold == k]]) == {0, 1, 2} for k in range(5))
    arrays = {"target.kin": KIN[found.test], "fold": fold, "part": np.full(60, 2)}
    assert (shared_kin(arrays, "kin")["same_kin"] == 0) == apart


def test_shared_kin_of_a_plain_split_by_hand():
    arrays = {"target.kin": np.array([1.0, 2, 3, 1, 4]), "part": np.array([0, 0, 1, 2, 2])}
    assert shared_kin(arrays, "kin") == {"same_kin": 1}
    assert shared_kin(arrays, "") == {}


def test_rows_by_id_come_in_the_order_asked():
    class Few:
        name, ids = "few", IDS

    assert chosen_by_id(Few, EVERY, ("r7", "r2")).test.tolist() == [7, 2]
    with pytest.raises(DataError, match="no usable row r99"):
        chosen_by_id(Few, EVERY, ("r2", "r99"))


# ----------------------------------------------------------- a whole experiment


def tiny(bench):
    """A network on fixed patterns for the classes, a constant for the lengths."""
    rng = np.random.default_rng(0)
    kind = bench.target("kind")
    pattern = torch.from_numpy(np.eye(3)[kind.astype(int)] + 0.1 * rng.standard_normal((len(kind), 3))).float()
    data = FixedPatterns(pattern, torch.from_numpy(kind).long())
    settings = Training(epochs=30, batch_size=8, lr=0.05, loss="cross_entropy")
    model = bench.train(Linear(3, 3), data, settings)
    test = bench.rows("test")
    p = torch.softmax(torch.from_numpy(bench.predict(model, data, test)), dim=1).numpy()
    majority = np.tile(np.bincount(kind[bench.rows("train")].astype(int), minlength=3) / 1.0, (len(test), 1))
    length = bench.target("length")
    guess = np.full(len(test), length[bench.rows("train")].mean())
    bench.keep("latent", points=np.zeros((2, 2)))
    return {
        "kind": Predicted(bench.ids[test], kind[test], p.argmax(axis=1), p, {"majority": majority}),
        "length": Predicted(bench.ids[test], length[test], 1.05 * length[test], None, {"mean": guess}),
    }


class Linear(nn.Linear):
    def forward(self, pattern):
        return super().forward(pattern)


@pytest.fixture
def planned(tmp_path, monkeypatch):
    """A prepared file of 60 rows and an experiment on it, in a project of one paper."""
    project = Project(tmp_path, monkeypatch)
    project.card("toy", {"kind": "url", "url": "http://nowhere/", "members": project.raw("toy", x_csv="x")})
    said = claim(claim_id="learner/kind", metric="accuracy", unit="%", value=90.0, digits=0, direction="higher")
    card = {"key": "learner", "title": "t", "authors": ["A"], "year": 2020, "venue": "v", "family": "characterisation"}
    experiment = {"dataset": "toy", "target": "kind", "origin": "simulated", "claims": ["learner/kind"]}
    experiment |= {"parts": {"length": []}, "laptop": {"n_train": 40, "n_test": 20, "epochs": 30}}
    write_project(project.root, card | {"summary": "s", "experiments": {"one": experiment}}, [said])
    cards.paper.cache_clear()
    cards.claims.cache_clear()
    learned = Learned(
        data=Selection("toy", ("kind",), 40, 0, 20),
        representation=PowderReflections(),
        targets={
            "kind": Target("multiclass", classes=CLASSES),
            "length": Target("regression", "angstrom", relative=True),
        },
        learn=lambda bench: tiny(bench),
    )
    rng = np.random.default_rng(1)
    kind, length = rng.integers(0, 3, 60).astype(float), 3 + rng.random(60)
    arrays = {"part": np.repeat([0, 2], [40, 20]).astype(np.int8), "target.kind": kind, "target.length": length}
    test = slice(40, 60)
    metadata = {
        "key": prepared_key(learned),
        "ids": IDS.tolist(),
        "split": "rebuilt",
        "data_sha256": "d",
        "split_sha256": "s",
        "leakage": {},
        "warnings": [],
        "test_ids_sha256": {"kind": ids_sha256(IDS[test]), "length": ids_sha256(IDS[test])},
        "test_targets_sha256": {
            "kind": targets_sha256(IDS[test], kind[test]),
            "length": targets_sha256(IDS[test], length[test]),
        },
    }
    prepared.save(project.root / prepared_path(learned), arrays, metadata)
    card = cards.paper("learner").experiments["one"]
    yield Planned("learner", "one", "laptop", card, card.at("laptop"), learned)
    cards.paper.cache_clear()
    cards.claims.cache_clear()


def test_the_record_has_every_target_with_scores_and_baselines(planned):
    record = Learning(planned, "cpu").fit()
    assert record["target"] == "kind" and record["n_test"] == 20 and record["n_train"] == 40
    assert record["seeds"][0]["metrics"]["accuracy"] > 0.9 and record["seeds"][0]["metrics"]["top2_accuracy"] > 0.9
    assert record["baselines"]["majority"]["accuracy"] < 0.7
    length = record["parts"]["length"]
    assert length["primary_metric"] == "mape" and length["unit"] == "angstrom"
    assert length["seeds"][0]["metrics"]["mape"] == pytest.approx(5.0) and "mape" in length["baselines"]["mean"]


def test_the_audit_scores_it_again_and_finds_planted_errors(planned):
    Learning(planned, "cpu").fit()
    folder = cards.project_root() / planned.folder
    run = read_run(folder)
    found = {0: read_predictions(folder, 0)}
    assert found[0].probabilities.shape == (20, 3)
    checks = check_run(run, found, expected_of(run))
    assert faults(checks) == [] and {c.name for c in checks if c.ok} >= {"re-scored", "split", "targets", "counts"}
    for metric in ("accuracy", "top2_accuracy", "f1"):
        lied = run.model_copy(deep=True)
        lied.seeds[0].metrics[metric] = 0.123
        assert any("re-scored" in fault for fault in faults(check_run(lied, found, expected_of(run))))


def test_stored_weights_are_used_and_without_them_nothing_is_scored(planned, monkeypatch):
    with pytest.raises(ExperimentError, match="no weights of these settings"):
        Learning(planned, "cpu").evaluate()
    first = Learning(planned, "cpu").fit()
    monkeypatch.setattr("replimat.training.fit.train", None)  # a second training would fail
    again = Learning(planned, "cpu").evaluate()
    assert again["seeds"][0]["metrics"] == first["seeds"][0]["metrics"]


def test_a_seed_that_fails_is_named_and_the_others_go_on(planned):
    def learn(bench):
        if bench.seed == 0:
            raise RuntimeError("no luck")
        return tiny(bench)

    object.__setattr__(planned.experiment, "learn", learn)
    record = Learning(planned, "cpu", seeds=2).fit()
    assert [seed["status"] for seed in record["seeds"]] == ["failed", "ok"]
    assert record["seeds"][0]["reason"] == "no luck"


def test_comparison_and_figures_of_it(planned, monkeypatch):
    Learning(planned, "cpu").fit()
    root = cards.project_root()
    monkeypatch.setattr("replimat.reporting.figures.KEPT", ())  # its arrays are made up
    folder = compare_paper("learner", "laptop", root / "runs", root / "results")
    assert {path.name for path in (folder / "figures").iterdir()} >= {"confusion-one.png", "parity-one-length.png"}
    text = (folder / "comparison.md").read_text()
    assert "REDUCED" in text and "FAILED" not in text
    ours = json.loads((folder / "metrics.json").read_text())["ours"]
    assert ours["learner/kind"]["one"] > 90  # in the claim's unit, %


def test_patterns_from_powders_differ_in_training_and_not_in_evaluation():
    drawn = lambda rows, generator: torch.rand(len(rows), 4, generator=generator)  # noqa: E731
    model = FromPowders(nn.Identity(), drawn)
    rows = PowderRows(torch.zeros(5)).__getitems__([3, 1])[0]["rows"]
    assert not torch.equal(model(rows), model(rows))
    model.eval()
    assert torch.equal(model(rows), model(rows))


def test_fitting_needs_neither_pymatgen_nor_ase():
    """A training machine has the torch stack: planning, keys of prepared files and learning must do with it."""
    code = """
import sys
for name in ("pymatgen", "ase", "spglib", "rdata", "phonopy", "smact", "matminer", "chgnet", "openbabel"):
    sys.modules[name] = None
from replimat import cards
from replimat.experiments.catalogue import plan_paper
from replimat.experiments.base import Learned, prepared_key
import replimat.experiments.learning
papers = [key for key in cards.paper_keys() if cards.paper(key).family in ("characterisation", "generation")]
found = [one for key in papers for one in plan_paper(key, "laptop") if isinstance(one.experiment, Learned)]
print(len({prepared_key(one.experiment) for one in found}))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 0
