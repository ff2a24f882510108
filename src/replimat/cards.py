"""Cards: what a person writes about a paper or a dataset, read into validated objects.

`papers/<key>/card.yaml` and `papers/<key>/claims.csv` describe a paper, `datasets/<name>.yaml` a dataset.
Unknown keys are refused, so that a typo is an error and not a silent default.
"""

import csv
import math
import os
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal

import yaml
from pydantic import Field, StringConstraints, ValidationError, model_validator

from replimat.errors import CardError
from replimat.source_cards import (  # noqa: F401  who reads a card finds all its parts here
    MEMBER_COLUMNS,
    Card,
    ComputedSource,
    DerivedSource,
    Key,
    Member,
    MolecularDynamics,
    RegistrySource,
    Source,
    StartGeometry,
    UrlSource,
)

MOST_VALUES = 100_000  # of a card; the longest has 2,000
SCALES = ("smoke", "laptop", "paper")
Scale = Literal["smoke", "laptop", "paper"]
Origin = Literal["paper", "substitute", "computed", "simulated"]
Family = Literal["property", "generation", "characterisation", "phonons"]
ExperimentName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9-]*$")]


# ---------------------------------------------------------------- datasets


class TargetCard(Card):
    """One target of a dataset. `range` is the closed interval every finite value must lie in.

    per: one value per structure, or one (or one vector) per atom; then every value must be finite.
    """

    unit: str
    per: Literal["structure", "atom"] = "structure"
    description: str
    column: str | None = None
    range: tuple[float, float] | None = None
    count: int | None = None  # finite values expected; atoms, for a target per atom


class DatasetCard(Card):
    """A dataset; or what authors released: weights, predictions; targets and splits without structures; patterns."""

    name: Key
    title: str
    kind: Literal["structures", "weights", "predictions", "targets", "patterns"] = "structures"
    data: Literal["embedded", "paper"] = "embedded"
    summary: str
    licence: str
    citation: str
    level_of_theory: str | None = None
    source: Source
    reader: Key | None = None  # module of replimat.datasets; None for weights
    rows: int | None = None  # usable rows after the reader left out broken ones; patterns
    periodic: bool = True
    targets: dict[Key, TargetCard] = Field(default_factory=dict)
    left_out: str | None = None  # which rows the reader leaves out, and why
    notes: list[str] = Field(default_factory=list)  # outliers, units, duplicates


# ------------------------------------------------------------------ papers


class Constant(Card):
    """A value that matters for reproduction: in the paper, in the author's code, and here."""

    name: str
    unit: str | None = None
    paper: str | float | int | None = None
    author_code: str | float | int | None = None
    used: str | float | int | None = None
    why: str = ""
    seen: str = ""  # where it was seen


class ScaleSettings(Card):
    """What an experiment does at one scale. `model` overrides model arguments (shown in the report as a reduction)."""

    n_train: int = Field(default=0, ge=0)
    n_val: int = Field(default=0, ge=0)
    n_test: int = Field(default=0, ge=0)
    epochs: int = Field(default=1, ge=0)
    batch_size: int | None = Field(default=None, gt=0)
    lr: float | None = Field(default=None, gt=0)
    seeds: int = Field(default=1, ge=1)
    model: dict[str, float | int | str | bool] = Field(default_factory=dict)
    note: str = ""  # of paper scale: how even that departs from the published protocol


class Margin(Card):
    """Relative margin eps of the equivalence test, with the reason for its size."""

    value: float = Field(gt=0)
    reason: str


class ExperimentCard(Card):
    """Paper x dataset x target: what one row of a paper's table asks for."""

    dataset: Key
    target: Key
    origin: Origin
    claims: list[str] = Field(default_factory=list)
    parts: dict[Key, list[str]] = Field(default_factory=dict)  # further targets of the same run -> their claims
    weights: Key | None = None  # dataset card of released weights, when nothing is trained
    predictions: Key | None = None  # dataset card of released predictions, when they are only scored again
    judges: list[Key] = Field(default_factory=list)  # dataset cards of further weights that judge what is generated
    margin: Margin | None = None
    note: str = ""
    smoke: ScaleSettings | None = None
    laptop: ScaleSettings | None = None
    paper: ScaleSettings | None = None

    def at(self, scale: str) -> ScaleSettings | None:
        """Settings at a scale, or None when the experiment does not run there."""
        return getattr(self, scale)

    @property
    def claims_by_target(self) -> dict[str, list[str]]:
        """Claims of every target the run measures, the main one first."""
        return {self.target: self.claims} | self.parts


