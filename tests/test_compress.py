"""Pruning and sharing inside the training, and weights in few bytes."""

import dataclasses
import functools
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

from jaxcnn import (
    compress,
    models,
    nets,
    quantization,
    records,
    starts,
    step,
    sweep,
    train,
    transfer,
    weights,
)
from jaxcnn.checks import check
from jaxcnn.config import Compress, InputError, Run, override
from jaxcnn.experiment import Experiment, Measure
from jaxcnn.quantization import kernels_on_grid as quantized
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


def test_weights_of_a_value_have_one_gradient() -> None:
    """Whose updates would otherwise be of about one length and of both signs under Adam."""
    changes = {"compress.bits": 2, "compress.share_from": 0.5}
    own = override(MLP, changes).compress
    params = {"fc": {"kernel": jnp.array([[1.0, 1.0, 2.0]]), "bias": jnp.array([1.0, 1.0])}}
    grads = {"fc": {"kernel": jnp.array([[3.0, 5.0, 7.0]]), "bias": jnp.array([3.0, 5.0])}}
    before = compress.pooled(own, 10, jnp.int32(4), params, grads)
    after = compress.pooled(own, 10, jnp.int32(5), params, grads)
    np.testing.assert_array_equal(before["fc"]["kernel"], grads["fc"]["kernel"])
    np.testing.assert_allclose(after["fc"]["kernel"], [[4.0, 4.0, 7.0]])
    np.testing.assert_array_equal(after["fc"]["bias"], [3.0, 5.0])


def test_side_by_side_nothing_is_computed_before_it_is_due() -> None:
    """Of a condition for each run, XLA would compute all branches at every step."""
    run = override(MLP, {"compress.sparsity": 0.5, "compress.bits": 3, "compress.int8": True})
    values = step.numbers(run)
    state = jax.eval_shape(lambda: step.init_state(run, TEN, values))
    many = jax.tree.map(lambda a: jax.ShapeDtypeStruct((2, *a.shape), a.dtype), state)
    x, y = (a[0] for a in batches(1))

    def three(state: Any) -> Any:
        one = lambda s: step.train_step(run, TEN, s, x, y, MOMENTS, values)[0]  # noqa: E731
        return jax.lax.fori_loop(0, 3, lambda _, s: one(s), state)

    texts = [str(jax.make_jaxpr(f)(s)) for f, s in ((three, state), (jax.vmap(three), many))]
    assert [text.count("cond[") for text in texts] == [4, 4]


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
        ({"int8": True, "bits": 4}, "int8: true has no use beside compress.bits: 4"),
    ],
)
def test_what_cannot_be(changes: dict[str, Any], said: str) -> None:
    run = Run(compress=dataclasses.replace(Compress(), **changes))
    with pytest.raises(InputError, match=said):
        check(run)


# Integers -------------------------------------------------------------------------------------


def integers(x: np.ndarray, axis: int) -> tuple[np.ndarray, np.ndarray]:
    """(integers of 8 bits, their scales), the latter to 16 bits of mantissa."""
    scale = np.abs(x).max(axis, keepdims=True).astype(np.float64) / 127
    mantissa, exponent = np.frexp(scale)
    scale = np.ldexp(np.round(mantissa * 2**16) / 2**16, exponent)
    return np.clip(np.rint(x / scale), -127, 127).astype(np.int8), scale


def test_from_some_step_on_the_net_is_of_integers() -> None:
    """Its answers are those of sums of products of int8, in int32; but for a hidden unit that falls
    on the middle of two integers, to which float32 and float64 round it.
    """
    run = override(MLP, {"compress.int8": True, "compress.int8_from": 0.5})
    values = step.numbers(run)
    state = step.init_state(run, TEN, values)
    images = np.concatenate(batches(2)[0])
    plain, x = step.evaluate(MLP, TEN, state, images, MOMENTS)
    early, _ = step.evaluate(run, TEN, dataclasses.replace(state, step=4), images, MOMENTS)
    late, _ = step.evaluate(run, TEN, dataclasses.replace(state, step=5), images, MOMENTS)
    np.testing.assert_allclose(early, plain, rtol=1e-6)
    h = np.asarray(x).reshape(len(images), -1)
    for name, act in (("fc1", np.tanh), ("output", lambda a: a)):
        own = state.params[name]
        (a, s), (w, t) = integers(h, 1), integers(np.asarray(own["kernel"]), 0)
        sums = a.astype(np.int32) @ w.astype(np.int32)
        h = act(sums * (s * t) + np.asarray(own["bias"]))
    wrong = np.abs(np.asarray(late) - h).max(1) > 1e-6
    assert wrong.sum() <= 1 and np.abs(np.asarray(plain) - h).max(1).min() > 1e-5


