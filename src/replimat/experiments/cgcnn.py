"""CGCNN: eight Materials Project properties, trained here, and the same rows predicted with the authors' released
weights.
"""

from pathlib import Path

from replimat.cards import ExperimentCard, ScaleSettings
from replimat.experiments.base import AuthorWeights, Experiment, Supervised
from replimat.experiments.shared import ENERGIES, element_features, selection
from replimat.representations.crystal_graph import CrystalGraph
from replimat.training.settings import Scaling, Training

REPRESENTATION = CrystalGraph(cutoff=8.0, neighbours=12)
CHECKPOINTS = {  # target -> the authors' file
    "formation_energy": "formation-energy-per-atom.pth.tar",
    "energy_per_atom": "final-energy-per-atom.pth.tar",
    "band_gap": "band-gap.pth.tar",
    "fermi_energy": "efermi.pth.tar",
    "log10_bulk_modulus": "bulk-moduli.pth.tar",
    "log10_shear_modulus": "shear-moduli.pth.tar",
    "poisson_ratio": "poisson-ratio.pth.tar",
    "is_metal": "semi-metal-classification.pth.tar",
}


def build(card: ExperimentCard, settings: ScaleSettings, scale: str) -> Experiment:
    common = {
        "target": card.target,
        "data": selection(card, settings),
        "representation": REPRESENTATION,
        "extras": element_features,
        "extras_from": "cgcnn_weights",
        "thresholds": (0.02, 0.01) if card.target in ENERGIES else (),
    }
    classes = 2 if card.target == "is_metal" else 0
    if card.weights:
        task = "classification" if classes else "regression"
        return AuthorWeights(load=released(card.target), weights=card.weights, task=task, **common)
    return Supervised(
        model=lambda arrays: _model(arrays, classes=classes, **settings.model),
        training=training(card.target, settings, scale),
        scaling=Scaling(references="mean"),
        **common,
    )


def training(target: str, settings: ScaleSettings, scale: str) -> Training:
    """The recipe stored in the released checkpoints; below paper scale Adam with one cycle, which needs far fewer
    epochs.
    """
    loss = "nll" if target == "is_metal" else "mse"
    if scale == "paper":
        return Training(
            settings.epochs,
            settings.batch_size,
            settings.lr,
            loss,
            optimiser="sgd",
            schedule="multistep",
            milestones=(0.8,),
            gamma=0.1,
        )
    return Training(settings.epochs, settings.batch_size, settings.lr, loss, optimiser="adam", schedule="onecycle")


def released(target: str):
    """Loader of the authors' weights for one target."""

    def load(folder: Path, arrays: dict) -> tuple:
        from replimat.models.cgcnn import load_author_checkpoint
        from replimat.training.scaling import standardised

        model, normaliser = load_author_checkpoint(folder / CHECKPOINTS[target], arrays["element_features"])
        return model, standardised(**normaliser)

    return load


def _model(arrays: dict, **arguments):
    from replimat.models.cgcnn import CGCNN

    return CGCNN(arrays["element_features"], **arguments)
