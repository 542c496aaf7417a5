"""Starts from another run's weights, frozen layers, and features, against those made by hand."""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from jaxcnn import (
    config,
    experiment,
    models,
    records,
    starts,
    step,
    sweep,
    train,
    trained,
    transfer,
    weights,
)
from jaxcnn.checks import check
from jaxcnn.config import Data, InputError, Model, Optim, Run, Start, Train, override
from jaxcnn.data import augment
from jaxcnn.data.sources import Dataset
from jaxcnn.experiment import Experiment, Measure, Prediction
from jaxcnn.nets import Problem
from jaxcnn.step import State

Launch = Callable[..., tuple[int, str, str]]
LENET = models.create_model("lenet5", activation="relu", pool="max", widths=(3, 4), head=(5, 4))
PROBLEM = Problem((28, 28, 1), 3, train_examples=16, steps=10)
MOMENTS = (jnp.full(1, 0.5), jnp.full(1, 0.25), jnp.full((1, 1), 0.0625))
NET = override(
    Run(),
    {
        "model.name": "lenet5",
        "model.activation": "relu",
        "model.widths": (3, 4),
        "model.head": (5, 4),
        "model.batch_norm": True,
        "optim.weight_decay": 0.1,
        "train.batch_size": 8,
    },
)


# Features


@pytest.mark.slow
def test_features_are_what_the_next_layer_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "BATCH", 2)  # the last batch is not a whole one
    x = np.random.default_rng(0).normal(size=(3, 28, 28, 1)).astype(np.float32)
    variables = LENET.init(jax.random.key(1), x, train=False)

    def convolved(x: Any, name: str, padding: int) -> jax.Array:
        own = variables["params"][name]
        dimensions = ("NHWC", "HWIO", "NHWC")
        around = [(padding, padding)] * 2
        y = lax.conv_general_dilated(
            x, own["kernel"], (1, 1), around, dimension_numbers=dimensions, precision="highest"
        )
        y = jnp.maximum(y + own["bias"][None, None, None], 0)
        return y.reshape(3, y.shape[1] // 2, 2, y.shape[2] // 2, 2, -1).max((2, 4))

    c1 = convolved(x, "C1", 2)
    c3 = convolved(c1, "C3", 0).reshape(3, -1)
    c5 = jnp.maximum(c3 @ variables["params"]["C5"]["kernel"], 0)  # its biases are 0
    for layer, expected in {"C3": c3, "C5": c5}.items():
        found = transfer.features(LENET, variables, x, layer)
        assert found.dtype == np.float32 and found.std() > 0
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    shapes = {"C1": (14, 14, 3), "C3": (100,), "C5": (5,), "F6": (4,), "output": (10,)}
    assert transfer.shapes(LENET, (28, 28, 1)) == shapes
    with pytest.raises(InputError, match="layer: 'C2' is not one of 'C1', 'C3', 'C5', 'F6'"):
        transfer.features(LENET, variables, x, "C2")


@pytest.mark.slow
def test_features_of_a_block_are_of_the_block_behind_a_shortcut_and_a_junction() -> None:
    resnet = models.create_model("resnet20", shortcut="B", remat=True)
    behind = transfer._behind(transfer._whole(resnet), (32, 32, 3))
    assert behind["conv3_1/conv1"] == "conv3_1/conv2"
    assert behind["conv3_1/conv2"] == behind["conv3_1/shortcut"] == "conv3_2/conv1"
    assert behind["conv4_3/conv2"] == "fc" and behind["fc"] is None
    assert transfer.shapes(resnet, (32, 32, 3))["conv2_3/conv2"] == (32, 32, 16)
    joined = transfer._behind(models.create_model("googlenet_cifar"), (32, 32, 3))
    assert joined["inception_3a_3x3_reduce"] == "inception_3a_3x3"
    assert joined["inception_3a_1x1"].startswith("inception_3b")
    with pytest.raises(InputError, match=r"model\.scan: true"):
        transfer.shapes(models.create_model("resnet20", scan=True), (32, 32, 3))


def test_features_of_a_net_of_the_user_s_own() -> None:
    class Own(nn.Module):
        @nn.compact
        def __call__(self, x: jax.Array, *, train: bool) -> tuple[jax.Array, dict[str, jax.Array]]:
            x = jnp.tanh(nn.Dense(3, name="first")(x.reshape(x.shape[0], -1)))
            return nn.Dense(2, name="last")(x), {}

    x = np.ones((2, 4, 4, 1), np.float32)
    variables = Own().init(jax.random.key(0), x, train=False)
    kernel = variables["params"]["first"]["kernel"]
    found = transfer.features(Own(), variables, x, "first")
    np.testing.assert_allclose(found, np.tanh(x.reshape(2, -1) @ kernel), rtol=1e-5)
    output, _ = Own().apply(variables, x, train=False)
    np.testing.assert_allclose(transfer.features(Own(), variables, x, "last"), output, rtol=1e-5)


# What training moves


def batch() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (8, 28, 28, 1), np.uint8), rng.integers(0, 3, 8, np.int32)


