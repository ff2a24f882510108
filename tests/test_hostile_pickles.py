"""Pickles, checkpoints and YAML that attack: nothing of them runs, and one error says what was asked for."""

import copyreg
import os
import pickle
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hostile import REPEATABLE, damaged, object_npy
from projects import Project
from replimat import cards, sources
from replimat.datasets import oc20_bulks
from replimat.errors import CardError, DataError, SourceError
from replimat.models.alignn import load_author_weights
from replimat.models.cgcnn import load_author_checkpoint
from replimat.models.released import load_released
from replimat.sources.pickles import NUMPY_GLOBALS, Array, PlainDtype

QUICK = settings(REPEATABLE, max_examples=150)
LISTS = {"nothing": {}, "numpy": NUMPY_GLOBALS, "oc20_bulks": oc20_bulks.ALLOWED}  # every one that is used
ATTACKS_ON = "replimat_attacked"  # an environment variable: an attack that ran sets it


@pytest.fixture
def unharmed():
    """Fails where an attack ran."""
    yield
    assert os.environ.pop(ATTACKS_ON, None) is None


class Call:
    """Pickles as a call of a function with arguments."""

    def __init__(self, function, *arguments):
        self.called = function, arguments

    def __reduce__(self):
        return self.called


HARM = f"__import__('os').environ.__setitem__('{ATTACKS_ON}', 'yes')"


def named(module: str, name: str, protocol4: bool = True) -> bytes:
    """Opcodes that put a global on the stack, by STACK_GLOBAL or by GLOBAL."""
    if not protocol4:
        return f"c{module}\n{name}\n".encode()
    short = [b"\x8c" + bytes([len(part.encode())]) + part.encode() for part in (module, name)]
    return b"".join(short) + b"\x93"


def call(module: str, name: str, argument: str, protocol4: bool = True) -> bytes:
    text = argument.encode()
    return (
        (b"\x80\x04" if protocol4 else b"")
        + named(module, name, protocol4)
        + b"\x8c"
        + bytes([len(text)])
        + text
        + b"\x85R."
    )


def by_name() -> dict[str, bytes]:
    """Attacks that name what they call: as one global, or a path of attributes from one that is allowed."""
    functions = {
        "eval": ("builtins", "eval", HARM),
        "exec": ("builtins", "exec", HARM),
        "old builtins": ("__builtin__", "eval", HARM),
        "system": ("os", "system", "true"),
        "posix": ("posix", "system", "true"),
        "popen": ("subprocess", "getoutput", "true"),
        "import": ("builtins", "__import__", "antigravity"),
        "import_module": ("importlib", "import_module", "antigravity"),
        "open": ("builtins", "open", "/etc/passwd"),
        "run": ("runpy", "run_path", "/etc/passwd"),
        "pickle": ("pickle", "loads", "x"),
        "torch": ("torch", "load", "x"),
        "numpy's exec": ("numpy.testing._private.utils", "runstring", HARM),
        "numpy's load": ("numpy", "load", "x"),
        "numpy's f2py": ("numpy.f2py.crackfortran", "myeval", HARM),
        "numpy's fromfile": ("numpy", "fromfile", "/etc/passwd"),
        "dots from numpy": ("numpy", "ndarray.tofile", "x"),
        "dots from a stand-in": ("numpy", "dtype.__init__.__globals__", "x"),
        "dots from a module": ("numpy.core.multiarray", "_reconstruct.__globals__", "x"),
        "dots from a record": ("ase.atoms", "Atoms.__init__.__globals__", "x"),
        "the stand-in itself": ("replimat.sources.pickles", "load_pickle", "x"),
        "a name in another case": ("NumPy", "ndarray", "x"),
        "a name with a blank": ("numpy ", "ndarray", "x"),
    }
    attacks = {name: call(*parts) for name, parts in functions.items()}
    return attacks | {f"{name}, protocol 0": call(*parts, protocol4=False) for name, parts in functions.items()}


