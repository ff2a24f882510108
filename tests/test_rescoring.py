"""Released predictions, scored again: by hand on tiny files, and on the leaderboard's own where they can be had."""

import io
import json
import os
import zipfile

import numpy as np
import pandas as pd
import pytest
import yaml

from projects import Project, member
from replimat import cards, datasets, records, sources
from replimat.datasets import jarvis_dft
from replimat.errors import DataError, ExperimentError
from replimat.experiments.catalogue import plan_one
from replimat.experiments.released import join, read_released
from replimat.experiments.rescoring import Rescoring, benchmark_hashes
from replimat.reporting import comparison

ENERGY = "SinglePropertyPrediction/tiny/energy"
GAP = "SinglePropertyPrediction/tiny/gap"
METAL = "SinglePropertyClass/tiny/metal"
TRUTH = {  # every test set by hand
    ENERGY: {"train": {"a": 0.0, "b": 2.0}, "val": {"c": 1.0}, "test": {"000007": 1.0, "000012": 2.0, "123456": 4.0}},
    GAP: {"train": {"a": 1.0, "b": 1.0}, "val": {}, "test": {"x": 0.0, "y": 2.0}},
    METAL: {"train": {"a": 0, "b": 1}, "val": {}, "test": {"p": 0, "q": 0, "r": 1, "s": 1}},
}
FILES = {
    ENERGY: "id,target,prediction\n7,1.0,1.5\n12,2.0,2.0\n123456,4.0,3.0\n",
    GAP: "id,prediction\n x, 0.1\nz,9.0\n",
    METAL: "id,target,prediction\np,0,0\nq,0,1\nr,1,1\ns,1,1\n",
}
CLAIMS = {"energy": "0.500", "gap": "0.10", "metal": "0.75"}