def moved(run: Run, n: int = 3) -> tuple[State, State]:
    """The state before and after n steps."""
    values, (x, y) = step.numbers(run), batch()
    start = state = step.init_state(run, PROBLEM, values)
    one = jax.jit(lambda s: step.train_step(run, PROBLEM, s, x, y, MOMENTS, values)[0])
    for _ in range(n):
        state = one(state)
    return start, state


def still(before: State, after: State) -> dict[str, bool]:
    """path of a parameter or a running statistic -> whether it is as it was"""

    def leaves(state: State) -> dict[str, np.ndarray]:
        both = transfer.leaves(state.params) + transfer.leaves(state.batch_stats)
        return {path: np.asarray(leaf) for path, leaf in both}

    ours, theirs = leaves(before), leaves(after)
    return {path: bool((ours[path] == theirs[path]).all()) for path in ours}


def layers_at_rest(run: Run) -> set[str]:
    """Those of which three steps move nothing."""
    found = still(*moved(run))
    layers = {path.split("/")[0] for path in found}
    return {n for n in layers if all(same for p, same in found.items() if p.split("/")[0] == n)}


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_a_frozen_layer_does_not_move_and_a_free_one_does(optimizer: str) -> None:
    """Neither by weight decay nor by momentum, nor do its running statistics."""
    free = override(NET, {"optim.name": optimizer})
    assert layers_at_rest(free) == set()
    frozen = override(free, {"start.freeze": ("C1", "F*")})
    assert layers_at_rest(frozen) == {"C1", "C1_bn", "F6"}


def test_frozen_layers_thaw_one_by_one_the_last_first() -> None:
    run = override(NET, {"start.freeze": ("C*",), "start.thaw": 0.6})
    values, (x, y) = step.numbers(run), batch()
    one = jax.jit(lambda s: step.train_step(run, PROBLEM, s, x, y, MOMENTS, values)[0])
    state, moves = step.init_state(run, PROBLEM, values), []
    for _ in range(PROBLEM.steps):
        before, state = state, one(state)
        found = still(before, state)
        moves.append({n for n in ("C1", "C3", "C5", "F6") if not found[f"{n}/kernel"]})
        assert found["C1_bn/mean"] and found["C3_bn/var"]  # these stay
    assert (
        moves
        == [{"F6"}] * 2
        + [{"C5", "F6"}] * 2
        + [{"C3", "C5", "F6"}] * 2
        + [{"C1", "C3", "C5", "F6"}] * 4
    )


def test_a_frozen_layer_normalises_as_in_evaluation() -> None:
    """By the statistics that stay: with all frozen, training sees what evaluation sees."""
    run = override(NET, {"start.freeze": ("*",)})
    values, state, (x, y) = step.numbers(run), state_of(run), batch()

    def loss(run: Run) -> float:
        one = jax.jit(lambda s: step.train_step(run, PROBLEM, s, x, y, MOMENTS, values)[1])
        return float(one(state_of(run))["loss"])

    judge = jax.jit(lambda s: step.eval_step(run, PROBLEM, s, x, y, MOMENTS, jnp.ones(8)))
    judged = float(judge(state)["loss"])
    assert loss(run) == pytest.approx(judged, rel=1e-5)
    assert abs(loss(dataclasses.replace(run, start=Start())) - judged) > 1e-3


