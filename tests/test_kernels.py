"""Every formulation is the `lax` operation: same values, same gradients.

Most inputs are small whole numbers, so that every sum is exact and equal means equal.
"""

from collections.abc import Callable
from functools import partial
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax

from jaxcnn import kernels

fuzz = settings(derandomize=True, deadline=None, database=None, max_examples=15)


def whole(seed: int, *shape: int, top: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).integers(-top, top + 1, shape).astype(np.float32)


def both(f: Callable[..., Any], reference: Callable[..., Any], *args: Any) -> list[Any]:
    """[(value, its gradients...) of f, the same of reference], compiled together."""

    def one(f: Callable[..., Any]) -> tuple[jax.Array, ...]:
        y, gradients = jax.vjp(f, *args)
        return (y, *gradients(jnp.asarray(whole(9, *y.shape), y.dtype)))

    return jax.jit(lambda: [one(f), one(reference)])()


def assert_equal(f: Callable[..., Any], reference: Callable[..., Any], *args: np.ndarray) -> None:
    for ours, theirs in zip(*both(f, reference, *args), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def lax_conv(x, w, *, stride=(1, 1), padding="SAME", groups=1):
    numbers = ("NHWC", "HWIO", "NHWC")
    if not isinstance(padding, str):  # see kernels._within_reach
        x, padding = jnp.pad(x, ((0, 0), *padding, (0, 0))), "VALID"
    return lax.conv_general_dilated(
        x, w, stride, padding, dimension_numbers=numbers, feature_group_count=groups
    )


@st.composite
def larger_than_the_map(draw: st.DrawFn) -> tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]:
    """A window that fits only by its padding."""
    size = draw(st.tuples(st.integers(1, 4), st.integers(1, 5)))
    kernel = (draw(st.integers(size[0] + 1, 6)), draw(st.integers(1, 5)))
    pads = []
    for m, k in zip(size, kernel, strict=True):
        low = draw(st.integers(0, 3))
        pads.append((low, max(0, k - m - low) + draw(st.integers(0, 3))))
    groups, c, o = draw(st.sampled_from((1, 2))), draw(st.integers(1, 4)), draw(st.integers(1, 4))
    x, w = (draw(st.integers(1, 3)), *size, c * groups), (*kernel, c, o * groups)
    stride = draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    return x, w, {"stride": stride, "padding": tuple(pads), "groups": groups}


@st.composite
def convolutions(draw: st.DrawFn) -> tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]:
    kernel = draw(st.tuples(st.integers(1, 5), st.integers(1, 5)))
    groups = draw(st.sampled_from((1, 1, 1, 2, 3)))
    pad = st.tuples(st.integers(0, 5), st.integers(0, 5))
    padding = draw(st.one_of(st.sampled_from(("SAME", "VALID")), st.tuples(pad, pad)))
    step = st.sampled_from((1, 1, 2, 3))
    stride = (1, 1) if draw(st.booleans()) else draw(st.tuples(step, step))
    size = draw(st.tuples(st.integers(5, 15), st.integers(5, 15)))
    c, o = draw(st.sampled_from((1, 2, 3, 6, 8))), draw(st.integers(1, 5))
    x, w = (draw(st.integers(1, 3)), *size, c * groups), (*kernel, c, o * groups)
    return x, w, {"stride": stride, "padding": padding, "groups": groups}


@settings(fuzz, max_examples=60)  # of two backends
@given(st.one_of(convolutions(), larger_than_the_map()), st.sampled_from(("cpu", "gpu")))
def test_convolution_is_that_of_lax(case: tuple[Any, Any, dict[str, Any]], backend: str) -> None:
    x, w, options = case
    with mock.patch.object(jax, "default_backend", lambda: backend):
        assert_equal(
            lambda x, w: kernels.conv(x, w, **options),
            lambda x, w: lax_conv(x, w, **options),
            whole(0, *x),
            whole(1, *w),
        )


def test_padding_beyond_the_kernel_reads_no_other_memory() -> None:
    """XLA's gradient of it would, of what was freed before."""
    x, w, g = whole(0, 2, 5, 5, 8), whole(1, 3, 1, 8, 3), whole(2, 2, 7, 5, 3)

    def gradient(conv: Any, *given: Any) -> Any:
        x, w, g = given
        return jax.vjp(lambda x: conv(x, w, padding=((3, 1), (0, 0))), x)[1](g)[0]

    ours, expected = jax.jit(partial(gradient, kernels.conv)), gradient(lax_conv, x, w, g)
    for _ in range(5):
        freed = [jax.device_put(np.full(3000, 1e23, np.float32)) for _ in range(20)]
        del freed
        np.testing.assert_array_equal(ours(x, w, g), expected)


