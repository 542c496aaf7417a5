"""Statistics against scipy, against enumeration written out here, and in worlds of known truth."""

import gc
import itertools
import math
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
from statsmodels.stats.weightstats import ttost_paired

from jaxcnn import findings, stats
from jaxcnn.config import Run
from jaxcnn.experiment import Experiment, Measure, Prediction
from jaxcnn.records import Record

TRAIN = [(0, 0.9), (10, 0.5), (20, 0.1), (30, 0.04)]


def record(points=TRAIN, status="finished", test=0.06, steps=40):
    rows = [
        {
            "step": step,
            "train": {"loss": y if y is None else 2 * y, "error": y, "count": 100},
            "validation": {"loss": y, "error": y, "count": 100},
        }
        for step, y in points
    ]
    m = None if test is None else {"loss": 0.3, "error": test, "count": 100}
    return Record(Path("x"), {"steps": steps}, rows, {"status": status, "step": steps}, m)


def seeds(values):
    return dict(enumerate(values))


def steps_to(target, split="train"):
    return Measure("steps_to", split, target=target)


def test_each_measure_of_a_run():
    assert stats.value(record(), Measure("final", "train")) == 0.04
    assert stats.value(record(), Measure("final", "train", "loss")) == 0.08
    assert stats.value(record(), Measure("final", "test")) == 0.06
    assert stats.value(record(), Measure("mean", "validation")) == pytest.approx(1.54 / 4)
    assert stats.value(record(), Measure("gap", "test")) == pytest.approx(0.02)


def test_the_time_of_a_step_leaves_out_the_first_point_that_has_one():
    run = record([(0, 0.9), (10, 0.5), (20, 0.1), (30, 0.1)])
    assert stats.value(run, Measure("step_time", "train")) is None
    for row, seconds in zip(run.rows[1:], (9.0, 0.2, 0.4), strict=True):
        row["step_seconds"] = seconds
    assert stats.value(run, Measure("step_time", "train")) == pytest.approx(0.3)


@pytest.mark.parametrize(
    ("target", "steps", "censored"),
    [(0.3, 15.0, False), (0.5, 10.0, False), (0.07, 25.0, False), (0.95, 1.0, False)]
    + [(0.04, 30.0, False), (0.03, 40.0, True)],
)
def test_steps_to_is_linear_between_points_and_the_budget_where_never_reached(
    target, steps, censored
):
    assert stats.value(record(), steps_to(target)) == pytest.approx(steps)
    assert stats.censored(record(), steps_to(target)) is censored


def test_the_first_crossing_counts_even_if_the_curve_rises_again():
    points = [(0, 0.9), (10, 0.1), (20, 0.9), (30, 0.1)]
    assert stats.value(record(points), steps_to(0.5)) == pytest.approx(5.0)
    # Coming down from a number that was not finite, there is nothing to interpolate.
    assert stats.value(record([(0, None), (10, 0.1)]), steps_to(0.5)) == 10.0


def test_a_diverged_run_is_infinite_and_an_absent_one_is_none():
    measures = [Measure("final", "test"), Measure("mean", "validation"), steps_to(0.5)]
    unfinished = Record(Path("x"), {"steps": 40}, record().rows, None, None)
    for measure in measures:
        assert stats.value(record(status="diverged"), measure) == math.inf
        assert not stats.censored(record(status="diverged"), measure)
        assert stats.value(None, measure) is None
        assert stats.value(unfinished, measure) is None
    assert stats.value(record(test=None), Measure("final", "test")) is None
    assert stats.value(record(test=None), Measure("gap", "test")) is None
    assert stats.value(record([(0, 0.9), (10, None)]), Measure("final", "train")) == math.inf


def test_interval_is_scipys_and_knows_its_edges():
    x = [1.0, 2.0, 4.0, 8.0]
    low, high = scipy.stats.t.interval(0.95, 3, np.mean(x), scipy.stats.sem(x))
    assert stats.interval(x) == pytest.approx((3.75, low, high))
    assert stats.interval([0.1, 0.1, 0.1]) == (0.1, 0.1, 0.1)
    mean, low, high = stats.interval([0.3])
    assert mean == 0.3 and math.isnan(low) and math.isnan(high)
    assert all(math.isnan(v) for v in stats.interval([]))


