"""How far a number may lie from the reported one and still be the same result, with the reason for that size.

Papers rarely print the spread over their own seeds. Where a card gives no margin of its own, a fraction of rows
(accuracy, AUC) gets the sampling error of such a fraction, and an error gets the widest spread seen between test folds
of a public benchmark: that is mostly data variance, so a ceiling for what another seed or split may change.
"""

import math

from replimat.cards import Claim
from replimat.records import Run
from replimat.units import convert

# Sample std / mean over Matbench's five folds, the widest of the models compared there (snapshot 936176d).
FOLD_SPREAD = {
    "formation_energy": 0.077,  # e_form, 132,752 rows: 2 to 8 %
    "band_gap": 0.045,  # gap, 106,113 rows: 1.2 to 4.5 %
    "log10_shear_modulus": 0.028,  # log_gvrh, 10,987 rows: 0.8 to 2.8 %
    "log10_bulk_modulus": 0.058,  # log_kvrh, 10,987 rows: 4.4 to 5.8 %
}
WIDEST = max(FOLD_SPREAD.values())
SCORES = (
    "auc",
    "accuracy",
    "top2_accuracy",
    "balanced_accuracy",
    "f1",
    "precision",
    "recall",
    "specificity",
)  # fractions of rows, as ewt_* are
GENERATED = (
    "validity",
    "structure_validity",
    "composition_validity",
    "uniqueness",
    "novelty",
    "cov_r",
    "cov_p",
    "match_rate",
    "success_rate",
    "sr5",
    "sr10",
    "sr15",
)  # fractions of what was generated


def default_margin(claim: Claim, run: Run) -> tuple[float, str]:
    """Relative margin eps and its reason, for an experiment whose card gives none."""
    if is_score(claim.metric) and (margin := _sampling_margin(claim, run)):
        return margin
    if run.target in FOLD_SPREAD:
        return FOLD_SPREAD[
            run.target
        ], f"widest spread between Matbench's test folds for {run.target.replace('_', ' ')}"
    return WIDEST, "no spread known for this target: the widest between Matbench's test folds on its large sets"


def is_score(metric: str) -> bool:
    """Whether a metric is a fraction of the test rows, higher being better."""
    metric = metric.removeprefix("validation_").removeprefix("train_")
    return metric in SCORES or metric in GENERATED or metric.startswith("ewt_")


def _sampling_margin(claim: Claim, run: Run) -> tuple[float, str] | None:
    """For a fraction p of n rows: 1.96 times the binomial error of the difference of two such fractions, over p.

    None where that says nothing: p is 0 or 1, or so few rows that it would be wider than any fold spread.
    """
    p = convert(claim.value, claim.unit, "1")
    theirs, ours = claim.n_test or run.n_test, run.n_test
    if not (0 < p < 1 and ours):
        return None
    eps = 1.96 * math.sqrt(p * (1 - p) * (1 / ours + 1 / theirs)) / p
    if eps > WIDEST:
        return None
    return eps, f"sampling error of the difference of two scores near {p:.3g} on {theirs} and {ours} rows"
