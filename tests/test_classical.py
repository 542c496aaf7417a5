"""Models that are fitted at once: what they compute, and that their runs are runs like a net's."""

import dataclasses
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from sklearn.linear_model import LogisticRegression
from sklearn.svm import SVC

from jaxcnn import classical, experiment, findings, records, report, show, sweep, train
from jaxcnn.config import Data, InputError, Model, Optim, Run, Train, override
from jaxcnn.data.sources import Dataset, Split
from jaxcnn.experiment import Experiment, Measure, Prediction

ERROR = Measure("final", "test")
RUN = Run(
    model=Model(name="mlp", widths=(8,), activation="relu"),
    data=Data(train_examples=200, validation_examples=100),
    train=Train(batch_size=50, steps=4, eval_every=4, eval_train_examples=100),
    optim=Optim(lr=0.05),
)
FIT = dataclasses.replace(RUN, model=Model(name="linear"))
PCA = override(
    FIT,
    {"model.name": "pca", "data.normalize": "unit", "train.objective": "reconstruction"},
)


@pytest.fixture(scope="module")
def datasets() -> Mapping[Data, Dataset]:
    return train.load_data([RUN, PCA, override(RUN, {"data.split_seed": 1})], None)


@pytest.fixture(scope="module")
def data(datasets: Mapping[Data, Dataset]) -> Dataset:
    return datasets[RUN.data]


def flat(data: Dataset, split: Split) -> np.ndarray:
    x = (split.images / 255 - data.mean.astype(np.float64)) / data.std.astype(np.float64)
    return x.reshape(len(x), -1)


def error(run: Run, data: Dataset) -> float:
    return classical.means(classical.fit(run, data), data.validation)["error"]


def test_eigenfaces_are_the_nearest_neighbour_among_principal_components(data: Dataset) -> None:
    x, v = flat(data, data.train), flat(data, data.validation)
    _, _, axes = np.linalg.svd(x - x.mean(0), full_matrices=False)
    a, b = ((z - x.mean(0)) @ axes[:5].T for z in (x, v))
    nearest = np.square(a[None] - b[:, None]).sum(-1).argmin(1)
    run = override(FIT, {"model.name": "knn", "model.neighbors": 1, "model.components": 5})
    wrong = data.train.labels[nearest] != data.validation.labels
    assert error(run, data) == wrong.mean() != error(override(run, {"model.components": 6}), data)
    # 200 pictures of 5 numbers, the axes, their variances and the mean picture
    assert classical.parameters(classical.fit(run, data)) == 200 * 5 + 5 * 784 + 5 + 784
    svm = override(FIT, {"model.name": "svm_rbf"})
    for run, width in ((svm, 784), (override(svm, {"model.components": 5}), 5)):
        fitted = classical.fit(run, data)
        machine = fitted.estimator[-1] if width == 5 else fitted.estimator
        pca = 5 * 784 + 784 + 5 if width == 5 else 0
        vectors = len(machine.support_)
        assert classical.parameters(fitted) == vectors * width + 9 * vectors + 45 + pca
    assert error(override(svm, {"model.components": 5}), data) > error(svm, data)


def test_linear_is_least_squares_with_a_price_on_squared_weights(data: Dataset) -> None:
    x, v, n = flat(data, data.train), flat(data, data.validation), len(data.train.labels)
    y = np.where(np.arange(10) == data.train.labels[:, None], 1.0, -1.0)
    centred = x - x.mean(0)
    gram = centred.T @ centred + 0.5 * n * np.eye(x.shape[1])
    w = np.linalg.solve(gram, centred.T @ (y - y.mean(0)))
    wrong = ((v - x.mean(0)) @ w + y.mean(0)).argmax(1) != data.validation.labels
    run = override(FIT, {"model.ridge": 0.5})
    assert 0.05 < error(run, data) < 0.6
    assert error(run, data) == pytest.approx(wrong.mean(), abs=0.011)


