"""Every arm of every experiment, in every preset, builds and traces; and the rules of tuning."""

import dataclasses
import functools
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcnn import analysis, cohorts, experiment, models, nets, ops, step, sweep, train
from jaxcnn.config import CLASSICAL, Data, InputError, Model, Run, override
from jaxcnn.data.sources import Dataset, Split
from jaxcnn.experiment import Experiment, Measure, Prediction

ALL = [
    (name, preset)
    for name in experiment.available()
    for preset in experiment.presets_of(experiment.load(name))
]
# Nets at the size of their papers take long to trace.
LARGE = [("imagenet", preset) for preset in experiment.presets_of(experiment.load("imagenet"))]
SMALL = Experiment(
    claim="a claim",
    source="a source",
    base=Run(model=Model(name="mlp")),
    arms={"wide": {"model.widths": (8,)}, "narrow": {"model.widths": (2,)}},
    predictions=(Prediction(Measure("final", "test"), "wide", than="narrow"),),
    tune={"optim.lr": (0.1, 0.2), "optim.momentum": (0.0, 0.9)},
    presets={"quick": {"base.train.steps": 3, "seeds": range(2), "tune.optim.lr": (0.3, 0.4)}},
    name="small",
)


# Pictures, classes, training and test examples: most are not in the package, and shapes are enough.
SETS = {
    "mnist": ((28, 28, 1), 10, 60_000, 10_000),
    "cifar10": ((32, 32, 3), 10, 50_000, 10_000),
    "fashion_mnist": ((28, 28, 1), 10, 60_000, 10_000),
    "orl_faces": ((112, 92, 1), 40, 400, 0),
    "youtube_faces": ((112, 92, 1), 347, 3885, 347),
    "grocery_fruit": ((128, 128, 3), 19, 1142, 1117),  # and 111 for validation
    "facial_keypoints": ((128, 128, 1), 68, 3382, 850),
    "facial_keypoints_given": ((128, 128, 1), 68, 3462, 770),
    "imagenet": ((256, 256, 3), 1000, 1_281_167, 50_000),
}


# What an experiment starts from that its user brings.
CONVOLUTIONS = {
    f"AlexNet_0/Conv_{i}/{leaf}": np.zeros(shape if leaf == "kernel" else shape[-1:], np.float32)
    for i, shape in enumerate(
        [(11, 11, 3, 64), (5, 5, 64, 192), (3, 3, 192, 384), (3, 3, 384, 256), (3, 3, 256, 256)]
    )
    for leaf in ("kernel", "bias")
}


