"""Tables of the comparison: csv for machines, Markdown for people."""

import csv
from pathlib import Path

from replimat.files import atomic, write_text
from replimat.records import number

COLUMNS = (
    *("paper", "claim_id", "table", "dataset", "data_origin", "target", "metric", "unit", "reported", "seen"),
    *("ours", "std", "n_seeds", "ratio", "verdict", "reason", "scale", "rung", "n_train", "n_test"),
    *("baseline_mean", "baseline_rf", "seconds", "hardware", "baseline_other"),
    *("experiment", "kind", "split", "evaluated", "failed", "low", "high", "eps", "eps_reason", "seeds_needed"),
    *("counted", "checks", "leakage", "model", "direction", "qualifier", "reported_dataset", "reported_n_train"),
    *("reported_n_test", "source", "data_sha256", "split_sha256", "code_commit"),
)
SHOWN = {  # heading -> columns of the Markdown table
    "paper": "paper",
    "claim": "claim_id",
    "dataset": "dataset",
    "metric": "metric",
    "reported": "reported",
    "ours": "ours",
    "std": "std",
    "seeds": "n_seeds",
    "unit": "unit",
    "test rows": "n_test",
    "mean predictor": "baseline_mean",
    "random forest": "baseline_rf",
    "other baseline": "baseline_other",
    "verdict": "verdict",
    "reason": "reason",
}


def write_tables(folder: Path, rows: list[dict], title: str) -> None:
    """comparison.csv with every column, comparison.md with those a person reads."""
    write_csv(folder / "comparison.csv", COLUMNS, rows)
    write_text(folder / "comparison.md", _markdown(rows, title))


def write_csv(path: Path, columns: tuple[str, ...], rows: list[dict]) -> None:
    """Rows with the given columns; an absent value is an empty cell."""
    with atomic(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, columns)
        writer.writeheader()
        writer.writerows({name: _cell(row.get(name)) for name in columns} for row in rows)


def read_table(path: Path) -> list[dict]:
    """Rows of a comparison.csv as text; "" stands for nothing."""
    with open(path, newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def reported(row: dict) -> str:
    """The reported value as printed: a sign like '~' or '>' before it, words after it."""
    value, qualifier = row.get("reported") or "no number", row.get("qualifier") or ""
    if not row.get("claim_id"):
        return ""
    if qualifier and not qualifier[0].isalnum():
        return f"{qualifier} {value}"
    return f"{value} ({qualifier})" if qualifier else value


def as_number(cell: str | float | None) -> float | None:
    """The value of a cell, None for an empty one."""
    return None if cell in ("", None) else float(cell)


def _cell(value) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _markdown(rows: list[dict], title: str) -> str:
    lines = [f"# {title}", "", "| " + " | ".join(SHOWN) + " |", "|" + " --- |" * len(SHOWN)]
    for row in rows:
        cells = [_shown(row, column) for column in SHOWN.values()]
        lines.append("| " + " | ".join(cells) + " |")
    recalled = any(row.get("seen") == "recalled" for row in rows)
    lines += ["", "*recalled*: read from memory, not from the source; shown and never counted."] if recalled else []
    return "\n".join(lines) + "\n"


def _shown(row: dict, column: str) -> str:
    value = row.get(column)
    if column in ("ours", "std", "baseline_mean", "baseline_rf", "baseline_other"):
        return number(as_number(value))
    if column == "n_test" and str(row.get("failed") or "0") != "0":
        value = f"{row['evaluated']} of {value}"
    if column == "reported":
        value = reported(row) + (" (*recalled*)" if row.get("seen") == "recalled" else "")
    if column == "claim_id":
        value = value or ": ".join(filter(None, [row.get("experiment"), row.get("target")]))
    return str("" if value is None else value).replace("|", "\\|").replace("\n", " ")
