"""For every reader a made-up dataset of two or three rows in the form of the real files."""

import base64
import json
from dataclasses import dataclass, field
from functools import cache

import numpy as np

from hostile import Built, Json, Text, database, gzipped, npy, npz, object_npy, parquet, pickled, zipped
from projects import Project, member

NOWHERE = "http://127.0.0.1:9/"
EV = "eV/atom"
SALT = (np.array([11, 17]), np.array([[0.0, 0, 0], [0.5, 0.5, 0.5]]), np.diag([3.5, 4.0, 5.0]))  # fractional


@dataclass(frozen=True)
class Specimen:
    """A dataset as it is written: files by name, targets by name as (unit, column, per), and the rows that are read."""

    reader: str
    files: dict[str, Text | Json | Built]
    rows: int
    targets: dict[str, tuple] = field(default_factory=dict)
    kind: str = "structures"
    periodic: bool = True

    def contents(self) -> dict[str, bytes]:
        return {name: file.content() for name, file in self.files.items()}

    def put(self, project: Project, contents: dict[str, bytes]) -> str:
        """Write these files and a card that expects exactly them; returns the name of the dataset."""
        folder, members = project.data / "bad", []
        for name, content in contents.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)
            members.append(member(name, content, name))
        targets = {
            name: {"unit": unit, "column": column, "per": per, "description": "d"}
            for name, (unit, column, per) in self.targets.items()
        }
        source = {"kind": "url", "url": NOWHERE, "members": members}
        fields = {"reader": self.reader, "kind": self.kind, "periodic": self.periodic, "targets": targets}
        project.card("bad", source, **fields)
        return "bad"


def _of_matminer() -> Specimen:
    lattice = {"lattice": {"matrix": SALT[2].tolist()}}
    sites = [
        {"abc": place, "species": [{"element": symbol, "occu": 1}]}
        for place, symbol in zip(SALT[1].tolist(), ("Na", "Cl"), strict=True)
    ]
    structure = str(lattice | {"sites": sites})
    lines = ["# reference", "material_id,value,structure", *(f'mp-{k},{k}.5,"{structure}"' for k in (1, 2))]
    text = Text("\n".join(lines) + "\n", table=True)
    return Specimen("matminer_csv", {"a.csv": text}, 2, {"energy": (EV, "value", "structure")})


POSCAR = "Na Cl\n1.0\n3.5 0 0\n0 4.0 0\n0 0 5.0\nNa Cl\n1 1\ndirect\n0 0 0\n0.5 0.5 0.5\n"


def _of_matminer_poscar() -> Specimen:
    rows = "\n".join(f'{k},mp-{k},{k}.5,"{POSCAR}"' for k in (1, 2))
    text = Text(f"# reference\nmaterial_id,value,poscar\n{rows}\n", table=True)
    return Specimen("matminer_csv", {"a.csv": text}, 2, {"energy": (EV, "value", "structure")})


def _of_mp_sample() -> Specimen:
    columns = {
        "core.material_id": ["mp-1", "mp-2"],
        "core.atomic_numbers": [SALT[0].tolist()] * 2,
        "core.frac_coords": [SALT[1].tolist()] * 2,
        "core.lattice": [SALT[2].ravel().tolist()] * 2,
        "core.gap": [1.0, 2.0],
    }
    return Specimen("mp_sample", {"t.parquet": Built(columns, parquet)}, 2, {"gap": ("eV", "core.gap", "structure")})


def _of_mlearn() -> Specimen:
    def frame(k: int) -> dict:
        atoms = {"lattice_mat": SALT[2].tolist(), "coords": SALT[1].tolist(), "elements": ["Ni", "Ni"]}
        return {"atoms": atoms | {"cartesian": False}, "total_energy": -k, "forces": [[0.1 * k, 0, 0], [0, 0, 0]]}

    targets = {"energy_per_atom": (EV, None, "structure"), "forces": ("eV/angstrom", None, "atom")}
    return Specimen("mlearn", {"f.json": Json([frame(1), frame(2), frame(2)])}, 2, targets)


def _of_oc20() -> Specimen:
    values = {"positions": SALT[1] @ SALT[2], "cell": SALT[2], "energy": -7.0, "forces": np.ones((2, 3))}
    targets = {"energy_per_atom": (EV, None, "structure"), "max_force": ("eV/angstrom", None, "structure")}
    entries = {f"mp-{k}": dict(values) for k in (1, 2)}
    return Specimen("oc20_bulks", {"b.pkl": Built(entries, _ase_pickle)}, 2, targets)


def _ase_pickle(entries: dict) -> bytes:
    """A list of entries around ASE's Atoms, whose parts are put in after they were made: ASE would refuse bad ones."""
    import ase
    from ase.calculators.singlepoint import SinglePointCalculator

    listed = []
    for name, values in entries.items():
        atoms = ase.Atoms("NaCl", positions=np.zeros((2, 3)), pbc=True)
        atoms.calc = SinglePointCalculator(atoms, energy=0.0, forces=np.zeros((2, 3)))
        atoms.arrays["positions"], atoms._cellobj.array = values.get("positions"), values.get("cell")
        atoms._calc.results = {key: values[key] for key in ("energy", "forces") if key in values}
        listed.append({"atoms": atoms, "src_id": name})
    return pickled(listed)


