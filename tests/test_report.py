"""The report from synthetic records: every number recomputed here by another road."""

import csv
import dataclasses
import io
import math
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
from rich.console import Console

from jaxcnn import experiment, findings, records, report
from jaxcnn.config import Data, InputError, Model, Run, Train, to_dict
from jaxcnn.experiment import Experiment, Measure, Prediction

STEPS = Measure("steps_to", "train", target=0.1)
TEST = Measure("final", "test")
EXPERIMENT = Experiment(
    name="curves_on_trial",
    claim="ReLU & friends_train 100 % <faster>",
    source="Notes, section 1",
    base=Run(model=Model(name="lenet5"), data=Data(name="mnist"), train=Train(steps=200)),
    arms={
        "relu": {"model.activation": "relu"},
        "tanh": {"model.activation": "tanh"},
        "sigmoid": {"model.activation": "sigmoid"},
    },
    tune={"optim.lr": (0.01, 0.1, 1.0)},
    tune_seeds=(0, 1),
    seeds=range(5),  # pyright: ignore[reportArgumentType]
    predictions=(
        Prediction(STEPS, "relu", than="sigmoid", published="6 times fewer", source="K. 2012"),
        Prediction(TEST, "relu", than="sigmoid"),
        Prediction(TEST, "relu", than="tanh"),
        Prediction(TEST, "relu", than="sigmoid", direction="greater"),
    ),
)
SPEED = {"relu": 0.03, "tanh": 0.028, "sigmoid": 0.012}  # decay of the error per step
BEST = {"relu": 0.1, "tanh": 0.1, "sigmoid": 1.0}


def errors(arm, lr, seed, steps):
    """A made-up learning curve: exponential decay, slower away from the arm's best rate."""
    wobble = 1 + 0.04 * math.sin(7 * seed + 2 * list(SPEED).index(arm))
    speed = SPEED[arm] * wobble * (1.0 if lr == BEST[arm] else 0.5)
    return [0.9 * math.exp(-speed * step) + 0.01 for step in steps]


def test_error(arm, seed):
    return {"relu": 0.02, "tanh": 0.0203, "sigmoid": 0.05}[arm] + 0.001 * math.sin(
        5 * seed + 3 * list(SPEED).index(arm)
    )


test_error.__test__ = False  # pyright: ignore[reportFunctionMemberAccess]


def write_run(root, exp, arm, run, steps=200, status="finished", test=True, **info):
    folder = experiment.folder(root, exp, arm, run)
    points = range(0, steps + 1, 10)
    curve = errors(arm, run.optim.lr, run.seed, points)
    host = {"cpu": "A CPU", "cores": 2, "memory_gb": 8, "os": "Linux"}
    records.write_json(
        folder / "run.json",
        {
            "experiment": exp.name,
            "arm": arm,
            "config": to_dict(run),
            "steps": steps,
            "parameters": 61706,
            "commit": "0123abc",
            "dirty": False,
            "versions": {"jax": "0.10.2", "python": "3.11.7"},
            "device": {"platform": "cpu", "kind": "cpu", "count": 1, **host},
            "data": {"fingerprint": "f1f2", "train": 55000, "test": 10000, "classes": 10},
            "command": "launch.py run curves_on_trial",
            "started": f"2026-01-02T03:04:{run.seed:02d}",
        }
        | info,
    )
    with records.open_metrics(folder) as f:
        for step, error in zip(points, curve, strict=True):
            m = {"loss": 2 * error, "error": error, "count": 5000}
            row = {"step": step, "train": m, "validation": m | {"error": error + 0.005}}
            records.append(f, row | {"seconds": 0.01 * step})
    records.write_json(
        folder / "result.json", {"status": status, "step": steps, "seconds": 0.01 * steps}
    )
    if test:
        m = {"loss": 0.1, "error": test_error(arm, run.seed), "count": 10000}
        records.write_json(folder / "test.json", m)
    return folder


def write_all(root, exp=EXPERIMENT, **options):
    """The tuning grid, and every seed at each arm's best setting."""
    for arm, settings in experiment.grid(exp).items():
        for run in settings.values():
            best = run.optim.lr == BEST[arm]
            for seed in exp.seeds if best else exp.tune_seeds:
                write_run(root, exp, arm, dataclasses.replace(run, seed=seed), test=best, **options)


