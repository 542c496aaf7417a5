"""Convolutions and pooling of native/ are `lax`'s: compiled here, for real, where there is what it
needs.
"""

import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from jax import lax
from test_kernels import (
    assert_equal,
    convolutions,
    fuzz,
    larger_than_the_map,
    lax_conv,
    poolings,
    whole,
)

from jaxcnn import kernels, models, native
from jaxcnn.config import InputError
from jaxcnn.native.fused import fused


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("cache")
    try:
        native.build(folder)
    except InputError as error:
        pytest.skip(str(error))
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("JAXCNN_NATIVE", raising=False)
        patch.setattr(native, "_version", None)
        native.load(folder)
        yield folder


def test_it_is_off_until_it_is_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "_version", None)
    native.load(tmp_path)
    assert native.version() is None
    path = native.path(tmp_path)
    path.parent.mkdir()
    path.write_text("not a library")  # as one that was built for another system
    native.load(tmp_path)
    assert native.version() is None


def test_without_a_compiler_it_says_what_is_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXX", "false")
    with pytest.raises(InputError, match="native: false failed.*libdnnl-dev"):
        native.build(tmp_path)
    assert not list(tmp_path.rglob("*.so"))


def test_the_environment_s_onednn_goes_before_the_system_s(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A compiler that says what it was asked, and fails."""
    compiler = tmp_path / "compiler"
    compiler.write_text('#!/bin/sh\necho "error: $*" >&2\nexit 1\n')
    compiler.chmod(0o755)
    monkeypatch.setenv("CXX", str(compiler))
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    with pytest.raises(InputError) as system:
        native.build(tmp_path)
    assert "rpath" not in str(system.value) and "-ldnnl" in str(system.value)
    (tmp_path / "include").mkdir()
    (tmp_path / "include" / "dnnl.hpp").touch()
    with pytest.raises(InputError) as own:
        native.build(tmp_path)
    assert f"-I{tmp_path}/include -L{tmp_path}/lib -Wl,-rpath,{tmp_path}/lib" in str(own.value)


@st.composite
def of_many_maps(draw: st.DrawFn) -> Any:
    """oneDNN has other code for 16 maps and more, of which some needs scratch memory."""
    n, side, window = (draw(st.integers(*ends)) for ends in ((1, 40), (3, 14), (1, 5)))
    few, many = draw(st.integers(1, 40)), draw(st.integers(1, 40))
    return (n, side, side, few), (window, window, few, many), {"padding": "SAME"}


@st.composite
def by_winograd(draw: st.DrawFn) -> Any:
    """3x3 of stride 1 has a form of its own, for multiples of 16 maps: odd and even sides, any
    padding, and more tiles than are multiplied at a time.
    """
    n, h, w = (draw(st.integers(*ends)) for ends in ((1, 20), (2, 13), (2, 13)))
    few, many = (16 * draw(st.integers(1, 5)) for _ in "io")
    pads = [draw(st.tuples(st.integers(0, 3), st.integers(0, 3))) for _ in "hw"]
    pads = [(a, b + 3) if n + a + b < 4 else (a, b) for n, (a, b) in zip((h, w), pads, strict=True)]
    return (n, h, w, few), (3, 3, few, many), {"padding": tuple(pads)}


@st.composite
def gray(draw: st.DrawFn) -> Any:
    """Of one map to a few there is a form of its own: any side, whatever lies behind a row."""
    n, h, w = (draw(st.integers(*ends)) for ends in ((1, 9), (1, 20), (1, 40)))
    high, wide, o = draw(st.integers(1, 9)), draw(st.integers(1, 9)), draw(st.integers(1, 9))
    pads = [draw(st.tuples(*(st.integers(0, k - 1),) * 2)) for k in (high, wide)]
    pads = [
        (a, b + max(0, k - n - a - b))
        for n, k, (a, b) in zip((h, w), (high, wide), pads, strict=True)
    ]
    return (n, h, w, 1), (high, wide, 1, o), {"padding": tuple(pads)}


@settings(fuzz, max_examples=100)
@given(st.one_of(convolutions(), larger_than_the_map(), of_many_maps(), by_winograd(), gray()))
@example(((7, 28, 28, 1), (5, 5, 1, 6), {"padding": ((2, 2), (2, 2))}))
@example(((16, 4, 4, 24), (3, 3, 24, 24), {"padding": "SAME"}))
@example(((40, 11, 9, 64), (3, 3, 64, 80), {"padding": ((0, 2), (1, 1))}))
# Slices of maps, of two sizes; and a kernel of which one part is larger than a core's own cache.
@example(((13, 5, 5, 288), (3, 3, 288, 272), {"padding": "SAME"}))
@example(((30, 6, 5, 368), (3, 3, 368, 368), {"padding": "SAME"}))
# Few maps, of whose gradient a kernel's row is more than a panel of 16, or less; and padded.
@example(((5, 14, 13, 6), (5, 5, 6, 16), {"padding": "VALID"}))
@example(((3, 9, 70, 3), (3, 2, 3, 20), {"padding": ((0, 3), (2, 1))}))
# oneDNN of AVX-512 wants the kernel of one picture, the last of the threads', in another order.
@example(((57, 7, 7, 40), (5, 5, 40, 64), {"padding": "SAME"}))
@pytest.mark.slow
def test_values_and_gradients_are_those_of_lax(library: Path, case: Any) -> None:
    """Whichever thread computes: the primitives are made by one and executed by all."""
    x, w, options = case
    random = np.random.default_rng(0)
    x, w, bias = (random.normal(size=shape).astype(np.float32) for shape in (x, w, w[3:]))

    def biased(x: jax.Array, w: jax.Array, bias: jax.Array) -> jax.Array:
        return lax_conv(x, w, **options) + bias[None, None, None]

    def one(conv: Any) -> tuple[jax.Array, ...]:
        y, gradients = jax.vjp(conv, x, w, bias)
        return (y, *gradients(1 + jnp.cos(jnp.arange(float(y.size))).reshape(y.shape)))

    found = jax.jit(lambda: one(partial(kernels.conv, **options)))()
    for ours, theirs in zip(found, one(biased), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=2e-5 * np.abs(theirs).max())


@pytest.mark.slow
def test_a_batch_is_split_whatever_its_size(library: Path) -> None:
    x, w = np.zeros((2, 6, 6, 4), np.float32), np.zeros((3, 3, 4, 5), np.float32)
    assert "jaxcnn_conv" in str(jax.make_jaxpr(kernels.conv)(x, w))
    w = np.random.default_rng(1).normal(size=(3, 3, 4, 5)).astype(np.float32)
    for n in (1, 2, 3, 7):
        x = np.random.default_rng(n).normal(size=(n, 6, 6, 4)).astype(np.float32)
        ours = jax.jit(lambda x: kernels.conv(x, w))(x)
        np.testing.assert_allclose(ours, lax_conv(x, w), rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_a_run_is_the_same_alone_and_in_company(library: Path) -> None:
    """Bit for bit, as without it; in a process of its own, with two devices."""
    code = f"""
import numpy as np
from pathlib import Path
from jaxcnn import cohorts, config, native, nets, sharding, step
native.load(Path({str(library)!r}))
assert native.version()
run = config.override(config.Run(), {{"train.batch_size": 8, "data.normalize": "unit"}})
problem = nets.Problem((28, 28, 1), 10, 64, 8)
random = np.random.default_rng(0)
def losses(seeds):
    width, mesh = sharding.plan(len(seeds))
    program = cohorts.program(step.static(run), problem, mesh)
    moments = (np.full(shape, 1, np.float32) for shape in (1, 1, (1, 1)))
    data = cohorts.Resident(random_images, random_labels, *moments)
    data = sharding.put(mesh, data)
    values = cohorts.stack([config.override(run, {{"seed": s}}) for s in seeds])
    values = sharding.put(mesh, values, "run")
    carry = program.init(values)
    carry = program.advance(carry, values, program.order(values, 0), data, 0, 8)
    return np.asarray(carry.sums["loss"])
random_images = random.integers(0, 256, (64, 28, 28, 1), np.uint8)
random_labels = random.integers(0, 10, 64, np.int32)
both = losses([0, 1])
assert both.tolist() == [*losses([0]), *losses([1])], both
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "2", "PATH": ""},
        cwd=Path(__file__).resolve().parent.parent,
    )
    assert done.returncode == 0, done.stderr[-2000:]