def _of_qm9() -> Specimen:
    header = "XYZ_file,N_atoms,Elements,XYZ_Ang,Harmonic_Freq_cmi,mu,u0"
    water = "\"['O','H','H']\",\"[[0,0.98,0],[0.06,0.02,0],[0.87,1.3,0]]\",\"[1671.4,3907.6]\",1.8,-76.4"
    text = Text("\n".join([header, f"m1.xyz,3,{water}", f"m2.xyz,3,{water}"]) + "\n", table=True)
    targets = {
        "mu": ("debye", None, "structure"),
        "u0": ("eV", None, "structure"),
        "omega1": ("cm^-1", "Harmonic_Freq_cmi", "structure"),
    }
    return Specimen("qm9", {"a.csv": text}, 2, targets, periodic=False)


def _of_jarvis() -> Specimen:
    text = POSCAR.replace("\n", "\\n")
    structures = {"train": {"JVASP-1": text}, "val": {}, "test": {"JVASP-2": text}}
    values = {"train": {"JVASP-1": 1.0, "JVASP-9": 2.0}, "val": {}, "test": {"JVASP-2": -1.0}}
    files = {"AtomGen/s.json.zip": Json(structures, zipped), "Task/dft_ef.json.zip": Json(values, zipped)}
    return Specimen("jarvis_dft", files, 2, {"energy": (EV, "Task/dft/ef", "structure")})


def _of_perov5() -> Specimen:
    cell, places = SALT[2].tolist(), SALT[1].tolist()
    rows = [f'{part},{part}-1,Na Cl,1.5,"{cell}","{places}"' for part in ("train", "val", "test")]
    text = Text("\n".join(["split,material_id,species,heat_ref,lattice,frac", *rows]) + "\n", table=True)
    targets = {"heat_ref": (EV, None, "structure"), "edge": ("angstrom", None, "structure")}
    return Specimen("perov5", {"p.csv": text}, 3, targets)


CIF = """data_x
_cell_length_a 3.5
_cell_length_b 4.0
_cell_length_c 5.0
_cell_angle_alpha 90
_cell_angle_beta 90
_cell_angle_gamma 90
_symmetry_space_group_name_H-M 'P 1'
_symmetry_Int_Tables_number 1
loop_
_symmetry_equiv_pos_as_xyz
'x, y, z'
loop_
_atom_site_label
_atom_site_type_symbol
_atom_site_fract_x
_atom_site_fract_y
_atom_site_fract_z
_atom_site_occupancy
Na1 Na 0 0 0 1
Cl1 Cl 0.5 0.5 0.5 1
"""


def _of_mp20() -> Specimen:
    header = "material_id,formation_energy_per_atom,elements,cif\n"
    files = {
        f"{part}.csv.gz": Text(f"{header}{part}-1,-1.5,\"['Na', 'Cl']\",\"{CIF}\"\n", gzipped, table=True)
        for part in ("val", "test")
    }
    targets = {"ef": (EV, "formation_energy_per_atom", "structure"), "n_elements": ("1", None, "structure")}
    return Specimen("mp20", files, 2, targets)


def _of_xca() -> Specimen:
    files = {f"cifs-A/{name}.cif": Text(CIF) for name in ("one", "two")}
    return Specimen("xca_cifs", files, 2, {"space_group": ("1", None, "structure")})


def _of_amcsd() -> Specimen:
    def packed(*values: float) -> str:
        return base64.b64encode(np.round(np.array(values) * 4e6).astype("<i4").tobytes()).decode()

    entry = dict.fromkeys("abc", "4.12") | dict.fromkeys(("alpha", "beta", "gamma"), "90")
    entry |= {"formula": "Cs Cl", "crystal_density": "4.0", "atoms_sites": json.dumps(["Cs", "Cl1"])}
    entry |= {f"atoms_{axis}": packed(0, 0.5) for axis in "xyz"} | {"atoms_occupancy": "0"}
    tables = {
        "cif": [{"id": str(k)} | entry | {"spacegroup_id": "1", "mineral_id": "1"} for k in (1, 2)],
        "spacegroups": [{"id": "1", "hm_notation": "P 1", "symmetry_xyz": json.dumps(["x,y,z"])}],
        "minerals": [{"id": "1", "name": "Made"}],
    }
    targets = {
        "space_group": ("1", None, "structure"),
        "mineral": ("1", None, "structure"),
        "a": ("A", None, "structure"),
    }
    return Specimen("amcsd", {"amcsd_cif1.db": Built(tables, database)}, 2, targets)


def _of_mp_2018() -> Specimen:
    arrays = {
        "ids": np.array(["mp-1", "mp-2"]),
        "split": np.array(["train", "test"]),
        "n_atoms": np.array([2, 2]),
        "cellpar": np.array([[3.5, 4.0, 5.0, 90, 90, 90]] * 2),
        "Z": np.tile(SALT[0], 2),
        "frac": np.tile(SALT[1], (2, 1)),
        "ef": np.array([1.0, 2.0]),
    }
    return Specimen("mp_2018", {"a.npz": Built(arrays, npz)}, 2, {"energy": (EV, "ef", "structure")})