def test_curve_stands_on_the_steps_that_all_runs_have():
    shifted = record([(0, 0.8), (10, 0.3), (30, 0.02), (50, 0.01)])
    curve = stats.curve([record(), shifted], "train")
    assert curve.steps == (0, 10, 30)
    assert curve.mean == pytest.approx((0.85, 0.4, 0.03))
    assert curve.low[1] < 0.3 and curve.high[1] > 0.5 and curve.n == 2
    assert stats.curve([], "train").steps == ()


A, B = [0.9, 1.4, 2.0, 2.2, 3.1], [1.0, 1.8, 2.1, 3.0, 3.0]


def test_paired_difference_is_the_paired_t_test():
    pair = stats.paired(seeds(A), seeds(B))
    expected = scipy.stats.ttest_rel(A, B)
    bounds = expected.confidence_interval(0.95)
    assert pair.p_t == pytest.approx(expected.pvalue)
    assert (pair.low, pair.high) == pytest.approx((bounds.low, bounds.high))
    assert pair.mean == pytest.approx(np.mean(A) - np.mean(B)) and pair.n == 5


def test_a_factor_is_the_mean_that_is_tested_against():
    pair = stats.paired(seeds(A), seeds(B), ratio=True, null=-math.log(2))
    d = np.log(A) - np.log(B)
    assert pair.p_t == pytest.approx(scipy.stats.ttest_1samp(d, -math.log(2)).pvalue)
    assert pair.p_flip == pytest.approx(stats.sign_flip(d + math.log(2)))
    assert pair.mean == pytest.approx(d.mean())
    assert stats.standardised(pair)[0] == pytest.approx((d.mean() + math.log(2)) / d.std(ddof=1))


def test_sign_flip_visits_every_pattern():
    d = np.array(A) - np.array(B)
    means = [np.mean(d * signs) for signs in itertools.product([1, -1], repeat=5)]
    by_hand = np.mean([abs(m) >= abs(d.mean()) - 1e-12 for m in means])
    assert stats.paired(seeds(A), seeds(B)).p_flip == pytest.approx(by_hand)
    assert stats.sign_flip(np.arange(1.0, 9.0)) == pytest.approx(2 / 2**8)
    # 20 pairs are sampled, from one fixed stream: near the exact answer and always the same.
    many = np.random.default_rng(1).normal(0.4, 1.0, 20)
    assert stats.sign_flip(many) == stats.sign_flip(many)
    assert stats.sign_flip(many) == pytest.approx(scipy.stats.ttest_1samp(many, 0).pvalue, abs=0.02)


def test_only_shared_seeds_make_pairs_and_steps_make_ratios():
    pair = stats.paired({0: 10.0, 1: 20.0, 7: 1.0}, {0: 20.0, 1: 40.0, 3: 5.0}, ratio=True)
    assert pair.n == 2 and pair.effect(pair.mean) == pytest.approx(0.5)
    pair = stats.paired({0: 10.0, 1: 30.0}, {0: 20.0, 1: 40.0}, ratio=True)
    assert pair.effect(pair.mean) == pytest.approx(math.sqrt(0.5 * 0.75))


def test_equal_differences_warn_nobody():
    zero = stats.paired(seeds(A), seeds(A))
    assert (zero.p_t, zero.p_flip, zero.sd) == (1.0, 1.0, 0.0)
    same = stats.paired(seeds([1.3, 2.3, 3.3]), seeds([1.2, 2.2, 3.2]))
    assert math.isnan(same.p_t) and same.p_flip == 0.25 and same.sd == 0
    [none, few] = stats.verdicts([zero, same], ["less", "less"], [(0, 0), (0, 0)])
    assert (none.word, none.p, none.further) == ("undecided", 1.0, None)
    assert (few.word, few.test, few.further) == ("undecided", "sign-flip", 7 - 3)
    eight = stats.paired(seeds([2.0] * 8), seeds([1.0] * 8))
    [verdict] = stats.verdicts([eight], ["greater"], [(0, 0)])
    assert verdict.word == "supported" and verdict.p == pytest.approx(2 / 2**8)


def test_holm_by_hand():
    # Sorted 0.01, 0.02, 0.03, 0.6: times 4, 3, 2, 1, and never below the one before.
    assert stats.holm([0.03, 0.01, 0.6, 0.02]) == pytest.approx([0.06, 0.04, 0.6, 0.06])
    assert stats.holm([]) == []


