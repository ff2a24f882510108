"""ALIGNN: formation energy, gap and moduli of Materials Project crystals, eleven QM9 targets, and JARVIS-DFT targets of
the crystals whose structures can be had; and total energies of the latter with the released force fields ALIGNN-FF.
"""

from pathlib import Path

from replimat.cards import ExperimentCard, ScaleSettings
from replimat.experiments.base import AuthorWeights, Experiment, Supervised
from replimat.experiments.shared import ENERGIES, INTENSIVE, WITHOUT_REFERENCES, element_features, selection
from replimat.representations.line_graph import LineGraph
from replimat.training.settings import Scaling, Training


def build(card: ExperimentCard, settings: ScaleSettings, scale: str) -> Experiment:
    arguments = dict(settings.model)
    neighbours = arguments.pop("neighbours")
    split = card.target if card.dataset == "jarvis_dft_sample" else ""  # the author's, one for each target
    common = {
        "target": card.target,
        "data": selection(card, settings, split=split),
        "representation": LineGraph(neighbours, canonise=not card.weights),
        "extras": element_features,
        "extras_from": "cgcnn_weights",
        "thresholds": (0.02, 0.01) if card.target in ENERGIES else (),
    }
    if card.weights:
        return AuthorWeights(load=released(arguments["file"]), weights=card.weights, **common)
    return Supervised(
        model=lambda arrays: _model(arrays, arguments),
        training=training(settings),
        scaling=scaling(card, scale),
        **common,
    )


def training(settings: ScaleSettings) -> Training:
    """The author's recipe at every scale: AdamW, one cycle, mean squared error."""
    return Training(
        settings.epochs, settings.batch_size, settings.lr, optimiser="adamw", weight_decay=1e-5, schedule="onecycle"
    )


def scaling(card: ExperimentCard, scale: str) -> Scaling:
    """The paper's: raw targets of crystals, standardised ones of molecules. Below paper scale all are standardised, and
    sums over the atoms of a molecule have an energy per element taken off, which a mean over atoms would learn slowly.
    """
    if scale == "paper":
        return Scaling(references="mean" if card.dataset == "qm9" else "none")
    summed = card.dataset == "qm9" and card.target not in (*INTENSIVE, *WITHOUT_REFERENCES)
    return Scaling(references="elements" if summed else "mean")


def released(file: str):
    """Loader of a released force field, whose output is the energy in eV/atom."""

    def load(folder: Path, arrays: dict) -> tuple:
        from replimat.models.alignn import load_author_weights
        from replimat.training.scaling import standardised

        return load_author_weights(folder / file, arrays["element_features"]), standardised(0.0, 1.0)

    return load


def _model(arrays: dict, arguments: dict):
    from replimat.models.alignn import ALIGNN

    return ALIGNN(arrays["element_features"], **arguments)
