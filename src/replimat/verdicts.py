"""The judge: one claim of a paper against one run of ours.

n finished seeds gave x_1..x_n with mean m and sample standard deviation s; r is the reported value, h half a unit of
its last printed digit, eps the relative margin. The accepted range is r -+ (eps |r| + h). The rules are asked in this
order and the first that applies speaks:

 1. NOT ATTEMPTED  there is no run, with the card's reason
 2. FAILED         the run crashed; a check of its record failed; its unit is not the claim's; half or more of its
                   seeds diverged
 3. NOT ATTEMPTED  the run does not measure this metric
 4. FAILED         not better than a trivial baseline (not asked at smoke scale: two epochs show only that it runs;
                   nor of released predictions that are only scored again)
 5. EXACT          deterministic, on the paper's own rows: |m - r| <= h; otherwise BETTER or WORSE
 6. REDUCED        below paper scale, on other data, otherwise short of the protocol, or nothing reported to compare
 7. INCONCLUSIVE   the full protocol, but the paper prints no number
 8. INDICATIVE     n < 3
 9. REPRODUCED     m -+ t(0.95, n-1) s sqrt(1 + 1/n) inside the accepted range: two one-sided tests at 5 %; the 1
                   stands for the paper's own noise, its number being one run
10. BETTER, WORSE  that interval wholly outside, on the good or the bad side
11. CONSISTENT     r inside the 95 % prediction interval m -+ t(0.975, n-1) s sqrt(1 + 1/n), but the interval of 9 is
                   wider than the accepted range; the seeds needed are said
12. INCONCLUSIVE   none of these

Seeds that diverged are counted before anything else and named in the reason. Claims recalled from memory are judged
alike and never counted.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from replimat.cards import Claim, Margin
from replimat.errors import DataError
from replimat.margins import default_margin, is_score
from replimat.records import Run, conversion, finite, number, shown

VERDICTS = (
    "EXACT",
    "REPRODUCED",
    "BETTER",
    "CONSISTENT",
    "INDICATIVE",
    "INCONCLUSIVE",
    "REDUCED",
    "WORSE",
    "FAILED",
    "NOT ATTEMPTED",
)
BASELINES = {
    "mean": "mean predictor",
    "random_forest": "random forest on composition",
    "pair_ridge": "ridge regression on inverse distances",
    "pair_potential": "best pair potential",
    "majority": "most frequent class",
    "nearest_pattern": "nearest training pattern",
    "pattern_ridge": "ridge regression on the pattern",
    "principal_components": "principal components",
    "untrained": "same generator without training",
    "random_structure": "random structures",
}
OF_ONE_CLASS = ("recall", "specificity", "precision")
MIN_SEEDS = 3  # with two, t(0.95, 1) = 6.3: the interval says nothing
MAX_SEEDS = 200  # more than this nobody will run
SLACK = 1e-9  # relative; so that 0.0395 - 0.039 <= 0.0005 in floating point


@dataclass(frozen=True)
class Verdict:
    """What the judge says of one claim. Numbers are in `unit`; low and high bound the interval of rule 9."""

    name: str
    reason: str
    unit: str = ""
    ours: float | None = None
    std: float | None = None
    n_seeds: int = 0
    ratio: float | None = None
    low: float | None = None
    high: float | None = None
    eps: float | None = None
    eps_reason: str = ""
    seeds_needed: int | None = None
    baselines: dict[str, float] | None = None
    counted: bool = False


@dataclass(frozen=True)
class Case:
    """A claim with a run's numbers in the claim's unit. `lost` says which seeds have no number, and why."""

    claim: Claim | None
    run: Run
    metric: str
    direction: str
    unit: str
    values: np.ndarray  # [n]
    baselines: dict[str, float]
    lost: tuple[str, ...]
    measured: bool
    faults: tuple[str, ...]
    eps: float | None = None
    eps_reason: str = ""

    @property
    def reported(self) -> float | None:
        return self.claim.value if self.claim else None

    @property
    def n(self) -> int:
        return len(self.values)

    @property
    def mean(self) -> float:
        return float(np.mean(self.values))

    @property
    def std(self) -> float | None:
        """Sample standard deviation; None for one seed, or where there is no randomness."""
        return float(np.std(self.values, ddof=1)) if self.n > 1 and not self.run.deterministic else None

    @property
    def accepted(self) -> tuple[float, float]:
        """The range a value may lie in. Where the paper prints a bound ('>', '<'), that side is open."""
        reach = self.eps * abs(self.reported) + half_digit(self.claim)
        low = -math.inf if self.claim.qualifier.startswith("<") else self.reported - reach
        high = math.inf if self.claim.qualifier.startswith(">") else self.reported + reach
        return low, high


def judge(
    claim: Claim | None,
    run: Run | None,
    margin: Margin | None = None,
    faults: Sequence[str] = (),
    absent: str = "no run at this scale",
) -> Verdict:
    """The verdict on one claim.

    claim None: an experiment the paper reports no number for, judged on its primary metric. run None: nothing was run,
    because of `absent`. margin: the experiment card's, else default_margin. faults: what `check_run` found wrong.
    """
    counted = claim is not None and claim.seen == "verbatim" and claim.role == "own"
    if run is None:
        return Verdict("NOT ATTEMPTED", absent, unit=claim.unit if claim else "", counted=counted)
    case = case_of(claim, run, faults)
    if case.reported is not None:
        eps, reason = (margin.value, margin.reason) if margin else default_margin(claim, run)
        case = replace(case, eps=eps, eps_reason=reason)
    name, reason = next(found for rule in RULES if (found := rule(case)))
    return _with_numbers(case, name, "; ".join(dict.fromkeys((*case.lost, reason))), counted)


def case_of(claim: Claim | None, run: Run, faults: Sequence[str] = ()) -> Case:
    """Collect what the rules need: each finished seed's value and the baselines, in the claim's unit."""
    metric = claim.metric if claim else run.primary_metric
    unit = claim.unit if claim else run.unit_of(metric)
    direction = claim.direction if claim else ("higher" if is_score(metric) or metric == "r2" else "lower")
    faults = list(faults)
    raw, lost, measured = [], [], False
    for seed in run.seeds:
        measured = measured or metric in seed.metrics
        if seed.status != "ok":
            lost.append(f"seed {seed.seed} {seed.status}" + (f" ({seed.reason})" if seed.reason else ""))
        elif metric in seed.metrics and not finite(seed.metrics[metric]):
            lost.append(f"seed {seed.seed}: {metric} is not a number")
        elif metric in seed.metrics:
            raw.append(seed.metrics[metric])
    baselines = {name: scores[metric] for name, scores in run.baselines.items() if finite(scores.get(metric))}
    try:
        factor = conversion(run.unit_of(metric), unit) if measured else 1.0
    except DataError as error:
        factor, raw = 1.0, []
        faults.append(f"unit: {error}")
    if lost:
        lost = [f"{len(lost)} of {len(run.seeds)} seeds without a number: {', '.join(lost)}"]
    return Case(
        claim=claim,
        run=run,
        metric=metric,
        direction=direction,
        unit=unit,
        values=np.array(raw, dtype=float) * factor,
        baselines={name: value * factor for name, value in baselines.items()},
        lost=tuple(lost),
        measured=measured,
        faults=tuple(faults),
    )


# ------------------------------------------------------------------- rules: (name, reason), or None to pass on

Found = tuple[str, str] | None


def _broken(case: Case) -> Found:
    if case.run.status == "failed":
        return "FAILED", case.run.reason or "the run crashed and left no reason"
    if case.faults:
        return "FAILED", "; ".join(case.faults)
    lost = len(case.run.seeds) - case.n
    if case.lost and 2 * lost >= len(case.run.seeds):
        return "FAILED", case.lost[0]
    return None


def _not_measured(case: Case) -> Found:
    if case.measured:
        return None
    return "NOT ATTEMPTED", f"this experiment does not measure {case.metric}"


def _trivial(case: Case) -> Found:
    """Not asked of released predictions: whether the printed number comes out is another question."""
    if case.run.scale == "smoke" or case.run.kind == "author_predictions":
        return None
    said = _beaten(case)
    return ("FAILED", said) if said else None


def _deterministic(case: Case) -> Found:
    run, claim = case.run, case.claim
    if not run.deterministic or case.reported is None or _departures(case):
        return None
    low, high = replace(case, eps=SLACK).accepted
    if low <= case.mean <= high:
        said = _beaten(case)
        return "EXACT", "no randomness, and equal to the printed digits" + (f"; {said}" if said else "")
    printed, ours = (f"{value:.{claim.digits + extra}f}" for value, extra in ((claim.value, 0), (case.mean, 2)))
    return (
        _side(case, case.mean),
        f"no randomness, yet {ours} where the paper prints {printed}: a real difference, not noise",
    )


def _reduced(case: Case) -> Found:
    if departures := _departures(case):
        return "REDUCED", "; ".join(departures)
    return ("REDUCED", "no reported number to compare with") if case.claim is None else None


def _no_number(case: Case) -> Found:
    return ("INCONCLUSIVE", "the paper prints no number") if case.reported is None else None


def _few_seeds(case: Case) -> Found:
    if case.n >= MIN_SEEDS:
        return None
    return "INDICATIVE", f"{case.n} seed{'s' * (case.n != 1)}: the spread is unknown, {MIN_SEEDS} are needed"


def _equivalence(case: Case) -> Found:
    reach = half_width(case.std, case.n)
    bottom, top = case.mean - reach, case.mean + reach
    low, high = case.accepted
    if low <= bottom and top <= high:
        return "REPRODUCED", f"{case.n} seeds inside the margin of {case.eps:.1%}"
    if top < low or bottom > high:
        return _side(case, case.mean), f"{case.n} seeds wholly outside the margin of {case.eps:.1%}"
    return None


def _consistent(case: Case) -> Found:
    low, high = case.accepted
    reach = half_width(case.std, case.n, level=0.975)
    r_inside = case.mean - reach <= min(high, case.reported) and max(low, case.reported) <= case.mean + reach
    if not r_inside or 2 * half_width(case.std, case.n) <= high - low:
        return None
    needed = seeds_needed(case)
    power = f"{needed} seeds would do" if needed else f"no number of seeds up to {MAX_SEEDS} would do"
    return "CONSISTENT", f"agrees, but {case.n} seeds spread wider than the margin of {case.eps:.1%}; {power}"


def _undecided(case: Case) -> Found:
    return "INCONCLUSIVE", f"{case.n} seeds neither inside nor wholly outside the margin of {case.eps:.1%}"


RULES: tuple[Callable[[Case], Found], ...] = (
    _broken,
    _not_measured,
    _trivial,
    _deterministic,
    _reduced,
    _no_number,
    _few_seeds,
    _equivalence,
    _consistent,
    _undecided,
)


# ------------------------------------------------------------- statistics


def half_width(std: float, n: int, level: float = 0.95) -> float:
    """t(level, n-1) s sqrt(1 + 1/n): one-sided reach of the interval for one more run, from n runs with spread s."""
    from scipy.special import stdtrit  # the quantile of scipy.stats.t, without loading scipy.stats

    return float(stdtrit(n - 1, level)) * std * math.sqrt(1 + 1 / n)


def seeds_needed(case: Case) -> int | None:
    """Smallest n for which rule 9 would hold if mean and spread stayed as they are; None beyond MAX_SEEDS."""
    low, high = case.accepted
    room = min(case.mean - low, high - case.mean)
    return next((n for n in range(MIN_SEEDS, MAX_SEEDS + 1) if half_width(case.std, n) <= room), None)


def half_digit(claim: Claim) -> float:
    """Half a unit of the last printed digit, in the claim's unit."""
    return 0.5 * 10.0**-claim.digits


