"""MEGNet: thirteen QM9 targets and five Materials Project targets trained here, and the same test rows predicted with
the authors' released weights.
"""

from dataclasses import replace

from replimat.cards import ExperimentCard, ScaleSettings
from replimat.errors import DataError
from replimat.experiments import shared
from replimat.experiments.base import AuthorWeights, Experiment, Supervised
from replimat.experiments.schnet import scaling
from replimat.representations.cutoff_graph import CutoffGraph
from replimat.training.settings import Scaling, Training

INTENSIVE = ("homo", "lumo", "gap", "omega1")  # of QM9; its other targets are predicted per atom
ROWS = shared.ROWS | {"qm9": (*shared.QM9_TARGETS, "omega1")}
ALL_PAIRS = 30.0  # angstrom: longer than any molecule of QM9, so that every pair of atoms is a bond
FREE_ATOMS = {  # QM9's own energies of free atoms, hartree (atomref.txt of doi:10.1038/sdata.2014.22)
    "u0": {1: -0.500273, 6: -37.846772, 7: -54.583861, 8: -75.064579, 9: -99.718730},
    "u": {1: -0.498857, 6: -37.845355, 7: -54.582445, 8: -75.063163, 9: -99.717314},
    "h": {1: -0.497912, 6: -37.844411, 7: -54.581501, 8: -75.062219, 9: -99.716370},
    "g": {1: -0.510927, 6: -37.861317, 7: -54.598897, 8: -75.079532, 9: -99.733544},
}


def build(card: ExperimentCard, settings: ScaleSettings, scale: str) -> Experiment:
    arguments = dict(settings.model)
    cutoff = arguments.pop("cutoff", ALL_PAIRS)
    classes = card.target == "is_metal"
    common = {
        "target": card.target,
        "data": shared.selection(card, settings, ROWS),
        "representation": CutoffGraph(cutoff=cutoff),
        "thresholds": (0.02, 0.01) if card.target == "formation_energy" else (),
    }
    if card.weights:
        task = "classification" if classes else "regression"
        return AuthorWeights(
            load=released(arguments["file"], card.target, cutoff), weights=card.weights, task=task, **common
        )
    extensive = card.dataset == "qm9" and card.target not in INTENSIVE
    arguments |= {"extensive": extensive, "outputs": 2 if classes else 1}
    return Supervised(
        model=lambda arrays: _model(arguments),
        training=training(card.target, settings, scale),
        scaling=scaling(card.target) if extensive else Scaling(references="mean"),
        **common,
    )


def training(target: str, settings: ScaleSettings, scale: str) -> Training:
    """Adam, constant rate, clipped gradients as published; below paper scale one cycle and averaged weights."""
    loss = "nll" if target == "is_metal" else "mse"
    recipe = Training(settings.epochs, settings.batch_size, settings.lr, loss, clip=3.0)
    return recipe if scale == "paper" else replace(recipe, schedule="onecycle", ema=0.99, keep="last")


def released(file: str, target: str, cutoff: float):
    """Loader of the authors' weights in `file` for one target; `cutoff` is that of the graphs they are given.

    Their classifier answers with the probability of a non-metal; its last layer is negated.
    """

    def load(folder, arrays: dict) -> tuple:
        from replimat.models.megnet import load_author_model
        from replimat.training.scaling import FittedScaling

        model, author = load_author_model(folder / file)
        if (author.cutoff or ALL_PAIRS) != cutoff:
            raise DataError(f"{file} was trained on graphs of {author.cutoff} angstrom; the card says {cutoff}.")
        if target == "is_metal":
            for weights in model.readout[-1].parameters():
                weights.data.neg_()
        constant, per_element = (0.0, author.mean) if author.per_atom else (author.mean, 0.0)
        return model, FittedScaling(constant, per_element + free_atoms(target), author.std)

    return load


def free_atoms(target: str):
    """What is added per element, eV [119]: the weights predict atomisation energies, QM9 holds total energies."""
    import numpy as np

    from replimat.training.scaling import MAX_Z
    from replimat.units import convert

    energies = np.zeros(MAX_Z)
    for z, hartree in FREE_ATOMS.get(target, {}).items():
        energies[z] = convert(hartree, "hartree", "eV")
    return energies


def _model(arguments: dict):
    from replimat.models.megnet import MEGNet

    return MEGNet(**arguments)