def test_the_nearest_neighbour_and_its_pictures(data: Dataset) -> None:
    x, v = flat(data, data.train), flat(data, data.validation)
    nearest = ((v[:, None] - x[None]) ** 2).sum(-1).argmin(1)
    wrong = data.train.labels[nearest] != data.validation.labels
    run = override(FIT, {"model.name": "knn", "model.neighbors": 1})
    assert error(run, data) == pytest.approx(wrong.mean(), abs=0.011)
    assert classical.parameters(classical.fit(run, data)) == 200 * 784
    assert classical.means(classical.fit(run, data), data.train) == {"error": 0.0, "count": 200}


@pytest.mark.parametrize("name", ["svm_rbf", "svm_poly4"])
def test_large_samples_get_the_same_support_vectors(
    name: str, data: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the library's own kernels, beyond the size at which the kernel matrix is made at once."""
    run = override(FIT, {"model.name": name, "model.gamma": 0.002, "model.penalty": 3.0})
    small = classical.fit(run, data)
    monkeypatch.setattr(classical, "GRAM", 10)
    large = classical.fit(run, data)
    assert isinstance(large.estimator.kernel, str) and not isinstance(small.estimator.kernel, str)
    np.testing.assert_array_equal(small.estimator.support_, large.estimator.support_)
    np.testing.assert_allclose(small.estimator.dual_coef_, large.estimator.dual_coef_, atol=1e-2)
    assert error(run, data) == pytest.approx(classical.means(small, data.validation)["error"])
    support, coef = len(small.estimator.support_), small.estimator.dual_coef_.size
    assert classical.parameters(large) == support * 784 + coef + 45


def test_gamma_is_of_the_pixels_scale_unless_given(data: Dataset) -> None:
    fitted = classical.fit(override(FIT, {"model.name": "svm_rbf"}), data)
    assert fitted.estimator.kernel.keywords["gamma"] == pytest.approx(
        1 / (784 * flat(data, data.train).var())
    )
    assert fitted.estimator.C == 10.0


def test_pca_is_judged_by_the_squared_error_of_a_picture(
    datasets: Mapping[Data, Dataset],
) -> None:
    data = datasets[PCA.data]
    x, v = (s.images.reshape(len(s.labels), -1) / 255 for s in (data.train, data.validation))
    _, _, axes = np.linalg.svd(x - x.mean(0), full_matrices=False)
    rest = (v - x.mean(0)) - (v - x.mean(0)) @ axes[:30].T @ axes[:30]
    found = classical.means(classical.fit(PCA, data), data.validation)
    assert found.keys() == {"loss", "count"}
    assert found["loss"] == pytest.approx((rest**2).sum(1).mean(), rel=1e-4)


def test_the_quadratic_classifier_has_all_products_of_40_components(data: Dataset) -> None:
    fitted = classical.fit(override(FIT, {"model.name": "pca_quadratic"}), data)
    features = 40 + 40 * 41 // 2
    assert classical.parameters(fitted) == 40 * 784 + 784 + 40 + 10 * features + 10
    assert classical.means(fitted, data.train)["error"] == 0.0


@pytest.mark.parametrize("name", ["svm_linear", "logistic"])
def test_linear_machines_see_standardised_pixels(name: str, data: Dataset) -> None:
    run = override(FIT, {"model.name": name, "model.penalty": 0.003})
    x, v = flat(data, data.train), flat(data, data.validation)
    mean, std = x.mean(0), np.where(x.std(0) > 1e-9, x.std(0), 1)
    models = {"svm_linear": SVC(C=0.003, kernel="linear"), "logistic": LogisticRegression(C=0.003)}
    machine = models[name].fit((x - mean) / std, data.train.labels)
    wrong = machine.predict((v - mean) / std) != data.validation.labels
    assert 0.05 < error(run, data) < 0.6
    assert error(run, data) == pytest.approx(wrong.mean(), abs=0.011)
    rows = {"svm_linear": 45, "logistic": 10}[name]  # a pair of classes has one, or a class
    assert classical.parameters(classical.fit(run, data)) == rows * 785 + 2 * 784


def test_a_pattern_is_the_ring_of_neighbours_that_are_no_darker() -> None:
    assert classical.PATTERNS == 59  # 58 are uniform
    step = np.tile([0.0, 0.0, 5.0, 9.0, 9.0], (5, 1))  # right, above it, above, ..., below, ...
    dark, light, mixed = np.full((3, 5, 5), 10.0)
    dark[3, 3], dark[4, 4] = 4.0, 13.0  # -6 and 3, of which 0.343 and 0.172 make the neighbour
    light[3, 3], light[4, 4] = 4.0, 23.0
    mixed[2, 4] = mixed[0, 2] = 0.0
    found = classical.patterns(np.stack([step, dark, light, mixed])[..., None]).ravel()
    rings = (0b11000111, 0b01111111, 0b11111111)
    assert found.tolist() == [*classical.NUMBERS[[*rings]], 58] and len({*found}) == 4
    assert [classical.NUMBERS[k] for k in (0, 1, 2, 3, 4, 5)] == [0, 1, 2, 3, 4, 58]


def test_texture_is_the_share_of_each_pattern_in_each_cell() -> None:
    picture = np.zeros((1, 12, 14, 2))
    picture[0, :, 7:, 1] = 1.0  # all along this edge, the pixels on its left see it
    found = classical.texture(picture, 2)
    flat, edge = classical.NUMBERS[[0b11111111]], classical.NUMBERS[[0b11000111]]
    assert found.shape == (1, 2, 2, 2, 59)
    np.testing.assert_allclose(found.sum(-1), 1)
    assert (found[0, :, :, 0, flat] == 1).all() and (found[0, :, 0, 1, flat] == 1).all()
    # of five columns on the right, the two at the edge see what is darker
    np.testing.assert_allclose(found[0, :, 1, 1, edge], 2 / 5)


def test_textures_are_compared_by_chi_square(data: Dataset) -> None:
    def seen(split: Split) -> np.ndarray:
        return classical.texture(split.images / 255, 2).reshape(len(split.labels), -1)

    def chi_square(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        total = a[:, None] + b[None]
        return (np.square(a[:, None] - b[None]) / np.where(total > 0, total, 1)).sum(-1)

    x, v = seen(data.train), seen(data.validation)
    distances, among = chi_square(v, x), chi_square(x, x)
    wrong = (data.train.labels[distances.argmin(1)] != data.validation.labels).mean()
    run = override(FIT, {"model.name": "lbp", "model.cells": 2})
    fitted = classical.fit(run, data)
    assert 0.1 < classical.means(fitted, data.validation)["error"] == wrong < 0.6
    assert classical.parameters(fitted) == 200 * 4 * 59
    run = override(run, {"model.name": "lbp_svm"})
    machine = SVC(C=10.0, kernel="precomputed")
    machine.fit(np.exp(-among / among.mean()), data.train.labels)
    wrong = machine.predict(np.exp(-distances / among.mean())) != data.validation.labels
    assert error(run, data) == wrong.mean() < 0.5
    with pytest.raises(InputError, match="start.features: 'C3'; lbp_svm is of pixels"):
        classical.check(override(run, {"start.features": "C3"}), data, 400)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model.dropout": 0.5}, "model.dropout: linear has no such knob; its knobs: ridge"),
        ({"model.gamma": 0.5}, "model.gamma: linear has no such knob"),
        ({"data.shift": 1}, "data.shift: 1; linear is fitted once"),
        ({"data.color": 0.1}, "data.color: 0.1; linear is fitted once"),
        ({"train.probes": ("gradient_norm",)}, "train.probes: linear has no layers"),
        ({"train.objective": "one_hot"}, "train.objective: linear has 'classification'"),
        ({"model.name": "pca"}, "train.objective: pca has 'reconstruction'"),
        ({"model.name": "knn", "model.neighbors": 201}, "model.neighbors: 201 is more than 200"),
        ({"model.name": "pca_quadratic", "model.components": 201}, "at most 200"),
        ({"model.name": "lbp", "model.cells": 25}, "model.cells: 25 is more than .* at most 24"),
        ({"train.eval_train_examples": 201}, "train.eval_train_examples: 201 is larger"),
        ({"model.name": "mlp", "model.gamma": 1.0}, "model.gamma: mlp has no such knob"),
    ],
)
def test_what_cannot_be_fitted_is_said_before_any_work(
    changes: dict[str, Any], said: str, data: Dataset
) -> None:
    run = override(FIT, changes)
    with pytest.raises(InputError, match=said):
        train.check([run], {run.data: data})


