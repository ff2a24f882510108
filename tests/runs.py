"""Runs and claims made by hand, for the tests of the judge and of the report."""

import csv
import json

import numpy as np
import pandas as pd

from replimat.audit import Expected
from replimat.cards import Claim
from replimat.records import Predictions, Run, ids_sha256, targets_sha256

HASH = "ab" * 32


def claim(**changes) -> Claim:
    """0.100 eV/atom, an error, on 100 test rows."""
    fields = {
        "claim_id": "harmonic/table1/mp/formation_energy/mae",
        "role": "own",
        "table": "Table 1",
        "dataset": "MP 2018",
        "target": "formation energy",
        "metric": "mae",
        "unit": "eV/atom",
        "model": "Harmonic",
        "value": 0.1,
        "digits": 3,
        "direction": "lower",
        "n_train": 1000,
        "n_val": 100,
        "n_test": 100,
        "source": "made up for tests",
        "seen": "verbatim",
    }
    return Claim(**(fields | changes))


def run(values=(0.1, 0.1, 0.1), metric="mae", **changes) -> Run:
    """A full-protocol run at paper scale whose seeds gave `values`; None makes a seed that diverged."""
    seeds = [
        {"seed": k, "status": "ok", "metrics": {metric: value}, "evaluated": 100, "failed": 0}
        if value is not None
        else {"seed": k, "status": "diverged", "reason": "loss is NaN at epoch 3"}
        for k, value in enumerate(values)
    ]
    fields = {
        "paper": "harmonic",
        "experiment": "mp-formation-energy",
        "scale": "paper",
        "dataset": "mp_flla",
        "data_origin": "paper",
        "target": "formation_energy",
        "unit": "eV/atom",
        "rung": 6,
        "split": "author",
        "status": "ok",
        "primary_metric": metric,
        "n_train": 1000,
        "n_val": 100,
        "n_test": 100,
        "full_protocol": True,
        "seeds": seeds,
    }
    return Run(**(fields | changes))


def measured_run(n=200, seeds=1, classes=False, noise=0.1, **changes) -> tuple[Run, dict[int, Predictions], Expected]:
    """A laptop run with real predictions, its metrics taken from them, and what it must agree with."""
    rng = np.random.default_rng(0)
    ids = np.array([f"mp-{k}" for k in range(n)])
    if classes:
        target = np.arange(n) % 2 * 1.0
        draw = lambda: np.clip(0.5 + 0.3 * (target - 0.5) + noise * rng.standard_normal(n), 0, 1)  # noqa: E731
    else:
        target = -1.6 + rng.standard_normal(n)
        draw = lambda: target + noise * rng.standard_normal(n)  # noqa: E731
    predictions = {k: Predictions(ids, target, draw()) for k in range(seeds)}
    spread = float(np.abs(target - target.mean()).mean())
    mean = {"auc": 0.5, "accuracy": 0.5} if classes else {"mae": spread, "r2": 0.0}
    forest = {"auc": 0.75, "accuracy": 0.7} if classes else {"mae": 0.5 * spread, "r2": 0.5}
    fields = {
        "scale": "laptop",
        "data_origin": "substitute",
        "split": "rebuilt",
        "full_protocol": False,
        "task": "classification" if classes else "regression",
        "target": "is_metal" if classes else "formation_energy",
        "unit": "1" if classes else "eV/atom",
        "primary_metric": "auc" if classes else "mae",
        "n_train": 2500,
        "n_val": 400,
        "n_test": n,
        "reductions": ["2,500 training rows instead of 28,046"],
        "baselines": {"mean": mean, "random_forest": forest},
        "leakage": {"same_id": 0, "same_structure": 3},
        "hardware": "some processor, 2 cores",
        "provenance": {
            "data_sha256": HASH,
            "split_sha256": HASH,
            "prepared_key": HASH,
            "code_commit": "0123456789abcdef",
            "environment_sha256": HASH,
            "wall_seconds": 33.1,
        },
        "seeds": [
            {
                "seed": k,
                "status": "ok",
                "metrics": scores(found, classes),
                "evaluated": n,
                "failed": 0,
                "seconds": 33.1,
            }
            for k, found in predictions.items()
        ],
    }
    expected = Expected(
        unit=fields["unit"],
        range=(0, 1) if classes else (-6, 4),
        data_sha256=HASH,
        prepared_key=HASH,
        split_sha256=HASH,
        test_ids_sha256=ids_sha256(ids),
        test_targets_sha256=targets_sha256(ids, target),
    )
    return run(**(fields | changes)), predictions, expected


def scores(found: Predictions, classes=False) -> dict[str, float]:
    """Metrics of predictions, by the suite's own evaluation."""
    from replimat.evaluation.classification import classification
    from replimat.evaluation.regression import regression

    metrics = (classification if classes else regression)(found.target, found.prediction)
    return {name: value for name, value in metrics.items() if name not in ("evaluated", "failed")}


def write_run(folder, record: Run, predictions: dict[int, Predictions], epochs=8) -> None:
    """The folder an experiment leaves: run.json, and predictions and log of every seed."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "run.json").write_text(record.model_dump_json())
    for seed, found in predictions.items():
        into = folder / f"seed{seed}"
        into.mkdir(exist_ok=True)
        columns = {"id": found.ids, "target": found.target, "prediction": found.prediction}
        pd.DataFrame(columns).to_parquet(into / "predictions.parquet")
        epoch = np.arange(epochs)
        curve = 0.1 + 0.6 * np.exp(-epoch / 3)
        name = f"val_{record.primary_metric}"
        log = {"epoch": epoch, "seconds": epoch * 4.0, "train_loss": curve**2, "val_loss": 1.2 * curve**2, name: curve}
        pd.DataFrame(log | {"lr": 0.01}).to_csv(into / "log.csv", index=False)


def write_project(root, card: dict, claims: list[Claim], dataset: dict | None = None) -> None:
    """A project of one paper (and one dataset) in a folder."""
    import yaml

    paper = root / "papers" / card["key"]
    paper.mkdir(parents=True)
    (root / "datasets").mkdir(exist_ok=True)
    (paper / "card.yaml").write_text(yaml.safe_dump(card, sort_keys=False))
    with open(paper / "claims.csv", "w", newline="") as stream:
        writer = csv.DictWriter(stream, list(Claim.model_fields))
        writer.writeheader()
        writer.writerows(json.loads(one.model_dump_json()) for one in claims)
    if dataset:
        (root / "datasets" / f"{dataset['name']}.yaml").write_text(yaml.safe_dump(dataset, sort_keys=False))
