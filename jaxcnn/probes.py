"""What the training step at a point of the curve would do, layer by layer: `train.probes`.

A layer is a convolution or a fully-connected layer, under its parameters' name. The batches are the
first of the training examples, the same at every point, seen as the step there would see them:
augmented, with dropout, and batch normalisation by the batch.

- `gradient_norm`: the root mean square of the loss's gradient over the layer's kernel. Gradients
  that vanish (Hochreiter 1991; Glorot & Bengio 2010, section 4.2; the notes, section 1.5.1) are
  small in the first layers against the last.
- `active_share`: the share of the layer's units, over the examples of the batch, that take part in
  the update: the gradient of the example's loss with respect to the unit, before activation,
  pooling and dropout, is not exactly 0. That is the one number in which the notes' section 1.5.2
  and 1.5.3 put max pooling (1 of a window's units has a gradient), ReLU (those below 0 have none)
  and dropout (the dropped have none) side by side. After sigmoid, tanh and average pooling every
  unit has a gradient, but for what float32 rounds to 0.
- `update_variance`: over `BATCHES` batches, the variance of the kernel's gradient relative to its
  mean square, both summed over the kernel: sum var g / sum E g^2. 0: every batch asks for the same
  update; 1: what they have in common is nothing. Under SGD without momentum the update is the
  gradient times the rate, so this is the relative variance of the update itself.

A run's numbers are the same alone and side by side with others but for float32's rounding.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxcnn import nets, ops, step
from jaxcnn.config import InputError, Run, batch_size
from jaxcnn.nets import Numbers, Problem
from jaxcnn.step import State

BATCHES = 8  # of the update's variance

Batch = Callable[[jax.Array | int], tuple[jax.Array, jax.Array]]


def probe(
    run: Run,
    problem: Problem,
    state: State,
    batch: Batch,
    moments: step.Moments,
    values: Numbers,
) -> dict[str, jax.Array]:
    """Each of `train.probes` -> a number for each of the L layers of `nets.layers`, [L].

    `batch(i)` is the i-th batch of the training examples, images [B, H, W, C] uint8, labels [B].
    Raises `InputError` for a run whose layers or batches cannot be probed.
    """
    check(run, problem)
    names = nets.layers(run, problem)

    def loss(params: Any, i: jax.Array | int, shifts: dict[str, jax.Array]) -> jax.Array:
        # Its keys are those of the i-th step from here, so that each batch has its own mask.
        at = dataclasses.replace(state, step=state.step + i)
        images, labels = batch(i)
        x = step.training_view(run, at, images, moments, values)
        with ops.shifted(shifts):
            return step.training_loss(run, problem, at, x, labels, values, params)[0]

    def gradients(i: jax.Array | int) -> list[jax.Array]:
        grads = jax.grad(loss)(state.params, i, {})
        return [_kernel(grads, name) for name in names]

    def gradient_norm() -> list[jax.Array]:
        return [_rms(g) for g in gradients(0)]

    def active_share() -> list[jax.Array]:
        with ops.shifted({}) as met:
            jax.eval_shape(lambda: loss(state.params, 0, {}))
        zeros = {name: jnp.zeros(met[name].shape, met[name].dtype) for name in names}
        units = jax.grad(loss, argnums=2)(state.params, 0, zeros)
        return [jnp.mean(units[name] != 0, dtype=jnp.float32) for name in names]

    def update_variance() -> list[jax.Array]:
        def add(i: jax.Array, sums: Any) -> Any:
            new = gradients(i)
            return jax.tree.map(jnp.add, sums, (new, [jnp.sum(jnp.square(g)) for g in new]))

        kernels = [jnp.zeros_like(_kernel(state.params, name)) for name in names]
        totals, squares = lax.fori_loop(0, BATCHES, add, (kernels, [jnp.zeros(())] * len(names)))
        return [_relative_variance(g, s) for g, s in zip(totals, squares, strict=True)]

    found = {f.__name__: f for f in (gradient_norm, active_share, update_variance)}
    return {name: jnp.stack(found[name]()) for name in run.train.probes}


def check(run: Run, problem: Problem) -> None:
    """Raise `InputError` for a run that cannot be probed."""
    if run.train.greedy:
        raise InputError(
            f"train.probes: {run.train.probes}; they look at the loss of the whole net, and"
            " train.greedy trains it layer by layer."
        )
    if run.model.scan is True:
        raise InputError(
            f"train.probes: {run.train.probes}; with model.scan equal blocks are one, whose layers"
            " cannot be told apart."
        )
    needed = BATCHES * batch_size(run)
    if "update_variance" in run.train.probes and needed > problem.train_examples:
        raise InputError(
            f"train.probes: 'update_variance' takes {BATCHES} batches, {needed} examples; there are"
            f" {problem.train_examples} for training."
        )


def _kernel(tree: Any, name: str) -> jax.Array:
    for part in name.split("/"):
        tree = tree[part]
    return tree["kernel"]


def _rms(g: jax.Array) -> jax.Array:
    """In units of the largest, for the squares of a vanishing gradient are 0 in float32."""
    largest = jnp.max(jnp.abs(g))
    return largest * jnp.sqrt(jnp.mean(jnp.square(g / jnp.where(largest > 0, largest, 1.0))))


def _relative_variance(total: jax.Array, squares: jax.Array) -> jax.Array:
    """Of `BATCHES` gradients, from their sum [...] and the sum of all their squares []; 0 where all
    are 0.
    """
    n = BATCHES
    variance = (squares - jnp.sum(jnp.square(total)) / n) / (n - 1)
    return variance / jnp.where(squares > 0, squares / n, 1.0)