def at_best(arm, seed, exp=EXPERIMENT):
    return dataclasses.replace(experiment.grid(exp)[arm][f"optim.lr={BEST[arm]}"], seed=seed)


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    write_all(folder)
    return folder


@pytest.fixture(scope="module")
def table(root):
    return findings.collect(EXPERIMENT, root, "python launch.py report curves_on_trial")


def cell(table, measure, arm):
    [found] = [c for c in table.cells if c.measure == measure and c.arm == arm]
    return found


def steps_to(arm, seed, target):
    points = np.arange(0, 201, 10)
    falling = np.array(errors(arm, BEST[arm], seed, points))
    return np.interp(-target, -falling, points)  # np.interp wants rising numbers


def test_each_arm_stands_at_its_best_validation_setting(table):
    points = range(0, 201, 10)
    for arm in table.arms:
        assert arm.chosen == f"optim.lr={BEST[arm.name]}"
        for tried in arm.tried:
            ends = [errors(arm.name, tried.values[0], seed, points)[-1] + 0.005 for seed in (0, 1)]
            assert tried.mean == pytest.approx(np.mean(ends))
        assert (arm.parameters, arm.steps, arm.changes) == (
            61706,
            200,
            f"model.activation={arm.name}",
        )


def test_means_and_intervals(table):
    for arm in SPEED:
        errors_ = [test_error(arm, seed) for seed in range(5)]
        steps = [steps_to(arm, seed, 0.1) for seed in range(5)]
        for measure, x in [(TEST, errors_), (STEPS, steps)]:
            found = cell(table, measure, arm)
            low, high = scipy.stats.t.interval(0.95, 4, np.mean(x), scipy.stats.sem(x))
            assert (found.mean, found.low, found.high) == pytest.approx((np.mean(x), low, high))
            assert (len(found.values), found.diverged, found.missing, found.censored) == (
                5,
                0,
                0,
                0,
            )
    assert list(dict.fromkeys(c.measure for c in table.cells)) == [STEPS, TEST]


def test_curves_are_means_over_seeds(table):
    curve = table.curves["validation"]["tanh"]
    each = [errors("tanh", 0.1, seed, range(0, 201, 10)) for seed in range(5)]
    assert curve.steps == tuple(range(0, 201, 10)) and curve.n == 5
    assert curve.mean == pytest.approx(np.mean(each, axis=0) + 0.005)


def test_findings(table):
    steps = {arm: np.log([steps_to(arm, s, 0.1) for s in range(5)]) for arm in SPEED}
    test = {arm: [test_error(arm, s) for s in range(5)] for arm in SPEED}
    raw = [scipy.stats.ttest_rel(steps["relu"], steps["sigmoid"]).pvalue] + [
        scipy.stats.ttest_rel(test["relu"], test[other]).pvalue
        for other in ("sigmoid", "tanh", "sigmoid")
    ]
    order = np.argsort(raw)
    holm = np.empty(4)
    holm[order] = np.minimum(1, np.maximum.accumulate(np.array([4, 3, 2, 1]) * np.sort(raw)))
    words = ["supported", "supported", "undecided", "refuted"]
    for finding, p, word in zip(table.findings, holm, words, strict=True):
        assert finding.verdict.word == word
        assert finding.verdict.p == pytest.approx(p)
        assert finding.pair.p_flip >= 2 / 2**5
    ratio = np.exp(np.mean(steps["relu"] - steps["sigmoid"]))
    assert table.findings[0].pair.effect(table.findings[0].pair.mean) == pytest.approx(ratio)
    assert f"relu needs {ratio:.2f} times the steps of sigmoid" in report.sentence(
        table.findings[0]
    )
    assert "further seeds would settle" in report.sentence(table.findings[2])
    assert report.published(table.findings[0]) == (
        f"Published: 6 times fewer (K. 2012). Ours: {ratio:.2f} times the steps"
        f" ({1 / ratio:.2f} times fewer)."
    )
    assert report.published(table.findings[1]) == ""


