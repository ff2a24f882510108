"""Foreign pickles, read through an explicit list of globals: a pickle can name any function and have it called."""

import pickle
from pathlib import Path

from replimat.errors import SourceError

# What numpy needs to rebuild arrays, under the module names of numpy 1 and numpy 2.
NUMPY_GLOBALS = {
    ("numpy.core.multiarray", "_reconstruct"): ("numpy._core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "_reconstruct"): ("numpy._core.multiarray", "_reconstruct"),
    ("numpy.core.multiarray", "scalar"): ("numpy._core.multiarray", "scalar"),
    ("numpy._core.multiarray", "scalar"): ("numpy._core.multiarray", "scalar"),
    ("numpy", "ndarray"): ("numpy", "ndarray"),
    ("numpy", "dtype"): ("numpy", "dtype"),
}


def load_pickle(path: Path, allowed: dict[tuple[str, str], tuple[str, str]], start: int = 0):
    """The object in a pickle file. `allowed`: (module, name) in the pickle -> (module, name) used here;
    start: the byte at which the pickle begins.

    Raises SourceError naming the first global that is not on the list, or when the file is not a whole pickle.
    """
    try:
        with open(path, "rb") as stream:
            stream.seek(start)
            return _Restricted(stream, allowed, path).load()
    except (pickle.UnpicklingError, EOFError, AttributeError, ImportError, IndexError, TypeError, ValueError) as error:
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
