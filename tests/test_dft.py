"""Candidates by first principles: what goes to the engine, what is made of its answer, and one real calculation.

Most tests run a stand-in for the Python that has GPAW: it answers with numbers set here.
"""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.io import write
from ase.neighborlist import neighbor_list

from replimat.cards import project_root
from replimat.errors import DataError, ReplimatError
from replimat.experiments import candidates
from replimat.physics import dft
from replimat.physics.element_references import CRYSTALS, reference

STAND_IN = """#!{python}
import json, sys
from pathlib import Path
if sys.argv[1] == "-c":
    print(json.dumps({{"gpaw": "0.0", "elements": ["Mg", "Mn", "O"]}}))
    raise SystemExit
job, result = json.loads(Path(sys.argv[2]).read_text()), Path(sys.argv[3])
if job["atoms"]["numbers"] == [8] * 8:
    raise SystemExit("memory ran out")
print("step 0", flush=True)
calls = result.parent / "calls"
calls.write_text(calls.read_text() + "x" if calls.exists() else "x")
per_atom = {{12: -2.0, 8: -5.0, 25: -9.0}}
numbers = job["atoms"]["numbers"]
bound = -13.0 if len(set(numbers)) > 1 else 0.0
moments = job["atoms"]["magmoms"]
known = {{"energy": sum(per_atom[z] for z in numbers) + bound, "forces": [[0.3, 0, 0.4]] * len(numbers)}}
known |= {{"stress": [0.1, 0.2, 0.3, 0, 0, 0], "gap": 4.5, "magmoms": moments, "kpoints": [8, 8, 8]}}
known |= {{"magnetic_moment": None if moments is None else sum(moments), "converged": True, "failed": ""}}
if 25 in numbers and 8 in numbers:
    known = {{"converged": False, "failed": "no self-consistency after 150 iterations"}}
known |= {{"steps": 3, "relaxed": None if job["relax"] == "none" else True, "atoms": job["atoms"]}}
known |= {{"versions": {{"gpaw": "0.0"}}, "paw_data": {{}}, "seconds": 1.0, "processes": 1}}
result.write_text(json.dumps(known))
"""


@pytest.fixture
def engine(tmp_path, monkeypatch):
    """The stand-in in place of GPAW's Python."""
    script = tmp_path / "python"
    script.write_text(STAND_IN.format(python=sys.executable))
    script.chmod(0o755)
    monkeypatch.setenv(dft.PYTHON, str(script))
    dft.find_engine.cache_clear()
    yield
    dft.find_engine.cache_clear()


def rocksalt(a=4.21, metal="Mg") -> Atoms:
    return bulk(f"{metal}O", "rocksalt", a=a)


def cif(folder: Path, atoms: Atoms) -> Path:
    write(folder / "one.cif", atoms)
    return folder / "one.cif"


class TestElements:
    @pytest.mark.parametrize(
        ("symbol", "bond", "neighbours"),
        [
            ("B", 1.675, 5),
            ("C", 1.421, 3),
            ("P", 2.223, 3),
            ("S", 2.036, 2),
            ("Ga", 2.469, 3),
            ("Se", 2.373, 2),
            ("Br", 2.268, 1),
            ("Te", 2.836, 2),
            ("I", 2.715, 1),
        ],
    )
    def test_bonds_of_crystals_with_more_than_one_kind_of_neighbour(self, symbol, bond, neighbours):
        """Measured bond lengths and the fewest neighbours within 10 % of them: a mistyped coordinate breaks one."""
        assert symbol in CRYSTALS
        atoms = reference(symbol).atoms
        near = neighbor_list("d", atoms, 4.0)
        assert near.min() == pytest.approx(bond, abs=0.003)
        first = neighbor_list("i", atoms, near.min() * 1.1)
        assert np.bincount(first, minlength=len(atoms)).min() == neighbours

    def test_sulphur_is_rings_of_eight(self):
        atoms = reference("S").atoms
        sizes = np.linalg.matrix_power(np.eye(32) + _bonded(atoms, 2.2), 32).astype(bool).sum(axis=1)
        assert set(sizes) == {8}

    def test_oxygen_is_the_triplet_and_manganese_has_no_net_moment(self):
        assert reference("O").atoms.get_initial_magnetic_moments().sum() == 2
        moments = reference("Mn").atoms.get_initial_magnetic_moments()
        assert abs(moments).min() > 2 and moments.sum() == 0
        assert "ground state" in reference("Mn").note

    def test_where_dispersion_binds_nothing_is_relaxed(self):
        assert [reference(symbol).relax for symbol in ("C", "I", "Mg", "O")] == ["none", "none", "cell", "atoms"]

    def test_an_element_without_a_crystal_is_an_error(self):
        with pytest.raises(DataError, match="He"):
            reference("He")