def test_why_a_verdict_may_differ_is_told_beside_those_that_do(root, tmp_path):
    said = "20 epochs_here & 90 in the paper."
    exp = dataclasses.replace(EXPERIMENT, caveat=said, presets={})
    differs = findings.collect(exp, root)
    paths = report.write(differs, tmp_path)
    texts = {path.suffix: path.read_text() for path in paths if path.suffix in (".md", ".tex")}
    page = (tmp_path / "index.html").read_text()
    assert "the source: 20 epochs_here & 90 in the paper." in texts[".md"]
    assert "the source: 20 epochs\\_here \\& 90 in the paper." in texts[".tex"]
    assert "the source: 20 epochs_here &amp; 90 in the paper." in page
    assert said in " ".join(printed(differs).split())

    held = dataclasses.replace(exp, predictions=exp.predictions[:1])
    assert [f.verdict.word for f in findings.collect(held, root).findings] == ["supported"]
    assert said not in printed(findings.collect(held, root))


def test_the_table_says_what_it_stands_on_and_with_what_it_was_made(table):
    assert (table.finished, table.expected) == (27, 27)
    assert table.seconds == pytest.approx(54)
    assert table.facts["commit"] == ("0123abc",)
    assert table.facts["versions"] == ("jax 0.10.2, python 3.11.7",)
    assert table.facts["host"] == ("A CPU, 2 cores, 8 GB memory, Linux",)
    # The best value of sigmoid is the last of the grid, and nobody knows what lies beyond.
    [edge] = table.warnings
    assert edge.startswith("sigmoid: optim.lr=1.0 is the largest that was tried")


def test_files(table, tmp_path):
    paths = report.write(table, tmp_path / "report")
    assert sorted(p.name for p in paths) == sorted(p.name for p in (tmp_path / "report").iterdir())
    again = report.write(table, tmp_path / "again")
    for first, second in zip(paths, again, strict=True):
        assert first.read_bytes() == second.read_bytes(), first.name
    files = {p.name: p for p in paths}

    rows = list(csv.DictReader(files["table.csv"].read_text().splitlines()))
    assert len(rows) == 6 and rows[0]["arm"] == "relu"
    assert float(rows[0]["mean"]) == cell(table, STEPS, "relu").mean
    tests = list(csv.DictReader(files["predictions.csv"].read_text().splitlines()))
    assert [row["verdict"] for row in tests] == ["supported", "supported", "undecided", "refuted"]
    assert tests[0]["published"] == "6 times fewer"

    assert files["curves.png"].read_bytes().startswith(b"\x89PNG")
    svg = files["curves.svg"].read_text()
    assert "sigmoid" in svg and "<dc:date>" not in svg


def unescaped(line, char):
    return line.replace("\\" + char, "").count(char)


def test_markdown(table):
    text = report.markdown(table)
    assert "# ReLU & friends_train 100 % \\<faster>" in text
    for finding in table.findings:
        assert f"- **{finding.verdict.word}**: " in text
    blocks = [b.splitlines() for b in text.split("\n\n") if b.startswith("|")]
    assert len(blocks) == 5
    for block in blocks:
        assert len({unescaped(line, "|") for line in block}) == 1
    mean = cell(table, TEST, "tanh")
    expected = f"| tanh | 5 | {100 * mean.mean:.2f} | {100 * mean.low:.2f} to"
    assert expected in text
    [_, best, _] = table.arms[0].tried
    assert f"| optim.lr=0.1 | {100 * best.mean:.2f} \\* |" in text  # the chosen one


def test_latex_is_escaped_and_balanced(table, tmp_path):
    paths = report.write(dataclasses.replace(table, curves={}), tmp_path)
    text = next(p for p in paths if p.suffix == ".tex").read_text().split("\n", 1)[1]
    assert "training error (\\%)" not in text and "test error (\\%)" in text
    for char in "%#":
        assert unescaped(text, char) == 0
    assert "_" not in text.replace("\\_", "") and "<" not in text
    assert unescaped(text, "{") == unescaped(text, "}")
    for block in text.split("\\toprule")[1:]:
        rows = [r for r in block.split("\\bottomrule")[0].splitlines() if r.endswith("\\\\")]
        assert len({unescaped(row, "&") for row in rows if "multicolumn" not in row}) == 1
    assert not any(p.name.startswith("curves") for p in paths)