def test_the_sign_flip_test_decides_from_the_first_n_at_which_it_can():
    for predictions, n in [(1, 6), (2, 7), (3, 7), (4, 8), (10, 9)]:
        assert stats.fewest_pairs(predictions) == n
        assert predictions * 2 / 2**n < stats.ALPHA <= predictions * 2 / 2 ** (n - 1)
    rng = np.random.default_rng(0)
    for n, test in [(5, "t"), (6, "sign-flip")]:
        pair = stats.paired(seeds(rng.normal(0, 1, n)), seeds(rng.normal(9, 1, n)))
        [verdict] = stats.verdicts([pair], ["less"], [(0, 0)])
        assert (verdict.test, verdict.word) == (test, "supported")
        # Among two predictions six pairs are too few for the sign-flip test.
        both = stats.verdicts([pair, pair], ["less", "less"], [(0, 0), (0, 0)])
        assert [verdict.test for verdict in both] == ["t", "t"]


def test_verdict_follows_the_direction():
    pair = stats.paired(seeds([1.0, 1.1, 1.2, 1.0]), seeds([2.0, 2.2, 2.1, 2.3]))
    less, greater = stats.verdicts([pair, pair], ["less", "greater"], [(0, 0), (0, 0)])
    assert (less.word, greater.word) == ("supported", "refuted")
    assert less.p == greater.p == pytest.approx(2 * pair.p_t) and less.further == 0
    noisy = stats.paired(seeds([1.0, 2.2, 1.2]), seeds([2.0, 2.1, 1.1]))
    [verdict] = stats.verdicts([noisy], ["less"], [(0, 0)])
    assert verdict.word == "undecided" and verdict.further is not None
    needed = 7.849 * (noisy.sd / noisy.mean) ** 2 + 2
    assert verdict.further == math.ceil(needed) - 3


def test_no_arm_is_found_to_have_less_while_its_own_runs_diverge():
    pair = stats.paired(seeds([1.0, 1.1, 1.2, 1.0]), seeds([2.0, 2.2, 2.1, 2.3]))
    for direction, word in [("less", "supported"), ("greater", "refuted")]:
        [own] = stats.verdicts([pair], [direction], [(1, 0)])
        assert (own.word, own.blocked, own.further) == ("undecided", True, None)
        [others] = stats.verdicts([pair], [direction], [(0, 1)])  # leaving it out was kind to it
        assert (others.word, others.blocked) == (word, False)


def test_too_few_seeds_are_undecided():
    for values, further in [([], 2), ([1.0], 1)]:
        pair = stats.paired(seeds(values), seeds([v + 9 for v in values]))
        [verdict] = stats.verdicts([pair], ["less"], [(0, 0)])
        assert (verdict.word, verdict.further) == ("undecided", further)


def test_seeds_needed_is_the_rule_and_smallest_effect_its_inverse():
    assert stats.seeds_needed(1.0, 1.0) == pytest.approx(7.84 + 2, abs=0.01)
    assert stats.seeds_needed(0.95, 0.4) == pytest.approx(7.84 * (0.95 / 0.4) ** 2 + 2, abs=0.1)
    assert stats.seeds_needed(1.0, 0.0) == math.inf
    assert stats.seeds_needed(1.0, 1.0, predictions=4) > stats.seeds_needed(1.0, 1.0)
    pair = stats.paired(seeds(A), seeds(B))
    delta = stats.smallest_effect(pair)
    assert stats.seeds_needed(pair.sd, delta) == pytest.approx(5)
    assert math.isnan(stats.smallest_effect(stats.paired(seeds(A[:2]), seeds(B[:2]))))
    far = stats.paired(seeds([1.0, -1.0, 1.0, -0.999]), seeds([0.0] * 4))
    assert stats.verdicts([far], ["less"], [(0, 0)])[0].further is None


def share_supported_or_refuted(n, shift, repeats=400):
    rng = np.random.default_rng(n)
    words = []
    for _ in range(repeats):
        a, b = rng.normal(0, 1, n), rng.normal(shift, 1, n)
        [verdict] = stats.verdicts([stats.paired(seeds(a), seeds(b))], ["less"], [(0, 0)])
        words.append(verdict.word)
    return np.mean([w != "undecided" for w in words]), words


@pytest.mark.parametrize("n", [3, 5, 8])
def test_negative_control_equal_arms_are_rarely_told_apart(n):
    share, _ = share_supported_or_refuted(n, shift=0.0)
    assert 0.01 <= share <= 0.08


def test_positive_control_the_promised_power_is_there():
    n = math.ceil(stats.seeds_needed(math.sqrt(2), 1.5))
    share, words = share_supported_or_refuted(n, shift=1.5, repeats=200)
    assert 0.7 <= share <= 0.95 and "refuted" not in words


