"""The suite as a user runs it, at smoke scale: a copy of the project, real data, real training, both engines."""

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

from suites import call, copy_project, environment, snakemake

COLUMNS = (
    "paper claim_id table dataset data_origin target metric unit reported seen ours std n_seeds ratio verdict "
    "reason scale rung n_train n_test baseline_mean baseline_rf seconds hardware"
).split()

pytestmark = pytest.mark.pipeline


def planned_jobs(project: Path) -> dict[str, int]:
    """Jobs by rule that Snakemake would run now."""
    said = snakemake(project, "--dry-run", "--quiet", "rules").stdout
    lines = [line.split() for line in said.split("Job stats:")[1].splitlines()] if "Job stats:" in said else []
    return {words[0]: int(words[1]) for words in lines if len(words) == 2 and words[1].isdigit()}


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    """A copy of the project after `snakemake --cores 2` at smoke scale."""
    folder = copy_project(tmp_path_factory.mktemp("replimat"))
    snakemake(folder)
    return folder


def test_every_paper_has_rows_and_the_built_ones_are_measured(project):
    table = pd.read_csv(project / "results/smoke/comparison.csv")
    assert list(table.columns[: len(COLUMNS)]) == COLUMNS
    assert set(table["paper"]) == {path.name for path in (project / "papers").iterdir()}
    measured = table[table["ours"].notna()]
    assert {"cgcnn", "schnet"} <= set(measured["paper"])
    assert (
        not measured["verdict"].isin(["REPRODUCED", "EXACT", "NOT ATTEMPTED"]).any()
    )  # a smoke run reproduces nothing
    assert table[table["ours"].isna()]["reason"].str.len().min() > 10


def test_the_page_is_one_file_that_needs_no_network(project):
    page = (project / "results/smoke/report.html").read_text()
    assert "data:image/png;base64," in page
    for outside in ('rel="stylesheet"', 'src="http', "@import", "url(http"):
        assert outside not in page


def test_a_second_run_does_nothing(project):
    assert planned_jobs(project) == {}


def test_an_edited_card_runs_its_own_paper_again_and_no_other(project):
    card = project / "papers/schnet/card.yaml"
    original = card.read_text()
    try:
        card.write_text(original + "\n# an edit\n")
        jobs = planned_jobs(project)
        fits = {name for name in jobs if name.startswith("fit_")}  # one for each prepared file of the paper
        assert len(fits) == 3 and all(name.startswith("fit_schnet_") for name in fits)
        assert {name: jobs[name] for name in jobs.keys() - fits} == {
            "compare": 1, "merge": 1, "report": 1, "all": 1, "total": 7,
        }  # fmt: skip
    finally:
        card.write_text(original)


def test_weights_of_other_settings_are_not_scored(project):
    card = project / "papers/schnet/card.yaml"
    original = card.read_text()
    try:
        card.write_text(original.replace("interactions: 2", "interactions: 1"))
        done = call(project, "replimat", "evaluate", "schnet", "mp-formation-energy", "--scale", "smoke", check=False)
        assert done.returncode == 1 and "no weights of these settings" in done.stderr
    finally:
        card.write_text(original)


def test_scoring_stored_weights_again_gives_the_same_metrics(project):
    record = project / "runs/smoke/schnet/mp-formation-energy/run.json"
    before = json.loads(record.read_text())["seeds"][0]["metrics"]
    call(project, "replimat", "evaluate", "schnet", "mp-formation-energy", "--scale", "smoke")
    assert json.loads(record.read_text())["seeds"][0]["metrics"] == pytest.approx(before)


def test_kill_9_in_the_middle_of_fit_ends_with_the_same_weights(project):
    run = project / "runs/smoke/cgcnn/mp-formation-energy"
    weights = run / "seed0/model.safetensors"
    whole = tensors(weights)
    shutil.rmtree(run)
    words = [str(Path(sys.executable).parent / "replimat"), "fit", "cgcnn", "mp-formation-energy", "--scale", "smoke"]
    started = subprocess.Popen(
        words, cwd=project, env=environment(project), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 120
    while not (run / "seed0/checkpoints/last.ckpt").exists():
        assert started.poll() is None and time.monotonic() < deadline, "the run ended before it could be killed"
        time.sleep(0.01)
    started.send_signal(signal.SIGKILL)
    started.wait()
    assert not weights.exists()
    call(project, *words)
    assert tensors(weights) == whole


def tensors(path: Path) -> dict[str, bytes]:
    from safetensors.numpy import load_file

    return {name: array.tobytes() for name, array in load_file(path).items()}


@pytest.fixture(scope="module")
def repository(project) -> Path:
    """The project copy under git and DVC, set to smoke scale, with all data of the default suite fetched."""
    params = project / "params.yaml"
    params.write_text(params.read_text().replace("scale: laptop", "scale: smoke"))
    call(project, "git", "init", "--quiet")
    call(project, "dvc", "init", "--quiet")
    call(project, "dvc", "repro", "--quiet", "fetch")
    return project


def test_dvc_repro_then_status_is_clean(repository):
    """DVC drives the same Snakemake, so after it has run there is nothing left to do."""
    call(repository, "dvc", "repro", "--quiet", "paper@schnet")
    assert "up to date" in call(repository, "dvc", "status", "fetch", "paper@schnet").stdout
    assert "schnet" in call(repository, "dvc", "metrics", "show").stdout


def test_data_dvc_is_the_lock_of_what_fetch_brings(repository):
    locked = (repository / "data.dvc").read_text()
    assert "up to date" in call(repository, "dvc", "status", "data.dvc").stdout
    call(repository, "dvc", "add", "--quiet", "data")
    assert (repository / "data.dvc").read_text() == locked


def test_data_travels_through_a_remote(repository, tmp_path):
    """push, lose everything, pull: byte for byte what the cards say; a damaged file is found and named."""
    call(repository, "dvc", "add", "--quiet", "data")
    call(repository, "dvc", "remote", "add", "--force", "--default", "shelf", str(tmp_path / "shelf"))
    call(repository, "dvc", "push", "--quiet")
    shutil.rmtree(repository / "data")
    shutil.rmtree(repository / ".dvc" / "cache")
    call(repository, "dvc", "pull", "--quiet")
    call(repository, "replimat", "verify")
    damaged = repository / "data/mp_flla/flla_2015.csv"
    damaged.write_bytes(damaged.read_bytes()[:-1])
    said = call(repository, "replimat", "verify", check=False)
    assert said.returncode == 1 and "flla_2015.csv has" in said.stderr
    assert not damaged.exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("fit", "nosuch", "x"), "Unknown paper 'nosuch'"),
        (("fit", "cgcnn", "nosuch"), "has no experiment 'nosuch'"),
        (("fit", "ewald", "x"), "none yet"),
        (("fit", "cgcnn", "mp-band-gap", "--scale", "smoke"), "no settings for scale 'smoke'"),
        (("fit", "cgcnn", "mp-band-gap", "--scale", "huge"), "Unknown scale 'huge'"),
        (("prepare", "schnet", "nosuch"), "has no experiment 'nosuch'"),
        (("fetch", "nosuch"), "Unknown dataset 'nosuch'"),
        (("show", "nosuch"), "Unknown paper 'nosuch'"),
    ],
)
def test_bad_input_is_one_clear_line(project, words, said):
    done = call(project, "replimat", *words, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("error: ") and said in done.stderr
    assert "Traceback" not in done.stderr