def printed(table, width=100):
    console = Console(width=width, record=True, file=io.StringIO())
    report.show(table, console)
    return console.export_text()


def test_terminal(table):
    text = printed(table)
    assert max(map(len, text.splitlines())) <= 100
    for finding in table.findings:
        assert f"{finding.verdict.word}: relu" in text
    assert "Published: 6 times fewer (K. 2012)." in text
    assert "27 of 27 runs" in text


def test_nothing_there_says_what_to_run(tmp_path):
    with pytest.raises(InputError, match=r"^no records of curves_on_trial under .*launch.py run"):
        findings.collect(EXPERIMENT, tmp_path)
    folder = write_run(tmp_path, EXPERIMENT, "relu", at_best("relu", 0))
    (folder / "result.json").unlink()
    with pytest.raises(InputError, match="no finished run of curves_on_trial"):
        findings.collect(EXPERIMENT, tmp_path)


def test_an_interrupted_sweep_still_makes_a_table(tmp_path):
    write_all(tmp_path)
    remove(tmp_path, "relu", 4)
    remove(tmp_path, "tanh", 0)  # a tuning run: tanh has no chosen setting any more
    table = findings.collect(EXPERIMENT, tmp_path)
    assert (table.finished, table.expected) == (22, 27)  # its seeds 2, 3, 4 stand for nothing yet
    assert table.warnings[0].startswith("This stands on 22 of 27 runs")
    assert any(w.startswith("tanh: tuning is unfinished") for w in table.warnings)
    assert cell(table, TEST, "relu").missing == 1 and table.findings[0].pair.n == 4
    assert "1 pair left out" in report.sentence(table.findings[0])
    assert table.arms[1].chosen is None and table.findings[2].pair.n == 0
    assert "no pair of runs of relu and tanh" in report.sentence(table.findings[2])
    assert "it takes at least 2 seeds" in report.sentence(table.findings[2])
    report.write(table, tmp_path / "report")
    assert "(1 of 2)" in report.markdown(table) and printed(table)


def test_one_seed_is_undecided(tmp_path):
    one = dataclasses.replace(EXPERIMENT, seeds=(0,), tune={})
    for arm in one.arms:
        [run] = experiment.grid(one)[arm].values()
        write_run(tmp_path, one, arm, run)
    table = findings.collect(one, tmp_path)
    assert table.expected == 3
    assert {f.verdict.word for f in table.findings} == {"undecided"}
    assert "one pair" in report.sentence(table.findings[0])
    report.write(table, tmp_path / "report")
    assert printed(table)


def test_arms_that_no_prediction_is_left_of_are_reported_all_the_same(tmp_path):
    alone = dataclasses.replace(EXPERIMENT, predictions=())
    write_all(tmp_path)
    table = findings.collect(alone, tmp_path)
    assert not table.findings and table.finished == table.expected
    report.write(table, tmp_path / "report")
    assert EXPERIMENT.claim in printed(table)


def test_a_diverged_run_blocks_a_verdict_in_its_arms_favour(tmp_path):
    write_all(tmp_path)
    write_run(tmp_path, EXPERIMENT, "relu", at_best("relu", 3), status="diverged", test=False)
    table = findings.collect(EXPERIMENT, tmp_path)
    relu = cell(table, TEST, "relu")
    assert (relu.diverged, sorted(relu.values)) == (1, [0, 1, 2, 4])
    assert relu.mean == pytest.approx(np.mean([test_error("relu", s) for s in (0, 1, 2, 4)]))
    assert table.curves["train"]["relu"].n == 4 and table.curves["train"]["tanh"].n == 5
    assert [f.verdict.word for f in table.findings] == ["undecided"] * 4
    assert "not settled, because 1 run of relu diverged" in report.sentence(table.findings[0])
    assert "relu: 1 of 5 runs diverged at the chosen setting" in " ".join(table.warnings)
    assert "1 diverged" in report.markdown(table)


