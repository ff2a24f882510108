"""Load a dataset by name: read the raw members (or compute) once, check them against the card, keep the packed arrays.

The cache file's name holds all that decides its content: the card's members or settings, its targets and the code that
read or computed them.
"""

import hashlib
import importlib
import json
import shutil
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np

from replimat import cards, sources
from replimat.cards import ComputedSource, DatasetCard, DerivedSource
from replimat.datasets.base import Dataset, Structures
from replimat.datasets.checks import check, check_places, reading, with_reasons
from replimat.errors import DataError
from replimat.files import alone, atomic, damaged_zip, sha256_json


def load(name: str) -> Dataset:
    """The dataset `name`: from prepared/datasets/ when it was read before, else from data/<name>/, verified first.

    Raises CardError for an unknown name, SourceError when it is not fetched, DataError when it differs from its card.
    """
    card = cards.dataset(name)
    if card.reader is None:
        raise DataError(f"Dataset {name!r} has no reader ({card.kind}): it can be fetched and verified, not loaded.")
    if card.kind == "patterns":
        raise DataError(f"Dataset {name!r} holds measured patterns: use replimat.datasets.patterns.load_patterns.")
    path = cards.project_root() / "prepared" / "datasets" / f"{name}-{content_key(card)[:12]}.npz"
    if path.is_file():
        data = _restore(path)
        check(data, card)
        return data
    if isinstance(card.source, ComputedSource) and not card.source.members:
        return _compute(card, path)
    if not isinstance(card.source, DerivedSource):
        sources.verify(name)  # what it is derived from is verified as it is loaded
    return _read(card, sources.folder_of(name), path)


def _read(card: DatasetCard, folder: Path, path: Path) -> Dataset:
    reader = reader_of(card)
    with reading(card, folder):
        data = with_reasons(reader.read(folder, card))
        check(data, card)
        check_places(data, card)
    return _keep(data, path)


def _compute(card: DatasetCard, path: Path) -> Dataset:
    """Compute a dataset; what the reader has finished so far waits in a folder beside `path` if it is killed.

    Of several processes that ask for it at once, one computes and the others wait for its file.
    """
    _require_engine(card)
    with alone(path.with_suffix(".lock")):
        if path.is_file():
            return load(card.name)
        unfinished = path.with_suffix(".unfinished")
        _discard_damaged(unfinished)
        data = _read(card, unfinished, path)
        shutil.rmtree(unfinished, ignore_errors=True)  # a reader that takes no time keeps nothing there
        return data


def _discard_damaged(unfinished: Path) -> None:
    """Remove blocks that the disk did not keep as they were; the reader computes them again, to the same numbers."""
    for path in sorted(unfinished.glob("*.npz")):
        if damaged_zip(path):
            print(f"{path}: damaged; computed again.", file=sys.stderr, flush=True)
            path.unlink()


def _require_engine(card: DatasetCard) -> None:
    """Raise DataError where the engine is missing or another than the card says: its labels would differ."""
    engine, wanted = card.source.engine, card.source.version
    if wanted is None:
        return
    try:
        found = version(engine)
    except PackageNotFoundError:
        found = "not installed"
    if found != wanted:
        raise DataError(
            f"Dataset {card.name!r} is computed with {engine} {wanted}, found: {found}. "
            f"Install it with `pip install {engine}=={wanted}`."
        )


def reader_of(card: DatasetCard):
    """The module that reads a dataset. Raises DataError when it cannot be used."""
    try:
        return importlib.import_module(f"replimat.datasets.{card.reader}")
    except ImportError as error:
        raise DataError(f"Dataset {card.name!r}: its reader {card.reader!r} cannot be used ({error}).") from error


def content_key(card: DatasetCard, machinery: bool = True) -> str:
    """Hash of all that decides a dataset's content: raw files or settings, targets, and the code that reads them.

    machinery: this module too, which all readers share; not of what takes minutes to compute, nor of its parents.
    """
    source, reader = card.source, Path(reader_of(card).__file__)
    identity = {
        "members": [[member.save_as, member.sha256] for member in source.members],
        "targets": {name: [target.unit, target.column] for name, target in card.targets.items()},
        "rows": card.rows,
    }
    code = [reader, *map(Path, getattr(reader_of(card), "CODE", ()))]
    if isinstance(source, ComputedSource):  # only what decides the labels computes them again
        identity["computed"] = source.model_dump(mode="json", exclude={"parents"})
        machinery = False
    if machinery:
        code += [Path(__file__), Path(__file__).with_name("rows.py")]
    if parents := getattr(source, "parents", None):
        identity["parents"] = [content_key(cards.dataset(name), machinery) for name in parents]
    identity["code"] = hashlib.sha256(b"".join(path.read_bytes() for path in code)).hexdigest()
    return sha256_json(identity)


def _keep(data: Dataset, path: Path) -> Dataset:
    """Write the cache file and return the dataset with its content's sha256."""
    crystals = data.structures
    notes = {
        "name": data.name,
        "units": data.units,
        "left_out": data.left_out,
        "missing": data.missing,
        "periodic": crystals.periodic,
        "sha256": data.content_sha256(),
    }
    arrays = {"numbers": crystals.numbers, "positions": crystals.positions, "cells": crystals.cells}
    arrays |= {"offsets": crystals.offsets, "ids": data.ids}
    if crystals.occupancies is not None:
        arrays["occupancies"] = crystals.occupancies
    for kind, named in (("target", data.targets), ("per_atom", data.per_atom), ("split", data.splits)):
        arrays |= {f"{kind}.{name}": values for name, values in named.items()}
    with atomic(path) as temporary, open(temporary, "wb") as stream:
        np.savez(stream, notes=np.array(json.dumps(notes)), **arrays)
    return _restore(path)


def _restore(path: Path) -> Dataset:
    """The dataset of a cache file. Raises DataError if it is not what was written."""
    try:
        with np.load(path, allow_pickle=False) as stored:
            data = _unpacked(dict(stored.items()))
    except Exception as error:  # whatever the reader of a damaged file stumbles over
        raise DataError(f"{path}: damaged cache file ({error}). Delete it and run again.") from error
    if data.sha256 != data.content_sha256():
        raise DataError(f"{path}: damaged cache file (it differs from its checksum). Delete it and run again.")
    return data


def _unpacked(content: dict[str, np.ndarray]) -> Dataset:
    notes = json.loads(str(content["notes"]))
    packed = (content[part] for part in ("numbers", "positions", "cells", "offsets"))
    return Dataset(
        name=notes["name"],
        ids=content["ids"],
        structures=Structures(*packed, periodic=notes["periodic"], occupancies=content.get("occupancies")),
        targets=_named(content, "target."),
        units=notes["units"],
        left_out=notes["left_out"],
        missing=notes["missing"],
        per_atom=_named(content, "per_atom."),
        splits=_named(content, "split."),
        sha256=notes["sha256"],
    )


def _named(content: dict[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    """Arrays of a cache file whose key begins with `prefix`, by the rest of it, in the order they were written."""
    return {key.removeprefix(prefix): array for key, array in content.items() if key.startswith(prefix)}