def zipped(name: str, text: str) -> bytes:
    """A zip with one file."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr(name, text)
    return stream.getvalue()


@pytest.fixture
def board(tmp_path, monkeypatch):
    """A leaderboard of three targets; the function writes it with other files of predictions and returns the record."""
    project = Project(tmp_path, monkeypatch)
    cards.paper.cache_clear(), cards.claims.cache_clear()

    def score(files: dict[str, str] | None = None, **settings) -> dict:
        benchmark_hashes.cache_clear()
        _put(project, "truth", {jarvis_dft.benchmark_file(c): json.dumps(parts) for c, parts in TRUTH.items()})
        released = FILES | (files or {})
        _put(project, "guesses", {_released(column): text for column, text in released.items()})
        _paper(project, settings)
        return Rescoring(plan_one("tiny", "leaderboard", "laptop")).fit()

    yield score
    for cached in (cards.paper, cards.claims, cards.dataset):
        cached.cache_clear()


def _released(column: str) -> str:
    task, dataset, name = column.split("/")
    return f"AI-{task}-{name}-{dataset}-test-{'acc' if column == METAL else 'mae'}.csv.zip"


def _put(project: Project, name: str, files: dict[str, str]) -> None:
    """Put zips into data-paper/<name>/ and write the card."""
    entries = []
    for path, text in files.items():
        content = zipped("content", text)
        target = project.root / "data-paper" / name / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
        entries.append(member(path, content, path))
    units = {"energy": ("eV/atom", ENERGY), "gap": ("eV", GAP), "metal": ("1", METAL)}
    targets = {key: {"unit": unit, "description": key, "column": column} for key, (unit, column) in units.items()}
    source = {"kind": "url", "url": "http://127.0.0.1:9/", "members": entries}
    project.card(name, source, data="paper", targets=targets if name == "truth" else {})


def _paper(project: Project, settings: dict) -> None:
    folder = project.root / "papers" / "tiny"
    folder.mkdir(exist_ok=True)
    experiment = {
        "dataset": "truth",
        "target": "energy",
        "origin": "paper",
        "predictions": "guesses",
        "claims": ["tiny/energy"],
        "parts": {"gap": ["tiny/gap"], "metal": ["tiny/metal"]},
        "laptop": {"model": settings},
    }
    card = {"key": "tiny", "title": "t", "authors": ["A"], "year": 2020, "venue": "v", "family": "property"}
    card |= {"summary": "s", "experiments": {"leaderboard": experiment}}
    (folder / "card.yaml").write_text(yaml.safe_dump(card))
    rows = [",".join(cards.CLAIM_COLUMNS)]
    for name, value in CLAIMS.items():
        metric, unit = ("accuracy", "1") if name == "metal" else ("mae", "eV/atom" if name == "energy" else "eV")
        direction, digits = ("higher" if name == "metal" else "lower"), len(value) - 2
        n_test = len(TRUTH[{"energy": ENERGY, "gap": GAP, "metal": METAL}[name]]["test"])
        rows.append(
            f"tiny/{name},own,Table 1,d,{name},{metric},{unit},m,{value},{digits},,{direction},,,{n_test},,s,verbatim"
        )
    (folder / "claims.csv").write_text("\n".join(rows) + "\n")
    cards.paper.cache_clear(), cards.claims.cache_clear()


def part(record: dict, target: str) -> dict:
    return record["parts"].get(target, record)


# ------------------------------------------------------------------------------------- by hand


def test_errors_by_hand(board):
    seed = board()["seeds"][0]
    assert (seed["evaluated"], seed["failed"]) == (3, 0)
    assert seed["metrics"]["mae"] == pytest.approx((0.5 + 0.0 + 1.0) / 3)
    assert seed["metrics"]["ewt_0.02"] == pytest.approx(1 / 3)


def test_the_mean_predictor_knows_the_training_rows_only(board):
    assert board()["baselines"]["mean"]["mae"] == pytest.approx((0 + 1 + 3) / 3)  # mean of the training rows: 1


def test_lost_leading_zeros_are_found_and_said(board):
    record = board()
    assert any("2 ids agree only as numbers" in warning for warning in record["warnings"])


def test_ids_as_text_score_what_the_page_scores(board):
    seed = board(ids_as_text=True)["seeds"][0]
    assert (seed["evaluated"], seed["failed"]) == (1, 2)  # 7 and 12 are not 000007 and 000012
    assert seed["metrics"]["mae"] == pytest.approx(1.0)


def test_a_missing_row_stays_in_the_denominator(board):
    gap = part(board(), "gap")
    assert (gap["n_test"], gap["seeds"][0]["evaluated"], gap["seeds"][0]["failed"]) == (2, 1, 1)
    assert gap["seeds"][0]["metrics"]["mae"] == pytest.approx(0.1)
    assert gap["warnings"] == [
        "1 of 2 test rows have no prediction",
        "1 released predictions are of no test row or no number",
    ]


def test_every_test_row_is_among_the_predictions(board):
    board()
    folder = cards.project_root() / "runs" / "laptop" / "tiny" / "leaderboard"
    kept = records.read_predictions(folder, 0, "gap")
    assert kept.ids.tolist() == ["x", "y"]
    assert np.isnan(kept.prediction[1])


def test_classes_have_an_accuracy_and_no_area_under_a_curve(board):
    metal = part(board(), "metal")
    assert metal["primary_metric"] == "accuracy"
    assert metal["seeds"][0]["metrics"]["accuracy"] == pytest.approx(0.75)
    assert "auc" not in metal["seeds"][0]["metrics"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("id,target,prediction\n7,1.5,1.0\n12,2.0,2.0\n123456,3.0,4.0\n", "swapped"),
        ("id,target,prediction\n7,9.0,1.5\n12,2.0,2.0\n123456,4.0,3.0\n", "1 of 3 true values"),
        ("id,target,prediction\n7,1.0,1.5\n7,1.0,1.6\n", "1 ids stand more than once"),
        ("id,target,prediction\n7,1.0,1.5\n007,1.0,1.6\n", "leading zeros tell rows apart"),
        ("id,target,prediction\nu,1.0,1.5\n", "None of the 3 test rows"),
        ("id,energy\n7,1.0\n", "expected id and prediction"),
        ("id,prediction\n7,nan\n12,\n", "No finite pair"),
    ],
)
def test_a_file_that_cannot_be_scored_fails_alone(board, text, said):
    record = board({ENERGY: text})
    assert record["status"] == "failed"
    assert said in record["seeds"][0]["reason"]
    assert part(record, "metal")["status"] == "ok"


def test_values_that_are_no_numbers_stop_the_run(tmp_path):
    path = tmp_path / jarvis_dft.benchmark_file(GAP)
    path.parent.mkdir()
    for fault in ('{"train": {}, "val": {}, "test": {"x": NaN}}', '{"train": {}, "test": {"x": 1}}', "[]"):
        path.write_bytes(zipped("content", fault))
        with pytest.raises(DataError):
            jarvis_dft.read_benchmark(tmp_path, GAP)
    path.write_bytes(zipped("content", '{"train": {}, "val": {}, "test": {"x": 1, "x": 2}}'))
    with pytest.raises(DataError, match="more than once"):
        jarvis_dft.read_benchmark(tmp_path, GAP)


def test_z_scores_are_scaled_back(tmp_path):
    column = "SinglePropertyPrediction/qm9_std_jctc/mu"
    path = tmp_path / jarvis_dft.benchmark_file(column)
    path.parent.mkdir()
    path.write_bytes(zipped("content", '{"train": {}, "val": {}, "test": {"000001": 2.0}}'))
    assert jarvis_dft.read_benchmark(tmp_path, column)["test"] == {"000001": pytest.approx(2 * 1.503449)}


# ------------------------------------------------------------------------------------- the judge


def verdicts(runs: str = "runs") -> dict[str, str]:
    root = cards.project_root()
    folder = comparison.compare_paper("tiny", "laptop", root / runs, root / "results")
    table = pd.read_csv(folder / "comparison.csv").set_index("claim_id")
    return table["verdict"].to_dict() | {"reasons": " ".join(table["reason"].astype(str))}


def test_a_printed_digit_is_met_or_not(board):
    board()
    found = verdicts()
    assert found["tiny/energy"] == "EXACT"  # 0.500 exactly
    assert found["tiny/metal"] == "EXACT"
    board({ENERGY: FILES[ENERGY].replace("3.0", "2.99")})  # 0.5033 where 0.500 is printed
    assert verdicts()["tiny/energy"] == "WORSE"


def test_kept_predictions_that_were_swapped_later_are_caught(board):
    board()
    path = records.predictions_path(cards.project_root() / "runs" / "laptop" / "tiny" / "leaderboard", 0)
    table = pd.read_parquet(path)
    table.rename(columns={"target": "prediction", "prediction": "target"}).to_parquet(path)
    with pytest.raises(ExperimentError, match="changed after it was written"):
        verdicts()


# ------------------------------------------------------------------- the leaderboard's own files

needs_mirror = pytest.mark.skipif(not os.environ.get("REPLIMAT_MIRROR"), reason="REPLIMAT_MIRROR is not set")
OWN = {  # rows of Table 3 of the ALIGNN paper with four digits or more: no accident that they come out
    "n_power_factor": 442.30,
    "plane_wave_cutoff": 133.8,
    "n_seebeck": 40.92,
    "dielectric_dfpt": 28.15,
    "electric_field_gradient": 19.12,
}


@pytest.fixture
def fetched(tmp_path, monkeypatch):
    """Fetch datasets of the real cards into a project of the test's own."""
    root = cards.project_root()
    (tmp_path / "papers").mkdir()
    (tmp_path / "datasets").symlink_to(root / "datasets")
    monkeypatch.setenv("REPLIMAT_ROOT", str(tmp_path))
    cards.dataset.cache_clear()
    yield lambda *names: [sources.fetch(name) for name in names]
    cards.dataset.cache_clear()


