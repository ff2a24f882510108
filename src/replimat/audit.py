"""The audit of a run's record before it is judged: a wrong number must not become a verdict.

Each check holds the record against something that does not come from it: the dataset's card, the prepared data, the
predictions, the other runs. A check says pass, fail, or that it could not be made and why.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from replimat.records import Predictions, Run, SeedResult, finite, ids_sha256, number, targets_sha256

RESCORE = 1e-4  # relative: predictions may be kept in float32, metrics are taken in float64
FLOOR = 1e-6  # absolute, for metrics near zero
UNIT_FACTOR = 30  # a constant's error and the targets' own spread differ by far less; units differ by 1000


@dataclass(frozen=True)
class Expected:
    """What a run must agree with, as far as it is known; None where it is not.

    unit and range: of the target, from the dataset's card. data_sha256: of the dataset's content. prepared_key: of the
    prepared file that this dataset, target, representation and code make now. split_sha256, test_ids_sha256 and
    test_targets_sha256: of the split and of the test set's true values, from the prepared data.
    """

    unit: str | None = None
    range: tuple[float, float] | None = None
    data_sha256: str | None = None
    prepared_key: str | None = None
    split_sha256: str | None = None
    test_ids_sha256: str | None = None
    test_targets_sha256: str | None = None


Samples = Mapping[str, np.ndarray]  # columns of the table of what a seed generated


@dataclass(frozen=True)
class Check:
    """`ok` is True, False, or None when the check could not be made; `message` says what came and what was expected."""

    name: str
    ok: bool | None
    message: str = ""


def check_run(run: Run, predictions: Mapping[int, Predictions | Samples | None], expected: Expected) -> list[Check]:
    """Every check of one run; predictions, or tables of what was generated, by seed. A crashed run has nothing to
    check.
    """
    if run.status == "failed":
        return []
    finished = [seed for seed in run.seeds if seed.status == "ok"]
    checks = [_unit(run, expected), _protocol(run), _keys(run, expected)]
    for seed in finished:
        checks.append(_counts(run, seed))
        if run.task == "generation":
            checks += _against_samples(run, seed, predictions.get(seed.seed))
        elif run.task in SCORERS:
            checks += _against_predictions(run, seed, predictions.get(seed.seed), expected)
    return checks


def check_together(runs: Iterable[tuple[Run, Predictions | None]]) -> dict[tuple[str, str], Check]:
    """Runs of different targets whose test sets hold the same values: a cache served the wrong target.

    Returns the failed checks by experiment and target. A published code once served the bulk modulus from its cache as
    the shear modulus; nothing inside either run shows that.
    """
    owner: dict[str, Run] = {}
    found = {}
    for run, predictions in runs:
        if predictions is None or run.task not in SCORERS:
            continue
        first = owner.setdefault(targets_sha256(predictions.ids, predictions.target), run)
        if first.target != run.target:
            message = f"its test targets ({run.target}) are those of {first.experiment} ({first.target})"
            found[run.experiment, run.target] = Check("stale cache", False, f"{message}: prepare both again")
    return found


def faults(checks: Iterable[Check]) -> list[str]:
    """The failed checks, once each, as 'name: message'."""
    return list(dict.fromkeys(f"{check.name}: {check.message}" for check in checks if check.ok is False))


# ------------------------------------------------------------- the record


def _unit(run: Run, expected: Expected) -> Check:
    if expected.unit is None:
        return Check("unit", None, f"no card says the unit of {run.target}")
    same = run.unit == expected.unit
    return Check("unit", same, "" if same else f"the run is in {run.unit}, the dataset's card says {expected.unit}")


def _protocol(run: Run) -> Check:
    claims_full = run.full_protocol and (run.scale != "paper" or run.data_origin not in ("paper", "simulated"))
    message = f"full_protocol is set at {run.scale} scale on {run.data_origin} data"
    return Check("protocol", not claims_full, message if claims_full else "")


def _keys(run: Run, expected: Expected) -> Check:
    """Hashes of what went in: data, prepared file, split."""
    names = {"data_sha256": "dataset", "prepared_key": "prepared file", "split_sha256": "split"}
    known = {name: wanted for name in names if (wanted := getattr(expected, name))}
    if not known:
        return Check("stale cache", None, "the data is not here to compare hashes with")
    for name, wanted in known.items():
        if (came := run.provenance.get(name)) != wanted:
            kind = "wrong split" if name == "split_sha256" else "stale cache"
            message = f"{names[name]} {str(came)[:12]}, expected {wanted[:12]}: run the experiment again"
            return Check(kind, False, message)
    return Check("stale cache", True)


def _counts(run: Run, seed: SeedResult) -> Check:
    name = "counts"
    if run.n_test is None or seed.evaluated is None or seed.failed is None:
        lacking = run.task in SCORERS or run.task == "generation"
        return Check(name, False if lacking else None, f"seed {seed.seed} does not say how many rows it evaluated")
    if seed.evaluated < 0 or seed.failed < 0 or seed.evaluated + seed.failed != run.n_test:
        said = f"{seed.evaluated} evaluated + {seed.failed} failed is not n_test {run.n_test}"
        return Check(name, False, f"seed {seed.seed}: {said}")
    return Check(name, True)


# -------------------------------------------------------- the predictions


def _against_predictions(run: Run, seed: SeedResult, found: Predictions | None, expected: Expected) -> list[Check]:
    if found is None:
        return [Check("re-scored", None, f"seed {seed.seed} has no predictions.parquet")]
    usable = np.isfinite(found.target) & np.isfinite(found.prediction)
    checks = [_rows(run, seed, found, usable), _ids(run, found, expected), _targets(found, expected, run)]
    checks.append(_range(found, expected))
    if usable.any():
        checks += [_rescored(run, seed, found, usable)]
        checks += [_baseline(run, found.target[usable])]
    return checks


def _rows(run: Run, seed: SeedResult, found: Predictions, usable: np.ndarray) -> Check:
    name = "rows"
    if len(set(found.ids)) != len(found):
        twice = len(found) - len(set(found.ids))
        return Check(name, False, f"seed {seed.seed}: {twice} ids stand more than once in predictions.parquet")
    if usable.sum() != seed.evaluated:
        came = f"{usable.sum()} usable rows in predictions.parquet"
        return Check(name, False, f"seed {seed.seed}: {came}, {seed.evaluated} evaluated by the record")
    return Check(name, True)


def _ids(run: Run, found: Predictions, expected: Expected) -> Check:
    name = "split"
    if expected.test_ids_sha256 is None:
        return Check(name, None, "the ids of the test set were not recorded")
    if len(found) < (run.n_test or 0):
        return Check(name, None, "failed rows are not among the predictions")
    same = ids_sha256(found.ids) == expected.test_ids_sha256
    return Check(name, same, "" if same else "the predicted rows are not the test rows of the split")


def _targets(found: Predictions, expected: Expected, run: Run) -> Check:
    name = "targets"
    if expected.test_targets_sha256 is None:
        return Check(name, None, "the targets of the test set were not recorded")
    if len(found) < (run.n_test or 0):
        return Check(name, None, "failed rows are not among the predictions")
    if targets_sha256(found.ids, found.target) == expected.test_targets_sha256:
        return Check(name, True)
    if targets_sha256(found.ids, found.prediction) == expected.test_targets_sha256:
        return Check(name, False, "the columns target and prediction are swapped")
    return Check(name, False, "the true values beside the predictions are not the dataset's")


def _range(found: Predictions, expected: Expected) -> Check:
    if expected.range is None:
        return Check("range", None, "the card gives no range for the target")
    low, high = expected.range
    outside = int(((found.target < low) | (found.target > high)).sum())
    message = f"{outside} of {len(found)} true values lie outside {low:g} to {high:g}: another unit?"
    return Check("range", outside == 0, message if outside else "")


def _rescored(run: Run, seed: SeedResult, found: Predictions, usable: np.ndarray) -> Check:
    """Every recorded metric that can be taken again from the predictions must come out the same."""
    name = "re-scored"
    target, prediction = found.target[usable], found.prediction[usable]
    again = rescore(run.task, target, prediction) | _within(seed, target, prediction, len(found))
    if found.probabilities is not None:
        again |= _top_two(target, found.probabilities[usable])
    for metric, value in again.items():
        came = seed.metrics.get(metric)
        if not finite(came) or _close(came, value):
            continue
        message = f"seed {seed.seed}: {metric} is {number(came)} by the record, {number(value)} from its predictions"
        if run.task == "regression" and _close(came, _regression(prediction, target).get(metric, np.inf)):
            message += " (its arguments were swapped)"
        elif came and value and any(_close(came, value * factor) for factor in (1e3, 1e-3, 1e6, 1e-6)):
            message += " (units?)"
        return Check(name, False, message)
    known = [metric for metric in again if metric in seed.metrics]
    return Check(name, True if known else None, "" if known else "no recorded metric can be taken from predictions")


def _baseline(run: Run, target: np.ndarray) -> Check:
    """The mean predictor's error is of the size of the targets' own spread, or it is in another unit."""
    recorded = run.baselines.get("mean", {}).get("mae")
    spread = float(np.abs(target - target.mean()).mean())
    if run.task != "regression" or not finite(recorded) or spread == 0:
        return Check("baseline unit", None, "no mean predictor to compare with the targets")
    ok = spread / UNIT_FACTOR < recorded < spread * UNIT_FACTOR
    message = f"the mean predictor's MAE is {number(recorded)}, the targets' spread {number(spread)} {run.unit}"
    return Check("baseline unit", ok, "" if ok else message)


# ------------------------------------------------------------ the samples


def _against_samples(run: Run, seed: SeedResult, found: Samples | None) -> list[Check]:
    if found is None:
        return [Check("re-scored", None, f"seed {seed.seed} has no samples.parquet")]
    return [_sample_rows(seed, found), _rescored_samples(seed, found)]


def _sample_rows(seed: SeedResult, found: Samples) -> Check:
    name = "rows"
    made = found["of"] == "made"
    ids, lost = found["id"][made], int((found["failed"][made] != "").sum())
    if len(set(ids)) != len(ids):
        return Check(name, False, f"seed {seed.seed}: ids stand more than once in samples.parquet")
    if (len(ids) - lost, lost) != (seed.evaluated, seed.failed):
        said = f"{seed.evaluated} evaluated and {seed.failed} failed by the record"
        return Check(name, False, f"seed {seed.seed}: {len(ids)} samples, {lost} of them failed; {said}")
    passed = [
        k for k in found if k.startswith(("share.", "count.")) and (found[k][made] == 1)[_lost(found)[made]].any()
    ]
    if passed:
        return Check(name, False, f"seed {seed.seed}: samples that could not be decoded pass {', '.join(passed)}")
    return Check(name, True)


def _lost(found: Samples) -> np.ndarray:
    """Samples that could not be decoded [n]."""
    return (found["of"] == "made") & (found["failed"] != "")


def _rescored_samples(seed: SeedResult, found: Samples) -> Check:
    """Every recorded metric, taken again from the table."""
    name = "re-scored"
    again = rescore_samples(found)
    if unknown := [metric for metric in seed.metrics if metric not in again]:
        return Check(name, False, f"seed {seed.seed}: samples.parquet says nothing of {', '.join(unknown)}")
    for metric, value in again.items():
        came = seed.metrics.get(metric)
        if not finite(came) and not finite(value):
            continue
        if not (finite(came) and finite(value) and _close(came, value)):
            message = f"seed {seed.seed}: {metric} is {number(came)} by the record, {number(value)} from its samples"
            return Check(name, False, message)
    return Check(name, True)


# ----------------------------------------------- scoring again, apart from replimat.evaluation


def _regression(target: np.ndarray, prediction: np.ndarray) -> dict[str, float]:
    error = prediction - target
    mae, mse, variance = np.abs(error).mean(), (error**2).mean(), target.var()
    mad = np.abs(target - target.mean()).mean()
    scores = {"mae": mae, "mse": mse, "rmse": np.sqrt(mse), "mad": mad}
    scores |= {"mad_mae": mad / mae} if mae > 0 else {}
    scores |= {"mape": 100 * np.abs(error / target).mean()} if (target > 0).all() else {}
    return scores | ({"r2": 1 - mse / variance} if variance > 0 else {})


def _classification(target: np.ndarray, prediction: np.ndarray) -> dict[str, float]:
    from sklearn import metrics

    if set(np.unique(target)) != {0.0, 1.0}:
        return {}
    label = prediction > 0.5
    return {
        "auc": metrics.roc_auc_score(target, prediction),
        "accuracy": metrics.accuracy_score(target, label),
        "balanced_accuracy": metrics.balanced_accuracy_score(target, label),
        "f1": metrics.f1_score(target, label, zero_division=0),
        "precision": metrics.precision_score(target, label, zero_division=0),
        "recall": metrics.recall_score(target, label),
        "specificity": metrics.recall_score(target, label, pos_label=0),
    }


def _within(seed: SeedResult, target: np.ndarray, prediction: np.ndarray, rows: int) -> dict[str, float]:
    """Shares within a threshold, ewt_<threshold>; a row without a prediction counts as outside."""
    names = [name for name in seed.metrics if name.startswith("ewt_")]
    total = max(rows, (seed.evaluated or 0) + (seed.failed or 0))
    return {name: float((np.abs(prediction - target) < float(name[4:])).sum() / total) for name in names}


def _multiclass(target: np.ndarray, prediction: np.ndarray) -> dict[str, float]:
    from sklearn import metrics

    mean = {"average": "macro", "zero_division": 0, "labels": np.unique(target)}
    return {
        "accuracy": metrics.accuracy_score(target, prediction),
        "balanced_accuracy": metrics.recall_score(target, prediction, **mean),
        "f1": metrics.f1_score(target, prediction, **mean),
        "precision": metrics.precision_score(target, prediction, **mean),
    }


def _top_two(target: np.ndarray, probabilities: np.ndarray) -> dict[str, float]:
    best = np.argsort(-probabilities, axis=1, kind="stable")[:, :2]
    return {"top2_accuracy": float((best == target[:, None]).any(axis=1).mean())}


def _reconstruction(target: np.ndarray, prediction: np.ndarray) -> dict[str, float]:
    return {"reconstruction_error": float(np.abs(prediction - target).mean())}


def _search_volume(target: np.ndarray, prediction: np.ndarray) -> dict[str, float]:
    return {"reduction": np.prod((target / prediction) ** (1 / len(target)))}


def rescore_samples(found: Samples) -> dict[str, float]:
    """Metrics of a table of samples; what its columns mean says replimat.evaluation.generation."""
    made, scores = found["of"] == "made", {}
    for column in found:
        how, _, metric = column.partition(".")
        values = found[column]
        known = np.isfinite(values) if metric else made  # id, of and failed are text
        if how == "emd":
            scores[f"emd_{metric}"] = _earth_mover(values[known & made], values[known & ~made])
        elif how == "count":
            scores[metric] = float((values[known] == 1).sum())
        elif metric:
            scale = 100 if how == "share" else 1
            scores[metric] = scale * float(np.mean(values[known])) if known.any() else np.nan
    return scores


def _earth_mover(a: np.ndarray, b: np.ndarray) -> float:
    """Area between the two cumulative distributions."""
    if not (len(a) and len(b)):
        return np.nan
    at = np.sort(np.concatenate([a, b]))
    below = [np.searchsorted(np.sort(one), at[:-1], side="right") / len(one) for one in (a, b)]
    return float((np.abs(below[0] - below[1]) * np.diff(at)).sum())


SCORERS = {
    "regression": _regression,
    "classification": _classification,
    "multiclass": _multiclass,
    "reconstruction": _reconstruction,
    "search_volume": _search_volume,
}


def rescore(task: str, target: np.ndarray, prediction: np.ndarray) -> dict[str, float]:
    """Metrics of finite predictions, taken here and not by replimat.evaluation, so that one can check the other."""
    return SCORERS[task](target, prediction)


def _close(a: float, b: float) -> bool:
    return abs(a - b) <= RESCORE * abs(b) + FLOOR
