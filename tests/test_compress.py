"""Pruning and sharing inside the training, and weights in few bytes."""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sklearn.cluster
from hypothesis import given, settings
from hypothesis import strategies as st
from test_step import MLP, MOMENTS, PROBLEM, batches

from jaxcnn import compress, config, records, starts, step, sweep, train, weights
from jaxcnn.config import Compress, InputError, Run, override
from jaxcnn.experiment import Experiment, Measure
from jaxcnn.stats import value
from jaxcnn.weights import packed

TEN = dataclasses.replace(PROBLEM, steps=10)
KERNELS = ("fc1", "output")


def trained(run: Run, n: int = 10) -> list[Any]:
    """The parameters after each of n steps of a training of 10."""
    values = step.numbers(run)
    state = step.init_state(run, TEN, values)
    one = jax.jit(lambda s, x, y: step.train_step(run, TEN, s, x, y, MOMENTS, values))
    found = []
    for x, y in zip(*batches(n), strict=True):
        state, _ = one(state, x, y)
        found.append(state.params)
    return found


def zeros(params: Any) -> list[int]:
    return [int((np.asarray(params[k]["kernel"]) == 0).sum()) for k in KERNELS]


def sizes(params: Any) -> list[int]:
    return [params[k]["kernel"].size for k in KERNELS]


def values_of(params: Any) -> list[int]:
    return [len(np.unique(params[k]["kernel"])) for k in KERNELS]


@pytest.mark.parametrize("scope", ["layer", "net"])
def test_the_smallest_weights_go_by_the_cubic_and_stay_away(scope: str) -> None:
    """Zhu & Gupta 2017, equation 1: 0.8 (1 - (1 - t)^3), at steps 2, 3, 4, 5 and 6 of 10."""
    changes = {"sparsity": 0.8, "scope": scope, "prune_from": 0.2, "prune_until": 0.6}
    run = override(MLP, {f"compress.{k}": v for k, v in changes.items()})
    after = trained(run)
    ends = [0.0, *(0.8 * (1 - (1 - t) ** 3) for t in (0, 0.25, 0.5, 0.75)), *[0.8] * 5]
    for params, share in zip(after, ends, strict=True):
        n = sizes(params) if scope == "layer" else [sum(sizes(params))]
        found = zeros(params) if scope == "layer" else [sum(zeros(params))]
        assert found == [int(np.floor(np.float32(share) * m)) for m in n]
    a, b = (np.asarray(p["fc1"]["kernel"]) for p in (after[5], after[9]))
    np.testing.assert_array_equal(a == 0, b == 0)
    assert (a[a != 0] != b[b != 0]).all()  # the others are trained on
    assert all((np.asarray(after[9][k]["bias"]) != 0).all() for k in KERNELS)


def test_at_once_the_smallest_are_those_of_that_moment() -> None:
    plain = trained(MLP)[4]
    changes = {"sparsity": 0.5, "prune_from": 0.5, "prune_until": 0.5}
    run = override(MLP, {f"compress.{k}": v for k, v in changes.items()})
    pruned = trained(run)[4]
    for k in KERNELS:
        w = np.asarray(plain[k]["kernel"])
        limit = np.sort(np.abs(w).ravel())[w.size // 2 - 1]
        expected = np.where(np.abs(w) > limit, w, 0)
        np.testing.assert_allclose(pruned[k]["kernel"], expected, rtol=1e-6)


@pytest.mark.parametrize("sparsity", [0.0, 0.5])
def test_weights_share_values_which_are_trained_on(sparsity: float) -> None:
    changes = {"sparsity": sparsity, "prune_until": 0.5, "bits": 2, "share_from": 0.6}
    run = override(MLP, {f"compress.{k}": v for k, v in changes.items()})
    after = trained(run)
    most = 4 + (sparsity > 0)
    assert min(values_of(after[4])) > most
    assert all(v <= most for params in after[5:] for v in values_of(params))
    a, b = (np.asarray(p["fc1"]["kernel"]) for p in (after[5], after[9]))
    assert (a[a != 0] != b[b != 0]).all()
    together = [np.unique(x, return_inverse=True)[1] for x in (a, b)]
    np.testing.assert_array_equal(*together)


def test_the_values_are_those_of_k_means() -> None:
    w = np.random.default_rng(0).standard_normal((20, 30)).astype(np.float32)
    found = np.asarray(compress._clustered(jnp.asarray(w), 8, sparse=False))
    start = np.linspace(w.min(), w.max(), 8)[:, None]
    means = sklearn.cluster.KMeans(8, init=start, n_init=1, max_iter=compress.ITERATIONS, tol=0)
    centers = means.fit(w.reshape(-1, 1)).cluster_centers_.ravel()
    np.testing.assert_allclose(np.unique(found), np.sort(centers), atol=1e-5)
    nearest = np.abs(w[..., None] - np.unique(found)).argmin(-1)
    np.testing.assert_array_equal(np.unique(found)[nearest], found)


def test_a_shared_value_moves_by_the_mean_of_its_weights() -> None:
    old = jnp.array([[1.0, 0.0, 1.0], [2.0, 0.0, 2.0]])
    new = jnp.array([[1.1, 0.0, 1.3], [2.5, 0.0, 1.9]])
    found = compress._shared(old, new, 2)
    np.testing.assert_allclose(found, [[1.2, 0.0, 1.2], [2.2, 0.0, 2.2]], rtol=1e-6)


def test_off_leaves_no_trace() -> None:
    values = step.numbers(MLP)
    state = jax.eval_shape(lambda: step.init_state(MLP, PROBLEM, values))
    x, y = (a[0] for a in batches(1))

    def text(run: Run) -> str:
        f = lambda s: step.train_step(run, PROBLEM, s, x, y, MOMENTS, values)  # noqa: E731
        return str(jax.make_jaxpr(f)(state))

    assert " sort[" not in text(MLP)
    assert " sort[" in text(override(MLP, {"compress.sparsity": 0.5}))
    assert " sort[" in text(override(MLP, {"compress.bits": 3}))
    assert step.static(MLP) != step.static(override(MLP, {"compress.sparsity": 0.5}))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"prune_from": 0.8}, "prune_from: 0.8 is later than compress.prune_until, 0.75"),
        ({"sparsity": 0.5, "bits": 4, "share_from": 0.5}, "share_from: 0.5 is earlier"),
        ({"bits": 9}, "bits: 9 is not allowed; it must be 1 to 8"),
        ({"sparsity": 1.0}, "sparsity: 1.0 is not allowed"),
    ],
)
def test_what_cannot_be(changes: dict[str, Any], said: str) -> None:
    run = Run(compress=dataclasses.replace(Compress(), **changes))
    with pytest.raises(InputError, match=said):
        config.check(run)


