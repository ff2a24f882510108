"""Trained weights on disk: safetensors that know everything that decided them."""

from dataclasses import asdict
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from replimat import cards, files
from replimat.experiments.base import AuthorWeights, Learned, prepared_key
from replimat.experiments.catalogue import Planned
from replimat.experiments.provenance import code_sha256
from replimat.representations.prepared import arrays_sha256

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
    """Write the weights of a finished training. Raises StorageError if they cannot be written."""
    tensors, seconds = model.state_dict(), str(seconds)
    metadata = {"identity": identity, "seconds": seconds, "sha256": _digest(tensors, identity, seconds)}
    with files.atomic(path) as temporary:
        temporary.write_bytes(save(tensors, metadata))


def stored_weights(path: Path, identity: str) -> tuple[dict[str, torch.Tensor], float] | None:
    """Finished weights of this identity and the seconds their training took; None if there are none. A damaged file is
    named and not used: training again gives the same weights.
    """
    if not path.exists():
        return None
    try:
        with safe_open(path, framework="pt") as stored:
            metadata = stored.metadata() or {}
            tensors = {name: stored.get_tensor(name) for name in stored.keys()}
        found, seconds = metadata["identity"], metadata["seconds"]
        whole = metadata["sha256"] == _digest(tensors, found, seconds)
    except (SafetensorError, KeyError, ValueError):
        whole = False
    if not whole:
        print(f"{path}: damaged, or of an older version of replimat; not used.", flush=True)
        return None
    return (tensors, float(seconds)) if found == identity else None


def _digest(tensors: dict[str, torch.Tensor], identity: str, seconds: str) -> str:
    arrays = {name: tensor.cpu().numpy() for name, tensor in tensors.items()}
    return files.sha256_json([identity, seconds, arrays_sha256(arrays)])