class PaperCard(Card):
    """A paper: what it is, what we run of it and, when nothing is run yet, why not."""

    key: Key
    title: str
    authors: list[str] = Field(min_length=1)
    year: int = Field(ge=1990, le=2100)
    venue: str
    doi: str | None = None
    arxiv: str | None = None
    code: str | None = None  # the authors' repository and commit
    family: Family
    summary: str
    not_attempted: str | None = None  # why its model does not run yet; released predictions may be scored all the same
    constants: list[Constant] = Field(default_factory=list)
    experiments: dict[ExperimentName, ExperimentCard] = Field(default_factory=dict)
    notes: list[str] = Field(default_factory=list)

    @model_validator(mode="after")
    def _runs_or_says_why(self):
        runs = any(not experiment.predictions for experiment in self.experiments.values())
        if (runs and self.not_attempted) or not (self.experiments or self.not_attempted):
            raise ValueError(
                "a card has experiments that run its model, or a reason in not_attempted why there is none"
            )
        return self


class Claim(Card):
    """One reported number. `value` is None when no single number is printed; `qualifier` keeps '~', '>' and ranges."""

    claim_id: str
    role: Literal["own", "baseline", "context"]  # the paper's model; a rival in its tables; another paper's table
    table: str
    dataset: str
    target: str
    metric: str
    unit: str
    model: str
    value: Annotated[float, Field(allow_inf_nan=False)] | None
    digits: int = Field(ge=0)  # printed decimals: half a unit of the last one is the rounding error
    qualifier: str = ""
    direction: Literal["lower", "higher", "none"]
    n_train: int | None
    n_val: int | None
    n_test: int | None
    sizes: str = ""  # split sizes as printed, where they are not plain counts ("80 %")
    source: str
    seen: Literal["verbatim", "recalled"]


CLAIM_COLUMNS = list(Claim.model_fields)


# ----------------------------------------------------------------- reading


def project_root() -> Path:
    """The folder that holds papers/ and datasets/: $REPLIMAT_ROOT, else upward from here, else the source checkout."""
    if given := os.environ.get("REPLIMAT_ROOT"):
        candidates = [Path(given)]
    else:
        here = Path.cwd()
        candidates = [here, *here.parents, Path(__file__).resolve().parents[2]]
    for folder in candidates:
        if (folder / "papers").is_dir() and (folder / "datasets").is_dir():
            return folder
    raise CardError(
        "No project here: expected a folder with papers/ and datasets/. Run from the project, or set REPLIMAT_ROOT."
    )


def paper_keys() -> list[str]:
    """Keys of all papers, in alphabetical order."""
    return sorted(path.parent.name for path in (project_root() / "papers").glob("*/card.yaml"))


def dataset_names() -> list[str]:
    """Names of all dataset cards, in alphabetical order."""
    return sorted(path.stem for path in (project_root() / "datasets").glob("*.yaml"))


@cache
def paper(key: str) -> PaperCard:
    """The card of one paper. Raises CardError for an unknown key or a malformed card."""
    path = project_root() / "papers" / key / "card.yaml"
    if not path.is_file():
        raise CardError(f"Unknown paper {key!r}. Known: {', '.join(paper_keys())}.")
    card = _read(PaperCard, path)
    if card.key != key:
        raise CardError(f"{path}: key is {card.key!r}, expected {key!r} (the folder's name).")
    known = {claim.claim_id for claim in claims(key)}
    for name, experiment in card.experiments.items():
        named = [claim for claims in experiment.claims_by_target.values() for claim in claims]
        if missing := [claim for claim in named if claim not in known]:
            raise CardError(f"{path}: experiment {name!r} names claims that claims.csv lacks: {', '.join(missing)}.")
    return card


@cache
def dataset(name: str) -> DatasetCard:
    """The card of one dataset. Raises CardError for an unknown name or a malformed card."""
    path = project_root() / "datasets" / f"{name}.yaml"
    if not path.is_file():
        raise CardError(f"Unknown dataset {name!r}. Known: {', '.join(dataset_names())}.")
    card = _read(DatasetCard, path)
    if card.name != name:
        raise CardError(f"{path}: name is {card.name!r}, expected {name!r} (the file's name).")
    return card