def as_loaded(data: Data) -> Dataset:
    """What `data` gives, in shapes alone."""
    (height, width, channels), classes, total, test = SETS[data.name]
    height, width = (data.side, data.side) if data.stream else (height, width)
    assert height % (data.resize or height) == 0
    size = (data.resize or height, data.resize or width, channels)

    def split(n: int) -> Split:
        labels = np.broadcast_to(np.int32(0), n)
        if data.name.startswith("facial_keypoints"):
            labels = np.broadcast_to(np.float32(0), (n, classes, 2))
        return Split(np.broadcast_to(np.uint8(0), (n, *size)), labels)

    if data.classes is not None:  # all of them have as many examples
        total, test = (n * len(data.classes) // classes for n in (total, test))
        classes = len(data.classes)
    asked = data.train_examples if data.per_class is None else data.per_class * classes
    if data.test_per_class is not None:
        test = data.test_per_class * classes
        total -= test
    if data.unseen is not None:
        test = data.unseen * total // classes
        total, classes = total - test, classes - data.unseen
    rest = total - data.validation_examples
    assert (asked or 1) <= rest
    splits = (split(n) for n in (asked or rest, data.validation_examples, test))
    moments = (np.zeros(channels), np.ones(channels), np.eye(channels))
    return Dataset(*splits, tuple(map(str, range(classes))), *moments, "zeros")


@functools.cache
def traced(run: Run, problem: nets.Problem, whole: bool) -> None:
    """One training step; or, where that of another preset says the same, the weights alone."""
    if not whole:
        jax.eval_shape(lambda: step.init_state(run, problem, step.numbers(run)))
        return
    state, sums = train.trace(run, problem)
    assert state.step.shape == sums["loss"].shape == ()


@pytest.mark.parametrize(
    ("name", "preset"),
    [pytest.param(*c, marks=pytest.mark.slow if c in LARGE else ()) for c in ALL],
)
def test_every_arm_builds_and_traces(
    name: str, preset: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    exp = experiment.with_preset(experiment.load(name), preset)
    if exp.base.start.weights is not None:
        np.savez(exp.base.start.weights, allow_pickle=False, **CONVOLUTIONS)
    exp = dataclasses.replace(exp, resplit=False)  # other splits have the same sizes
    runs = sweep.all_runs(exp)
    nets = [run for run in runs if run.model.name not in CLASSICAL]
    others = [run for run in runs if run.model.name in CLASSICAL]
    train.check(others, {run.data: as_loaded(run.data) for run in runs})
    lengths = {"data.train_examples": None, "data.validation_examples": 0, "train.epochs": 1.0}
    lengths |= {"train.steps": None, "train.eval_every": None, "train.eval_train_examples": 1}
    for run, *_ in cohorts.group(nets, step.static):
        problem = train.problem_of(run, as_loaded(run.data))
        # How long a run is changes no shape in it: presets that differ in no more are traced once.
        alike = dataclasses.replace(problem, steps=100)
        traced(override(step.static(run), lengths), alike, preset == "quick")


@pytest.mark.parametrize("name", experiment.available())
def test_the_house_rules_of_experiments(name: str) -> None:
    exp = experiment.load(name)
    assert {"quick", "paper"} <= set(exp.presets)
    assert exp.claim and exp.source and exp.predictions
    runs = sweep.all_runs(exp)
    assert len({dataclasses.replace(r, seed=0) for r in runs}) == len(runs)  # arms really differ
    for grid in exp.tune.values():
        assert len(grid) >= 4


@pytest.mark.parametrize("name", experiment.available())
def test_arms_start_from_equal_weights_where_they_share_a_layer(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def keyed(key: jax.Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> jax.Array:
        """Each weight is its key: as telling as what is drawn with it, and compiled in no time."""
        return jnp.full(shape, jax.random.key_data(key)[1].astype(dtype))

    for init in ops.INITS:
        monkeypatch.setitem(ops.INITS, init, keyed)
    exp = experiment.with_preset(experiment.load(name), "quick")
    arms = [next(iter(settings.values())) for settings in experiment.grid(exp).values()]
    kinds = {(r.model.name, r.model.initializer) for r in arms}
    if len(kinds) > 1:
        pytest.skip("the arms are different architectures")
    starts, seen = [], set()
    for run in arms:  # one of those that differ in no more than their data or optimiser
        problem = train.problem_of(run, as_loaded(run.data))
        if step.static(run).model not in seen:
            draw = jax.jit(lambda r=run, p=problem: step.init_state(r, p, step.numbers(r)).params)
            starts.append(draw())
        seen.add(step.static(run).model)
    for other in starts[1:]:
        for path, leaf in jax.tree_util.tree_leaves_with_path(starts[0]):
            mine = dict(jax.tree_util.tree_leaves_with_path(other)).get(path)
            if mine is not None and mine.shape == leaf.shape:
                np.testing.assert_array_equal(leaf, mine)


def cost(name: str, arm: str) -> np.ndarray:
    """(parameters, multiply-adds) of an arm's net at the size of the default preset."""
    run = next(iter(experiment.grid(experiment.load(name))[arm].values()))
    shape = (28, 28, 1) if run.data.name == "mnist" else (32, 32, 3)
    found = analysis.analyse(models.from_config(run.model, 10), shape)
    return np.array([found.parameters, found.macs])


@pytest.mark.parametrize(
    ("name", "arm", "other", "parameters", "macs"),
    [
        ("deeper_or_wider", "wide", "deep", 0.06, 0.06),
        ("deeper_or_wider_mlp", "one", "five", 0.005, 0.005),
        ("deeper_or_wider_mlp", "two", "five", 0.005, 0.005),
        ("inception", "plain", "inception", 0.2, 0.01),
        ("residual", "plain20", "resnet20", 0.0, 0.0),
    ],
)
def test_arms_that_are_said_to_cost_the_same_do(
    name: str, arm: str, other: str, parameters: float, macs: float
) -> None:
    ratio = cost(name, arm) / cost(name, other)
    assert (np.abs(ratio - 1) <= (parameters, macs)).all(), ratio


MIXED = dataclasses.replace(
    SMALL,
    arms={**SMALL.arms, "svm": {"model.name": "svm_rbf"}, "knn": {"model.name": "knn"}},
    tune={"optim.lr": (0.1, 0.2), "model.gamma": (0.01, 0.1, 1.0)},
    presets={"quick": {"arms": ("svm", "wide"), "tune.model.gamma": (0.5, 0.6)}},
)


def test_an_arm_is_tuned_over_what_concerns_its_model() -> None:
    grid = experiment.grid(MIXED)
    assert list(grid["wide"]) == list(grid["narrow"]) == ["optim.lr=0.1", "optim.lr=0.2"]
    assert list(grid["svm"]) == ["model.gamma=0.01", "model.gamma=0.1", "model.gamma=1.0"]
    assert list(grid["knn"]) == [""]
    assert {r.optim.lr for r in grid["svm"].values()} == {MIXED.base.optim.lr}


def test_a_preset_may_have_fewer_arms() -> None:
    quick = experiment.with_preset(MIXED, "quick")
    assert list(quick.arms) == ["wide", "svm"] and quick.predictions == ()
    assert list(experiment.grid(quick)["svm"]) == ["model.gamma=0.5", "model.gamma=0.6"]
    assert list(experiment.with_preset(MIXED, "default").arms) == list(MIXED.arms)
    with pytest.raises(InputError, match="arms: 'swm' is no arm. Did you mean svm"):
        experiment.check_presets(dataclasses.replace(MIXED, presets={"quick": {"arms": ("swm",)}}))


def test_each_seed_may_have_a_split_of_its_own() -> None:
    run = SMALL.base
    assert [r.data.split_seed for r in experiment.seeded(SMALL, run, (0, 3))] == [0, 0]
    split = dataclasses.replace(SMALL, resplit=True)
    assert [(r.seed, r.data.split_seed) for r in experiment.seeded(split, run, (0, 3))] == [
        (0, 0),
        (3, 3),
    ]
    assert {r.data.split_seed for r in sweep.all_runs(split)} == {0, 1, 2, 3, 4}
    seen = []
    experiment.choose(split, lambda arm, run: seen.append((run.seed, run.data.split_seed)) or 0.0)
    assert set(seen) == {(0, 0), (1, 1), (2, 2)}


def test_the_grid_is_the_same_for_each_arm() -> None:
    grid = experiment.grid(SMALL)
    assert list(grid["wide"]) == list(grid["narrow"])
    assert list(grid["wide"])[1] == "optim.lr=0.1, optim.momentum=0.9"
    assert grid["narrow"]["optim.lr=0.2, optim.momentum=0.0"].optim.lr == 0.2


def test_a_setting_is_chosen_by_the_mean_over_the_tuning_seeds() -> None:
    def score(arm: str, run: Run) -> float:
        best = {"wide": 0.2, "narrow": 0.1}[arm]
        lucky = run.seed == 0 and run.optim.lr != best  # one good seed does not make a setting
        return -1.0 if lucky else abs(run.optim.lr - best) * 100 + run.optim.momentum

    assert experiment.choose(SMALL, score) == {
        "wide": "optim.lr=0.2, optim.momentum=0.0",
        "narrow": "optim.lr=0.1, optim.momentum=0.0",
    }
    assert experiment.choose(SMALL, lambda arm, run: None if run.seed == 2 else 1.0) is None


def test_a_diverged_setting_is_never_chosen() -> None:
    chosen = experiment.choose(SMALL, lambda arm, run: float("inf") if run.optim.lr == 0.1 else 1.0)
    assert chosen is not None
    assert all("optim.lr=0.2" in setting for setting in chosen.values())


def test_presets_and_settings_of_a_launch() -> None:
    quick = experiment.select(SMALL, "quick")
    assert (quick.base.train.steps, quick.seeds) == (3, (0, 1))
    assert quick.tune["optim.lr"] == (0.3, 0.4)
    fixed = experiment.select(SMALL, "quick", settings={"optim.lr": "0.7"}, seeds=[4])
    assert list(fixed.tune) == ["optim.momentum"]
    assert {r.optim.lr for r in sweep.all_runs(fixed)} == {0.7}
    assert fixed.seeds == (4,)
    one = experiment.select(SMALL, arms=["wide"])
    assert list(one.arms) == ["wide"] and one.predictions == ()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"preset": "quik"}, "Did you mean quick"),
        ({"arms": ["wid"]}, "Did you mean wide"),
        ({"settings": {"model.widths": "3"}}, "pick one by --arms"),
        ({"settings": {"optim.lrr": "3"}}, "Did you mean optim.lr"),
        ({"settings": {"optim.lr": "-3"}}, "optim.lr: -3.0 is not allowed"),
    ],
)
def test_a_launch_that_asks_for_what_is_not_there(arguments: dict, said: str) -> None:
    with pytest.raises(InputError, match=said):
        experiment.select(SMALL, **arguments)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"arms": {}}, "arms: none"),
        ({"arms": {"a": {"model.width": (3,)}}, "predictions": ()}, "Did you mean model.widths"),
        ({"arms": {"a": {}}}, "'wide' is no arm"),
        ({"seeds": ()}, "seeds: none"),
        ({"tune_by": Measure("final", "train")}, "chosen on 'validation'"),
        ({"base": Run(data=Data(validation_examples=0))}, "needs some"),
        ({"tune": {"optim.lr": (0.0, 1.0)}}, "optim.lr: 0.0 is not allowed"),
    ],
)
def test_a_broken_experiment_is_an_error_at_import(changes: dict, said: str) -> None:
    with pytest.raises(InputError, match=said):
        dataclasses.replace(SMALL, **changes)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"base.train.step": 3}, "train.step: no such field"),
        ({"sedes": (3,)}, "Did you mean seeds"),
        ({"tune.optim.momentum": (2.0,)}, "optim.momentum: 2.0 is not"),
    ],
)
def test_a_broken_preset_is_an_error_whichever_runs_and_none_to_list(
    changes: dict, said: str, tmp_path: Path
) -> None:
    source = Path(experiment.__file__).parent.parent / "experiments" / "relu_vs_sigmoid.py"
    tune = 'tune={"optim.momentum": (0.0, 0.9)},'
    broken = f"import dataclasses\n\nBROKEN = {{'unasked': {changes!r}}}\n"
    text = f"EXPERIMENT = dataclasses.replace(EXPERIMENT, {tune} presets=BROKEN)\n"
    (tmp_path / "mine.py").write_text("\n".join([source.read_text(), broken, text]))
    with pytest.raises(InputError, match=f"mine.py: .*{said}"):
        experiment.load(str(tmp_path / "mine.py"))
    assert experiment.load(str(tmp_path / "mine.py"), presets=False).name == "mine"


