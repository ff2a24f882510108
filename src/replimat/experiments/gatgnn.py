"""GATGNN: seven Materials Project properties, on the rows and graphs of CGCNN."""

from replimat.cards import ExperimentCard, ScaleSettings
from replimat.experiments.base import Supervised
from replimat.experiments.shared import ENERGIES, element_features, selection
from replimat.representations.crystal_graph import CrystalGraph
from replimat.training.settings import Scaling, Training


def build(card: ExperimentCard, settings: ScaleSettings, scale: str) -> Supervised:
    return Supervised(
        target=card.target,
        data=selection(card, settings),
        representation=CrystalGraph(cutoff=8.0, neighbours=12),
        model=lambda arrays: _model(arrays, settings),
        training=training(settings, scale),
        scaling=Scaling(references="none" if scale == "paper" else "mean"),  # the author trains on raw targets
        extras=element_features,
        extras_from="cgcnn_weights",
        thresholds=(0.02, 0.01) if card.target in ENERGIES else (),
    )


def training(settings: ScaleSettings, scale: str) -> Training:
    """The recipe of the author's script: 200 epochs, of whose two milestones (150 and 250) one is reached; below paper
    scale one cycle, which needs far fewer epochs.
    """
    recipe = {"loss": "smooth_l1", "optimiser": "adamw", "weight_decay": 0.1}
    recipe |= {"epochs": settings.epochs, "batch_size": settings.batch_size, "lr": settings.lr}
    if scale == "paper":
        return Training(**recipe, schedule="multistep", milestones=(0.75,), gamma=0.3, patience=150)
    return Training(**recipe, schedule="onecycle")


def _model(arrays: dict, settings: ScaleSettings):
    from replimat.models.gatgnn import GATGNN

    return GATGNN(arrays["element_features"], **settings.model)