def by_shape() -> dict[str, bytes]:
    """Attacks that are hidden in something else."""
    nested = Call(eval, HARM)
    for _ in range(50):
        nested = [{"deep": (nested,)}]
    objects = np.empty(2, dtype=object)
    objects[:] = [1, Call(eval, HARM)]
    attacks = {
        "nested": nested,
        "a key": {Call(eval, HARM): 1},
        "an object array": objects,
        "a constructor": Call(copyreg._reconstructor, dict, object, None),
        "getattr": Call(getattr, Call(eval, "1"), "real"),
        "a partial": Call(__import__("functools").partial, eval),
        "an attribute getter": Call(__import__("operator").attrgetter, "__class__"),
        "a method caller": Call(__import__("operator").methodcaller, "x"),
    }
    return {name: pickle.dumps(attack, protocol=4) for name, attack in attacks.items()} | {
        "an instance": b"(S'x'\nios\nsystem\n.",
        "an object of a class": b"(cos\nsystem\nS'true'\no.",
        "a state that is set": named("subprocess", "Popen") + b")\x81}b.",
        "an extension": b"\x80\x02\x82\x01.",
        "outside": b"Pelsewhere\n.",
        "outside by its id": b"\x80\x02K\x01Q.",
        "a memo that is not there": b"\x80\x02h\x05.",
        "a stop alone": b".",
        "no stop": b"\x80\x04K\x01",
        "a length that lies": b"\x80\x04\x8e" + struct.pack("<Q", 1 << 60) + b"x.",
        "a frame that lies": b"\x80\x04\x95" + struct.pack("<Q", 1 << 60) + b"K\x01.",
        "an unknown protocol": b"\x80\xff.",
        "recursion": b"\x80\x02" + b"(" * 200_000 + b"t" * 200_000 + b".",
    }


@pytest.mark.parametrize("allowed", LISTS)
@pytest.mark.parametrize("attack", by_name())
def test_functions_that_are_not_on_the_list_are_not_called(tmp_path, unharmed, attack, allowed):
    path = tmp_path / "a.pkl"
    path.write_bytes(by_name()[attack])
    with pytest.raises(SourceError, match=r"a\.pkl: the pickle asks for .* which is not allowed; not loaded"):
        sources.load_pickle(path, LISTS[allowed])


@pytest.mark.parametrize("allowed", LISTS)
@pytest.mark.parametrize("attack", sorted(set(by_shape()) - {"recursion"}))
def test_attacks_hidden_in_something_else(tmp_path, unharmed, attack, allowed):
    path = tmp_path / "a.pkl"
    path.write_bytes(by_shape()[attack])
    with pytest.raises(SourceError, match=r"a\.pkl"):
        sources.load_pickle(path, LISTS[allowed])


def test_a_deep_pickle_is_read_or_refused(tmp_path):
    (tmp_path / "a.pkl").write_bytes(by_shape()["recursion"])
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys; from replimat import sources; sources.load_pickle(sys.argv[1], {})",
            "a.pkl",
        ],
        cwd=tmp_path,
        capture_output=True,
    )
    assert done.returncode in (0, 1)  # not ended by the system


def test_nothing_is_reached_through_a_record(tmp_path, unharmed):
    """Records take any attribute, and getattr is answered; neither leads to a function."""
    record = b"\x80\x04" + named("ase.atoms", "Atoms") + b")\x81"
    state = b"}\x8c\x0c__setstate__" + named("builtins", "getattr") + b"sb"
    path = tmp_path / "a.pkl"
    path.write_bytes(record + state + b"}b.")  # the second state is given to what the first one put there
    assert type(sources.load_pickle(path, oc20_bulks.ALLOWED)) is oc20_bulks.Record
    reached = named("builtins", "getattr") + named("ase.atoms", "Atoms") + b"\x8c\x08__init__\x86R."
    path.write_bytes(b"\x80\x04" + reached)
    assert sources.load_pickle(path, oc20_bulks.ALLOWED) is None


# ----------------------------------------------------------------------------------------------- arrays of numpy

PLAIN_ARRAYS = [
    np.arange(6.0).reshape(2, 3),
    np.asfortranarray(np.arange(6, dtype=">i4").reshape(2, 3)),
    np.array(["a", "bcd"]),
    np.array([b"a", b"bcd"]),
    np.array([True, False]),
    np.array([1 + 2j], dtype=np.complex64),
    np.array([], dtype=np.float32),
    np.array([None, "text", [1, 2]], dtype=object),
    np.float64(2.5),
    np.int16(-3),
]


@pytest.mark.parametrize("array", PLAIN_ARRAYS, ids=repr)
@pytest.mark.parametrize("protocol", [3, 4])
def test_arrays_come_through_as_numpy_reads_them(tmp_path, array, protocol):
    path = tmp_path / "a.pkl"
    path.write_bytes(pickle.dumps(array, protocol=protocol))
    found, expected = sources.load_pickle(path, NUMPY_GLOBALS), pickle.loads(path.read_bytes())
    assert found.dtype == expected.dtype and found.shape == expected.shape
    assert np.asarray(found).tolist() == np.asarray(array).tolist()


POINTERS = (3, "|", None, ("a",), {"a": (np.dtype("O"), 0)}, 8, 1, 0)  # of a dtype: eight bytes are an object