def test_gradients_pass_the_rounding() -> None:
    """Of a function of the grid, at the grid's numbers."""
    x = jnp.asarray(np.random.default_rng(0).standard_normal((3, 4)), jnp.float32)
    found = jax.grad(lambda k: jnp.sum(quantized({"kernel": k}, True)["kernel"] ** 3))(x)
    rounded = quantization.kernel_on_grid(x)
    np.testing.assert_allclose(found, 3 * rounded**2, rtol=1e-6)
    assert float(jnp.abs(found - 3 * x**2).max()) > 1e-3


@pytest.mark.parametrize("share", [0.5, 1.0])
def test_kernels_end_on_their_grid(share: float) -> None:
    """At 1 the training is as if there were none."""
    run = override(MLP, {"compress.int8": True, "compress.int8_from": share})
    plain, found = trained(MLP), trained(run)
    for name in KERNELS:
        k = np.asarray(found[9][name]["kernel"])
        np.testing.assert_array_equal(quantization.kernel_on_grid(k), k)
        before = [np.asarray(p[8][name]["kernel"]) for p in (plain, found)]
        np.testing.assert_array_equal(before[0] == before[1], share == 1)
        if share == 1:
            own = quantization.kernel_on_grid(plain[9][name]["kernel"])
            np.testing.assert_array_equal(k, own)


# In fewer numbers -----------------------------------------------------------------------------


def test_a_product_of_two_begins_as_the_nearest_of_its_rank() -> None:
    """Eckart & Young 1936: the error is that of the other singular values."""
    run = override(MLP, {"compress.rank": 3, "start.data": "mnist", "start.layers": ("*",)})
    values = step.numbers(run)
    source = step.init_state(MLP, TEN, values)
    found = step.started(run, TEN, step.init_state(run, TEN, values), source).params
    assert found["fc1_in"]["kernel"].shape == (36, 3) and "bias" not in found["fc1_in"]
    whole = np.asarray(source.params["fc1"]["kernel"], np.float64)
    product = np.asarray(found["fc1_in"]["kernel"]) @ np.asarray(found["fc1"]["kernel"])
    rest = np.linalg.svd(whole)[1][3:]
    np.testing.assert_allclose(np.linalg.norm(product - whole), np.sqrt((rest**2).sum()), rtol=1e-4)
    for own, theirs in ((found["fc1"], "fc1"), (found["output"], "output")):
        np.testing.assert_array_equal(own["bias"], source.params[theirs]["bias"])
    np.testing.assert_array_equal(found["output"]["kernel"], source.params["output"]["kernel"])


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model.widths": (7,), "compress.rank": 6}, "6 makes fc1, 36 to 7, no smaller; .* 5.86"),
        ({"model.name": "lenet1"}, "'lenet1' has no hidden"),
        ({"model.name": "resnet20"}, "'resnet20' has no hidden"),
    ],
)
def test_what_cannot_be_a_product(changes: dict[str, Any], said: str) -> None:
    run = override(MLP, {"model.widths": "paper", "compress.rank": 3, **changes})
    with pytest.raises(InputError, match=said):
        train.trace(run, TEN)


# A teacher ------------------------------------------------------------------------------------

PUPIL = override(MLP, {"start.data": "mnist", "start.layers": (), "compress.distill": 1.0})


def taught(run: Run) -> tuple[Any, Any, Any]:
    """(teacher, the state after no step, after two)"""
    values = step.numbers(run)
    teacher = step.init_state(transfer.net(run), TEN, {**values, "seed": 5})
    state = start = step.started(run, TEN, step.init_state(run, TEN, values), teacher)
    one = jax.jit(lambda s, x, y: step.train_step(run, TEN, s, x, y, MOMENTS, values))
    for x, y in zip(*batches(2), strict=True):
        state, _ = one(state, x, y)
    return teacher, start, state


