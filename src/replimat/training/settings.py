"""What a training run is told to do. No torch here: experiments describe their training without importing it."""

from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True)
class Training:
    """The published recipe of one experiment at one scale.

    loss: "mse", "mae", "smooth_l1", "nll" (two classes, log-probabilities) or "cross_entropy" (several, logits);
    weights: of the losses by target where several are learned at once ("energy", "forces"), empty for one target; lr
    of the optimiser; schedule: "multistep" (factor `gamma` at each fraction of the epochs in `milestones`),
    "exponential" (factor `gamma` every `decay_steps` steps), "onecycle" (`warm_up` is the rising fraction) or
    "constant"; ema: decay of the weight average (0 is off); clip: gradient norm (0 is off); patience: epochs without
    improvement of the monitored metric before stopping (0 is off); keep: which weights are kept at the end, "best" on
    validation or the "last".
    """

    epochs: int
    batch_size: int
    lr: float
    loss: Literal["mse", "mae", "smooth_l1", "nll", "cross_entropy"] = "mse"
    optimiser: Literal["sgd", "adam", "adamw"] = "adam"
    momentum: float = 0.9
    weight_decay: float = 0.0
    schedule: Literal["multistep", "exponential", "onecycle", "constant"] = "constant"
    milestones: tuple[float, ...] = (0.8,)
    gamma: float = 0.1
    decay_steps: int = 100_000
    warm_up: float = 0.3
    ema: float = 0.0
    clip: float = 0.0
    patience: int = 0
    keep: Literal["best", "last"] = "best"
    weights: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Scaling:
    """How a target is made easy to learn; fitted on the training rows alone, undone on every prediction.

    references: subtract a least-squares energy per element ("elements") or the mean ("mean"), or leave the target as it
    is ("none"); per_atom: the spread is taken per atom, for models that sum over atoms.
    """

    references: Literal["mean", "elements", "none"] = "mean"
    per_atom: bool = False
