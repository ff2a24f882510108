"""What an experiment is: rows of a dataset, a representation, a model and its training. Descriptions only; nothing
heavy is imported.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from replimat import cards, files
from replimat.datasets.loading import content_key
from replimat.representations import prepared
from replimat.training.settings import Scaling, Training

SPLIT_SEED = 123  # one split per dataset and sizes, shared by all papers, so that models are ranked on identical work
CONTENT_VERSION = 7  # raise when `prepare` puts other things into a prepared file

Studies = dict[str, Callable[[Any], Any]]  # name -> (ASE calculator -> replimat.physics.found.Found)


@dataclass(frozen=True)
class Selection:
    """Rows of a dataset. require: targets that must all be finite (rows, and so the prepared file, are shared by all
    experiments with the same `require`); sizes in rows; per_atom: targets of the atoms that are kept too; split: name
    of the author's split that comes with the data, then sizes of 0 mean all of a part ("" is rebuilt from the seed);
    ids: exactly these rows in this order, where what is learned from is simulated (they count as test rows);
    where: (target, value) pairs that every row must have; kin: target whose equal values mark related rows (crystals
    of one mineral), kept in one part if `apart`; folds: cross-validation instead of parts, every one of the n_test rows
    (0: all) is tested once and the classes of the first required target are spread evenly; formula: only structures of
    exactly these atoms ("C7H10O2"); also: further targets that are kept, NaN where a row has none, as `also.<name>`."""

    dataset: str
    require: tuple[str, ...]
    n_train: int
    n_val: int
    n_test: int
    seed: int = SPLIT_SEED
    per_atom: tuple[str, ...] = ()
    split: str = ""
    ids: tuple[str, ...] = ()
    where: tuple[tuple[str, float], ...] = ()
    kin: str = ""
    apart: bool = False
    folds: int = 0
    formula: str = ""
    also: tuple[str, ...] = ()


@dataclass(frozen=True)
class Supervised:
    """Train a model on one target, predict the test rows.

    model: prepared arrays -> torch module; extras: further arrays for the prepared file (made from the dataset card
    `extras_from`); thresholds: energies within which a prediction counts as useful (target's unit).
    """

    target: str
    data: Selection
    representation: Any
    model: Callable[[dict], Any]
    training: Training
    scaling: Scaling = field(default_factory=Scaling)
    extras: Callable[[Path], dict] | None = None
    extras_from: str | None = None
    thresholds: tuple[float, ...] = ()
    kind: str = field(default="trained", init=False)
    rung: int = field(default=6, init=False)

    @property
    def task(self) -> str:
        return "classification" if self.training.loss == "nll" else "regression"


@dataclass(frozen=True)
class Potential:
    """Fit energies and forces together, predict both for the test rows. The forces are the model's gradient.

    model: prepared arrays -> torch module whose output is a total energy and whose input `pos` it can be derived by;
    training: by gradient descent, or solve: (module, graphs, training rows, seed) -> None, which fits it in place;
    target: "energy", or "energy_per_atom" where cells differ in size; double: compute in double precision;
    studies: physical properties by name, measured with the fitted model as an ASE calculator.
    """

    data: Selection
    representation: Any
    model: Callable[[dict], Any]
    training: Training | None = None
    solve: Callable[..., None] | None = None
    scaling: Scaling = field(default_factory=lambda: Scaling(per_atom=True))
    target: str = "energy"
    double: bool = False
    studies: Studies = field(default_factory=dict)
    task: str = field(default="regression", init=False)
    thresholds: tuple[float, ...] = field(default=(), init=False)
    extras: None = field(default=None, init=False)
    extras_from: None = field(default=None, init=False)
    kind: str = field(default="trained", init=False)
    rung: int = field(default=6, init=False)


@dataclass(frozen=True)
class AuthorWeights:
    """Predict the test rows with weights the authors released; forces too, where `data.per_atom` asks for them.

    load: (folder of the weights, prepared arrays) -> (module, FittedScaling); double, studies: as in Potential.
    """

    target: str
    data: Selection
    representation: Any
    load: Callable[[Path, dict], tuple]
    weights: str
    task: str = "regression"
    extras: Callable[[Path], dict] | None = None
    extras_from: str | None = None
    thresholds: tuple[float, ...] = ()
    double: bool = False
    studies: Studies = field(default_factory=dict)
    kind: str = field(default="author_weights", init=False)
    rung: int = field(default=3, init=False)


@dataclass(frozen=True)
class Rescored:
    """Score test predictions that the authors released; nothing is prepared or trained.

    target: the main one; targets: all that are scored, target by target; dataset: card of the true values with the
    author's split; predictions: card of the released files; ids_as_text: take ids as they are written, zeros included.
    """

    target: str
    targets: tuple[str, ...]
    dataset: str
    predictions: str
    ids_as_text: bool = False
    kind: str = field(default="author_predictions", init=False)
    rung: int = field(default=4, init=False)


@dataclass(frozen=True)
class Target:
    """Something that is predicted or generated: its task and unit; classes: their names, in the order of their numbers;
    relative: judge it by its error over the true value; primary, units: of what is generated, the metric it is judged
    by and the units of metrics that are neither shares (%) nor plain numbers.
    """

    task: Literal["regression", "classification", "multiclass", "reconstruction", "search_volume", "generation"]
    unit: str = "1"
    classes: tuple[str, ...] = ()
    relative: bool = False
    primary: str = ""
    units: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Predicted:
    """Predictions of one target: ids [m], true values [m], predictions [m], of classes the probability of each
    [m, K]; baselines: name -> trivial predictions of the same rows (values [m], of classes probabilities [m, K]).
    """

    ids: Any
    target: Any
    prediction: Any
    probabilities: Any = None
    baselines: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Made:
    """What a generator made, judged sample by sample in a table of replimat.evaluation.generation; baselines: name ->
    the same table of what a trivial generator made.
    """

    judged: Any
    baselines: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Learned:
    """Learn in the paper's own way, with networks or without; predict one thing or several, or generate.

    targets: what is predicted or generated, by name, the main one first; learn: replimat.experiments.bench.Bench (rows,
    simulated patterns, training, one seed) -> Predicted or Made of every target.
    """

    data: Selection
    representation: Any
    targets: dict[str, Target]
    learn: Callable[[Any], dict[str, Predicted | Made]]
    extras: Callable[[Path], dict] | None = None
    extras_from: str | None = None
    kind: str = field(default="trained", init=False)
    rung: int = field(default=6, init=False)

    @property
    def target(self) -> str:
        return next(iter(self.targets))


Trained = Supervised | Potential
Prepared = Trained | AuthorWeights | Learned  # these need a prepared file
Experiment = Prepared | Rescored


def prepared_key(experiment: Prepared) -> str:
    """Hash of everything that decides the content of the prepared file of an experiment.

    The target is not part of it: the file holds every target of `require` under its own name, and a run picks by name.
    """
    hashes = {name: _content(name) for name in source_datasets(experiment)}
    rows = vars(experiment.data)
    return prepared.prepared_key(
        files.sha256_json(hashes), experiment.representation, rows=rows, content=CONTENT_VERSION
    )


def prepared_path(experiment: Prepared) -> Path:
    """Where the prepared file lies, relative to the project's root."""
    return Path("prepared") / prepared.prepared_name(experiment.data.dataset, prepared_key(experiment))


def source_datasets(experiment: Experiment) -> list[str]:
    """Dataset cards whose files the prepared file is made from, or the predictions are held against."""
    if isinstance(experiment, Rescored):
        return [experiment.dataset]
    return [experiment.data.dataset, *([experiment.extras_from] if experiment.extras_from else [])]


def _content(name: str) -> str:
    """Hash of what a dataset holds: with a reader its files and the code that reads them, else its files."""
    card = cards.dataset(name)
    return content_key(card) if card.reader else files.sha256_json(sorted(m.sha256 for m in card.source.members))