def test_a_setting_that_diverges_is_never_chosen(tmp_path):
    write_all(tmp_path)
    write_run(tmp_path, EXPERIMENT, "relu", at_best("relu", 1), status="diverged", test=False)
    table = findings.collect(EXPERIMENT, tmp_path)
    assert table.arms[0].chosen == "optim.lr=0.01"
    assert table.arms[0].tried[1].mean == math.inf and "diverged" in report.markdown(table)
    report.write(table, tmp_path / "report")


def test_runs_that_never_reach_the_target_are_counted(tmp_path):
    short = dataclasses.replace(EXPERIMENT, tune={}, predictions=EXPERIMENT.predictions[:1])
    for arm, settings in experiment.grid(short).items():
        for seed in short.seeds:
            run = dataclasses.replace(settings[""], seed=seed)
            write_run(tmp_path, short, arm, run, steps=170)
    table = findings.collect(short, tmp_path)
    sigmoid = cell(table, STEPS, "sigmoid")
    assert (sigmoid.censored, sigmoid.budget, sigmoid.mean) == (5, 170, 170)
    text = report.sentence(table.findings[0])
    assert "5 of 5 runs of sigmoid did not get there in 170 steps and count as 170." in text
    assert "5 at the budget of 170" in report.markdown(table)
    # Where no run of either arm gets there, seeds are of no help.
    never = Prediction(Measure("steps_to", "train", target=0.001), "relu", than="tanh")
    table = findings.collect(dataclasses.replace(short, predictions=(never,)), tmp_path)
    assert table.findings[0].verdict.word == "undecided"
    assert "it takes more steps, not more seeds" in report.sentence(table.findings[0])


@pytest.mark.parametrize(
    ("times", "direction", "verdict"),
    [(0.02, "less", "supported"), (0.5, "less", "refuted"), (0.1, "less", "undecided")]
    + [(50.0, "greater", "supported"), (2.0, "greater", "refuted"), (10.0, "greater", "undecided")],
)
def test_a_factor_is_part_of_the_prediction(times, direction, verdict):
    time = Measure("step_time", "train")
    say = {"published": "tens of times", "factor": 10.0}
    exp = dataclasses.replace(
        EXPERIMENT,
        arms={"here": {"train.device": "gpu"}, "there": {"train.device": "cpu"}},
        tune={},
        predictions=(Prediction(time, "here", "there", direction, **say),),
        timed=True,
    )
    assert exp.measures() == (time,)  # and no test error

    def read(arm, run):
        second = times * (0.96 + 0.02 * run.seed) if arm == "here" else 1.0
        rows = [{"step": 1, "step_seconds": 9.0}, {"step": 2, "step_seconds": second}]
        info = {"config": to_dict(run), "steps": 2, "device": {"kind": arm}, "commit": "0123abc"}
        return records.Record(Path(arm), info, rows, {"status": "finished", "step": 2}, None)

    table = findings.collect(exp, read)
    [finding] = table.findings
    assert finding.verdict.word == verdict and finding.pair.effect(finding.pair.mean) == (
        pytest.approx(times, rel=0.01)
    )
    assert not table.warnings  # that the devices differ is what is asked
    text = report.sentence(finding)
    assert "times the time a training step of there" in text and "against a factor of 10" in text
    assert ("the prediction was a factor of 10 or more" in text) is (verdict == "refuted")
    assert ("times less)" in report.published(finding)) is (direction == "less")
    assert "by a factor of 10" in report.markdown(table) and "(ms)" in report.markdown(table)


def test_errors_of_zero_and_targets_out_of_sight_can_be_drawn(tmp_path, monkeypatch):
    monkeypatch.setitem(globals(), "errors", lambda arm, lr, seed, steps: [0.0] * len(steps))
    monkeypatch.setitem(globals(), "test_error", lambda arm, seed: 0.0)
    plain = dataclasses.replace(EXPERIMENT, tune={}, seeds=(0, 1, 2))
    for arm, settings in experiment.grid(plain).items():
        for seed in plain.seeds:
            write_run(tmp_path, plain, arm, dataclasses.replace(settings[""], seed=seed))
    table = findings.collect(plain, tmp_path)
    assert "relu and tanh have the same test error" in report.sentence(table.findings[2])
    assert "no number of seeds up to 1000" in report.sentence(table.findings[2])
    assert len(report.write(table, tmp_path / "report")) == 7