@needs_mirror
@pytest.mark.mirror
def test_the_alignn_files_are_the_paper_s_own(fetched):
    truth, released = fetched("jarvis_leaderboard", "jarvis_predictions_alignn_model")
    specs = cards.dataset("jarvis_leaderboard").targets
    for target, printed in OWN.items():
        test = jarvis_dft.read_benchmark(truth, specs[target].column)["test"]
        prediction = join(test, read_released(released, specs[target].column))
        digits = 1 if target == "plane_wave_cutoff" else 2
        assert round(float(np.abs(prediction - list(test.values())).mean()), digits) == printed


@needs_mirror
@pytest.mark.mirror
def test_the_temperature_page_shows_formation_energies(fetched):
    truth, released = fetched("jarvis_leaderboard", "jarvis_predictions_alignn_model")
    errors = {}
    for target in ("formation_energy", "superconducting_tc"):
        column = cards.dataset("jarvis_leaderboard").targets[target].column
        test = jarvis_dft.read_benchmark(truth, column)["test"]
        errors[target] = np.abs(join(test, read_released(released, column)) - list(test.values())).mean()
    assert round(errors["formation_energy"], 4) == 0.0331  # what the page of the temperature prints, as kelvin
    assert round(errors["superconducting_tc"], 2) == 2.03


@needs_mirror
@pytest.mark.mirror
def test_cgcnn_s_exfoliation_file_is_alignn_s(fetched):
    first, second = fetched("jarvis_predictions_alignn_model", "jarvis_predictions_cgcnn_model")
    column = "SinglePropertyPrediction/dft_3d/exfoliation_energy"
    one, other = read_released(first, column), read_released(second, column)
    assert dict(zip(one.ids, one.prediction, strict=True)) == dict(zip(other.ids, other.prediction, strict=True))


@needs_mirror
@pytest.mark.mirror
def test_sample_and_its_splits(fetched):
    fetched("jarvis_dft_sample")
    data = datasets.load("jarvis_dft_sample")
    assert len(data) == 1056
    part = data.splits["formation_energy"]
    assert [int((part == k).sum()) for k in (0, 1, 2, -1)] == [697, 103, 92, 164]
    assert (np.isfinite(data.target("formation_energy")) == (part >= 0)).all()


@needs_mirror
@pytest.mark.mirror
def test_mp_2018_has_labels_and_split_of_the_benchmark(fetched):
    _, truth = fetched("mp_2018_ids", "jarvis_leaderboard")
    data = datasets.load("mp_2018_ids")
    for target, name in (("formation_energy", "e_form"), ("band_gap", "gappbe")):
        parts = jarvis_dft.read_benchmark(truth, f"SinglePropertyPrediction/megnet/{name}")
        for k, part in enumerate(("train", "val", "test")):
            rows = np.flatnonzero(data.splits["megnet_2018"] == k)
            assert [parts[part][name] for name in data.ids[rows]] == data.target(target)[rows].tolist()
