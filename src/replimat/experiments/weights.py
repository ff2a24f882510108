"""Trained weights on disk: safetensors that know everything that decided them."""

from dataclasses import asdict
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from replimat import cards, files
from replimat.errors import ExperimentError
from replimat.experiments.base import AuthorWeights, Learned, prepared_key
from replimat.experiments.catalogue import Planned
from replimat.experiments.provenance import code_sha256

NO_WEIGHTS = "{}: no weights of these settings and this code there; run `replimat fit` first."


def identity_of(planned: Planned, seed: int) -> str:
    """Hash of everything that decides the weights of a seed: finished or half-trained weights of another are not
    taken.
    """
    experiment = planned.experiment
    settings = planned.settings.model_dump(exclude={"seeds", "note"})
    recipe = getattr(experiment, "training", None)
    training = asdict(recipe) | asdict(experiment.scaling) if recipe else {}
    if isinstance(experiment, AuthorWeights):
        training = {"released": [m.sha256 for m in cards.dataset(experiment.weights).source.members]}
    target = planned.name if isinstance(experiment, Learned) else experiment.target
    return files.sha256_json([prepared_key(experiment), target, settings, training, code_sha256(planned.paper), seed])


def keep_weights(path: Path, model: torch.nn.Module, identity: str, seconds: float) -> None:
    """Write the weights of a finished training."""
    with files.atomic(path) as temporary:
        save_file(model.state_dict(), temporary, metadata={"identity": identity, "seconds": str(seconds)})


def seconds_trained(path: Path, identity: str) -> float | None:
    """Seconds the training of finished weights took; None if there are none of this identity."""
    if not path.exists():
        return None
    try:
        with safe_open(path, framework="pt") as stored:
            metadata = stored.metadata() or {}
    except SafetensorError as error:
        raise ExperimentError(f"{path}: damaged ({error}); delete it and run `replimat fit` again.") from error
    return float(metadata["seconds"]) if metadata.get("identity") == identity else None