@pytest.mark.parametrize("backend", ["cpu", "gpu"])
@pytest.mark.parametrize(
    ("x", "w", "padding"),
    [
        ((2, 28, 28, 1), (5, 5, 1, 6), ((2, 2), (2, 2))),  # LeNet-5, C1
        ((2, 14, 14, 6), (5, 5, 6, 16), "VALID"),  # LeNet-5, C3
        ((2, 8, 8, 16), (5, 5, 16, 9), "VALID"),  # wide, and dx by bands
        ((2, 4, 2, 3), (3, 3, 3, 4), "SAME"),  # fewer columns than a block has
        ((1, 3, 40, 1), (3, 3, 1, 2), "SAME"),  # more columns than a GPU's block has
    ],
)
def test_shapes_with_a_form_of_their_own(
    x: Any, w: Any, padding: Any, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    assert_equal(
        lambda x, w: kernels.conv(x, w, padding=padding),
        lambda x, w: lax_conv(x, w, padding=padding),
        whole(0, *x),
        whole(1, *w),
    )


@pytest.mark.parametrize("c", [3, 8])
def test_convolution_over_runs_and_inside_a_loop(c: int) -> None:
    x, w = whole(0, 2, 2, 9, 7, c), whole(1, 2, 3, 3, c, 4)

    def step(conv: Callable[..., jax.Array], x: jax.Array, w: jax.Array) -> Any:
        def loss(x: jax.Array, w: jax.Array) -> tuple[jax.Array, jax.Array]:
            y = conv(x, w)
            return jnp.sum(y**2) / 2, y

        return jax.grad(loss, (0, 1), has_aux=True)(x, w)

    ours = partial(step, kernels.conv)
    want = jax.jit(lambda: [step(lax_conv, x[i], w[i]) for i in range(2)])()
    side_by_side = jax.jit(jax.vmap(ours))(x, w)
    in_turn = jax.jit(lambda x, w: lax.map(lambda run: ours(*run), (x, w)))(x, w)
    together = jax.tree.map(lambda *runs: jnp.stack(runs), *want)
    for got in (side_by_side, in_turn):
        jax.tree.map(np.testing.assert_array_equal, got, together)


@pytest.mark.parametrize("c", [1, 16])
def test_convolution_of_real_numbers(c: int) -> None:
    random = np.random.default_rng(0)
    x, w = (random.normal(size=s).astype(np.float32) for s in ((2, 11, 11, c), (5, 5, c, 6)))
    for ours, theirs in zip(*both(kernels.conv, lax_conv, x, w), strict=True):
        assert np.abs(ours - theirs).max() < 1e-5 * np.abs(theirs).max()


@pytest.mark.parametrize("c", [1, 16])
def test_bfloat16_stays_bfloat16(c: int) -> None:
    x, w = whole(0, 2, 9, 9, c, top=9), whole(1, 3, 3, c, 4, top=99)
    low = [jnp.asarray(a, jnp.bfloat16) for a in (x, w)]
    exact = both(kernels.conv, lax_conv, x, w)[1]
    for ours, want in zip(both(kernels.conv, lax_conv, *low)[0], exact, strict=True):
        assert ours.dtype == jnp.bfloat16
        np.testing.assert_array_equal(ours, want.astype(jnp.bfloat16))  # rounded once


def test_what_an_accelerator_gets(monkeypatch: pytest.MonkeyPatch) -> None:
    def program(maps: int) -> str:
        x, w = jnp.zeros((1, 8, 8, maps)), jnp.zeros((3, 3, maps, 2))
        return str(jax.make_jaxpr(lambda x, w: kernels.max_pool(kernels.conv(x, w), 2))(x, w))

    on_cpu = program(1)
    assert "dot_general" in on_cpu and "conv_general_dilated" not in on_cpu
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    few, many = program(1), program(16)
    assert "[18,8]" in on_cpu and "[30,16]" in few  # bands of four columns, and of a whole row
    assert "dot_general" in few and "conv_general_dilated" not in few
    assert "conv_general_dilated" in many and "dot_general" not in many
    assert "custom_vjp" in many  # of the pooling, for its gradient
    monkeypatch.setattr(jax, "default_backend", lambda: "tpu")
    elsewhere = program(1)
    assert "conv_general_dilated" in elsewhere and "reduce_window_max" in elsewhere
    assert "custom_vjp" not in elsewhere and "dot_general" not in elsewhere


@st.composite
def poolings(draw: st.DrawFn) -> tuple[tuple[int, ...], tuple[Any, Any, Any]]:
    window = draw(st.tuples(st.integers(1, 4), st.integers(1, 4)))
    overlapping = draw(st.booleans())
    stride = draw(st.tuples(st.integers(1, 3), st.integers(1, 3))) if overlapping else window
    low = st.tuples(*(st.integers(0, n - 1) for n in window))
    explicit = tuple(zip(draw(low), draw(low), strict=True))
    padding = draw(st.sampled_from(("SAME", "VALID", "VALID", explicit)))
    size = draw(st.tuples(st.integers(4, 9), st.integers(4, 9)))
    return (2, *size, 3), (window, stride, padding)


@fuzz
@given(poolings())
def test_max_pooling_is_that_of_lax_at_ties_too(case: tuple[Any, Any]) -> None:
    shape, (window, stride, padding) = case
    if not isinstance(padding, str):
        padding = ((0, 0), *padding, (0, 0))

    def reference(x: jax.Array) -> jax.Array:
        sizes, strides = (1, *window, 1), (1, *stride, 1)
        return lax.reduce_window(x, -jnp.inf, lax.max, sizes, strides, padding)

    x = whole(0, *shape, top=1)  # three values: most windows have ties
    assert_equal(lambda x: kernels.max_pool(x, *case[1]), reference, x)


@fuzz
@given(poolings())
def test_average_pooling_leaves_the_padding_out(case: tuple[Any, Any]) -> None:
    shape, (window, stride, padding) = case
    x = whole(0, *shape)
    if isinstance(padding, str):
        padding = lax.padtype_to_pads(shape[1:3], window, stride, padding)

    def reference(x: jax.Array) -> jax.Array:
        """The mean over each window of what lies inside the picture, window by window."""
        rows, columns = (
            [
                slice(max(i * step - low, 0), min(i * step - low + k, n))
                for i in range((n + low + high - k) // step + 1)
            ]
            for n, k, step, (low, high) in zip(shape[1:3], window, stride, padding, strict=True)
        )
        return jnp.stack(
            [jnp.stack([x[:, r, c].mean((1, 2)) for c in columns], 1) for r in rows], 1
        )

    pairs = both(lambda x: kernels.avg_pool(x, *case[1]), reference, x)
    for ours, theirs in zip(*pairs, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("backend", ["cpu", "gpu"])
def test_the_first_of_equals_takes_the_gradient(
    backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    x = jnp.array([[1.0, 2, 0, 0], [2, 2, 0, 0], [3, 1, 1, 1], [0, 3, 1, 4]])[None, :, :, None]
    gradient = jax.grad(lambda x: jnp.sum(kernels.max_pool(x, 2)))(x)[0, :, :, 0]
    want = [[0, 1, 1, 0], [0, 0, 0, 0], [1, 0, 0, 0], [0, 0, 0, 1]]
    np.testing.assert_array_equal(gradient, want)


def test_plain_traces_the_operations_of_lax_alone() -> None:
    """And gives the same numbers; outside of it the formulations of this file are traced."""
    x, w = whole(0, 2, 8, 8, 3), whole(1, 3, 3, 3, 4)

    def f(x: jax.Array, w: jax.Array) -> jax.Array:
        return kernels.max_pool(kernels.conv(x, w), 2)

    with kernels.plain():
        text = str(jax.make_jaxpr(lambda x, w: f(x, w))(x, w))
        plain = f(x, w)
    assert "conv_general_dilated" in text and "reduce_window_max" in text
    assert "custom_vjp" not in text
    assert "custom_vjp" in str(jax.make_jaxpr(lambda x, w: f(x, w))(x, w))
    np.testing.assert_array_equal(f(x, w), plain)


def test_a_window_larger_than_the_picture_is_an_error() -> None:
    x = jnp.zeros((1, 4, 8, 1))
    with pytest.raises(ValueError, match="5 high"):
        kernels.conv(x, jnp.zeros((5, 3, 1, 2)), padding="VALID")
    with pytest.raises(ValueError, match="9 wide"):
        kernels.max_pool(x, (2, 9))
