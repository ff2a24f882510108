"""SchNet: twelve QM9 targets, and formation energy and metallicity of Materials Project crystals."""

from replimat.cards import ExperimentCard, ScaleSettings
from replimat.experiments.base import Selection, Supervised
from replimat.representations.cutoff_graph import CutoffGraph
from replimat.training.settings import Scaling, Training

QM9_TARGETS = ("mu", "alpha", "homo", "lumo", "gap", "r2", "zpve", "u0", "u", "h", "g", "cv")
INTENSIVE = ("homo", "lumo", "gap", "formation_energy", "is_metal")  # averaged over atoms; the others are summed
WITHOUT_REFERENCES = ("mu", "r2")  # not sums of atomic values to begin with: scaled per atom only
SHARED_ROWS = {"qm9": QM9_TARGETS, "mp_sample": ("fermi_energy", "is_metal")}


def build(card: ExperimentCard, settings: ScaleSettings, scale: str) -> Supervised:
    rows = SHARED_ROWS.get(card.dataset, (card.target,))
    return Supervised(
        target=card.target,
        data=Selection(card.dataset, rows, settings.n_train, settings.n_val, settings.n_test),
        representation=CutoffGraph(cutoff=settings.model["cutoff"]),
        model=lambda arrays: _model(card.target, settings),
        training=training(card.target, settings, scale),
        scaling=scaling(card.target),
        thresholds=(0.02, 0.01) if card.target == "formation_energy" else (),
    )


def training(target: str, settings: ScaleSettings, scale: str) -> Training:
    """Adam with slow decay and averaged weights as published; below paper scale one cycle, for far fewer steps."""
    loss = "nll" if target == "is_metal" else "mse"
    recipe = {"epochs": settings.epochs, "batch_size": settings.batch_size, "lr": settings.lr, "loss": loss}
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
