"""From cards to experiments: which papers run what at which scale."""

import importlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from replimat import cards
from replimat.cards import SCALES, ExperimentCard, ScaleSettings
from replimat.errors import ExperimentError
from replimat.experiments.base import Experiment, Rescored, prepared_path, source_datasets


@dataclass(frozen=True)
class Planned:
    """One experiment of a paper at a scale: its card, settings and description."""

    paper: str
    name: str
    scale: str
    card: ExperimentCard
    settings: ScaleSettings
    experiment: Experiment

    @property
    def folder(self) -> Path:
        """Where its run lies, relative to the project's root."""
        return Path("runs") / self.scale / self.paper / self.name

    @property
    def prepared(self) -> Path | None:
        """Its prepared file; None where released predictions are scored."""
        return None if isinstance(self.experiment, Rescored) else prepared_path(self.experiment)

    @property
    def datasets(self) -> list[str]:
        """Dataset cards it needs, released weights and predictions and what a dataset is derived from included."""
        released = [name for name in (self.card.weights, self.card.predictions, *self.card.judges) if name]
        return sorted(with_parents([*source_datasets(self.experiment), *released]))


def with_parents(names: Iterable[str]) -> set[str]:
    """Datasets and all that they are derived from."""
    found = set(names)
    for name in names:
        if parents := getattr(cards.dataset(name).source, "parents", None):
            found |= with_parents(parents)
    return found


def plan_one(paper: str, name: str, scale: str) -> Planned:
    """One experiment. Raises ExperimentError for an unknown scale or experiment, CardError for an unknown paper."""
    if scale not in SCALES:
        raise ExperimentError(f"Unknown scale {scale!r}; known: {', '.join(SCALES)}.")
    experiments = cards.paper(paper).experiments
    if name not in experiments:
        known = ", ".join(experiments) or f"none yet ({cards.paper(paper).not_attempted})"
        raise ExperimentError(f"Paper {paper!r} has no experiment {name!r}; known: {known}.")
    card = experiments[name]
    settings = card.at(scale)
    if settings is None:
        raise ExperimentError(f"{paper}/{name} has no settings for scale {scale!r} on its card.")
    return Planned(paper, name, scale, card, settings, _experiment(paper, card, settings, scale))


def _experiment(paper: str, card: ExperimentCard, settings: ScaleSettings, scale: str) -> Experiment:
    """What the paper's module makes of a card; to score released predictions is the same for every paper."""
    if card.predictions:
        targets = tuple(card.claims_by_target)
        return Rescored(card.target, targets, card.dataset, card.predictions, **settings.model)
    return importlib.import_module(f"replimat.experiments.{paper}").build(card, settings, scale)


def plan_paper(paper: str, scale: str, data: str = "embedded") -> list[Planned]:
    """Experiments of a paper that run at a scale and need no data beyond `data` ("embedded"; "paper" means all)."""
    names = [name for name, card in cards.paper(paper).experiments.items() if card.at(scale)]
    planned = [plan_one(paper, name, scale) for name in names]
    return [one for one in planned if data == "paper" or all(cards.dataset(d).data == "embedded" for d in one.datasets)]


def plan(scale: str, data: str = "embedded") -> dict[str, list[Planned]]:
    """The whole suite: experiments by paper, papers without any included."""
    return {key: plan_paper(key, scale, data) for key in cards.paper_keys()}
