"""SchNet: twelve QM9 targets, formation energy and metallicity of Materials Project crystals, and energies with forces
along trajectories of molecules and of the fullerene C20.
"""

from replimat.cards import ExperimentCard, ScaleSettings
from replimat.experiments.base import Potential, Supervised
from replimat.experiments.shared import INTENSIVE, WITHOUT_REFERENCES, selection
from replimat.representations.cutoff_graph import CutoffGraph
from replimat.training.settings import Scaling, Training

FORCES = 3.0  # the paper sums over the components of a force; our loss is the mean over them
ENERGY = {"md_c20": 0.1}  # rho of the released C20 energy model; 0.01 for MD17
MD17_ENERGY = 0.01
AUTHOR_SPLIT = {"rmd17": "01"}  # the first of the five splits that come with the revised set


def build(card: ExperimentCard, settings: ScaleSettings, scale: str) -> Supervised | Potential:
    representation = CutoffGraph(cutoff=settings.model["cutoff"])
    if card.target == "energy":
        split = AUTHOR_SPLIT.get(card.dataset.split("_")[0], "")
        return Potential(
            data=selection(card, settings, per_atom=("forces",), split=split),
            representation=representation,
            model=lambda arrays: _model(card.target, settings),
            training=training(card, settings, scale),
        )
    return Supervised(
        target=card.target,
        data=selection(card, settings),
        representation=representation,
        model=lambda arrays: _model(card.target, settings),
        training=training(card, settings, scale),
        scaling=scaling(card.target),
        thresholds=(0.02, 0.01) if card.target == "formation_energy" else (),
    )


def training(card: ExperimentCard, settings: ScaleSettings, scale: str) -> Training:
    """Adam with slow decay and averaged weights as published; below paper scale one cycle, for far fewer steps."""
    loss = "nll" if card.target == "is_metal" else "mse"
    recipe = {"epochs": settings.epochs, "batch_size": settings.batch_size, "lr": settings.lr, "loss": loss}
    if card.target == "energy":
        recipe["weights"] = {"energy": ENERGY.get(card.dataset, MD17_ENERGY), "forces": FORCES}
    if scale == "paper":
        return Training(**recipe, schedule="exponential", gamma=0.96, decay_steps=100_000, ema=0.99)
    return Training(**recipe, schedule="onecycle", ema=0.99)


def scaling(target: str) -> Scaling:
    """Atomic references for sums over atoms; a plain mean for averages over atoms."""
    if target in INTENSIVE:
        return Scaling(references="mean")
    return Scaling(references="mean" if target in WITHOUT_REFERENCES else "elements", per_atom=True)


def _model(target: str, settings: ScaleSettings):
    from replimat.models.schnet import SchNet

    return SchNet(
        pooling="mean" if target in INTENSIVE else "sum",
        outputs=2 if target == "is_metal" else 1,
        **settings.model,
    )
