"""Models ranked on identical work: who is compared with whom, in which order, and how sure that order is."""

import csv
from pathlib import Path

import numpy as np
import pytest

from replimat.audit import Check
from replimat.cards import ExperimentCard
from replimat.records import Predictions
from replimat.reporting import ranking
from replimat.reporting.comparison import Outcome
from replimat.reporting.ranking import rank, remark
from runs import HASH, measured_run

CARD = ExperimentCard(dataset="mp_flla", target="formation_energy", origin="substitute")


def outcome(paper: str, noise: float, classes: bool = False, checks=(), **changes) -> Outcome:
    """A run of a paper whose predictions are off by `noise`."""
    provenance = {"data_sha256": HASH, "split_sha256": HASH, "test_ids_sha256": HASH} | changes.pop("provenance", {})
    run, predictions, _ = measured_run(noise=noise, classes=classes, paper=paper, provenance=provenance, **changes)
    return Outcome("mp-ef", run.target, CARD, Path(), run, predictions=predictions, checks=list(checks))


def ranked(group) -> list[tuple]:
    return [(entry.rank, entry.model) for entry in group.ranked]


def test_best_first_with_baselines_in_their_place():
    (group,) = rank([outcome("worse", 0.3), outcome("best", 0.1), outcome("middle", 0.2)])
    assert [(entry.rank, entry.model) for entry in group.entries] == [
        (1, "best"),
        (2, "middle"),
        (3, "worse"),
        (None, "random forest"),
        (None, "mean predictor"),
    ]
    assert group.entries[0].value == pytest.approx(group.run.seeds[0].metrics["mae"] / 3, rel=1e-6)  # noise 0.1 of 0.3


def test_a_score_is_ranked_from_the_highest():
    (group,) = rank([outcome("worse", 0.5, classes=True), outcome("best", 0.1, classes=True)])
    assert ranked(group) == [(1, "best"), (2, "worse")]
    assert group.entries[0].value > group.entries[1].value


@pytest.mark.parametrize(
    "other",
    [
        {"provenance": {"split_sha256": "cd" * 32}},
        {"provenance": {"test_ids_sha256": "cd" * 32}},
        {"provenance": {"data_sha256": "cd" * 32}},
        {"provenance": {"test_ids_sha256": None}},
        {"target": "band_gap"},
        {"dataset": "oc20_bulks"},
        {"unit": "meV/atom"},
        {"kind": "author_weights"},
        {"paper": "one"},
    ],
    ids=lambda changed: next(iter(changed.get("provenance", changed))),
)
def test_other_work_is_not_compared(other):
    assert rank([outcome("one", 0.1), outcome(**({"paper": "two", "noise": 0.2} | other))]) == []


def test_two_experiments_of_a_paper_are_both_ranked_when_another_paper_is_there():
    (group,) = rank([outcome("one", 0.1), outcome("one", 0.3, experiment="ablation"), outcome("two", 0.2)])
    assert ranked(group) == [(1, "one"), (2, "two"), (3, "one")]


def test_a_run_that_fails_its_checks_is_named_and_not_ranked():
    caught = [Check("targets", False, "the columns target and prediction are swapped")]
    (group,) = rank([outcome("fake", 0.0, checks=caught), outcome("one", 0.1), outcome("two", 0.2)])
    assert ranked(group) == [(1, "one"), (2, "two")]
    (fake,) = [entry for entry in group.entries if entry.model == "fake"]
    assert (fake.value, fake.rank) == (None, None) and "swapped" in remark(fake)
    assert group.entries[-1] is fake


def test_seeds_are_averaged_and_lost_ones_said():
    one = outcome("one", 0.1, seeds=3)
    kept = one.run.seeds[:2]
    lost = one.run.seeds[2].model_copy(update={"status": "diverged", "metrics": {}})
    one.run = one.run.model_copy(update={"seeds": (*kept, lost)})
    (group,) = rank([one, outcome("two", 0.9)])
    values, first = [seed.metrics["mae"] for seed in kept], group.entries[0]
    assert first.value == pytest.approx(np.mean(values)) and first.std == pytest.approx(np.std(values, ddof=1))
    assert (first.n_seeds, first.seconds) == (2, pytest.approx(33.1)) and remark(first) == "1 of 3 seeds failed"


# ----------------------------------------------------- how sure a rank is