def test_a_stop_between_two_fits_loses_none(
    tmp_path: Path, datasets: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = {tmp_path / str(r): override(FIT, {"model.ridge": r}) for r in (0.1, 0.2, 0.3)}
    labels = {folder: {"arm": "a"} for folder in jobs}
    stops = iter([False, True])
    with pytest.raises(train.Interrupted):
        list(train.train(jobs, labels, datasets, stop=lambda: next(stops)))
    assert [records.is_finished(folder) for folder in jobs] == [True, False, False]
    assert not (tmp_path / "0.2" / "run.json").exists()
    fits = []
    fit = classical.fit
    monkeypatch.setattr(
        classical, "fit", lambda r, d, see: fits.append(r.model.ridge) or fit(r, d, see)
    )  # fmt: skip
    ticks = list(train.train(jobs, labels, datasets))
    assert fits == [0.2, 0.3] and ticks[-1].step == 1
    list(train.test(jobs, datasets))
    list(train.test(jobs, datasets))
    assert fits == [0.2, 0.3, 0.1, 0.2, 0.3]  # for the test split, once each
    record = records.read(tmp_path / "0.1")
    assert record is not None and record.test is not None and record.result is not None
    assert [row["step"] for row in record.rows] == [1] == [record.info["steps"]]
    assert record.info["parameters"] == 7850 and record.rows[0]["train"]["count"] == 100
    assert record.test["count"] == 10_000
    data = datasets[RUN.data]
    expected = classical.means(fit(jobs[tmp_path / "0.1"], data), data.test)
    assert record.test["error"] == expected["error"] > 0.1


@pytest.mark.slow
def test_nets_and_fits_stand_in_one_report(tmp_path: Path, datasets: Any) -> None:
    exp = Experiment(
        claim="c",
        source="s",
        base=dataclasses.replace(RUN, model=Model()),
        arms={
            "net": {"model.name": "mlp", "model.widths": (8,)},
            "linear": {"model.name": "linear"},
            "near": {"model.name": "knn"},
        },
        predictions=(Prediction(ERROR, "linear", than="net"), Prediction(ERROR, "near", "linear")),
        tune={"optim.lr": (1e-6, 0.05), "model.ridge": (0.01, 0.1, 1e9)},
        tune_seeds=(0,),
        seeds=(0, 1),
        resplit=True,
        name="mixed",
    )
    train.check(sweep.all_runs(exp), datasets)
    left, total = sweep.work(exp, tmp_path, datasets)
    assert left == total == 4 * (2 + 1) + (3 + 1) + 2
    list(sweep.run(exp, tmp_path, datasets, preset="default"))
    assert sweep.work(exp, tmp_path, datasets) == (0, total)
    infos = [json.loads(path.read_text()) for path in tmp_path.rglob("run.json")]
    prints = {(i["config"]["seed"], i["data"]["fingerprint"]) for i in infos}
    assert len(prints) == 2 == len({p for _, p in prints})  # a seed's arms see the same pictures
    table = findings.collect(exp, tmp_path)
    tried = {arm.name: [t.values for t in arm.tried] for arm in table.arms}
    assert tried == {"net": [(1e-6,), (0.05,)], "linear": [(0.01,), (0.1,), (1e9,)], "near": []}
    assert {arm.name: arm.chosen for arm in table.arms}["near"] == ""
    near = next(c for c in table.cells if c.arm == "near" and c.measure == ERROR)
    assert near.values[0] != near.values[1]
    assert not [w for w in table.warnings if "differ in data" in w or "near" in w]
    report.write(table, tmp_path / "report")
    text = (tmp_path / "report" / "report.md").read_text()
    assert "model.ridge=0.1" in text and "optim.lr=0.05" in text
    console = Console(width=200, record=True, file=io.StringIO())
    show.show(exp, "default", None, console)
    shown = console.export_text()
    assert "known once fitted" in shown and "0.01 (paper)" not in shown
    assert experiment.folder(tmp_path, exp, "near", RUN).parent.is_dir()