def state_of(run: Run) -> State:
    return step.init_state(run, PROBLEM, step.numbers(run))


def test_layers_taken_over_have_a_learning_rate_of_their_own() -> None:
    base = override(NET, {"start.data": "x", "start.layers": ("C1", "C5")})

    def change(run: Run) -> dict[str, np.ndarray]:
        before, after = (dict(transfer.leaves(s.params)) for s in moved(run, 1))
        return {k: np.asarray(after[k]) - np.asarray(before[k]) for k in before}

    whole, slow = change(base), change(override(base, {"start.rate": 0.1}))
    for path, by in whole.items():
        share = 0.1 if path.startswith(("C1", "C5")) else 1.0
        np.testing.assert_allclose(slow[path], share * by, rtol=1e-3, atol=1e-7, err_msg=path)
    assert step.static(base) == step.static(override(base, {"start.data": None}))
    assert step.static(base) != step.static(override(base, {"start.rate": 0.1}))


def test_a_run_without_a_start_is_the_program_that_it_was() -> None:
    """And one that starts from others' weights is that program too."""
    assert step.static(NET).start == Start()
    assert step.static(override(NET, {"start.data": "x", "start.layers": ("C1",)})).start == Start()
    assert config.digest(Run()) == "44136fa355"


@pytest.mark.parametrize(
    ("path", "patterns", "expected"),
    [
        ("conv1", ("conv1",), True),
        ("conv1_bn", ("conv1",), True),
        ("conv10", ("conv1",), False),
        ("conv2_1/conv1", ("conv2_1",), True),
        ("conv2_1/conv1_bn", ("conv2_1/conv1",), True),
        ("conv2_1/conv1", ("conv1",), False),
        ("conv2_1/conv1", ("conv2*",), True),
        ("fc", ("conv*", "f?"), True),
        ("fc", (), False),
    ],
)
def test_patterns_name_layers_and_blocks(
    path: str, patterns: tuple[str, ...], expected: bool
) -> None:
    assert transfer.matches(path, patterns) is expected


def test_what_is_taken_over_is_the_source_s_and_the_rest_is_not() -> None:
    source = state_of(override(NET, {"seed": 5}))
    moved_on = jax.tree.map(lambda a: a + 1, source.batch_stats)
    source = dataclasses.replace(source, batch_stats=moved_on)
    own = state_of(NET)
    begun = step.started(override(NET, {"start.data": "x"}), PROBLEM, own, source)
    kernels = {k for k, same in still(begun, source).items() if same and "kernel" in k}
    assert kernels == {f"{layer}/kernel" for layer in ("C1", "C3", "C5", "F6")}
    assert still(begun, own)["output/kernel"] and not still(begun, own)["C3_bn/mean"]
    assert still(begun, source)["C3_bn/mean"]
    first = override(NET, {"start.data": "x", "start.layers": ("C1",)})
    found = still(step.started(first, PROBLEM, own, source), own)
    assert not found["C1/kernel"] and not found["C1_bn/mean"] and found["C3/kernel"]


# Source runs

BASE = Run(
    model=Model(name="mlp", widths=(8, 6), activation="relu"),
    data=Data(classes=(5, 6, 7, 8, 9), per_class=20, validation_examples=100),
    optim=Optim(lr=0.05),
    train=Train(batch_size=50, steps=8, eval_every=4, eval_train_examples=50),
    start=Start(classes=(0, 1, 2, 3, 4), train_examples=500, steps=6, lr=0.1),
)
SVM = {"model.name": "svm_linear", "start.model": "mlp", "start.features": "fc1"}
STARTED = Experiment(
    claim="c",
    source="s",
    base=BASE,
    arms={
        "scratch": {},
        "tuned": {"start.data": "mnist"},
        "held": {"start.data": "mnist", "start.freeze": ("*",)},
        "svm": {"start.data": "mnist", **SVM},
    },
    predictions=(Prediction(Measure("final", "test"), "tuned", than="scratch"),),
    tune={"optim.lr": (0.01, 0.05), "model.penalty": (0.01, 0.1)},
    tune_seeds=(0,),
    seeds=(0, 1),
    name="started",
)