# Name -> fields, and how many convolutions take in: a bias; that and ReLU; that and a shortcut; all
# three. A projection is a shortcut that another convolution takes in.
NETS = {
    "resnet20": ({"widths": (4, 8, 16)}, (0, 10, 0, 9)),
    "resnet20 of projections": ({"widths": (4, 8, 16), "shortcut": "B"}, (2, 10, 0, 9)),
    "vgg11_cifar": ({"widths": (4, 8, 8), "head": (8,)}, (0, 4, 0, 0)),
    "alexnet_cifar": ({"widths": (4, 8, 8, 8, 8), "head": (8,)}, (0, 5, 0, 0)),
    "googlenet_cifar": (
        {"width_multiplier": 0.25}
        | {"inceptions": {k: models.googlenet.CIFAR[k] for k in ("3a", "3b")}},
        (0, 13, 0, 0),
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", NETS)
def test_what_follows_a_convolution_goes_into_it(library: Path, name: str) -> None:
    fields, expected_counts = NETS[name]
    net = models.create_model(name.split()[0], classes=10, **fields)
    x = jax.random.normal(jax.random.key(1), (5, 32, 32, 3))
    variables = jax.jit(lambda: net.init(jax.random.key(0), x, train=False))()
    leaves, tree = jax.tree.flatten(variables)  # biases of 0 and deviations of 1 would hide errors
    keys = jax.random.split(jax.random.key(2), len(leaves))
    moved = [
        leaf * jax.random.uniform(key, leaf.shape, minval=0.5, maxval=1.5) + 0.05
        for key, leaf in zip(keys, leaves, strict=True)
    ]
    variables = jax.tree.unflatten(tree, moved)

    def logits(variables: Any, x: jax.Array) -> jax.Array:
        return net.apply(variables, x, train=False)[0]

    expected = jax.jit(logits)(variables, x)
    judged = jax.jit(fused(logits))
    found = judged(variables, x)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=2e-5 * np.abs(expected).max())
    lost = jax.tree.map(lambda a: jnp.full_like(a, jnp.nan), variables)
    assert jnp.isnan(judged(lost, x)).all()  # a run that diverged shows it
    program = str(jax.make_jaxpr(fused(logits))(variables, x))
    targets = (*native.BIASED, *native.ADDED)
    assert tuple(program.count(f"target_name={t}\n") for t in targets) == expected_counts
    assert f"target_name={native.FORWARD}\n" not in program


@pytest.mark.slow
@pytest.mark.parametrize("maps", [(24, 24), (64, 64), (1, 6)])  # of oneDNN, Winograd's, gray
@pytest.mark.parametrize("relu", [False, True])
def test_what_is_added_is_each_map_s_and_each_pixel_s(
    library: Path, maps: tuple[int, int], relu: bool
) -> None:
    shapes = {"x": (9, 7, 4, maps[0]), "w": (3, 3, *maps), "bias": maps[1:]}
    shapes["beside"] = (9, 7, 4, maps[1])
    random = np.random.default_rng(0)
    given = {name: random.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    where = ((9, 7, 4, maps[1]), (1, 1), ((1, 1), (1, 1)), 1)

    expected = np.asarray(lax_conv(given["x"], given["w"]))
    for names in (("bias",), ("bias", "beside")):
        more = {name: given[name] for name in names}
        found = jax.jit(lambda x, w, more: native.forward(x, w, *where, **more, relu=relu))(
            given["x"], given["w"], more
        )
        sums = expected + sum(more.values())
        sums = jnp.maximum(sums, 0) if relu else sums
        np.testing.assert_allclose(found, sums, rtol=1e-4, atol=2e-5 * np.abs(sums).max())


@settings(fuzz, max_examples=60)
@given(poolings(), st.integers(1, 7), st.integers(1, 20))
@example(((0, 28, 28, 0), ((2, 2), None, "VALID")), 5, 6)  # S2 of LeNet-5
@pytest.mark.slow
def test_max_pooling_is_that_of_lax_at_ties_too(
    library: Path, case: Any, pictures: int, maps: int
) -> None:
    (_, *size, _), (window, stride, padding) = case
    pads = padding if isinstance(padding, str) else ((0, 0), *padding, (0, 0))

    def reference(x: jax.Array) -> jax.Array:
        sizes, strides = (1, *window, 1), (1, *(stride or window), 1)
        return lax.reduce_window(x, -jnp.inf, lax.max, sizes, strides, pads)

    def ours(x: jax.Array) -> jax.Array:
        return kernels.max_pool(x, window, stride, padding)

    x = whole(0, pictures, *size, maps, top=1)
    assert_equal(ours, reference, x)
    assert f"target_name={native.MAX_POOL}\n" in str(jax.make_jaxpr(ours)(x))


@pytest.mark.slow
@pytest.mark.parametrize("maps", [3, 8])
def test_max_pooling_keeps_nan_and_infinities(library: Path, maps: int) -> None:
    x = whole(0, 3, 6, 6, maps)
    x[0, 0, 0, 0], x[1, 2:4, 2:4, 1], x[2, 5, 5, 2] = np.nan, -np.inf, np.inf
    with kernels.plain():
        expected = kernels.max_pool(jnp.asarray(x), 2)
    y, gradient = jax.vjp(lambda x: kernels.max_pool(x, 2), x)
    np.testing.assert_array_equal(y, expected)
    assert np.isnan(y[0, 0, 0, 0]) and np.isfinite(gradient(jnp.ones_like(y))[0]).all()


@pytest.mark.slow
def test_a_convolution_that_is_used_twice_is_computed_once(library: Path) -> None:
    x, w = (jax.random.normal(jax.random.key(i), (3, 3, 4, 4)) for i in range(2))

    def f(x: jax.Array, w: jax.Array) -> jax.Array:
        y = kernels.conv(x, w)
        minus = 2.0 - y / 3.0  # neither a division nor a subtraction from a number goes into it
        return jnp.maximum(3.0 * kernels.conv(x, w) - 1.0, 0.0) + y * minus

    np.testing.assert_allclose(fused(f)(x, w), f(x, w), rtol=1e-4, atol=1e-4)
    assert str(jax.make_jaxpr(fused(f))(x, w)).count("ffi_call[") == 2
