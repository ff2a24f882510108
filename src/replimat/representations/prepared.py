"""Prepared files: the arrays a model eats, in one safetensors file that knows what it was made from.

The header holds the key, sha256 over everything that decides the content, so that a file made for another target,
cutoff, dataset or version of the code is refused instead of used; and the sha256 of all that the file holds.
Loading needs numpy and safetensors alone.
"""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

import numpy as np

from replimat.datasets.base import Structures
from replimat.errors import DataError
from replimat.files import atomic, sha256_json

FORMAT = 2  # raise when the layout of prepared files changes
HEADER = "replimat"
SEAL = "sha256"  # in the metadata: of all the rest


class Representation(Protocol):
    """What turns structures into arrays: CrystalGraph, CutoffGraph."""

    version: int

    def parameters(self) -> dict: ...

    def __call__(self, structures: Structures, progress: bool = True) -> dict[str, np.ndarray]: ...


def prepared_key(dataset_sha256: str, representation: Representation, **others) -> str:
    """sha256 of all that decides a prepared file: dataset, representation and its version, `others` (target, rows)."""
    return sha256_json(
        {
            "format": FORMAT,
            "dataset": dataset_sha256,
            "representation": type(representation).__name__,
            "version": representation.version,
            "parameters": representation.parameters(),
            **others,
        }
    )


def prepared_name(dataset: str, key: str) -> str:
    """File name of a prepared file; the first 12 hexadecimals of the key keep its variants apart."""
    return f"{dataset}-{key[:12]}.safetensors"


def save(path: str | Path, arrays: dict[str, np.ndarray], metadata: dict) -> None:
    """Write `arrays` with `metadata` (a JSON object that holds "key"); whole or not at all.

    Raises DataError when the key is missing, an array is not numeric, or the metadata are not JSON (NaN is not).
    """
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    if "key" not in metadata:
        raise DataError(f"{path}: a prepared file needs its key in the metadata.")
    if strange := [name for name, array in arrays.items() if array.dtype.kind not in "biuf"]:
        raise DataError(
            f"{path}: arrays must be numeric, got {', '.join(strange)}; put ids and names into the metadata."
        )
    arrays = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    try:
        header = json.dumps({**metadata, SEAL: _seal(arrays, metadata)}, sort_keys=True, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise DataError(f"{path}: the metadata cannot be written as JSON: {error}.") from error
    with atomic(path) as temporary:
        try:
            save_file(arrays, temporary, metadata={HEADER: header})
        except SafetensorError as error:
            raise OSError(str(error)) from error


def load(
    path: str | Path, expected_key: str | None = None, required: Iterable[str] = ()
) -> tuple[dict[str, np.ndarray], dict]:
    """Arrays and metadata of a prepared file.

    Raises DataError for a missing, truncated or altered file, for a key other than `expected_key` (stale cache), and
    when one of the `required` arrays is not in it.
    """
    from safetensors import SafetensorError, safe_open

    again = "run `replimat prepare` again"
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = json.loads((file.metadata() or {}).get(HEADER, "null"))
            if metadata is None:
                raise DataError(f"{path}: not a prepared file of replimat; {again}.")
            if expected_key not in (None, metadata.get("key")):
                raise DataError(
                    f"{path}: stale: made for key {str(metadata.get('key'))[:12]}, expected {expected_key[:12]} "
                    f"(other data, parameters or code); {again}."
                )
            if missing := sorted(set(required) - set(file.keys())):
                raise DataError(
                    f"{path}: lacks {', '.join(missing)}; it holds {', '.join(sorted(file.keys()))}; {again}."
                )
            arrays = {name: file.get_tensor(name) for name in file.keys()}
    except FileNotFoundError as error:
        raise DataError(f"{path}: missing; {again}.") from error
    except (SafetensorError, OSError, ValueError) as error:
        raise DataError(f"{path}: truncated or not a safetensors file ({error}); delete it and {again}.") from error
    if metadata.pop(SEAL, None) != _seal(arrays, metadata):
        raise DataError(f"{path}: altered after it was written; delete it and {again}.")
    return arrays, metadata


def _seal(arrays: dict[str, np.ndarray], metadata: dict) -> str:
    """sha256 of all that the file holds."""
    return sha256_json([arrays_sha256(arrays), metadata])


def arrays_sha256(arrays: dict[str, np.ndarray]) -> str:
    """sha256 over names, types, shapes and bytes."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = arrays[name]
        digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(array.data if array.size else b"")
    return digest.hexdigest()
