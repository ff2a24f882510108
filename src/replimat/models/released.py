"""Checkpoints that authors released: tensors and plain values out of a foreign file, nothing that runs."""

import warnings
from pathlib import Path

import torch

from replimat.errors import DataError
from replimat.sources.pickles import PlainDtype, plain_scalar

# NumPy numbers among the values, rebuilt as in replimat.sources.pickles, under the names of numpy 1 and numpy 2.
NUMBERS = [
    (plain_scalar, "numpy.core.multiarray.scalar"),
    (plain_scalar, "numpy._core.multiarray.scalar"),
    (PlainDtype, "numpy.dtype"),
]


def load_released(path: str | Path) -> dict:
    """A checkpoint's dictionary, on the CPU. Raises DataError for a file that is none, or that asks for more."""
    try:
        with torch.serialization.safe_globals(NUMBERS), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            stored = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged byte leads torch's readers to errors of any kind
        cause = next(iter(str(error).splitlines()), type(error).__name__)
        raise DataError(f"{path}: not a checkpoint of tensors and plain values; not loaded ({cause}).") from error
    if not isinstance(stored, dict):
        raise DataError(f"{path}: expected a dictionary of tensors, got {type(stored).__name__}.")
    return stored