def test_a_pupil_learns_its_teacher_s_classes_and_no_others() -> None:
    """At weight 1 the labels count for nothing, and the teacher, of its paper's size, stays."""
    teacher, start, state = taught(PUPIL)
    assert teacher.params["fc1"]["kernel"].shape == (36, 300)
    jax.tree.map(np.testing.assert_array_equal, state.teacher["params"], teacher.params)
    labels = batches(2)[1]
    x = jnp.asarray(np.random.default_rng(0).standard_normal((8, 6, 6, 1)), jnp.float32)
    values = step.numbers(PUPIL) | {"temperature": 3.0}

    def loss(params: Any, labels: Any) -> jax.Array:
        return step.training_loss(PUPIL, TEN, start, x, labels, values, params)[0]

    def expected(params: Any) -> jax.Array:
        ours, _ = nets.build(PUPIL, TEN, {}).apply({"params": params}, x, train=True)
        net = nets.build(transfer.net(PUPIL), TEN, {})
        theirs, _ = net.apply({"params": teacher.params}, x, train=False)
        soft = jax.nn.softmax(theirs / 3) * jax.nn.log_softmax(ours / 3)
        return -9 * jnp.mean(jnp.sum(soft, -1))

    ours, theirs = jax.jit(jax.grad(loss)), jax.jit(jax.grad(expected))(start.params)
    same = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6)
    for y in labels:
        jax.tree.map(same, ours(start.params, y), theirs)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"start.data": None}, "compress.distill: 1 needs a teacher: start.data"),
        ({"start.data": "cifar10"}, "start.data: 'cifar10'; .* data.name 'mnist'"),
        ({"start.model": "svm_rbf"}, "start.model: 'svm_rbf' is fitted at once"),
        ({"train.objective": "one_hot"}, "is of classes; train.objective is 'one_hot'"),
    ],
)
def test_who_cannot_be_a_teacher(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        check(override(PUPIL, changes))


def test_a_teacher_of_another_kind() -> None:
    run = override(PUPIL, {"start.model": "lenet5", "data.pad": 11})
    check(run)
    assert step.static(run) != step.static(PUPIL)
    source = transfer.source(run)
    assert source is not None and source.model.name == "lenet5"
    assert source.model.widths == "paper"


# In few bytes ---------------------------------------------------------------------------------


@st.composite
def tensors(draw: st.DrawFn) -> np.ndarray:
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    shape = draw(st.sampled_from([(3000,), (5, 5, 3, 16), (40, 30), (1,), (0,)]))
    w = rng.standard_normal(shape).astype(np.float32)
    count = draw(st.sampled_from([None, 1, 5, 256, 300]))
    if count is not None:
        w = rng.standard_normal(count).astype(np.float32)[rng.integers(0, count, shape)]
    elif len(shape) > 1 and draw(st.booleans()):
        w = np.asarray(quantization.kernel_on_grid(w))
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


def test_integers_are_a_quarter() -> None:
    rng = np.random.default_rng(0)
    w = np.asarray(quantization.kernel_on_grid(rng.standard_normal((400, 120), np.float32)))
    assert 48_000 * 0.8 < len(packed.pack({"kernel": w})) < 48_000 + 4 * 120


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
            "start.steps": 10,
        },
    )
    from_dense = {"start.data": "mnist", "start.layers": ("*",)}
    exp = Experiment(
        claim="",
        source="",
        base=base,
        arms={
            "dense": {},
            "deep": {"compress.sparsity": 0.9, "compress.bits": 4},
            "int8": {"compress.int8": True},
            "low_rank": {"compress.rank": 5, **from_dense},
            "taught": {"compress.distill": 0.5, "start.data": "mnist", "start.layers": ()},
        },
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
    assert size["dense"] == size["taught"] == 4 * (784 * 30 + 30 + 30 * 10 + 10)
    assert (size["int8"] or 0) < size["dense"] / 3.5
    assert 0 < (size["low_rank"] or 0) - 4 * ((784 + 30) * 5 + 30 + 30 * 10 + 10) < 300

    def state_of(arm: str) -> Any:
        folder, run = found[arm]
        return starts.final(folder, run, data[run.data])

    assert state_of("taught").teacher["params"]["fc1"]["kernel"].shape == (784, 300)
    path = tmp_path / "small.packed"
    weights.save(path, {"params": state_of("low_rank").params})
    assert path.stat().st_size == size["low_rank"]
    thin, _ = weights.load(path, models.create_model("mlp", widths=(30,), rank=5))
    same = np.testing.assert_array_equal
    jax.tree.map(same, thin["params"], state_of("low_rank").params)
    state = state_of("deep")
    weights.save(path, {"params": state.params})
    assert path.stat().st_size == size["deep"]
    back, _ = packed.unpack(path.read_bytes())
    np.testing.assert_array_equal(back["params/fc1/kernel"], state.params["fc1"]["kernel"])
    assert (size["deep"] or 0) < size["dense"] / 20