def test_measures_guard_the_test_split() -> None:
    with pytest.raises(InputError, match="touched once"):
        Measure("steps_to", "test", target=0.1)
    with pytest.raises(InputError, match="target"):
        Measure("final", "train", target=0.1)


def test_a_factor_needs_a_ratio() -> None:
    with pytest.raises(InputError, match=r"Prediction.factor: 2.0 is not allowed"):
        Prediction(Measure("final", "test"), "wide", than="narrow", factor=2.0)
    with pytest.raises(InputError, match=r"Prediction.factor: 0.5"):
        Prediction(Measure("step_time", "train"), "wide", than="narrow", factor=0.5)


def test_a_launch_has_the_arms_that_are_for_its_devices() -> None:
    arms = {"any": {}, "cpu": {"train.device": "cpu"}, "gpu": {"train.device": "gpu"}}
    exp = dataclasses.replace(SMALL, arms=arms, predictions=(), tune={}, presets={})
    assert list(sweep.here(exp).arms) == ["any", "cpu"]
    with pytest.raises(InputError, match="every arm asks for gpu, and this launch runs on cpu"):
        sweep.here(experiment.only(exp, ["gpu"]))


def test_a_file_anywhere_is_an_experiment(tmp_path: Path) -> None:
    source = Path(experiment.__file__).parent.parent / "experiments" / "relu_vs_sigmoid.py"
    (tmp_path / "mine.py").write_text(source.read_text())
    exp = experiment.load(str(tmp_path / "mine.py"))
    assert exp.name == "mine" and list(exp.arms) == ["relu", "tanh", "sigmoid"]
    (tmp_path / "empty.py").write_text("x = 1\n")
    with pytest.raises(InputError, match="defines no EXPERIMENT"):
        experiment.load(str(tmp_path / "empty.py"))
    (tmp_path / "broken.py").write_text(source.read_text().replace("optim.lr", "optim.lrr"))
    with pytest.raises(InputError, match=r"broken.py: optim.lrr: no such field"):
        experiment.load(str(tmp_path / "broken.py"))
    (tmp_path / "idle.py").write_text(source.read_text().replace("optim.lr", "model.gamma"))
    with pytest.raises(InputError, match=r"tune: model.gamma concerns no arm's model"):
        experiment.load(str(tmp_path / "idle.py"))
    with pytest.raises(InputError, match="no such file"):
        experiment.load(str(tmp_path / "absent.py"))


def test_traced_numbers_are_the_only_difference_within_an_arm() -> None:
    """A tuned learning rate and the seeds cost no compilation."""
    exp = experiment.load("relu_vs_sigmoid")
    for settings in experiment.grid(exp).values():
        runs = [override(r, {"seed": s}) for r in settings.values() for s in (0, 1)]
        assert len({step.static(r) for r in runs}) == 1
