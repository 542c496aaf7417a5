"""What probes find in the training step, against gradients taken and units counted by hand."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcnn import config, findings, nets, ops, probes, report, step, sweep, train
from jaxcnn.checks import check
from jaxcnn.config import Data, InputError, Model, Optim, Run, Train, override
from jaxcnn.experiment import Experiment, Measure, Prediction
from jaxcnn.nets import Problem
from jaxcnn.step import State

PROBLEM = Problem((8, 8, 1), 3, train_examples=128, steps=10)
MOMENTS = (jnp.full(1, 0.5), jnp.full(1, 0.25), jnp.full((1, 1), 0.0625))
ALL = config.PROBES
MLP = override(
    Run(),
    {
        "model.name": "mlp",
        "model.widths": (12, 9),
        "model.activation": "tanh",
        "train.batch_size": 16,
        "train.probes": ALL,
    },
)


def batch(i: Any) -> tuple[jax.Array, jax.Array]:
    rng = np.random.default_rng(0)
    images = jnp.asarray(rng.integers(0, 256, (8, 16, 8, 8, 1), np.uint8))
    return images[i], jnp.asarray(rng.integers(0, 3, (8, 16), np.int32))[i]


def probed(run: Run, state: State | None = None) -> dict[str, dict[str, float]]:
    values = step.numbers(run)
    state = state if state is not None else step.init_state(run, PROBLEM, values)
    found = jax.jit(lambda s: probes.probe(run, PROBLEM, s, batch, MOMENTS, values))(state)
    layers = nets.layers(run, PROBLEM)
    return {name: dict(zip(layers, map(float, x), strict=True)) for name, x in found.items()}


@pytest.mark.slow
def test_gradients_and_their_variance_are_those_of_a_net_written_here() -> None:
    def logits(params: Any, x: jax.Array) -> jax.Array:
        for name in ("fc1", "fc2"):
            x = jnp.tanh(x @ params[name]["kernel"] + params[name]["bias"][None])
        return x @ params["output"]["kernel"] + params["output"]["bias"][None]

    def loss(params: Any, images: jax.Array, labels: jax.Array) -> jax.Array:
        x = (images.reshape(16, -1) / 255 - 0.5) / 0.25
        return -jnp.mean(jax.nn.log_softmax(logits(params, x))[jnp.arange(16), labels])

    state = step.init_state(MLP, PROBLEM, step.numbers(MLP))
    grads = [jax.grad(loss)(state.params, *batch(i)) for i in range(8)]
    found = probed(MLP, state)
    assert list(found["gradient_norm"]) == ["fc1", "fc2", "output"]
    for layer, rms in found["gradient_norm"].items():
        own = np.stack([np.float64(g[layer]["kernel"]) for g in grads])
        assert rms == pytest.approx(np.sqrt(np.mean(own[0] ** 2)), rel=1e-4)
        variance = own.var(axis=0, ddof=1).sum() / np.mean(own**2, axis=0).sum()
        assert found["update_variance"][layer] == pytest.approx(variance, rel=1e-3)
    assert set(found["active_share"].values()) == {1.0}


def test_a_vanishing_gradient_is_seen_below_the_root_of_the_least_float() -> None:
    g = jnp.array([3e-30, -4e-30])
    assert float(probes._rms(g)) == pytest.approx(np.sqrt(12.5) * 1e-30)
    assert float(probes._rms(jnp.zeros(3))) == 0


@pytest.mark.slow
def test_one_unit_of_a_window_of_max_pooling_takes_part_and_all_of_the_mean() -> None:
    run = override(MLP, {"model.name": "lenet5", "model.widths": "paper", "data.pad": 10})
    run = override(run, {"train.probes": ("active_share",), "train.batch_size": 16})
    pooled = probed(override(run, {"model.pool": "max"}))["active_share"]
    assert list(pooled) == ["C1", "C3", "C5", "F6", "output"]
    assert pooled["C1"] == pytest.approx(1 / 4, abs=0.002) and pooled["C3"] == 1 / 4
    assert pooled["C5"] == pooled["F6"] == 1
    assert set(probed(override(run, {"model.pool": "avg"}))["active_share"].values()) == {1.0}


def test_units_below_zero_and_dropped_units_take_no_part() -> None:
    """ReLU's signs are those of a forward pass by hand; dropout's share is within sampling."""
    run = override(MLP, {"model.activation": "relu", "train.probes": ("active_share",)})
    state = step.init_state(run, PROBLEM, step.numbers(run))
    bias = jnp.where(jnp.arange(12) < 3, -100.0, 100.0)  # 3 of 12 units are never active
    params = state.params | {"fc1": state.params["fc1"] | {"bias": bias}}
    found = probed(run, dataclasses.replace(state, params=params))["active_share"]
    x = (np.asarray(batch(0)[0]).reshape(16, -1) / 255 - 0.5) / 0.25
    y = np.maximum(x @ np.asarray(params["fc1"]["kernel"]) + np.asarray(bias), 0)
    assert found["fc1"] == 9 / 12 and found["output"] == 1
    y = y @ np.asarray(params["fc2"]["kernel"])
    assert found["fc2"] == pytest.approx(np.mean(y > 0), abs=1e-6)

    run = override(run, {"model.activation": "tanh", "model.widths": (400, 400)})
    found = probed(override(run, {"model.dropout": 0.3}))["active_share"]
    assert found["fc1"] == pytest.approx(0.7, abs=0.025) and found["fc1"] != found["fc2"]
    assert found["fc2"] == pytest.approx(0.7, abs=0.025) and found["output"] == 1


def test_layers_stand_in_the_order_in_which_a_picture_meets_them() -> None:
    run = override(Run(), {"model.name": "mlp", "model.widths": (4,) * 11})
    assert nets.layers(run, PROBLEM) == [f"fc{i}" for i in range(1, 12)] + ["output"]
    run = override(Run(), {"model.name": "resnet20"})
    names = nets.layers(run, Problem((32, 32, 3), 10, 100, 1))
    assert names[0] == "conv1" and len(names) >= 20


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"train.batch_size": 17}, "takes 8 batches, 136 examples; there are 128"),
        ({"train.greedy": 0.5}, "layer by layer"),
        ({"model.name": "resnet20", "model.scan": True}, "cannot be told apart"),
    ],
)
def test_what_cannot_be_probed_is_an_error(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        probes.check(override(MLP, changes), PROBLEM)


def test_unknown_probes_are_errors() -> None:
    with pytest.raises(InputError, match=r"train.probes: \('gradient',\) .* 'gradient_norm'"):
        check(override(Run(), {"train.probes": "gradient"}))
    assert override(Run(), {"train.probes": "active_share, gradient_norm"}).train.probes == (
        "active_share",
        "gradient_norm",
    )
    for wrong in ({"probe": "gradient"}, {}, {"probe": "active_share", "split": "validation"}):
        with pytest.raises(InputError):
            Measure(**{"kind": "probe", "split": "train"} | wrong)  # pyright: ignore


def test_a_run_without_probes_has_the_folder_and_the_layers_it_had() -> None:
    assert config.digest(override(Run(), {"train.probes": ()})) == config.digest(Run())
    with ops.shifted({}) as met:
        pass
    assert met == {}


# On MNIST ------------------------------------------------------------------------------------

EXPERIMENT = Experiment(
    claim="Gradients vanish",
    source="a test",
    base=Run(
        model=Model(name="mlp", widths=(8,) * 4, initializer="glorot_uniform"),
        data=Data(train_examples=600, validation_examples=300),
        optim=Optim(lr=0.05),
        train=Train(batch_size=50, steps=4, eval_every=2, eval_train_examples=100, probes=ALL),
    ),
    arms={
        "sigmoid": {"model.activation": "sigmoid"},
        "tanh": {"model.activation": "tanh"},
    },
    seeds=(0, 1, 2),
    predictions=(
        Prediction(
            Measure("probe", "train", probe="gradient_norm", layer="ratio", at="first"),
            "sigmoid",
            than="tanh",
            published="they do",
        ),
        Prediction(Measure("probe", "train", probe="active_share"), "sigmoid", than="tanh"),
        Prediction(
            Measure("probe", "train", probe="update_variance", layer="last"), "sigmoid", than="tanh"
        ),
    ),
    name="probed",
)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("probed")
    datasets = train.load_data(sweep.all_runs(EXPERIMENT), None)
    train.check(sweep.all_runs(EXPERIMENT), datasets)
    for _ in sweep.run(EXPERIMENT, folder, datasets, preset="default"):
        pass
    return folder


def rows(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_every_point_records_every_layer_in_order(root: Path) -> None:
    for folder in (root / "probed").glob("*/seed*"):
        found = rows(folder)
        assert [row["step"] for row in found] == [0, 2, 4]
        for row in found:
            assert set(row["probe"]) == set(ALL)
            for layers in row["probe"].values():
                assert list(layers) == [f"fc{i}" for i in range(1, 5)] + ["output"]


@pytest.mark.slow
def test_probes_change_nothing_else_and_come_back_after_an_interruption(
    tmp_path: Path,
) -> None:
    run = override(EXPERIMENT.base, EXPERIMENT.arms["tanh"])
    datasets = train.load_data([run], None)
    whole = tmp_path / "whole"
    jobs = {tmp_path / "cut": run, tmp_path / "bare": override(run, {"train.probes": ()})}
    labels = {folder: {"experiment": "e", "arm": "a"} for folder in (whole, *jobs)}
    list(train.train({whole: run}, labels, datasets))
    with pytest.raises(train.Interrupted):
        list(train.train({tmp_path / "cut": run}, labels, datasets, stop=lambda: True))
    assert len(rows(tmp_path / "cut")) == 1
    list(train.train(jobs, labels, datasets))
    clocks = {"seconds": 0, "step_seconds": 0}
    kept = [[row | clocks for row in rows(f)] for f in (whole, *jobs)]
    assert kept[0] == kept[1]
    assert kept[2] == [{k: v for k, v in row.items() if k != "probe"} for row in kept[0]]


def test_the_report_reads_them(root: Path, tmp_path: Path) -> None:
    table = findings.collect(EXPERIMENT, root)
    ratio, share, variance = table.findings
    values = []
    for arm in ("sigmoid", "tanh"):
        layers = [
            [*rows(f)[0]["probe"]["gradient_norm"].values()]
            for f in sorted((root / "probed" / arm).glob("seed*"))
        ]
        values.append([np.log(x[0] / x[-1]) for x in layers])
        depth = table.depths["gradient_norm"]["first"][arm]
        assert depth.mean == pytest.approx(np.exp(np.log(layers).mean(axis=0)))
        assert depth.n == 3 and depth.layers[-1] == "output"
    assert ratio.pair.mean == pytest.approx(np.mean(np.subtract(*values)))
    assert ratio.verdict.word == "supported" and ratio.pair.effect(ratio.pair.mean) < 0.2
    assert share.arm.mean == 1.0 and share.verdict.word == "undecided"
    assert not variance.pair.ratio
    report.write(table, tmp_path)
    text = (tmp_path / "report.md").read_text()
    assert "times the RMS gradient (first over last layer, before training) of tanh" in text
    assert "Ours: a ratio of" in text and "times the steps" not in text
    for probe in ALL:
        assert (tmp_path / f"{probe}.png").stat().st_size > 10_000
        assert f"({probe}.png)" in text