def _of_rmd17() -> Specimen:
    frames = np.stack([SALT[1] * k for k in (1, 2, 3)])
    arrays = {"Z": np.array([8, 1]), "pos": frames, "forces": frames / 10, "energy": np.array([1.0, 2.0, 3.0])}
    arrays |= {"split": np.array(["train_01", "test_01", "train_02"])}
    targets = {"energy": ("eV", None, "structure"), "forces": ("eV/angstrom", None, "atom")}
    return Specimen("rmd17", {"a.npz": Built(arrays, npz)}, 3, targets, periodic=False)


def _of_images() -> Specimen:
    image = np.zeros((30, 3))
    image[0], image[1] = 6.0 / 30, 90 / 180
    image[2], image[18], image[19] = 1 / 6, 0.5, 0.4
    files = {
        "unique_sc_mgmno.npy": Built({"array": np.stack([image, image * 1.01])}, npy),
        "unique_sc_mgmno_name_list": Built(["a.cif", "b.cif"], pickled),
    }
    return Specimen("mg_mn_o_images", files, 2, {"n_atoms": ("1", None, "structure")})


def _of_batio3_ramp() -> Specimen:
    files = {f"BTO_{k}K_tth.npy": Built({"array": np.linspace(0, 1, 3488)}, npy) for k in (150, 155)}
    return Specimen("batio3_ramp", files, 2, kind="patterns")


def _of_rruff() -> Specimen:
    mineral = {"features": np.linspace(0, 1000, 8500), "labels7": 6, "labels230": 224}
    files = {f"{name}.npy": Built(mineral, object_npy) for name in "ab"}
    return Specimen("rruff_patterns", files, 2, kind="patterns")


def _of_ssrl() -> Specimen:
    table = "Material,Name,Crystal System,a,b,c,alpha,beta,gamma,Wavelength\n"
    table += "".join(f"P{k},LaB6,cubic,4.1,4.1,4.1,90,90,90,0.7\n" for k in (1, 2))
    curve = "".join(f"{k} {k * 2}.5\n" for k in range(1, 6))
    files = {"ssrl_labels.csv": Text(table, table=True)} | {f"XYdata/P{k}.xy": Text(curve) for k in (1, 2)}
    return Specimen("ssrl_patterns", files, 2, kind="patterns")


def _of_rockjock() -> Specimen:
    curve = {"tth": [5.0, 5.1, 5.2], "counts": [1.0, 2.0, 3.0]}
    weights = {"sample_id": ["M1", "M2"]} | {
        name: [10.0, 20.0]
        for name in ("Quartz", "K_feldspar", "Plagioclase", "Kaolinite", "Dioctahedral_smectite", "Illite", "Corundum")
    }
    files = {
        "rockjock_mixtures.rda": Built({"rockjock_mixtures": {"M1": curve, "M2": curve}}, _rda),
        "rockjock_weights.rda": Built({"rockjock_weights": weights}, _rda),
    }
    return Specimen("rockjock", files, 2, kind="patterns")


def _rda(objects: dict) -> bytes:
    """R data; dictionaries of columns become data frames, others named lists."""
    import tempfile
    from pathlib import Path

    import pandas as pd
    import rdata

    def held(value):
        if not isinstance(value, dict):
            return value
        lists = value and all(isinstance(part, list) for part in value.values())
        return pd.DataFrame(value) if lists else {key: held(part) for key, part in value.items()}

    with tempfile.TemporaryDirectory() as folder:
        rdata.write_rda(Path(folder) / "a.rda", {name: held(value) for name, value in objects.items()})
        return (Path(folder) / "a.rda").read_bytes()


def _of_thermoelectrics() -> Specimen:
    text = Text("mp_id,Seebeck,Powerfactor\nmp-1,450.0,839.4\nmp-2,,\n", table=True)
    return Specimen("thermoelectrics", {"t.csv": text}, 1, kind="targets")


@cache
def specimens() -> dict[str, Specimen]:
    """All of them, by reader and where a reader knows two forms by its form too."""
    made = {
        "matminer_csv": _of_matminer,
        "matminer_csv-poscar": _of_matminer_poscar,
        "mp_sample": _of_mp_sample,
        "mlearn": _of_mlearn,
        "oc20_bulks": _of_oc20,
        "qm9": _of_qm9,
        "jarvis_dft": _of_jarvis,
        "perov5": _of_perov5,
        "mp20": _of_mp20,
        "xca_cifs": _of_xca,
        "amcsd": _of_amcsd,
        "mp_2018": _of_mp_2018,
        "rmd17": _of_rmd17,
        "mg_mn_o_images": _of_images,
        "batio3_ramp": _of_batio3_ramp,
        "rruff_patterns": _of_rruff,
        "ssrl_patterns": _of_ssrl,
        "rockjock": _of_rockjock,
        "thermoelectrics": _of_thermoelectrics,
    }
    return {name: make() for name, make in made.items()}