# ---------------------------------------------------------------- helpers


def _beaten(case: Case) -> str:
    """Which trivial baseline is as good or better, in words; empty when none is.

    A share of one class is not asked: predicting that class everywhere is trivially perfect. There the run's primary
    metric is compared.
    """
    if case.direction == "none":
        return ""
    if case.metric in OF_ONE_CLASS:
        overall = case_of(None, case.run)
        return _beaten(overall) if overall.n else ""
    sign = 1 if case.direction == "lower" else -1
    better = [name for name, value in case.baselines.items() if sign * case.mean >= sign * value]
    if not better:
        return ""
    best = min(better, key=lambda name: sign * case.baselines[name])
    said = f"{case.metric} {number(case.mean)} against {number(case.baselines[best])} {shown(case.unit)}".rstrip()
    return f"not better than the {BASELINES.get(best, best.replace('_', ' '))}: {said}"


def _side(case: Case, value: float) -> str:
    """BETTER or WORSE than reported; a metric without a good side can only differ, which is WORSE."""
    good = {"lower": value < case.reported, "higher": value > case.reported}.get(case.direction, False)
    return "BETTER" if good else "WORSE"


def _departures(case: Case) -> list[str]:
    """How the run departs from the paper's protocol; empty when it follows it."""
    run, claim = case.run, case.claim
    same_data = run.data_origin == "paper" or (run.data_origin == "simulated" and run.full_protocol)
    if run.kind == "author_weights" and not same_data:
        return ["other crystals than the paper's; they may have been in the training set"]
    if run.full_protocol and same_data:
        return []
    departures = [] if same_data else [f"{run.data_origin} data ({run.dataset})"]
    if not run.deterministic:
        departures += [f"{run.scale} scale"] * (run.scale != "paper")
    elif same_data:  # nothing is trained, so scale does not matter, only the rows
        if claim and claim.n_test and claim.n_test != run.n_test:
            departures.append(f"{run.n_test} test rows where the paper has {claim.n_test}")
        if run.split != "author":
            departures.append("not the author's test rows; they may have been in the training set")
    departures = list(dict.fromkeys([*departures, *run.reductions]))
    return departures or ([] if run.deterministic else ["not the full published protocol"])


def _with_numbers(case: Case, name: str, reason: str, counted: bool) -> Verdict:
    if not case.n:
        return Verdict(name, reason, unit=case.unit, baselines=case.baselines, counted=counted)
    reach = half_width(case.std, case.n) if case.std is not None else None
    return Verdict(
        name,
        reason,
        unit=case.unit,
        ours=case.mean,
        std=case.std,
        n_seeds=case.n,
        ratio=case.mean / case.reported if case.reported else None,
        low=None if reach is None else case.mean - reach,
        high=None if reach is None else case.mean + reach,
        eps=case.eps,
        eps_reason=case.eps_reason,
        seeds_needed=seeds_needed(case) if name == "CONSISTENT" else None,
        baselines=case.baselines,
        counted=counted,
    )