@pytest.fixture(scope="module")
def datasets() -> Mapping[Data, Dataset]:
    return train.load_data(sweep.all_runs(STARTED), None)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory, datasets: Mapping[Data, Dataset]) -> Path:
    folder = tmp_path_factory.mktemp("started")
    train.check(sweep.all_runs(STARTED), datasets)
    left, total = sweep.work(STARTED, folder, datasets)
    assert left == total == 2 * 6 + 3 * (2 + 1) * 8 + (2 + 1)
    list(sweep.run(STARTED, folder, datasets, preset="default"))
    assert sweep.work(STARTED, folder, datasets) == (0, total)
    return folder


def source_of(arm: str, seed: int = 0) -> Run:
    own = override(BASE, {**STARTED.arms[arm], "seed": seed})
    found = transfer.source(own)
    assert found is not None
    return found


def final(folder: Path, run: Run, datasets: Mapping[Data, Dataset]) -> dict[str, np.ndarray]:
    state = starts.final(folder, run, datasets[run.data])
    return {k: np.asarray(v) for k, v in transfer.leaves(state.params)}


def test_the_source_run_is_this_run_on_the_other_data() -> None:
    source = source_of("tuned", 3)
    assert source.data == Data(classes=(0, 1, 2, 3, 4), train_examples=500, validation_examples=100)
    assert (source.train.steps, source.optim.lr, source.seed) == (6, 0.1, 3)
    assert (source.model, source.start) == (BASE.model, Start())
    assert source == source_of("held", 3) == source_of("svm", 3)
    assert transfer.source(BASE) is None
    other = override(BASE, {"start.data": "mnist", "start.lr": None, "optim.lr": 0.7})
    assert transfer.source(other).optim.lr == 0.7  # type: ignore[union-attr]


@pytest.mark.slow
def test_equal_sources_are_trained_once(root: Path, datasets: Mapping[Data, Dataset]) -> None:
    infos = sorted(root.glob("sources/*/*/run.json"))
    assert [p.parent.name.split("-")[0] for p in infos] == ["seed0", "seed1"]
    assert infos[0].parent == experiment.source_folder(root, source_of("tuned"))
    assert not list(root.glob("sources/*/*/test.json"))
    old = {p: p.stat().st_mtime_ns for p in root.glob("sources/*/*/*.json")}
    more = dataclasses.replace(STARTED, name="again", seeds=(0,))
    list(sweep.run(experiment.only(more, ["held"]), root, datasets, preset="default"))
    assert {p: p.stat().st_mtime_ns for p in root.glob("sources/*/*/*.json")} == old
    record = records.read(next(root.glob("started/tuned/*")))
    assert record is not None
    theirs = datasets[source_of("tuned").data].fingerprint
    assert record.info["source_data"] == theirs != record.info["data"]["fingerprint"]


@pytest.mark.slow
def test_the_source_s_weights_are_the_start(root: Path, datasets: Mapping[Data, Dataset]) -> None:
    """Of a run that freezes all of them they are the end, too; the head is its own."""
    jobs = sweep.final_jobs(STARTED, root)
    assert jobs is not None
    for seed in (0, 1):
        source = source_of("held", seed)
        theirs = final(experiment.source_folder(root, source), source, datasets)
        [(folder, run)] = [
            (f, r) for f, r in jobs.items() if f.parts[-2] == "held" and r.seed == seed
        ]
        ours = final(folder, run, datasets)
        values = step.numbers(run)
        problem = train.problem_of(run, datasets[run.data])
        drawn = dict(transfer.leaves(step.init_state(run, problem, values).params))
        for path, leaf in ours.items():
            expected = drawn[path] if path.startswith("output") else theirs[path]
            np.testing.assert_array_equal(leaf, expected, err_msg=path)


@pytest.mark.slow
def test_a_resumed_run_equals_an_undisturbed_one(
    root: Path, tmp_path: Path, datasets: Mapping[Data, Dataset]
) -> None:
    run = override(BASE, {"start.data": "mnist", "start.freeze": ("fc1",)})
    source = source_of("tuned")
    sources = {source: experiment.source_folder(root, source)}

    def go(folder: Path, **options: Any) -> None:
        list(train.train({folder: run}, {folder: {}}, datasets, sources=sources, **options))

    go(tmp_path / "whole")
    stops = iter(range(100))
    for _ in range(20):
        try:
            go(tmp_path / "cut", stop=lambda: next(stops) % 3 == 1)
            break
        except train.Interrupted:
            pass
    whole, cut = (final(tmp_path / name, run, datasets) for name in ("whole", "cut"))
    for path, leaf in whole.items():
        np.testing.assert_array_equal(leaf, cut[path], err_msg=path)


