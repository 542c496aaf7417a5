"""Margins, and who is who among people that no net has seen."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcnn import losses, models, step
from jaxcnn.config import InputError, Run, check, override
from jaxcnn.step import Problem

# Margins


def test_the_margin_is_an_angle() -> None:
    """Against ArcFace's equation 3 with angles themselves."""
    rng = np.random.default_rng(0)
    angles = rng.uniform(0.1, 3.1, (50, 4))
    labels = rng.integers(0, 4, 50)
    m, s = 0.5, 8.0
    own = angles[np.arange(50), labels]
    assert ((own + m > np.pi).sum(), (own + m < np.pi).sum()) > (0, 30)
    larger = np.where(own + m < np.pi, np.cos(own + m), np.cos(own) - m * np.sin(m))
    scores = np.cos(angles)
    scores[np.arange(50), labels] = larger
    p = np.exp(s * scores)
    want = -np.log(p[np.arange(50), labels] / p.sum(1))
    logits = jnp.asarray(s * np.cos(angles), jnp.float32)
    for i in (0, 7):
        mask = jnp.zeros(50).at[i].set(1)
        sums = losses.margin(logits, jnp.asarray(labels), mask, m, s)
        np.testing.assert_allclose(sums["loss"], want[i], rtol=1e-4)
    sums = losses.margin(logits, jnp.asarray(labels), jnp.ones(50), m, s)
    assert float(sums["errors"]) == (np.argmin(angles, 1) != labels).sum()
    np.testing.assert_allclose(sums["loss"], want.sum(), rtol=1e-4)
    without = losses.margin(logits, jnp.asarray(labels), jnp.ones(50), 0.0, s)
    plain = losses.classification(logits, jnp.asarray(labels), jnp.ones(50))
    np.testing.assert_allclose(without["loss"], plain["loss"], rtol=1e-5)
    ends = jnp.array([[s, -s, 0.0, 0.0]])
    for label in (0, 1):

        def loss(x: jax.Array, label: int = label) -> jax.Array:
            return losses.margin(x, jnp.array([label]), jnp.ones(1), m, s)["loss"]

        assert np.isfinite(jax.grad(loss)(ends)).all()


@pytest.mark.parametrize(
    "name", ["lenet5", "mlp", "alexnet_cifar", "vgg11_cifar", "googlenet_cifar", "resnet20"]
)
def test_scores_are_cosines_times_the_radius(name: str) -> None:
    run = override(Run(), {"model.name": name, "train.objective": "margin", "train.radius": 16.0})
    problem = Problem((32, 32, 1), 12, train_examples=200, steps=10)
    module = step.module(run, problem, {})
    assert module.radius == 16
    variables = jax.eval_shape(
        lambda: module.init(jax.random.key(0), jnp.zeros((1, 32, 32, 1)), train=False)
    )
    last = [name for name in step.layers(run, problem) if not name.startswith("side_")][-1]
    assert set(variables["params"][last]) == {"kernel"}
    assert step.five(run, problem)


def test_a_run_by_margin() -> None:
    changes: dict[str, Any] = {"model.name": "mlp", "model.widths": (8,), "train.batch_size": 12}
    run = override(Run(), {**changes, "train.objective": "margin", "train.radius": 16.0})
    problem = Problem((6, 6, 1), 3, train_examples=12, steps=60)
    images = np.random.default_rng(0).integers(0, 255, (12, 6, 6, 1), np.uint8)
    labels = jnp.asarray(np.arange(12) % 3)
    moments = (jnp.full(1, 0.5), jnp.full(1, 0.25), jnp.full((1, 1), 0.0625))
    values = step.numbers(run)
    state = step.init_state(run, problem, values)
    output, _ = step.evaluate(run, problem, state, images, moments)  # type: ignore
    assert 0 < np.abs(output).max() <= 16
    once = jax.jit(lambda state: step.train_step(run, problem, state, images, labels, moments, values))  # type: ignore
    seen = []
    for _ in range(60):
        state, sums = once(state)
        seen.append(float(sums["loss"]))
    mask = jnp.ones(12)
    judged = step.eval_step(run, problem, state, images, labels, moments, mask)  # type: ignore
    # The margin is of training alone: the same weights look better without.
    state, sums = once(state)
    assert float(judged["loss"]) < 0.7 * float(sums["loss"]) and seen[-1] < 0.3 * seen[0]


def test_what_has_no_margin() -> None:
    problem = Problem((32, 32, 1), 10, train_examples=12, steps=60)
    for name in ("autoencoder", "lenet5_1998"):
        run = override(Run(), {"model.name": name, "train.objective": "margin"})
        with pytest.raises(InputError, match=f"the last layer of {name} has no cosines"):
            step.module(run, problem, {})
    with pytest.raises(InputError, match=r"train.radius: 32.0 is of train.objective margin, not"):
        check(override(Run(), {"train.radius": 32.0}))
    with pytest.raises(InputError, match=r"train.margin: 1.6 is not allowed"):
        check(override(Run(), {"train.margin": 1.6, "train.objective": "margin"}))
    with pytest.raises(InputError, match="label_smoothing"):
        check(override(Run(), {"train.objective": "margin", "train.label_smoothing": 0.1}))
    assert models.create_model("mlp").radius is None
