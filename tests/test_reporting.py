"""From records on disk to tables, figures and the page: an invented paper in a project of its own."""

import csv
import json
import re
import subprocess
import sys
from html.parser import HTMLParser

import numpy as np
import pytest

from replimat import cards
from replimat.errors import ExperimentError
from replimat.records import Predictions, Run, read_predictions, read_run
from replimat.reporting import comparison, page
from replimat.reporting.figures import read_log, reported_value
from replimat.reporting.overview import draw_overview, times_worse
from replimat.reporting.tables import COLUMNS, read_table, reported
from runs import claim, measured_run, write_project, write_run

FIRST_COLUMNS = (
    "paper claim_id table dataset data_origin target metric unit reported seen ours std n_seeds ratio verdict reason "
    "scale rung n_train n_test baseline_mean baseline_rf seconds hardware"
).split()
MAE, VALIDATION, RECALLED = "harmonic/t1/ef/mae", "harmonic/t1/ef/validation_mae", "harmonic/t1/gap/mae"


def experiment(claims=(), target="formation_energy", scales=("laptop",), **others) -> dict:
    fields = {"dataset": "mp_flla", "target": target, "origin": "substitute", "claims": list(claims)}
    return fields | {scale: {"n_train": 2500, "epochs": 8} for scale in scales} | others


CARD = {
    "key": "harmonic",
    "title": "Harmonic bonds for crystals",
    "authors": ["A. Author"],
    "year": 2020,
    "venue": "J. Ex. 1, 2",
    "doi": "10.0000/example",
    "family": "property",
    "summary": "Energies of crystals from bond lengths alone.",
    "constants": [{"name": "cutoff", "unit": "angstrom", "paper": 5.0, "author_code": 6.0, "used": 5.0}],
    "experiments": {
        "mp-formation-energy": experiment([MAE, VALIDATION]),
        "mp-band-gap": experiment([RECALLED], "band_gap"),
        "ablation": experiment(),
        "big": experiment([MAE], scales=("paper",), note="needs a GPU"),
    },
}
SILENT = {key: CARD[key] for key in ("title", "authors", "year", "venue", "family", "summary")} | {
    "key": "silent",
    "not_attempted": "The model is not written yet.",
}
DATASET = {
    "name": "mp_flla",
    "title": "invented",
    "summary": "invented",
    "licence": "none",
    "citation": "none",
    "source": {"kind": "computed", "engine": "none"},
    "targets": {
        "formation_energy": {"unit": "eV/atom", "description": "", "range": [-6, 4]},
        "band_gap": {"unit": "eV", "description": "", "range": [-6, 4]},
    },
}


@pytest.fixture
def project(tmp_path, monkeypatch):
    """Two papers; of the first, one experiment has a run and one crashed."""
    claims = [
        claim(claim_id=MAE),
        claim(claim_id=VALIDATION, metric="validation_mae"),
        claim(claim_id=RECALLED, target="band gap", unit="eV", seen="recalled"),
        claim(claim_id="harmonic/t1/nobody/mae", target="nobody asks"),
        claim(claim_id="harmonic/t1/rival/mae", role="baseline"),
    ]
    write_project(tmp_path, CARD, claims, DATASET)
    write_project(tmp_path, SILENT, [])
    monkeypatch.setenv("REPLIMAT_ROOT", str(tmp_path))
    for cached in (cards.paper, cards.claims, cards.dataset):
        cached.cache_clear()
    run, predictions, _ = measured_run(seeds=2)
    write_run(folder(tmp_path), run, predictions)
    crashed = {"experiment": "mp-band-gap", "target": "band_gap", "unit": "eV", "status": "failed", "seeds": []}
    write_run(folder(tmp_path, "mp-band-gap"), Run(**(run.model_dump() | crashed | {"reason": "a <b> | c"})), {})
    yield tmp_path
    for cached in (cards.paper, cards.claims, cards.dataset):
        cached.cache_clear()


def folder(root, name="mp-formation-energy"):
    return root / "runs" / "laptop" / "harmonic" / name


def compare(root, key="harmonic") -> list[dict]:
    made = comparison.compare_paper(key, "laptop", root / "runs", root / "results")
    return read_table(made / "comparison.csv")


def row_of(rows, claim_id, name) -> dict:
    (row,) = [row for row in rows if (row["claim_id"], row["experiment"]) == (claim_id, name)]
    return row


# ------------------------------------------------------------------ tables


def test_columns_come_in_the_agreed_order(project):
    assert list(COLUMNS[: len(FIRST_COLUMNS)]) == FIRST_COLUMNS
    compare(project)
    with open(project / "results/laptop/papers/harmonic/comparison.csv", newline="") as stream:
        assert tuple(next(csv.reader(stream))) == COLUMNS