@pytest.mark.slow
def test_a_machine_on_features_is_the_library_s_on_features_made_by_hand(
    root: Path, datasets: Mapping[Data, Dataset]
) -> None:
    jobs = sweep.final_jobs(STARTED, root)
    assert jobs is not None
    [(folder, run)] = [(f, r) for f, r in jobs.items() if f.parts[-2] == "svm" and r.seed == 1]
    source, data = source_of("svm", 1), datasets[run.data]
    weights = final(experiment.source_folder(root, source), source, datasets)

    def seen(split: str) -> np.ndarray:
        images = getattr(data, split).images
        x = np.asarray(augment.evaluate_view(images, run.data, data.mean, data.std))  # type: ignore
        return np.maximum(
            x.reshape(len(x), -1) @ weights["fc1/kernel"] + weights["fc1/bias"], 0
        ).astype(np.float64)

    scaler = StandardScaler().fit(seen("train"))
    assert isinstance(run.model.penalty, float)
    machine = SVC(C=run.model.penalty, kernel="linear")
    machine.fit(scaler.transform(seen("train")), data.train.labels)
    wrong = machine.predict(scaler.transform(seen("test"))) != data.test.labels
    record = records.read(folder)
    assert record is not None and record.test is not None
    assert record.test["error"] == pytest.approx(wrong.mean(), abs=0.002)
    assert record.test["error"] < 0.7
    # 10 pairs of classes, 8 features and a bias each; their means and deviations
    assert record.info["parameters"] == 10 * 9 + 16


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"start.data": "mnist", "start.freeze": ("fc9",)},
            "start.freeze: 'fc9' is no layer of mlp",
        ),
        ({"start.freeze": ("fc1", "fc")}, "The layers: fc1, fc2, output"),
        (
            {"start.data": "mnist", "start.layers": ("*",), "start.classes": (0, 1)},
            "output/bias is",
        ),
        (
            {"start.features": "fc1"},
            "start.features: 'fc1'; only for models that are fitted at once",
        ),
        (
            {"start.data": "mnist", **SVM, "start.features": "fc9"},
            "start.features: 'fc9' is not one",
        ),
        (
            {"start.data": "mnist", **SVM, "start.features": None},
            "start.features: none; the features",
        ),
        ({**SVM}, "start.data: none; the features"),
        (
            {"start.data": "mnist", **SVM, "start.model": "knn"},
            "start.model: 'knn' is fitted at once",
        ),
        (
            {"start.data": "mnist", **SVM, "start.freeze": ("*",)},
            "start.freeze: svm_linear is fitted",
        ),
        ({"start.data": "mnist", **SVM, "model.gamma": 1.0}, "model.gamma: svm_linear has no such"),
        ({"start.rate": 0.0}, "start.rate: 0.0 is not allowed"),
        ({"start.thaw": 0.5}, "start.thaw: 0.5; start.freeze names no layer"),
        ({"data.classes": (1,)}, "data.classes: .* two or more different numbers"),
    ],
    ids=lambda v: v if isinstance(v, str) else "",
)
def test_what_cannot_start_is_said_before_any_work(
    changes: dict[str, Any], said: str, datasets: Mapping[Data, Dataset]
) -> None:
    run = override(BASE, changes)

    def stand_in(data: Data) -> Dataset:
        names = tuple(map(str, data.classes or ()))
        return dataclasses.replace(datasets[BASE.data], classes=names)

    with pytest.raises(InputError, match=said):
        check(run)
        every = transfer.with_sources([run])
        train.check(every, {r.data: stand_in(r.data) for r in every})


