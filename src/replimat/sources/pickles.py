"""Foreign pickles, read through an explicit list of globals: a pickle can name any function and have it called.

Arrays are rebuilt here and not by numpy, which believes what a pickle says of a dtype and of a length: a crafted one
turns bytes into pointers. `Array` and `PlainDtype` take the same state, compare it with the bytes, and refuse the rest.
"""

import math
import pickle
import re
from pathlib import Path

import numpy as np

from replimat.errors import SourceError

HERE = "replimat.sources.pickles"
# What rebuilds arrays, under the module names of numpy 1 and numpy 2.
NUMPY_GLOBALS = {
    ("numpy.core.multiarray", "_reconstruct"): (HERE, "empty_array"),
    ("numpy._core.multiarray", "_reconstruct"): (HERE, "empty_array"),
    ("numpy.core.multiarray", "scalar"): (HERE, "plain_scalar"),
    ("numpy._core.multiarray", "scalar"): (HERE, "plain_scalar"),
    ("numpy", "ndarray"): (HERE, "Array"),
    ("numpy", "dtype"): (HERE, "PlainDtype"),
}
PLAIN = re.compile(r"[<>|=]?([?bBhHiIlLqQefdgFDG]|[biufcSUV]\d{1,6}|[mM]8|O8?)")


class PlainDtype:
    """Stands in for numpy.dtype: numbers, text or objects; no fields, and no size other than that of its code."""

    def __init__(self, code, align=False, copy=True):
        if not isinstance(code, str) or not PLAIN.fullmatch(code):
            raise TypeError(f"dtype {code!r} is not plain")
        self.dtype = np.dtype(code)

    def __setstate__(self, state: tuple) -> None:
        _, order, subarray, names, fields, *_ = state
        if subarray is not None or names is not None or fields is not None or order not in ("<", ">", "|", "="):
            raise TypeError(f"dtype {self.dtype} with fields or of order {order!r} is not plain")
        self.dtype = self.dtype.newbyteorder(order)


class Array(np.ndarray):
    """An array of a pickle: empty until its state comes."""

    def __new__(cls):
        return super().__new__(cls, (0,))

    def __setstate__(self, state: tuple) -> None:
        version, shape, plain, fortran, content = state
        if not all(type(size) is int and size >= 0 for size in shape):
            raise TypeError(f"an array has the shape {shape!r}")
        dtype, count = plain.dtype, math.prod(shape)
        objects = dtype.hasobject
        if not isinstance(content, list if objects else (bytes, str)):
            raise TypeError(f"an array of {dtype} is made from {type(content).__name__}")
        if len(content) != (count if objects else count * dtype.itemsize):
            raise ValueError(f"an array {shape} of {dtype} has {len(content)} {'objects' if objects else 'bytes'}")
        super().__setstate__((version, shape, dtype, bool(fortran), content))


def empty_array(kind: type, shape: tuple, code: bytes) -> Array:
    """Stands in for numpy's _reconstruct; shape and code are those of an array without content."""
    return Array()


def plain_scalar(plain: PlainDtype, content: bytes) -> np.generic:
    """Stands in for numpy's scalar, of numbers and text alone."""
    dtype = plain.dtype
    if dtype.hasobject or not isinstance(content, bytes) or len(content) != dtype.itemsize:
        raise TypeError(f"no scalar of {dtype}")
    return np.frombuffer(content, dtype=dtype)[0]


def load_pickle(path: Path, allowed: dict[tuple[str, str], tuple[str, str]], start: int = 0):
    """The object in a pickle file. `allowed`: (module, name) in the pickle -> (module, name) used here;
    start: the byte at which the pickle begins.

    Raises SourceError naming the first global that is not on the list, or when the file is not a whole pickle.
    """
    try:
        with open(path, "rb") as stream:
            stream.seek(start)
            return _Restricted(stream, allowed, path).load()
    except SourceError:
        raise
    except Exception as error:  # what is allowed is called with whatever arguments the pickle has
        raise SourceError(f"{path}: not a readable pickle ({type(error).__name__}: {error}).") from error


class _Restricted(pickle.Unpickler):
    def __init__(self, stream, allowed: dict[tuple[str, str], tuple[str, str]], path: Path):
        super().__init__(stream)
        self._allowed, self._path = allowed, path

    def find_class(self, module: str, name: str):
        if (module, name) not in self._allowed:
            raise SourceError(f"{self._path}: the pickle asks for {module}.{name}, which is not allowed; not loaded.")
        return super().find_class(*self._allowed[module, name])

    def persistent_load(self, reference):
        raise SourceError(f"{self._path}: the pickle refers to something outside itself ({reference!r}); not loaded.")