@cache
def claims(key: str) -> tuple[Claim, ...]:
    """All claims of one paper, in file order. Raises CardError when a row is malformed or an id stands twice."""
    path = project_root() / "papers" / key / "claims.csv"
    if not path.is_file():
        raise CardError(f"{path}: missing; a paper without numbers still has a claims.csv with the header line alone.")
    try:
        with open(path, newline="", encoding="utf-8") as stream:
            reader = csv.DictReader(stream, restkey="more")
            if reader.fieldnames != CLAIM_COLUMNS:
                raise CardError(f"{path}: columns are {reader.fieldnames}, expected {CLAIM_COLUMNS}.")
            rows = [_claim(path, reader.line_num, row) for row in reader]
    except (csv.Error, UnicodeDecodeError) as error:
        raise CardError(f"{path}: not readable as CSV in UTF-8: {error}.") from error
    seen: set[str] = set()
    for row in rows:
        if row.claim_id in seen:
            raise CardError(f"{path}: claim id {row.claim_id!r} stands twice.")
        seen.add(row.claim_id)
    return tuple(rows)


def _claim(path: Path, line: int, row: dict[str, str]) -> Claim:
    numbers = ("value", "n_train", "n_val", "n_test")
    try:
        return Claim(**{name: (value or None) if name in numbers else value for name, value in row.items()})
    except (ValidationError, TypeError) as error:
        raise CardError(f"{path}, line {line}: {_first_fault(error)}") from error


class _Loader(yaml.SafeLoader):
    """YAML of plain values, and no more of them than a person writes: aliases of aliases grow without end."""

    def get_single_node(self):
        node = super().get_single_node()
        if node is not None and (values := _values(node, {})) > MOST_VALUES:
            raise yaml.YAMLError(f"{values:,} values after its aliases are followed, expected at most {MOST_VALUES:,}")
        return node


def _values(node: yaml.Node, known: dict[int, float]) -> float:
    """How many values a node is when every alias in it is followed; infinite when one contains itself."""
    if isinstance(node, yaml.ScalarNode):
        return 1
    if id(node) not in known:
        known[id(node)] = math.inf  # met again before it is counted
        pairs = node.value if isinstance(node, yaml.SequenceNode) else [part for pair in node.value for part in pair]
        known[id(node)] = 1 + sum(_values(part, known) for part in pairs)
    return known[id(node)]


def _read(kind: type[Card], path: Path):
    try:
        with open(path, encoding="utf-8") as stream:
            content = yaml.load(stream, _Loader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise CardError(f"{path}: not readable as YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise CardError(f"{path}: expected a mapping of fields, got {type(content).__name__}.")
    source = content.get("source")
    if isinstance(source, dict) and "members_from" in source:
        content["source"] = source | {"members": _members(path, source)}
    try:
        return kind(**content)
    except (ValidationError, TypeError) as error:
        raise CardError(f"{path}: {_first_fault(error)}") from error


def _members(card: Path, source: dict) -> list[dict[str, str]]:
    """The members a csv file beside the card lists. Raises CardError when it cannot be read."""
    if "members" in source:
        raise CardError(f"{card}: source has members and members_from; one of them.")
    path = card.parent / PurePosixPath(str(source["members_from"])).name
    try:
        with open(path, newline="", encoding="utf-8") as stream:
            reader = csv.DictReader(stream, restkey="more")
            members = list(reader)
    except (OSError, csv.Error, UnicodeDecodeError) as error:
        raise CardError(f"{card}: its members_from cannot be read ({error}).") from error
    if reader.fieldnames != MEMBER_COLUMNS:
        raise CardError(f"{path}: columns are {reader.fieldnames}, expected {MEMBER_COLUMNS}.")
    return members


def _first_fault(error: Exception) -> str:
    """The first fault of a pydantic error in one line."""
    if not isinstance(error, ValidationError):
        return str(error)
    fault = error.errors()[0]
    where = ".".join(str(part) for part in fault["loc"]) or "card"
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    got = "" if fault["type"] in ("missing", "extra_forbidden") else f", got {str(fault.get('input'))[:60]!r}"
    return f"{where}: {fault['msg']}{got}{more}."