def test_mixed_provenance_is_told_and_missing_keys_are_borne(tmp_path):
    lone = dataclasses.replace(
        EXPERIMENT, tune={}, predictions=(), arms={"relu": EXPERIMENT.arms["relu"]}, seeds=(0, 1, 2)
    )
    [run] = experiment.grid(lone)["relu"].values()
    write_run(tmp_path, lone, "relu", run, convolutions="XLA")
    other = dataclasses.replace(run, seed=1)
    made = {"commit": "4567def", "dirty": True, "convolutions": "oneDNN 2.6.3"}
    write_run(tmp_path, lone, "relu", other, **made)
    bare = write_run(tmp_path, lone, "relu", dataclasses.replace(run, seed=2))
    info = {"config": to_dict(dataclasses.replace(run, seed=2))}
    records.write_json(bare / "run.json", info)
    table = findings.collect(lone, tmp_path)
    assert table.warnings == (
        "The runs differ in commit: 0123abc; 4567def with uncommitted changes.",
        "The runs differ in convolutions: XLA; oneDNN 2.6.3.",
        "1 of 3 runs were made with uncommitted changes.",
    )
    assert table.findings == () and len(cell(table, TEST, "relu").values) == 3
    names = {path.name for path in report.write(table, tmp_path / "report")}
    assert "index.html" in names and printed(table)


def remove(root, arm, seed):
    (experiment.folder(root, EXPERIMENT, arm, at_best(arm, seed)) / "result.json").unlink()


def test_a_prediction_of_the_same(root):
    """Ten runs of two arms a tenth of a point apart at most, in every output."""
    wide = Prediction(TEST, "relu", than="tanh", direction="same", margin=0.005)
    narrow = dataclasses.replace(wide, margin=0.0005)
    far = dataclasses.replace(wide, than="sigmoid")
    ratio = Prediction(STEPS, "relu", than="tanh", direction="same", margin=1.25)
    assert str(wide) == "relu has the same test error as tanh, within 0.5 points"
    assert str(ratio).endswith("as tanh, within a factor of 1.25")
    exp = dataclasses.replace(EXPERIMENT, predictions=(wide, narrow, far, ratio))
    table = findings.collect(exp, root)
    words = [f.verdict.word for f in table.findings]
    assert words == ["supported", "undecided", "refuted", "supported"]
    d = [test_error("relu", s) - test_error("tanh", s) for s in range(5)]
    low, high = scipy.stats.ttest_1samp(d, 0).confidence_interval(0.9)
    said = [report.sentence(f) for f in table.findings]
    span = f"(90 % interval of the difference {100 * low:z.2f} to {100 * high:z.2f}, "
    assert span in said[0] and "of a difference within 0.5 points, n = 5)." in said[0]
    assert (
        "of a difference within 0.05 points, n = 5); about " in said[1]
        and "80 % power" not in said[1]
    )
    assert said[2].endswith("; the prediction was the same within 0.5 points.")
    assert "90 % interval" in said[3] and "within a factor of 1.25" in said[3]
    text = report.markdown(table)
    assert "relu = tanh within 0.5 points" in text and "two one-sided t-tests" in text
    assert "two one-sided" not in report.markdown(findings.collect(EXPERIMENT, root))
    assert "relu = sigmoid within 0.5 points" in printed(table, 140)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"direction": "same"}, "'same' needs one"),
        ({"margin": 0.1}, "no other direction takes one"),
        ({"direction": "same", "margin": 0.0}, "above 0"),
        ({"direction": "same", "margin": 0.9, "measure": STEPS}, "above 1"),
    ],
)
def test_a_margin_that_cannot_be(fields, said):
    with pytest.raises(InputError, match=said):
        Prediction(**{"measure": TEST, "arm": "relu", "than": "tanh"} | fields)