def noisy(paper: str, extra: np.ndarray) -> Outcome:
    """A run whose predictions are off by 0.1 in every row, and by `extra` [200] more; its record says its error."""
    one = outcome(paper, 0.1)
    found, shuffled = one.predictions[0], np.random.default_rng(len(paper)).permutation(200)
    columns = found.ids, found.target, found.target + 0.1 + extra
    seed = one.run.seeds[0].model_copy(update={"metrics": {"mae": float(np.abs(0.1 + extra).mean())}})
    one.run = one.run.model_copy(update={"seeds": (seed,)})
    one.predictions = {0: Predictions(*(column[shuffled] for column in columns))}  # rows in an order of their own
    return one


def test_models_that_the_test_rows_do_not_tell_apart_are_level():
    """One row of 200 decides: it is in about two of three draws, so the difference may well be zero. Every row: not."""
    once = np.zeros(200)
    once[7] = 0.01
    (group,) = rank([noisy("exact", np.zeros(200)), noisy("once", once), noisy("always", np.full(200, 0.01))])
    assert ranked(group) == [(1, "exact"), (2, "once"), (3, "always")]
    assert [entry.level for entry in group.ranked] == [False, True, False]
    assert remark(group.ranked[1]) == "level with the first"


def test_resampled_metrics_are_the_metrics():
    """With every row drawn once they are scikit-learn's, ties included."""
    from sklearn.metrics import mean_absolute_error, roc_auc_score

    rng = np.random.default_rng(1)
    target, predicted = rng.integers(0, 2, 50).astype(float), rng.integers(0, 6, 50) / 5
    rows = np.stack([rng.permutation(50), rng.integers(0, 50, 50), np.flatnonzero(target == 1)[:1].repeat(50)])
    auc, mae = ranking._auc(target, predicted, rows), ranking._mae(target, predicted, rows)
    for k in (0, 1):
        assert auc[k] == pytest.approx(roc_auc_score(target[rows[k]], predicted[rows[k]]))
        assert mae[k] == pytest.approx(mean_absolute_error(target[rows[k]], predicted[rows[k]]))
    assert np.isnan(auc[2])  # one class only


# ------------------------------------------------------------------- files


@pytest.fixture
def written(tmp_path, monkeypatch):
    """The files of two papers that did the same work, and what was ranked."""
    by_paper = {"best": [outcome("best", 0.1, scale="laptop")], "worse": [outcome("worse", 0.3, scale="laptop")]}
    monkeypatch.setattr(ranking.cards, "paper_keys", lambda: list(by_paper))
    monkeypatch.setattr(ranking.cards, "paper", lambda key: key)
    monkeypatch.setattr(ranking, "load_outcomes", lambda key, scale, runs: by_paper[key])
    groups = ranking.write_ranking("laptop", tmp_path / "runs", tmp_path)
    return tmp_path / "laptop", groups, by_paper


def test_csv_has_a_row_for_every_model_and_baseline(written):
    folder, (group,), _ = written
    with open(folder / "ranking.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert tuple(rows[0]) == ranking.COLUMNS
    assert [(row["rank"], row["model"]) for row in rows] == [
        ("1", "best"),
        ("2", "worse"),
        ("", "random forest"),
        ("", "mean predictor"),
    ]
    assert float(rows[0]["value"]) == pytest.approx(group.entries[0].value, rel=1e-5)
    assert (rows[0]["n_train"], rows[0]["n_test"], rows[0]["split_sha256"]) == ("2500", "200", HASH)
    assert (rows[0]["seconds"], rows[2]["seconds"], rows[0]["unit"]) == ("33.1", "", "eV/atom")


def test_markdown_says_what_the_ranks_do_not_say(written):
    said = (written[0] / "ranking.md").read_text()
    assert "nothing about how the published models compare" in said
    assert "## formation energy: mp_flla, 2,500 train, 200 test rows" in said
    assert "| 1 | best |" in said and "|  | random forest |" in said


def test_figure_is_drawn_and_goes_when_nothing_is_ranked(written, tmp_path):
    folder, _, by_paper = written
    assert (folder / "ranking.png").stat().st_size > 3000
    by_paper.pop("worse")
    assert ranking.write_ranking("laptop", tmp_path / "runs", tmp_path) == []
    assert not (folder / "ranking.png").exists()
    assert "No two papers" in (folder / "ranking.md").read_text()


def test_distances_to_the_best(written):
    """An error is a ratio of errors; an AUC of 0.9 against 0.95 is twice the error."""
    _, (group,), _ = written
    assert ranking._behind(group, 0.3, 0.1) == pytest.approx(3.0)
    (classes,) = rank([outcome("a", 0.1, classes=True), outcome("b", 0.5, classes=True)])
    assert ranking._behind(classes, 0.9, 0.95) == pytest.approx(2.0)
    assert (ranking._behind(classes, 1.0, 1.0), ranking._behind(classes, 0.9, 1.0)) == (1.0, np.inf)
