"""Potentials beside each other: the table, what stands beside a property, and the figures."""

import json

import pytest

from replimat import cards
from replimat.reporting.comparison import Outcome
from replimat.reporting.potentials import pivot, write_potentials
from replimat.reporting.tables import read_table
from runs import claim, run

DFT = {"role": "baseline", "unit": "GPa", "metric": "reference", "direction": "none", "dataset": "Ni crystal"}
CLAIMS = (
    claim(claim_id="a", target="C11", value=276, digits=0, seen="recalled", **DFT),
    claim(claim_id="b", target="C12", value=159, digits=0, seen="recalled", **DFT),
    claim(claim_id="c", target="C12", value=160, digits=0, seen="verbatim", **DFT),
    claim(claim_id="d", target="C12", value=48, digits=0, **{**DFT, "dataset": "Ge crystal"}),
)


def outcome(folder, name, force_rmse, properties, eos=True, target="forces"):
    seeds = [
        {"seed": k, "status": "ok", "metrics": {"rmse": error, "train_rmse": error / 2}, "properties": values}
        for k, (error, values) in enumerate(zip(force_rmse, properties, strict=True))
    ]
    record = run(
        paper="mlip_zuo",
        experiment=name,
        target=target,
        unit="eV/angstrom",
        seeds=seeds,
        property_units={"c11": "GPa", "c12": "GPa", "cost": "ms/atom/step"},
    )
    if eos:
        volumes, energies = [10.0, 11.0, 12.0], [0.02, 0.0, 0.03]
        kept = {"curves": {"volumes": volumes, "energies": energies}}
        (folder / name / "seed0" / "physics").mkdir(parents=True)
        (folder / name / "seed0" / "physics" / "equation_of_state.json").write_text(json.dumps(kept))
    card = cards.paper("mlip_zuo").experiments[name]
    return Outcome(name, target, card, folder / name, record)


@pytest.fixture
def outcomes(tmp_path):
    two = [{"c11": 270.0, "c12": 150.0, "cost": 0.2}, {"c11": 280.0, "c12": None, "cost": 0.2}]
    return [
        outcome(tmp_path, "ni-snap-official", [0.05], [{"c11": 283.0, "c12": 168.0, "cost": 0.3}]),
        outcome(tmp_path, "ni-snap", [0.06, 0.04], two),
        outcome(tmp_path, "ni-qsnap-official", [0.01], [{}], eos=False),  # measured no properties: not here
    ]


def test_the_table_holds_means_spreads_and_the_value_that_was_read(tmp_path, outcomes):
    write_potentials(tmp_path / "out", outcomes, CLAIMS)
    table = {(row["potential"], row["quantity"]): row for row in read_table(tmp_path / "out" / "potentials.csv")}
    assert {potential for potential, _ in table} == {"snap-official", "snap"}
    assert table["snap", "forces rmse"]["value"] == "50" and table["snap", "forces rmse"]["unit"] == "meV/angstrom"
    assert float(table["snap", "c11"]["value"]) == 275 and float(table["snap", "c11"]["std"]) == pytest.approx(7.07107)
    assert table["snap", "c12"]["n_seeds"] == "1"  # a seed without a value is not counted as zero
    assert (table["snap", "c11"]["reference"], table["snap", "c11"]["seen"]) == ("276", "recalled")
    assert (table["snap", "c12"]["reference"], table["snap", "c12"]["seen"]) == (
        "160",
        "verbatim",
    )  # read
    assert table["snap", "cost"]["reference"] == ""


def test_a_table_per_material_with_recalled_values_marked(tmp_path, outcomes):
    write_potentials(tmp_path / "out", outcomes, CLAIMS)
    (nickel,) = pivot(read_table(tmp_path / "out" / "potentials.csv"))
    assert nickel["material"] == "Ni" and nickel["potentials"] == ["SNAP, official", "SNAP"]
    lines = {line["quantity"]: line for line in nickel["lines"]}
    assert list(lines)[:2] == ["forces RMSE", "forces RMSE, train"]
    assert lines["c11"]["cells"] == ["283", "275 ± 7.071"] and lines["c11"]["seen"] == "recalled"
    said = (tmp_path / "out" / "potentials.md").read_text()
    assert "276 (*recalled*)" in said and "160 |" in said


def test_cost_and_curves_are_drawn(tmp_path, outcomes):
    drawn = write_potentials(tmp_path / "out", outcomes, CLAIMS)
    assert {path.name for path in drawn} == {"cost-errors.png", "physics-ni.png"}
    assert all(path.stat().st_size > 5000 for path in drawn)


def test_a_value_that_could_not_be_measured_is_said_so(tmp_path):
    only = outcome(tmp_path, "ni-snap", [0.05], [{"c11": None, "cost": 0.2}], eos=False)
    drawn = write_potentials(tmp_path / "out", [only], CLAIMS)
    (nickel,) = pivot(read_table(tmp_path / "out" / "potentials.csv"))
    assert {line["quantity"]: line["cells"] for line in nickel["lines"]}["c11"] == ["not measured"]
    assert {path.name for path in drawn} == {"cost-errors.png"}


def test_runs_without_properties_leave_no_table(tmp_path):
    only = outcome(tmp_path, "ni-snap", [0.05], [{}], eos=False)
    assert write_potentials(tmp_path / "out", [only], CLAIMS) == set()
    assert not (tmp_path / "out").exists()