# In few bytes ---------------------------------------------------------------------------------


@st.composite
def tensors(draw: st.DrawFn) -> np.ndarray:
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    shape = draw(st.sampled_from([(3000,), (5, 5, 3, 16), (40, 30), (1,), (0,)]))
    w = rng.standard_normal(shape).astype(np.float32)
    count = draw(st.sampled_from([None, 1, 5, 256, 300]))
    if count is not None:
        w = rng.standard_normal(count).astype(np.float32)[rng.integers(0, count, shape)]
    return np.where(rng.random(shape) < draw(st.sampled_from([0.0, 0.5, 0.999, 1.0])), 0, w)


@settings(max_examples=100, deadline=None)
@given(st.lists(tensors(), max_size=3))
def test_what_is_packed_comes_back_to_the_bit(arrays: list[np.ndarray]) -> None:
    named = {f"layer{i}/kernel": a.astype(np.float32) for i, a in enumerate(arrays)}
    back, said = packed.unpack(packed.pack(named, {"name": "x"}))
    assert said == {"name": "x"} and list(back) == list(named)
    for name, a in named.items():
        assert back[name].dtype == np.float32 and back[name].shape == a.shape
        np.testing.assert_array_equal(back[name], a)


def test_it_is_near_the_entropy() -> None:
    """61,706 weights, a tenth of them left, of 32 values."""
    rng = np.random.default_rng(0)
    w = rng.standard_normal(32).astype(np.float32)[rng.integers(0, 32, 61_706)]
    there = rng.random(61_706) < 0.1
    zeros_between = -(0.1 * np.log2(0.1) + 0.9 * np.log2(0.9)) / 0.1
    bound = there.sum() * (5 + zeros_between) / 8
    found = len(packed.pack({"kernel": np.where(there, w, 0).astype(np.float32)}))
    assert bound < found < 1.05 * bound + 250


def test_a_damaged_file_is_one_clear_error(tmp_path: Path) -> None:
    path = tmp_path / "net.packed"
    variables = {"params": {"fc": {"kernel": np.ones((3, 4), np.float32)}}}
    weights.save(path, variables)
    whole = path.read_bytes()
    for content in (b"nothing", whole[:-1], whole[:20], whole + b"0"):
        path.write_bytes(content)
        with pytest.raises(InputError, match="net.packed: cannot be read as .packed: it is"):
            weights.load(path, "mlp")


@pytest.mark.slow
def test_a_compressed_run_s_size_is_that_of_its_file(tmp_path: Path) -> None:
    base = override(
        Run(),
        {
            "model.name": "mlp",
            "model.widths": (30,),
            "data.train_examples": 256,
            "train.steps": 10,
            "train.eval_train_examples": 100,
            "compress.scope": "net",
        },
    )
    exp = Experiment(
        claim="",
        source="",
        base=base,
        arms={"dense": {}, "deep": {"compress.sparsity": 0.9, "compress.bits": 4}},
        predictions=(),
        seeds=(0,),
        name="small",
    )
    data = train.load_data(sweep.all_runs(exp), None)
    for _ in sweep.run(exp, tmp_path, data, preset="default"):
        pass
    jobs = sweep.final_jobs(exp, tmp_path)
    assert jobs is not None
    found = {folder.parent.name: (folder, run) for folder, run in jobs.items()}
    size = {
        arm: value(records.read(folder), Measure("size", "test"))
        for arm, (folder, _) in found.items()
    }
    assert size["dense"] == 4 * (784 * 30 + 30 + 30 * 10 + 10)
    folder, run = found["deep"]
    state = starts.final(folder, run, data[run.data])
    path = tmp_path / "small.packed"
    weights.save(path, {"params": state.params})
    assert path.stat().st_size == size["deep"]
    back, _ = packed.unpack(path.read_bytes())
    np.testing.assert_array_equal(back["params/fc1/kernel"], state.params["fc1"]["kernel"])
    assert (size["deep"] or 0) < size["dense"] / 20