def test_a_measured_claim(project):
    row = row_of(compare(project), MAE, "mp-formation-energy")
    metrics = [seed.metrics["mae"] for seed in read_run(folder(project)).seeds]
    assert float(row["ours"]) == pytest.approx(np.mean(metrics), rel=1e-5)
    assert float(row["std"]) == pytest.approx(np.std(metrics, ddof=1), rel=1e-5)
    assert float(row["ratio"]) == pytest.approx(np.mean(metrics) / 0.1, rel=1e-5)
    assert (row["reported"], row["verdict"], row["n_seeds"], row["counted"]) == ("0.100", "REDUCED", "2", "true")
    assert (row["dataset"], row["reported_dataset"], row["data_origin"]) == ("mp_flla", "MP 2018", "substitute")
    assert float(row["seconds"]) == pytest.approx(66.2)
    made, possible = map(int, row["checks"].split("/"))
    assert made == possible > 0


def test_every_claim_finds_a_row_and_every_absence_a_reason(project):
    rows = compare(project)
    assert row_of(rows, VALIDATION, "mp-formation-energy")["reason"].endswith("does not measure validation_mae")
    assert row_of(rows, MAE, "big")["reason"] == "its card has no settings for laptop scale: needs a GPU"
    assert row_of(rows, "harmonic/t1/nobody/mae", "")["reason"] == "no experiment asks for this number yet"
    assert row_of(rows, "", "ablation")["reason"] == "not run yet at laptop scale"
    assert row_of(rows, RECALLED, "mp-band-gap")["verdict"] == "FAILED"
    assert row_of(rows, RECALLED, "mp-band-gap")["counted"] == "false"
    assert not [row for row in rows if row["claim_id"] == "harmonic/t1/rival/mae"]  # not the paper's own number
    (silent,) = compare(project, "silent")
    assert (silent["verdict"], silent["reason"]) == ("NOT ATTEMPTED", "The model is not written yet.")


def test_a_killed_run_is_told_from_one_that_never_began(project):
    (folder(project, "ablation") / "seed0").mkdir(parents=True)
    assert row_of(compare(project), "", "ablation")["reason"] == "started and never finished: no run.json"


def test_a_tampered_file_fails_in_the_table(project):
    run = read_run(folder(project))
    found = read_predictions(folder(project), 1)
    spoiled = {0: read_predictions(folder(project), 0), 1: Predictions(found.ids, found.target, found.prediction + 0.5)}
    write_run(folder(project), run, spoiled)
    row = row_of(compare(project), MAE, "mp-formation-energy")
    assert row["verdict"] == "FAILED"
    assert row["reason"].startswith("re-scored: seed 1: mae is")


def test_a_damaged_record_is_one_line(project):
    (folder(project) / "run.json").write_text('{"paper": "harmonic"')
    with pytest.raises(ExperimentError, match=r"run\.json: record: .*Run the experiment again"):
        compare(project)
    (folder(project) / "run.json").write_text('{"paper": "harmonic"}')
    with pytest.raises(ExperimentError, match=r"run\.json: experiment: Field required"):
        compare(project)


def test_metrics_json_is_small_and_true(project):
    compare(project)
    metrics = json.loads((project / "results/laptop/papers/harmonic/metrics.json").read_text())
    assert metrics["verdicts"] == {"REDUCED": 1, "NOT ATTEMPTED": 3}
    assert (metrics["counted"], metrics["shown_only"]) == (4, 2)
    assert list(metrics["ours"]) == [MAE]


def test_markdown_keeps_its_columns(project):
    compare(project)
    lines = (project / "results/laptop/papers/harmonic/comparison.md").read_text().splitlines()
    table = [line for line in lines if line.startswith("|")]
    assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table}) == 1
    assert any("a <b> \\| c" in line for line in table)
    assert any("(*recalled*)" in line for line in table)


@pytest.mark.parametrize(
    ("qualifier", "said"),
    [("", "0.100"), ("~", "~ 0.100"), ("best epoch", "0.100 (best epoch)")],
)
def test_reported_values_keep_their_qualifier(qualifier, said):
    assert reported({"claim_id": "x", "reported": "0.100", "qualifier": qualifier}) == said


def test_merge_counts_and_names_what_is_missing(project):
    with pytest.raises(ExperimentError, match="replimat compare"):
        comparison.merge("laptop", project / "results")
    compare(project)
    comparison.merge("laptop", project / "results")
    summary = json.loads((project / "results/laptop/summary.json").read_text())
    assert summary["not_compared"] == ["silent"]
    assert summary["verdicts"] == summary["papers"]["harmonic"]["verdicts"] == {"REDUCED": 1, "NOT ATTEMPTED": 3}
    assert len(read_table(project / "results/laptop/comparison.csv")) == 6


# ----------------------------------------------------------------- figures