def test_standardised_effect_has_the_interval_of_the_noncentral_t():
    pair = stats.paired(seeds([1.3, 0.2, 2.1, 0.9, 1.7, 0.4]), seeds([0.0] * 6))
    d, low, high = stats.standardised(pair)
    assert d == pytest.approx(pair.mean / pair.sd)
    for bound, share in ((low, 0.975), (high, 0.025)):
        below = scipy.stats.nct.cdf(d * math.sqrt(6), 5, bound * math.sqrt(6))
        assert below == pytest.approx(share, abs=1e-3)
    turned = stats.paired(seeds([0.0] * 6), seeds([1.3, 0.2, 2.1, 0.9, 1.7, 0.4]))
    assert stats.standardised(turned) == pytest.approx((-d, -high, -low))
    assert all(map(math.isnan, stats.standardised(stats.paired(seeds(A), seeds(A)))))
    far = stats.standardised(stats.paired(seeds([1e5, 1e5 + 1]), seeds([0.0, 0.0])))
    assert far[0] > far[1] > 0 and math.isfinite(far[2])


@pytest.fixture
def quick_holm(monkeypatch):
    """statsmodels collects garbage at each correction, which takes all the time here."""
    monkeypatch.setattr(gc, "collect", lambda *_: 0)


def words_of_trials(shift, n, repeats=200):
    """An experiment from records to verdicts: each arm's rate is chosen from a grid on validation;
    `shift` is what arm b has more, in standard deviations of one run.
    """
    error, other = Measure("final", "test"), Measure("final", "train")
    exp = Experiment(
        claim="b is worse",
        source="here",
        base=Run(),
        arms={"a": {}, "b": {}},
        tune={"optim.lr": (0.01, 0.1)},
        seeds=tuple(range(n)),
        predictions=(Prediction(error, "a", than="b"), Prediction(other, "a", than="b")),
    )
    rng, trials = np.random.default_rng(n), []
    for _ in range(repeats):

        def read(arm, run):
            train, test = 0.5 + 0.01 * (rng.normal(size=2) + shift * (arm == "b"))
            return record([(0, 0.9), (40, train)], test=test)

        table = findings.collect(exp, read)
        trials.append([finding.verdict.word for finding in table.findings])
    return trials


@pytest.mark.usefixtures("quick_holm")
def test_negative_control_an_experiment_of_equal_arms_is_undecided():
    trials = words_of_trials(shift=0.0, n=5)
    wrong = np.mean([any(word != "undecided" for word in words) for words in trials])
    assert 0.005 <= wrong <= 0.09  # the family's 5 %, three standard deviations either way


@pytest.mark.usefixtures("quick_holm")
def test_positive_control_an_experiment_finds_a_large_effect():
    """Half as large again as the one for which so many pairs promise 80 %: that promise is a normal
    approximation, and few pairs give the sign-flip test few p-values to fall below Holm's levels.
    """
    n = math.ceil(stats.seeds_needed(math.sqrt(2), 2.0, predictions=2))
    words = [word for words in words_of_trials(shift=3.0, n=n, repeats=60) for word in words]
    assert np.mean([word == "supported" for word in words]) >= 0.8 and "refuted" not in words


@pytest.mark.parametrize("margin", [0.05, 0.3, 0.6, 0.9, 5.0])
@pytest.mark.parametrize("shift", [0.0, 0.7])
def test_equivalence_is_statsmodels_tost_and_the_90_percent_interval(margin, shift):
    a = [x + shift for x in A]
    pair = stats.paired(seeds(a), seeds(B))
    expected, _, _ = ttost_paired(np.array(a), np.array(B), -margin, margin)
    assert stats.equivalence(pair, margin) == pytest.approx(expected)
    low, high = pair.bounds(0.9)
    by_scipy = scipy.stats.ttest_rel(a, B).confidence_interval(0.9)
    assert (low, high) == pytest.approx((by_scipy.low, by_scipy.high))
    assert (expected < stats.ALPHA) == (-margin < low and high < margin)


def test_equivalence_of_ratios_is_of_logs_within_a_factor():
    pair = stats.paired(seeds(A), seeds(B), ratio=True)
    expected, _, _ = ttost_paired(np.array(A), np.array(B), 1 / 1.4, 1.4, transform=np.log)
    assert stats.equivalence(pair, 1.4) == pytest.approx(expected)
    equal = stats.paired(seeds([1.0] * 6), seeds([1.0] * 6), ratio=True)
    assert stats.equivalence(equal, 1.1) == 0.5**6
    one = stats.paired({0: 1.0}, {0: 1.0})
    assert stats.equivalence(one, 9.0) == 1.0 and math.isnan(one.bounds(0.9)[0])


