"""One number per run, paired comparisons of arms, and the verdict. Pure.

Arms are compared in pairs, seed by seed: arm minus other or, for a number of steps and the size of
gradients, log arm minus log other, which reads as a ratio. Two p-values are always computed: the
paired t-test's, and that of the exact sign-flip permutation test, which assumes only that without
an effect a difference is as likely to be positive as negative.

Which one decides is fixed by the numbers of pairs and of predictions, before any result is seen.
From n pairs the sign-flip test's p-value is never below 2 / 2^n. It decides where n allows: where
that least p-value, Holm-corrected for all predictions of the experiment, is below 0.05 (6 pairs
for one prediction, 8 for four). With fewer pairs the t-test decides; then the normality that it
assumes is taken on trust.

A diverged run is worse than any number. Its pair is left out of the means, and so no arm can be
found to have less than another while one of its own runs diverged: that verdict stays undecided.

That two arms are the same within a margin is shown by two one-sided t-tests (Schuirmann 1987), that
the difference is above the lower margin and below the upper. It is refuted by the same test the
other way round: the difference is shown to lie beyond a margin. A difference that is real but
smaller than the margin refutes nothing.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import scipy  # its parts, a second in all, come as they are used: after the training

from jaxcnn.experiment import Measure
from jaxcnn.records import Record

ALPHA = 0.05
POWER = 0.8
LEAST = float(np.finfo(np.float32).tiny)
MOST_SEEDS = 1000  # a difference that needs more is called out of reach
QUANTILES = 4000  # of the chi distribution, in the interval of d
ENUMERATED = 16  # up to 2^16 sign patterns are all visited; beyond, 99,999 are drawn


def value(record: Record | None, measure: Measure) -> float | None:
    """`measure` of a run: infinite if it diverged, None while its record does not hold it."""
    if record is None or record.result is None:
        return None
    if record.diverged:
        return math.inf
    if measure.probe is not None:
        return _probed(record, measure)
    if measure.kind == "step_time":
        times = [row["step_seconds"] for row in record.rows if row.get("step_seconds")][1:]
        return sum(times) / len(times) if times else None
    if measure.kind == "size":
        dense = 4.0 * record.info["parameters"]
        return None if record.test is None else float(record.test.get("bytes", dense))
    test = math.nan
    if measure.split == "test" or measure.kind == "gap":
        if record.test is None:
            return None
        test = _number(record.test, measure.metric)
        if measure.kind == "final":
            return test
    points = _curve(record, "train" if measure.kind == "gap" else measure.split, measure.metric)
    if not points:
        return None
    if measure.kind == "gap":
        last = points[-1][1]
        return test - last if math.isfinite(test) and math.isfinite(last) else math.inf
    if measure.kind == "final":
        return points[-1][1]
    if measure.kind == "mean":
        return sum(y for _, y in points) / len(points)
    crossed = _crossing(points, measure)
    return crossed if crossed is not None else budget(record)


def censored(record: Record | None, measure: Measure) -> bool:
    """Whether a finished run never reached the target of a `steps_to`: it counts as its budget."""
    if measure.kind != "steps_to" or record is None or record.result is None or record.diverged:
        return False
    return _crossing(_curve(record, measure.split, measure.metric), measure) is None


def budget(record: Record) -> float:
    """All steps of a run, whether or not it came that far."""
    return float(record.info.get("steps") or (record.result or {}).get("step", math.nan))


def interval(values: Sequence[float] | np.ndarray) -> tuple[float, float, float]:
    """Mean and 95 % t-interval; no bounds (nan) from one value, no mean from none."""
    x = np.asarray(values, dtype=float)
    if x.size == 0:
        return math.nan, math.nan, math.nan
    if x.size == 1 or np.ptp(x) == 0:
        bound = float(x[0]) if x.size > 1 else math.nan
        return float(x[0]), bound, bound
    mean = float(x.mean())
    half = float(scipy.stats.t.ppf(1 - ALPHA / 2, x.size - 1) * x.std(ddof=1) / math.sqrt(x.size))
    return mean, mean - half, mean + half


@dataclass(frozen=True)
class Curve:
    """Mean and 95 % interval over runs at each step; `n` runs."""

    steps: tuple[int, ...]
    mean: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    n: int


def curve(records: Sequence[Record], split: str, metric: str = "error") -> Curve:
    """The learning curve of an arm, at the steps that all its runs have."""
    runs = [{step: y for step, y in _curve(r, split, metric) if math.isfinite(y)} for r in records]
    steps = sorted(set.intersection(*map(set, runs))) if runs else []
    bands = [interval([run[step] for run in runs]) for step in steps]
    mean, low, high = (tuple(b[i] for b in bands) for i in range(3))
    return Curve(tuple(steps), mean, low, high, len(runs))


@dataclass(frozen=True)
class Paired:
    """Arm a against arm b: the mean, 95 % interval and sd of a - b; of log a - log b if `ratio`."""

    n: int
    ratio: bool
    mean: float
    low: float
    high: float
    sd: float
    p_t: float  # nan where all differences are equal: there the t-test is undefined
    p_flip: float
    null: float = 0.0  # the mean against which both are tested

    def effect(self, number: float) -> float:
        """A number of this comparison as it is read: a difference, or a ratio."""
        return math.exp(number) if self.ratio else number

    def bounds(self, level: float) -> tuple[float, float]:
        """The t-interval of another level than 95 %; nan from fewer than two pairs."""
        if self.n < 2:
            return math.nan, math.nan
        half = float(scipy.stats.t.ppf((1 + level) / 2, self.n - 1)) * self.sd / math.sqrt(self.n)
        return self.mean - half, self.mean + half

    def room(self, margin: float) -> float:
        """How far inside +-`margin` (a factor, for ratios) the mean lies; negative: outside."""
        return (math.log(margin) if self.ratio else margin) - abs(self.mean)


@dataclass(frozen=True)
class Depth:
    """Mean and 95 % interval over runs in each layer, the first layer first; `n` runs."""

    layers: tuple[str, ...]
    mean: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    n: int


def depth(records: Sequence[Record], probe: str, at: Literal["first", "last"]) -> Depth | None:
    """What `probe` found at the first or last point of an arm's runs; None where nothing was
    recorded. Of gradients, whose size differs by factors, the mean and interval are geometric.
    """
    found = [layers for r in records if (layers := _layers(r, probe, at))]
    if not found:
        return None
    geometric = probe == "gradient_norm"
    bands = []
    for layer in found[0]:
        numbers = [layers[layer] for layers in found]
        band = interval([math.log(x) for x in numbers] if geometric else numbers)
        bands.append(tuple(map(math.exp, band)) if geometric else band)
    mean, low, high = (tuple(b[i] for b in bands) for i in range(3))
    return Depth(tuple(found[0]), mean, low, high, len(found))


def paired(
    a: Mapping[int, float], b: Mapping[int, float], ratio: bool = False, null: float = 0.0
) -> Paired:
    """Two arms, each seed -> value, over the seeds they share, tested against a mean of `null`."""
    seeds = sorted(a.keys() & b.keys())
    x, y = np.array([a[s] for s in seeds], float), np.array([b[s] for s in seeds], float)
    d = np.log(x) - np.log(y) if ratio else x - y
    n, nan = len(seeds), math.nan
    if n < 2:
        return Paired(n, ratio, float(d[0]) if n else nan, nan, nan, nan, 1.0, 1.0, null)
    if np.ptp(d) <= 1e-9 * np.abs(d).max():  # all equal, but for rounding
        mean = float(d[0])
        p_t, p_flip = (nan, 2 * 0.5**n) if mean != null else (1.0, 1.0)
        return Paired(n, ratio, mean, mean, mean, 0.0, p_t, p_flip, null)
    mean, low, high = interval(d)
    _, p_t = np.asarray(scipy.stats.ttest_1samp(d, null))
    sd, p_flip = float(d.std(ddof=1)), sign_flip(d - null)
    return Paired(n, ratio, mean, low, high, sd, float(p_t), p_flip, null)


def sign_flip(differences: np.ndarray) -> float:
    """Two-sided p-value of the mean among all 2^n flips of the signs, or a sample of them."""
    n = len(differences)
    return float(
        scipy.stats.permutation_test(
            (differences,),
            lambda d, axis: np.mean(d, axis=axis),
            permutation_type="samples",
            vectorized=True,
            n_resamples=2**n if n <= ENUMERATED else 99_999,
            batch=10_000,
            rng=np.random.default_rng(0),
        ).pvalue
    )


def equivalence(pair: Paired, margin: float) -> float:
    """p-value of the two one-sided t-tests that the arms differ by less than `margin`.

    It is below 0.05 exactly where the 90 % interval lies within the margin. Differences that are
    all equal have no t-test: that their distances from a margin have all one sign has 1 / 2^n.
    """
    if pair.n < 2:
        return 1.0
    room = pair.room(margin)
    if pair.sd == 0:
        return 0.5**pair.n if room > 0 else 1.0
    return float(scipy.stats.t.sf(room / pair.sd * math.sqrt(pair.n), pair.n - 1))


def beyond(pair: Paired, margin: float) -> float:
    """p-value of the t-test that the arms differ by more than `margin`, either way."""
    if pair.n < 2:
        return 1.0
    room = pair.room(margin)
    if pair.sd == 0:
        return 2 * 0.5**pair.n if room < 0 else 1.0
    return min(1.0, 2 * float(scipy.stats.t.sf(-room / pair.sd * math.sqrt(pair.n), pair.n - 1)))


def fewest_pairs(predictions: int) -> int:
    """The least n from which the sign-flip test can reach a Holm-corrected p-value below 0.05."""
    return math.floor(math.log2(2 * predictions / ALPHA)) + 1


def standardised(pair: Paired) -> tuple[float, float, float]:
    """Cohen's d of the pairs, the distance of the mean difference from `null` in standard
    deviations of the differences, and its exact 95 % interval for normal differences; nan where
    they have no spread.

    The bounds are the effects that would leave 2.5 % beyond the t found (noncentral t).
    """
    if pair.n < 2 or pair.sd == 0:
        return math.nan, math.nan, math.nan
    d, root = (pair.mean - pair.null) / pair.sd, math.sqrt(pair.n)
    # scipy's own cdf of the noncentral t is nan for shifts far from t
    shares = (np.arange(QUANTILES) + 0.5) / QUANTILES
    t = d * root * np.sqrt(scipy.stats.chi2.ppf(shares, pair.n - 1) / (pair.n - 1))

    def bound(share: float) -> float:
        def off(shift: float) -> float:
            return float(scipy.special.ndtr(t - shift).mean()) - share

        ends = float(t.min()) - 9.0, float(t.max()) + 9.0
        return float(scipy.optimize.brentq(off, *ends)) / root  # type: ignore[arg-type]

    return d, bound(1 - ALPHA / 2), bound(ALPHA / 2)


def seeds_needed(sd: float, delta: float, predictions: int = 1) -> float:
    """Pairs that find a mean difference `delta` with 80 % power: 7.84 (sd / delta)^2 + 2.

    That is for one prediction; 7.84 grows with Holm's strictest level, 0.05 / predictions.
    """
    return math.inf if delta == 0 else _effort(predictions) * (sd / delta) ** 2 + 2


def smallest_effect(pair: Paired, predictions: int = 1) -> float:
    """The mean difference that so many pairs find with 80 % power: `seeds_needed` inverted."""
    return pair.sd * math.sqrt(_effort(predictions) / (pair.n - 2)) if pair.n > 2 else math.nan


@dataclass(frozen=True)
class Verdict:
    word: Literal["supported", "refuted", "undecided"]
    p: float  # Holm-corrected
    test: Literal["t", "sign-flip", "equivalence"]  # the test that decided
    further: int | None  # seeds that would settle it; 0: settled; None: no number up to 1000 would
    blocked: bool  # p < 0.05, but in favour of an arm with diverged runs (same: of either)


def verdicts(
    pairs: Sequence[Paired],
    directions: Sequence[Literal["less", "greater", "same"]],
    diverged: Sequence[tuple[int, int]],
    margins: Sequence[float | None] | None = None,
) -> list[Verdict]:
    """A verdict per prediction, Holm-corrected over all; `diverged` counts runs of (arm, other),
    and `margins` has a number for each "same".
    """
    family = len(pairs)
    margins = margins or [None] * family
    tests = [_test(pair, margin, family) for pair, margin in zip(pairs, margins, strict=True)]
    corrected = holm([p for _, p in tests])
    out = []
    for pair, (test, _), p, direction, lost, margin in zip(
        pairs, tests, corrected, directions, diverged, margins, strict=True
    ):
        significant, less = p < ALPHA, pair.mean < pair.null
        same = margin is not None and pair.room(margin) > 0
        blocked = significant and (sum(lost) if same else lost[0 if less else 1]) > 0
        word = "undecided"
        if significant and not blocked:
            found = "same" if same else "less" if less else "greater"
            word = "supported" if found == direction else "refuted"
        further = 0 if word != "undecided" else None if blocked else _further(pair, family, margin)
        out.append(Verdict(word, p, test, further, blocked))
    return out


def _test(
    pair: Paired, margin: float | None, family: int
) -> tuple[Literal["t", "sign-flip", "equivalence"], float]:
    """The test that decides, and its p-value before Holm's correction: one for each prediction."""
    if margin is not None:
        within = pair.room(margin) > 0
        return "equivalence", equivalence(pair, margin) if within else beyond(pair, margin)
    if math.isnan(pair.p_t) or pair.n >= fewest_pairs(family):
        return "sign-flip", pair.p_flip
    return "t", pair.p_t


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction, in the order given."""
    if len(p_values) < 2:  # nothing to correct
        return list(p_values)
    from statsmodels.stats.multitest import multipletests  # brings pandas

    return np.asarray(multipletests(p_values, method="holm")[1]).tolist()


def _further(pair: Paired, predictions: int, margin: float | None) -> int | None:
    if pair.n < 2:
        return 2 - pair.n
    room = -math.inf if margin is None else pair.room(margin)
    if room > 0 and pair.sd == 0:
        needed = math.floor(math.log2(predictions / ALPHA)) + 1.0
    elif room > 0:  # half of what may be missed on either side: exact where the mean is 0
        z = scipy.stats.norm.ppf([1 - ALPHA / predictions, (1 + POWER) / 2])
        needed = float(z.sum() ** 2) * (pair.sd / room) ** 2 + 2
    elif pair.sd == 0 and pair.mean != pair.null:
        needed = float(fewest_pairs(predictions))
    else:
        off = pair.mean - pair.null if margin is None else room
        needed = seeds_needed(pair.sd, off, predictions)
    return max(1, math.ceil(needed) - pair.n) if needed <= MOST_SEEDS else None


def _effort(predictions: int) -> float:
    """(z_{1 - alpha/2} + z_power)^2."""
    z = scipy.stats.norm.ppf([1 - ALPHA / predictions / 2, POWER])
    return float(z.sum() ** 2)


def _curve(record: Record, split: str, metric: str) -> list[tuple[int, float]]:
    rows = [(row["step"], row.get(split)) for row in record.rows]
    return [(step, _number(m, metric)) for step, m in rows if m is not None]


def _layers(record: Record, probe: str, at: Literal["first", "last"]) -> dict[str, float]:
    """layer -> number, the first layer first; {} where it was not recorded. A gradient of 0 counts
    as the least that is above 0 in float32, to have a log.
    """
    row = record.rows[0 if at == "first" else -1] if record.rows else {}
    found = {
        layer: _number(row["probe"][probe], layer) for layer in row.get("probe", {}).get(probe, {})
    }
    if probe == "gradient_norm":
        return {layer: max(number, LEAST) for layer, number in found.items()}
    return found


def _probed(record: Record, measure: Measure) -> float | None:
    assert measure.probe is not None
    numbers = [*_layers(record, measure.probe, measure.at).values()]
    if not numbers:
        return None
    first, last = numbers[0], numbers[-1]
    if measure.layer == "mean":
        return sum(numbers) / len(numbers)
    return {"first": first, "last": last}.get(measure.layer, first / last if last else math.inf)


def _crossing(points: list[tuple[int, float]], measure: Measure) -> float | None:
    """The first step at or below the target, linear between points; at least 1, to have a log."""
    assert measure.target is not None
    before = (0, math.inf)
    for step, y in points:
        if y <= measure.target:
            share = (before[1] - measure.target) / (before[1] - y) if before[1] < math.inf else 1.0
            return max(1.0, before[0] + (step - before[0]) * share)
        before = (step, y)
    return None


def _number(sums: Mapping[str, float | None], metric: str) -> float:
    """A metric of a row; what was not finite was written as null."""
    number = sums.get(metric)
    return math.inf if number is None else float(number)