def test_figures_are_drawn_and_old_ones_removed(project):
    from PIL import Image

    figures = project / "results/laptop/papers/harmonic/figures"
    figures.mkdir(parents=True)
    (figures / "parity-gone.png").touch()
    compare(project)
    assert {path.name for path in figures.iterdir()} == {
        "parity-mp-formation-energy.png",
        "learning-mp-formation-energy.png",
    }
    for path in figures.iterdir():
        with Image.open(path) as image:
            assert image.width > 500
        assert path.stat().st_size < 120_000


def test_a_classification_gets_a_roc_curve(project):
    run, predictions, _ = measured_run(classes=True, experiment="ablation")
    write_run(folder(project, "ablation"), run, predictions)
    row = row_of(compare(project), "", "ablation")
    assert (row["verdict"], row["reason"].split(";")[0]) == ("REDUCED", "substitute data (mp_flla)")
    assert (project / "results/laptop/papers/harmonic/figures/parity-ablation.png").is_file()


def test_many_rows_are_drawn_as_a_density(project):
    run, predictions, _ = measured_run(n=2000)
    write_run(folder(project), run, predictions)
    compare(project)
    assert (project / "results/laptop/papers/harmonic/figures/parity-mp-formation-energy.png").is_file()


def test_a_log_may_have_gaps_or_nothing(tmp_path):
    assert read_log(tmp_path / "log.csv") is None
    (tmp_path / "log.csv").write_text("epoch,train_loss,val_mae\n")
    assert read_log(tmp_path / "log.csv") is None
    (tmp_path / "log.csv").write_text("epoch,train_loss,val_mae\n0,1.5,\n1,1.0,0.2\n")
    assert read_log(tmp_path / "log.csv")["val_mae"].tolist() == pytest.approx([np.nan, 0.2], nan_ok=True)


def test_the_reported_line_is_in_our_unit():
    run, _, _ = measured_run()
    assert reported_value(run, [claim(value=39.0, unit="meV/atom")]) == pytest.approx(0.039)
    assert reported_value(run, [claim(metric="rmse"), claim(unit="GPa")]) is None


def test_times_worse_reads_the_same_way_for_errors_and_scores():
    assert times_worse({"reported": "0.1", "direction": "lower"}, "0.2") == pytest.approx(2)
    assert times_worse({"reported": "0.9", "direction": "higher"}, "0.45") == pytest.approx(2)
    for value in ("", "0", "-1"):
        assert times_worse({"reported": "0.1", "direction": "lower"}, value) is None


def test_no_overview_without_a_measured_number(project, tmp_path):
    rows = compare(project, "silent")
    assert draw_overview(tmp_path / "overview.png", rows, "laptop") is False
    assert not (tmp_path / "overview.png").exists()


# -------------------------------------------------------------------- page


class Balanced(HTMLParser):
    """Every opened element is closed, in order."""

    VOID = {"meta", "link", "img", "input", "br"}  # noqa: RUF012

    def __init__(self):
        super().__init__()
        self.open, self.links = [], []

    def handle_starttag(self, tag, attributes):
        self.open += [] if tag in self.VOID else [tag]
        fields = dict(attributes)
        self.links += [(tag, fields[name]) for name in ("src", "href") if name in fields]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.fixture
def report(project):
    compare(project)
    compare(project, "silent")
    comparison.merge("laptop", project / "results")
    return page.write_report("laptop", project / "runs", project / "results").read_text()


def test_the_page_stands_alone(report):
    parser = Balanced()
    parser.feed(report)
    assert parser.open == []
    images = [link for tag, link in parser.links if tag == "img"]
    assert len(images) == 3  # overview, parity, learning curve
    assert all(link.startswith("data:image/png;base64,") for link in images)
    assert all(tag == "a" for tag, link in parser.links if not link.startswith("data:"))  # a link loads nothing
    assert "@import" not in report
    assert "url(" not in report


def test_the_page_says_what_matters(report):
    text = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", report))
    assert "What laptop scale can say." in text
    assert "The model is not written yet." in text
    assert "0123456789" in text  # the commit
    assert "same structure: 3" in text
    assert "recalled, not counted" in text
    assert 'class="differs"' not in report  # used 5.0 as the paper says; only the author's code differs
    assert "a &lt;b&gt; | c" in report  # reasons are text, never markup


def test_no_page_before_the_merge(project):
    with pytest.raises(ExperimentError, match=r"comparison\.csv is missing; run `replimat compare"):
        page.write_report("laptop", project / "runs", project / "results")


def test_comparing_loads_nothing_heavy():
    """27 comparisons each start a process: a paper without runs must not wait for figures or models."""
    heavy = "torch matplotlib jinja2 pandas sklearn scipy.stats"
    code = f"import sys, replimat.reporting.comparison; print([m for m in '{heavy}'.split() if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