def crafted(shape, code: str, content, state=None) -> bytes:
    """A pickled array of these parts, whose dtype is given `state` where that is not None."""

    class Part:
        """Pickles as numpy.dtype(code), or _reconstruct(...), with a state of its own."""

        def __init__(self, function, arguments, state):
            self.reduced = (function, arguments) if state is None else (function, arguments, state)

        def __reduce__(self):
            return self.reduced

    dtype = Part(np.dtype, (code, False, True), state)
    rebuild = np.empty(0).__reduce__()[0]
    return pickle.dumps(Part(rebuild, (np.ndarray, (0,), b"b"), (1, shape, dtype, False, content)), protocol=4)


CRAFTED = {
    "bytes taken as pointers": crafted((1,), "V8", b"AAAAAAAA", POINTERS),
    "objects out of bytes": crafted((1,), "O8", b"AAAAAAAA"),
    "fewer objects than said": crafted((1000,), "O8", [1]),
    "fewer bytes than said": crafted((1000,), "f8", b"A"),
    "more bytes than said": crafted((1,), "f8", bytes(80)),
    "a shape of terabytes": crafted((10**12,), "f8", b""),
    "a shape of no end": crafted((2**62, 2**62), "f8", b""),
    "a negative shape": crafted((-1,), "f8", b""),
    "a shape that is none": crafted("x", "f8", b""),
    "a size of its own": crafted((1,), "V8", b"AAAAAAAA", (3, "|", None, None, None, 10**9, 1, 0)),
    "subarrays": crafted((1,), "(1000000000,)f8", b""),
    "fields": crafted((1,), "f8,O8", b"A" * 16),
    "a code that is none": crafted((1,), "q8q", b""),
    "text of gigabytes": crafted((1,), "U999999999", b""),
}


@pytest.mark.parametrize("attack", CRAFTED)
def test_crafted_arrays_are_refused(tmp_path, attack):
    path = tmp_path / "a.pkl"
    path.write_bytes(CRAFTED[attack])
    if attack == "a size of its own":  # the size is that of the code, whatever the state says
        assert sources.load_pickle(path, NUMPY_GLOBALS).nbytes == 8
        return
    with pytest.raises(SourceError, match="not a readable pickle"):
        sources.load_pickle(path, NUMPY_GLOBALS)


def test_numpy_itself_would_take_bytes_for_pointers(tmp_path):
    """Why arrays are rebuilt here. Should numpy mend it, this fails, and the stand-ins may go."""
    code = "import pickle, sys; print(pickle.load(open(sys.argv[1], 'rb'))['a'])"
    (tmp_path / "a.pkl").write_bytes(CRAFTED["bytes taken as pointers"])
    done = subprocess.run([sys.executable, "-c", code, "a.pkl"], cwd=tmp_path, capture_output=True)
    assert done.returncode < 0  # ended by the system


@given(data=st.data())
@QUICK
def test_damaged_pickles_give_an_error_or_a_value(tmp_path, data):
    whole = pickle.dumps({"features": np.arange(4.0), "names": np.array(["a", None], dtype=object)}, protocol=4)
    path = tmp_path / "a.pkl"
    path.write_bytes(damaged(data.draw, whole))
    try:
        sources.load_pickle(path, NUMPY_GLOBALS)
    except SourceError as error:
        assert str(path) in str(error)


def test_an_object_array_file_that_holds_an_attack(tmp_path, unharmed):
    from replimat.datasets.rruff_patterns import _pattern

    (tmp_path / "a.npy").write_bytes(object_npy({"features": Call(eval, HARM)}))
    with pytest.raises(SourceError, match=r"asks for builtins\.eval"):
        _pattern(tmp_path / "a.npy")


def test_stand_ins_take_no_other_arguments():
    with pytest.raises(TypeError):
        Array((3,), "f8")
    for code in (None, np.float64, "O8,O8", [("a", "O")], "datetime64[ns]", "f8\n"):
        with pytest.raises(TypeError, match="is not plain"):
            PlainDtype(code)


# -------------------------------------------------------------------------------------------------- checkpoints

LOADERS = {
    "plain": load_released,
    "cgcnn": lambda path: load_author_checkpoint(path, torch.zeros(101, 92)),
    "alignn": lambda path: load_author_weights(path, torch.zeros(101, 92)),
}


def checkpoint(path: Path, attack) -> Path:
    torch.save({"state_dict": {"a": torch.zeros(2)}, "normalizer": {}, "args": attack}, path)
    return path