def same(pair, margin, diverged=(0, 0)):
    [verdict] = stats.verdicts([pair], ["same"], [diverged], [margin])
    return verdict


def test_verdict_of_the_same():
    base = np.linspace(1.0, 2.0, 8)
    noise = np.array([-3, -2, -1, 0, 0, 1, 2, 3]) / 100
    near = stats.paired(seeds(base + noise), seeds(base))
    far = stats.paired(seeds(base + noise + 0.5), seeds(base))
    little = stats.paired(seeds(base + noise + 0.05), seeds(base))
    found = same(near, 0.1)
    assert (found.word, found.test, found.further) == ("supported", "equivalence", 0)
    assert found.p == stats.equivalence(near, 0.1)
    found = same(far, 0.1)
    assert (found.word, found.p) == ("refuted", stats.beyond(far, 0.1))
    t = scipy.stats.ttest_1samp(noise + 0.5, 0.1)
    assert found.p == pytest.approx(t.pvalue)
    # A difference that is there, and is less than the margin: the same is what was predicted.
    assert little.p_flip < stats.ALPHA and same(little, 0.1).word == "supported"
    # Too noisy to tell: no difference is shown, and none is excluded.
    found = same(near, 0.01)
    assert (found.word, found.p) == ("undecided", stats.equivalence(near, 0.01))
    needed = (1.6449 + 1.2816) ** 2 * (near.sd / 0.01) ** 2 + 2
    assert found.further == math.ceil(needed) - 8
    # Runs that diverged were left out: that the others are the same does not settle it.
    assert same(near, 0.1, (1, 0)).blocked and same(near, 0.1, (0, 1)).blocked
    assert same(far, 0.1, (1, 0)).word == "refuted"  # the worse arm would only be worse


@pytest.mark.slow
def test_same_sits_in_holms_family_and_leaves_its_neighbours_as_they_were():
    a, b = [1.0, 1.1, 1.2, 1.0], [2.0, 2.2, 2.1, 2.3]
    less = stats.paired(seeds(a), seeds(b))
    near = stats.paired(seeds([1.0, 1.1, 1.2, 1.0]), seeds([1.01, 1.12, 1.2, 0.98]))
    p = stats.equivalence(near, 0.05)
    both = stats.verdicts([less, near], ["less", "same"], [(0, 0)] * 2, [None, 0.05])
    assert [v.p for v in both] == pytest.approx(stats.holm([less.p_t, p]))
    # Alone p < 0.05; among three it is not.
    margin = next(m for m in np.linspace(0.02, 0.1, 400) if stats.equivalence(near, m) < 0.04)
    assert same(near, margin).word == "supported"
    three = stats.verdicts([near] * 3, ["same"] * 3, [(0, 0)] * 3, [margin] * 3)
    assert [v.word for v in three] == ["undecided"] * 3 and three[0].further is not None
    plain = stats.verdicts([less, near], ["less", "greater"], [(0, 0)] * 2)
    assert plain == stats.verdicts([less, near], ["less", "greater"], [(0, 0)] * 2, [None] * 2)


def share_of_same(n, shift, margin, repeats=300):
    rng = np.random.default_rng(n)
    differences = rng.normal(shift, 1, (repeats, n))
    zero = seeds(np.zeros(n))
    words = [same(stats.paired(seeds(d), zero), margin).word for d in differences]
    return {word: words.count(word) / repeats for word in ("supported", "refuted")}


def test_controls_of_the_same():
    """A difference as large as the margin is rarely called the same, equal arms rarely refuted;
    and the promised power is there.
    """
    assert 0.01 <= share_of_same(5, shift=1.5, margin=1.5)["supported"] <= 0.09
    assert share_of_same(5, shift=1.5, margin=1.5)["refuted"] <= 0.05
    assert share_of_same(5, shift=1.0, margin=1.5)["refuted"] <= 0.02
    assert share_of_same(5, shift=5.0, margin=1.5)["refuted"] >= 0.8
    pair = stats.Paired(3, False, 0.0, 0.0, 0.0, 1.0, 1.0, 1.0)
    further = same(pair, 1.2).further
    assert further is not None and further > 0
    assert 0.72 <= share_of_same(3 + further, shift=0.0, margin=1.2)["supported"] <= 0.92