class TestCandidate:
    def test_its_primitive_cell_is_taken(self, tmp_path):
        atoms = dft.candidate(cif(tmp_path, bulk("MgO", "rocksalt", a=4.21, cubic=True)))
        assert sorted(atoms.numbers) == [8, 12]
        assert atoms.get_volume() == pytest.approx(4.21**3 / 4)

    def test_sites_a_little_apart_are_not_made_one(self, tmp_path):
        """Twice the cell with one atom moved by 0.1 angstrom has no smaller cell."""
        atoms = rocksalt() * (2, 1, 1)
        atoms.positions[1] += 0.1
        assert len(dft.candidate(cif(tmp_path, atoms))) == 4

    def test_what_no_calculation_should_be_spent_on(self, tmp_path):
        close = Atoms("MgO", positions=[(0, 0, 0), (0, 0, 0.3)], cell=[4, 4, 4], pbc=True)
        with pytest.raises(DataError, match=r"0\.30 angstrom apart"):
            dft.candidate(cif(tmp_path, close))
        large = rocksalt() * (3, 3, 3)
        large.rattle(0.2, seed=1)
        with pytest.raises(DataError, match="54 atoms"):
            dft.candidate(cif(tmp_path, large))
        (tmp_path / "broken.cif").write_text("data_x\n")
        for name in ("broken.cif", "absent.cif"):
            with pytest.raises(DataError, match=name):
                dft.candidate(tmp_path / name)

    def test_partly_occupied_sites_are_refused(self, tmp_path):
        path = cif(tmp_path, rocksalt())
        path.write_text(re.sub(r"( O1 .*)1\.0000", r"\g<1>0.5000", path.read_text()))
        with pytest.raises(DataError, match="partly"):
            dft.candidate(path)


class TestJob:
    def test_says_all_that_decides_the_result(self):
        job = dft.job_of(rocksalt(), dft.Settings(cutoff=600.0), "cell")
        assert json.loads(json.dumps(job)) == job
        assert job["atoms"]["numbers"] == [12, 8] and job["atoms"]["magmoms"] is None
        assert job["settings"]["cutoff"] == 600 and job["settings"]["xc"] == "PBE"
        assert (job["relax"], job["molecule"]) == ("cell", False)

    def test_spin_only_beside_a_magnetic_metal(self):
        assert dft.job_of(dft.with_moments(rocksalt()), dft.Settings())["atoms"]["magmoms"] is None
        assert dft.job_of(dft.with_moments(rocksalt(4.44, "Mn")), dft.Settings())["atoms"]["magmoms"] == [5.0, 0.6]

    def test_runs_once(self, engine, tmp_path):
        job, told = dft.job_of(rocksalt(), dft.Settings()), []
        first = dft.run_job(job, tmp_path / "jobs", "MgO", say=told.append)
        assert dft.run_job(job, tmp_path / "jobs", "MgO", say=told.append) == first
        assert (tmp_path / "jobs" / "calls").read_text() == "x"
        assert "  step 0" in told and "known" in told[-1]
        dft.run_job(dft.job_of(rocksalt(), dft.Settings(cutoff=600.0)), tmp_path / "jobs", "MgO", say=told.append)
        assert (tmp_path / "jobs" / "calls").read_text() == "xx"

    def test_an_engine_that_fails_is_one_line(self, engine, tmp_path):
        with pytest.raises(ReplimatError, match=r"Odd failed \(memory ran out\)"):
            dft.run_job(dft.job_of(Atoms("O8", pbc=True), dft.Settings()), tmp_path, "Odd", say=str)

    def test_without_an_engine_it_says_what_to_install(self, monkeypatch):
        monkeypatch.setenv(dft.PYTHON, "/nowhere/python3")
        dft.find_engine.cache_clear()
        with pytest.raises(ReplimatError, match=r"apt install gpaw gpaw-data.*VARIANT=dft.*REPLIMAT_DFT_PYTHON"):
            dft.find_engine()


