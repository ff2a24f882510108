"""What an experiment is: rows of a dataset, a representation, a model and its training. Descriptions only; nothing
heavy is imported.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from replimat import cards, files
from replimat.datasets.loading import content_key
from replimat.representations import prepared
from replimat.training.settings import Scaling, Training

SPLIT_SEED = 123  # one split per dataset and sizes, shared by all papers, so that models are ranked on identical work
CONTENT_VERSION = 4  # raise when `prepare` puts other things into a prepared file


@dataclass(frozen=True)
class Selection:
    """Rows of a dataset. require: targets that must all be finite (rows, and so the prepared file, are shared by all
    experiments with the same `require`); sizes in rows."""

    dataset: str
    require: tuple[str, ...]
    n_train: int
    n_val: int
    n_test: int
    seed: int = SPLIT_SEED


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
class AuthorWeights:
    """Predict the test rows with weights the authors released.

    load: (folder of the weights, prepared arrays) -> (module, FittedScaling).
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
    kind: str = field(default="author_weights", init=False)
    rung: int = field(default=3, init=False)


Experiment = Supervised | AuthorWeights


def prepared_key(experiment: Experiment) -> str:
    """Hash of everything that decides the content of the prepared file of an experiment.

    The target is not part of it: the file holds every target of `require` under its own name, and a run picks by name.
    """
    hashes = {name: _content(name) for name in source_datasets(experiment)}
    rows = vars(experiment.data)
    return prepared.prepared_key(
        files.sha256_json(hashes), experiment.representation, rows=rows, content=CONTENT_VERSION
    )


def prepared_path(experiment: Experiment) -> Path:
    """Where the prepared file lies, relative to the project's root."""
    return Path("prepared") / prepared.prepared_name(experiment.data.dataset, prepared_key(experiment))


def source_datasets(experiment: Experiment) -> list[str]:
    """Dataset cards whose files the prepared file is made from."""
    return [experiment.data.dataset, *([experiment.extras_from] if experiment.extras_from else [])]


def _content(name: str) -> str:
    """Hash of what a dataset holds: with a reader its files and the code that reads them, else its files."""
    card = cards.dataset(name)
    return content_key(card) if card.reader else files.sha256_json(sorted(m.sha256 for m in card.source.members))
