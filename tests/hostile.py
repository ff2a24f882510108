"""Small raw files in the form of every reader, and ways to make them bad: bytes, words, columns, values."""

import csv
import gzip
import io
import json
import pickle
import sqlite3
import tempfile
import zipfile
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

REPEATABLE = settings(  # the same examples each time
    deadline=5000,  # ms: nothing hangs
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.filter_too_much, HealthCheck.too_slow],
)

WORDS = ("nan", "inf", "-inf", "N/A", "", "null", "1e308", "-1e308", "1e-308", "-1", "0", "1000000000", "Xx", "[]", "é")
VALUES = (None, True, -1, 0, 10**9, 10**40, 1e308, float("nan"), float("inf"), "", "N/A", [], {}, [[]], {"a": 1}, "é")


def damaged(draw: Callable, content: bytes) -> bytes:
    """The bytes cut off, with flipped bits, with a piece that comes twice or is missing, or none of them left."""
    kind = draw(st.sampled_from(["cut", "flip", "twice", "missing", "junk", "empty"]))
    start = draw(st.integers(0, max(0, len(content) - 1)))
    end = draw(st.integers(start, min(len(content), start + 64)))
    if kind == "flip":
        changed = bytearray(content)
        for place in range(start, end):
            changed[place] ^= draw(st.integers(1, 255)) if place == start else 0x20
        return bytes(changed)
    whole = {
        "cut": content[:start],
        "twice": content[:end] + content[start:],
        "missing": content[:start] + content[end:],
        "junk": np.random.default_rng(start).bytes(len(content)),
        "empty": b"",
    }
    return whole[kind]


# ------------------------------------------------------------------------------------------------ kinds of files


@dataclass(frozen=True)
class Text:
    """Text in a file, packed or not; `tampered` puts another word where one was, or moves the columns of a table."""

    text: str
    pack: Callable[[bytes], bytes] = bytes
    table: bool = False

    def content(self) -> bytes:
        return self.pack(self.text.encode())

    def tampered(self, draw: Callable) -> bytes:
        if self.table and draw(st.booleans()):
            return self.pack(_with_other_columns(draw, self.text).encode())
        return self.pack(with_another_word(draw, self.text).encode())


@dataclass(frozen=True)
class Json:
    """A JSON value in a file; `tampered` changes or removes one value in it."""

    value: object
    pack: Callable[[bytes], bytes] = bytes

    def content(self) -> bytes:
        return self.pack(json.dumps(self.value).encode())

    def tampered(self, draw: Callable) -> bytes:
        return self.pack(json.dumps(_with_another_value(draw, self.value)).encode())


@dataclass(frozen=True)
class Built:
    """Named values, and how they become a file; `tampered` changes or removes one of them, or a part of one."""

    values: dict
    write: Callable[[dict], bytes]

    def content(self) -> bytes:
        return self.write(self.values)

    def tampered(self, draw: Callable) -> bytes:
        return self.write(_with_another_value(draw, self.values))


def with_another_word(draw: Callable, text: str) -> str:
    lines = text.split("\n")
    line = draw(st.sampled_from([k for k, one in enumerate(lines) if one.strip()]))
    words = lines[line].replace(",", " , ").split(" ")
    place = draw(st.sampled_from([k for k, word in enumerate(words) if word not in ("", ",")]))
    words[place] = draw(st.sampled_from(WORDS))
    lines[line] = " ".join(words).replace(" , ", ",")
    return "\n".join(lines)


def _with_other_columns(draw: Callable, text: str) -> str:
    """A table in which two columns have changed places, below their headers, or one is gone."""
    rows = list(csv.reader(io.StringIO(text)))
    first, second = (draw(st.integers(0, len(rows[-1]) - 1)) for _ in range(2))
    for row in rows:
        if first == second and len(row) > first:
            del row[first]
        elif row is not rows[0] and len(row) > max(first, second):
            row[first], row[second] = row[second], row[first]
    written = io.StringIO()
    csv.writer(written, lineterminator="\n").writerows(rows)
    return written.getvalue()


def _with_another_value(draw: Callable, value):
    """A copy of nested dictionaries, lists and arrays with one value changed or removed, at any depth."""
    if isinstance(value, np.ndarray):
        return _with_another_number(draw, value)
    if not isinstance(value, dict | list) or not value or draw(st.integers(0, 5)) == 0:
        return draw(st.sampled_from(VALUES))
    changed = deepcopy(value)
    key = draw(st.sampled_from(sorted(value) if isinstance(value, dict) else range(len(value))))
    if draw(st.integers(0, 5)) == 0:
        del changed[key]
    else:
        changed[key] = _with_another_value(draw, value[key])
    return changed


def _with_another_number(draw: Callable, array: np.ndarray) -> np.ndarray:
    kind = draw(st.sampled_from(["number", "shape", "short", "empty", "text", "type"]))
    if kind == "number" and array.dtype.kind in "iuf" and array.size:
        changed = array.copy()
        number = draw(st.sampled_from([-1, 0, 100]) if array.dtype.kind != "f" else st.sampled_from(NUMBERS))
        changed.flat[draw(st.integers(0, array.size - 1))] = number
        return changed
    others = {"shape": array.reshape(-1, 1), "short": array[:-1], "empty": array[:0], "text": array.astype(str)}
    return others.get(kind, array[None])


NUMBERS = (np.nan, np.inf, -np.inf, 1e300, -1e300, -1.0, 0.0)

# -------------------------------------------------------------------------------------------------------- writers


def zipped(content: bytes) -> bytes:
    """A zip with one file."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as stream:
        stream.writestr("one.json", content)
    return archive.getvalue()


def gzipped(content: bytes) -> bytes:
    return gzip.compress(content, mtime=0)


def npz(arrays: dict) -> bytes:
    archive = io.BytesIO()
    np.savez(archive, **(arrays if isinstance(arrays, dict) else {"arr": np.array(arrays, dtype=object)}))
    return archive.getvalue()


def npy(values: dict) -> bytes:
    """One array, plain; what cannot be one is written as an object array."""
    stream = io.BytesIO()
    np.save(stream, values["array"] if isinstance(values, dict) and "array" in values else np.array(values))
    return stream.getvalue()


def object_npy(values) -> bytes:
    """An object array around one value, as numpy writes it."""
    stream = io.BytesIO()
    whole = np.empty((), dtype=object)
    whole[()] = values
    np.save(stream, whole, allow_pickle=True)
    return stream.getvalue()


def parquet(columns: dict) -> bytes:
    """A table; raises what pyarrow raises for values that fit no column."""
    import pyarrow as pa
    from pyarrow import parquet as writer

    stream = pa.BufferOutputStream()
    writer.write_table(pa.table(columns), stream)
    return stream.getvalue().to_pybytes()


def database(tables: dict) -> bytes:
    """An SQLite file; tables: rows as {column: value} by name of the table. Values of other types become text."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "base"
        base = sqlite3.connect(path)
        for name, rows in tables.items():
            for row in rows:
                base.execute(f"create table if not exists {name} ({', '.join(row)})")
                held = [value if isinstance(value, str | float | None) else str(value) for value in row.values()]
                base.execute(f"insert into {name} ({', '.join(row)}) values ({', '.join('?' * len(row))})", held)
        base.commit()
        base.close()
        return path.read_bytes()


def pickled(value) -> bytes:
    return pickle.dumps(value, protocol=4)