class TestCheck:
    def test_formation_energy_by_hand(self, engine, tmp_path):
        """E(MgO) = -20, Mg -2, O -5 eV: (-20 + 7) / 2; the oxide correction is -0.6875 eV for each oxygen."""
        found = dft.check(rocksalt(), tmp_path, relax=True, say=str)
        for stage in ("as_given", "relaxed"):
            assert found[stage]["energy"] == -20
            assert found[stage]["formation_energy"] == pytest.approx(-6.5)
            assert found[stage]["formation_energy_corrected"] == pytest.approx(-6.5 - 0.687 / 2, abs=1e-3)
        assert found["elements"]["Mg"]["energy"] == -2 and found["elements"]["O"]["energy"] == -5

    def test_forces_and_pressure_in_common_units(self, engine, tmp_path):
        """A stress of 0.2 eV/A^3 pulls: its pressure is negative; 1 eV/A^3 is 160.2177 GPa."""
        found = dft.check(rocksalt(), tmp_path, say=str)["as_given"]
        assert found["max_force"] == pytest.approx(0.5)
        assert found["pressure"] == pytest.approx(-0.2 * 160.2177, rel=1e-5)
        assert found["volume"] == pytest.approx(4.21**3 / 8)

    def test_what_does_not_converge_has_no_energy(self, engine, tmp_path):
        found = dft.check(rocksalt(4.44, "Mn"), tmp_path, say=str)
        assert found["spin_polarised"] and not found["as_given"]["converged"]
        assert "energy" not in found["as_given"] and "150 iterations" in found["as_given"]["failed"]
        assert found["elements"] == {}

    def test_an_element_without_data_is_named(self, engine, tmp_path):
        with pytest.raises(DataError, match="no PAW data for Al, Zn"):
            dft.check(bulk("ZnAl", "cesiumchloride", a=3.0), tmp_path, say=str)

    def test_a_missing_element_leaves_no_formation_energy(self):
        elements = {"Mg": {"energy": -2.0}, "O": {"energy": None}}
        assert dft.formation_energy(-20.0, rocksalt(), elements) is None

    @pytest.mark.parametrize(
        ("atoms", "correction"),
        [
            (rocksalt(), -0.687),
            (rocksalt(4.44, "Mn"), -0.687),  # the part for oxygen alone: no +U, so no part for manganese
            (bulk("NaCl", "rocksalt", a=5.64), -0.614),
            (bulk("Mg"), 0.0),
        ],
    )
    def test_anion_correction(self, atoms, correction):
        """Values of table 1 of A. Wang et al. (2021), eV per anion."""
        assert dft.anion_correction(atoms, -20.0) == pytest.approx(correction, abs=2e-3)


class TestRecord:
    def test_one_row_a_calculation(self, engine, tmp_path, monkeypatch):
        monkeypatch.setattr(candidates, "project_root", lambda: tmp_path)
        monkeypatch.setattr(candidates, "surrogates", lambda atoms: {"cgcnn": {"band_gap": 4.0}, "chgnet": {}})
        good = candidates.check_candidate(cif(tmp_path, rocksalt()), "laptop", relax=True, say=str)
        (tmp_path / "bad").mkdir()
        bad = cif(tmp_path / "bad", rocksalt(4.44, "Mn")).rename(tmp_path / "bad" / "two.cif")
        candidates.check_candidate(bad, "laptop", say=str)
        folder = tmp_path / "results" / "laptop" / "dft"
        assert json.loads((folder / "one.json").read_text()) == good
        table = candidates.write_table(folder)
        assert list(table["name"]) == ["one", "one", "two"]
        assert list(table["status"]) == ["converged"] * 2 + ["no self-consistency after 150 iterations"]
        assert table["formation_energy"][0] == pytest.approx(-6.5) and np.isnan(table["formation_energy"][2])
        text = (folder / "table.md").read_text()
        assert "band_gap [eV] | band_gap by cgcnn" in text and "nan" not in text

    def test_names_tell_the_generator(self):
        folder = Path("results/laptop/papers/cdvae/crystals")
        assert candidates.name_of(folder / "mp-20" / "01-MgO.cif") == "cdvae-mp-20-01-MgO"
        assert candidates.name_of(folder / "01-MgO.cif") == "cdvae-01-MgO"
        assert candidates.name_of(Path("one/MgO.cif")) == "MgO"

    def test_a_surrogate_that_cannot_says_why(self, monkeypatch):
        def missing(atoms):
            raise ImportError("No module named 'chgnet'")

        monkeypatch.setattr(candidates, "_chgnet", missing)
        monkeypatch.setattr(candidates, "_cgcnn", lambda atoms: {"band_gap": 1.0})
        assert candidates.surrogates(rocksalt()) == {
            "cgcnn": {"band_gap": 1.0},
            "chgnet": {"missing": "No module named 'chgnet'"},
        }