@pytest.mark.parametrize("loader", LOADERS)
def test_a_checkpoint_with_code_is_not_loaded(tmp_path, unharmed, loader):
    for attack in (Call(eval, HARM), Call(os.system, "true"), [Call(getattr, int, "real")]):
        for old in (True, False):
            path = checkpoint(tmp_path / "a.pth", attack)
            if old:  # the form before torch 1.6, a bare pickle
                torch.save({"args": attack}, path, _use_new_zipfile_serialization=False)
            with pytest.raises(DataError, match=r"a\.pth: not a checkpoint of tensors and plain values; not loaded"):
                LOADERS[loader](path)


@pytest.mark.parametrize("loader", LOADERS)
@given(data=st.data())
@settings(QUICK, max_examples=60)
def test_damaged_checkpoints(tmp_path, loader, data):
    path = tmp_path / "a.pth"
    if not path.exists():
        checkpoint(path, {"atom_fea_len": 4})
        path.rename(tmp_path / "whole")
    path.write_bytes(damaged(data.draw, (tmp_path / "whole").read_bytes()))
    try:
        LOADERS[loader](path)
    except DataError as error:
        assert str(path) in str(error)
    path.unlink()


def test_a_checkpoint_cannot_bring_its_own_dtype(tmp_path):
    """The allowed numbers of numpy are rebuilt as in other pickles."""
    path = checkpoint(tmp_path / "a.pth", 1)
    with zipfile.ZipFile(path) as archive:
        parts = {info.filename: archive.read(info) for info in archive.infolist()}
    scalar = named("numpy.core.multiarray", "scalar", False) + named("numpy", "dtype", False)
    attack = b"\x80\x02" + scalar + b"X\x02\x00\x00\x00V8\x89\x88\x87RU\x08AAAAAAAA\x86R."
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in parts.items():
            archive.writestr(name, attack if name.endswith("data.pkl") else content)
    with pytest.raises(DataError, match="not loaded"):
        load_released(path)


def test_numbers_of_numpy_in_a_checkpoint_come_through(tmp_path):
    path = tmp_path / "a.pth"
    torch.save({"best": np.float64(0.25), "epoch": np.int64(3)}, path)
    assert load_released(path) == {"best": 0.25, "epoch": 3}


# ------------------------------------------------------------------------------------------------------- YAML

LAUGHS = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{k}: &a{k} [{', '.join([f'*a{k - 1}'] * 10)}]\n" for k in range(1, 10)
)
MERGES = "b0: &b0 {x: 1}\n" + "".join(f"b{k}: &b{k} {{<<: [{', '.join([f'*b{k - 1}'] * 10)}]}}\n" for k in range(1, 10))
BAD_YAML = {
    "a thousand million laughs": (LAUGHS, "values after its aliases are followed, expected at most 100,000"),
    "merges of merges": (MERGES, "values after its aliases are followed"),
    "an alias of itself": ("a: &a [*a]\n", "inf values after"),
    "a key of itself": ("a: &a {k: *a}\n", "inf values after"),
    "python": ("name: !!python/object/apply:os.system [true]\n", "could not determine a constructor"),
    "python by name": ("name: !!python/name:os.system\n", "could not determine a constructor"),
    "a day that is none": ("name: 2023-13-45\n", "not readable as YAML"),
    "a number that is none": ("name: !!int x\n", "not readable as YAML"),
    "deep": ("name: " + "[" * 5000 + "]" * 5000 + "\n", "not readable as YAML"),
    "two documents": ("name: a\n---\nname: b\n", "not readable as YAML"),
    "a key that is none": ("? [a]\n: b\n", "not readable as YAML"),
    "control signs": ("name: \x07\n", "not readable as YAML"),
    "nothing": ("", "expected a mapping of fields, got NoneType"),
    "a list": ("- a\n", "expected a mapping of fields, got list"),
}


@pytest.mark.parametrize("name", BAD_YAML)
def test_bad_yaml_is_one_short_error(tmp_path, monkeypatch, unharmed, name):
    project = Project(tmp_path, monkeypatch)
    text, message = BAD_YAML[name]
    (project.root / "datasets" / "evil.yaml").write_text(text)
    with pytest.raises(CardError, match=message) as caught:
        cards.dataset("evil")
    assert "evil.yaml" in str(caught.value) and len(str(caught.value)) < 1000 and "\n" not in str(caught.value)


def test_bytes_that_are_no_text(tmp_path, monkeypatch):
    project = Project(tmp_path, monkeypatch)
    (project.root / "datasets" / "evil.yaml").write_bytes(b"name: \xff\xfe\x00")
    with pytest.raises(CardError, match="not readable as YAML"):
        cards.dataset("evil")