@pytest.mark.slow
def test_a_source_that_diverged_or_whose_data_changed_is_an_error(
    tmp_path: Path, datasets: Mapping[Data, Dataset]
) -> None:
    run = override(BASE, {"start.data": "mnist", "start.lr": 1e12})
    source = transfer.source(run)
    assert source is not None
    folder = experiment.source_folder(tmp_path, source)
    sources = {source: folder}
    list(train.train({folder: source}, {folder: {}}, datasets))
    with pytest.raises(InputError, match=r"start.lr: 1000000000000.0; the source run .* diverged"):
        list(train.train({tmp_path / "r": run}, {tmp_path / "r": {}}, datasets, sources=sources))
    other = dataclasses.replace(datasets[source.data], fingerprint="other")
    record = folder / "result.json"
    record.write_text(record.read_text().replace("diverged", "finished"))
    with pytest.raises(InputError, match="start.data: 'mnist' has changed since"):
        starts.net(sources, {**datasets, source.data: other}, run)


# Files


@pytest.mark.slow
def test_weights_of_a_file_are_the_start(tmp_path: Path, datasets: Mapping[Data, Dataset]) -> None:
    """Of a net for ten classes, whose last layer is left where it is."""
    ten = models.from_config(BASE.model, 10)
    variables = ten.init(jax.random.key(7), jnp.zeros((1, 28, 28, 1)), train=False)
    path = tmp_path / "net.npz"
    weights.save(path, variables, model=ten, image=(28, 28, 1))
    run = override(BASE, {"start.weights": str(path), "start.freeze": ("*",), "train.steps": 4})
    folder = tmp_path / "run"
    train.check([run], datasets)
    list(train.train({folder: run}, {folder: {}}, datasets))
    ours = final(folder, run, datasets)
    for name, leaf in transfer.leaves(variables["params"]):
        if not name.startswith("output"):
            np.testing.assert_array_equal(ours[name], leaf)
    assert ours["output/kernel"].shape == (6, 5)
    record = records.read(folder)
    assert record is not None and len(record.info["weights"]) == 12

    machine = override(run, {"start.freeze": (), **SVM})
    train.check([machine], datasets)
    fit = tmp_path / "fit"
    list(train.train({fit: machine}, {fit: {}}, datasets))
    assert records.is_finished(fit)

    with pytest.raises(InputError, match="start.weights: .*; start.data is 'mnist'"):
        check(override(run, {"start.data": "mnist"}))
    with pytest.raises(InputError, match=r"start.weights: .* has no output/bias, output/kernel"):
        train.check([override(run, {"start.layers": ("*",)})], datasets)
    with pytest.raises(InputError, match=r"gone.npz. is no file"):
        train.check([override(run, {"start.weights": "gone.npz"})], datasets)
    (folder / "result.json").unlink()
    weights.save(path, jax.tree.map(lambda a: a + 1, variables), model=ten, image=(28, 28, 1))
    with pytest.raises(InputError, match="started from has changed since"):
        list(train.train({folder: run}, {folder: {}}, datasets))


# The command


@pytest.mark.slow
def test_features_of_a_finished_run_as_a_file(
    command: Launch, root: Path, tmp_path: Path, datasets: Mapping[Data, Dataset]
) -> None:
    folder = experiment.source_folder(root, source_of("tuned"))
    code, out, err = command("features", folder)
    assert (code, err) == (0, "") and out.split() == ["fc1", "8", "fc2", "6", "output", "5"]
    code, out, _ = command("features", folder, "--layer", "fc1", "--split", "validation")
    path = folder / "features" / "fc1.validation.npz"
    assert code == 0 and "100 pictures, 8" in out
    with np.load(path) as file:
        data = datasets[source_of("tuned").data]
        np.testing.assert_array_equal(file["labels"], data.validation.labels)
        assert file["features"].shape == (100, 8) and [*file["class_names"]] == [*"01234"]
        again = trained.features(trained.load(folder), "fc1", "validation")
        np.testing.assert_array_equal(file["features"], again)
    for arguments, said in (
        (("--layer", "fc9"), "--layer: 'fc9' is not one of 'fc1', 'fc2', 'output'"),
        (("--layer", "fc1", "--to", tmp_path / "f.csv"), "no name of a .npz file"),
        (("--to", tmp_path / "f.npz"), "--to: of the features of a layer"),
    ):
        code, _, err = command("features", folder, *arguments)
        assert code == 2 and said in err and err.count("\n") == 1