class TestSuite:
    def dry_run(self, folder: Path, *config: str) -> subprocess.CompletedProcess:
        """The rules of workflow/dft.smk alone: the whole suite takes its time to plan."""
        rules = project_root() / "workflow" / "dft.smk"
        (folder / "Snakefile").write_text(f'from pathlib import Path\nSCALE = "smoke"\ninclude: "{rules}"\n')
        command = [Path(sys.executable).with_name("snakemake"), "--cores", "2", "--dry-run", "--printshellcmds"]
        return subprocess.run(
            [*command, *(["--config", *config] if config else []), "--", "dft"],
            cwd=folder,
            capture_output=True,
            text=True,
        )

    def test_the_rule_checks_what_is_named(self, tmp_path):
        path = cif(tmp_path, rocksalt())
        done = self.dry_run(tmp_path, f"candidate={path}", "relax=true")
        assert done.returncode == 0, done.stdout + done.stderr
        assert f"replimat dft {path} --scale smoke --relax --processes 2" in done.stdout + done.stderr
        assert "results/smoke/dft/one.json" in done.stdout + done.stderr

    def test_without_a_candidate_it_says_how(self, tmp_path):
        done = self.dry_run(tmp_path)
        assert done.returncode == 1 and "--config candidate=FILE.cif" in done.stdout + done.stderr

    def test_it_is_no_part_of_all(self):
        """`rule all` asks for the page alone; nothing of the page asks for a calculation."""
        workflow = project_root() / "workflow"
        others = [path.read_text() for path in workflow.glob("*.smk") if path.name != "dft.smk"]
        assert not any("/dft/" in text for text in [*others, (project_root() / "Snakefile").read_text()])

    def test_the_image_runs_without_root(self):
        dockerfile = (project_root() / "Dockerfile").read_text()
        stage = re.search(r"^FROM python AS dft\n(.*?)(?=^FROM )", dockerfile, re.MULTILINE | re.DOTALL)[1]
        assert re.findall(r"^USER (\S+)", stage, re.MULTILINE) == ["1000:1000"]
        assert "install --yes --no-install-recommends gpaw gpaw-data " in stage
        assert "--from=packages-cpu " in stage


@pytest.mark.peer
class TestGPAW:
    """Aluminium of PBE: a = 4.04 angstrom; at settings this modest to 1 %."""

    @pytest.fixture(autouse=True)
    def installed(self, monkeypatch):
        monkeypatch.setenv("OMPI_ALLOW_RUN_AS_ROOT", "1")
        dft.find_engine.cache_clear()
        try:
            dft.find_engine()
        except ReplimatError as error:
            pytest.skip(str(error))

    def test_aluminium(self, tmp_path):
        modest = dft.Settings(cutoff=350.0, kpoint_density=2.0, smearing=0.2)
        told = []
        found = dft.check(bulk("Al", a=3.95), tmp_path, modest, relax=True, say=told.append)
        relaxed = found["relaxed"]
        assert relaxed["relaxed"] and relaxed["converged"] and relaxed["band_gap"] == 0
        assert (4 * relaxed["volume"]) ** (1 / 3) == pytest.approx(4.04, rel=0.01)
        assert found["as_given"]["pressure"] > 2 > abs(relaxed["pressure"])
        assert relaxed["formation_energy"] == pytest.approx(0, abs=5e-3)
        assert found["engine"]["paw_data"].keys() == {"Al"}
        assert any("step 1" in line for line in told)


def _bonded(atoms: Atoms, cutoff: float) -> np.ndarray:
    """Adjacency [n, n] of atoms nearer than a cutoff."""
    i, j = neighbor_list("ij", atoms, cutoff)
    matrix = np.zeros((len(atoms), len(atoms)))
    matrix[i, j] = 1
    return matrix
