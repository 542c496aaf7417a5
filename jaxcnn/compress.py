"""Smaller nets, as part of their training: small weights become zero, the others share values;
and how a net begins whose fully-connected layers are products.

    after = constrained(run.compress, sparsity, steps, done, before, after)

takes a step's result back to where compression allows it. Nothing is remembered between steps but
the weights themselves: what is zero stays zero, and what is equal stays equal.

Pruning is by magnitude, in `PRUNINGS` events whose share of zeros grows as a cubic (Zhu & Gupta
2017, equation 1), or in one. Sharing is Deep Compression's (Han et al. 2016, section 3): k-means on
each kernel's weights, from centroids evenly spread between the smallest and the largest; from then
on the values are trained in place of the weights. There a value's gradient is the sum of its
weights'; here it is their mean (`pooled`), which needs no learning rate of its own. Biases and
normalisation are left alone: they are few. Kernels of integers are in quantization.py.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_batching import custom_vmap

from jaxcnn.config import Compress
from jaxcnn.ops import THIN
from jaxcnn.quantization import kernel_on_grid

PRUNINGS = 20
ITERATIONS = 30  # of k-means

Array = jax.Array


def constrained(
    own: Compress, sparsity: float | Array, steps: int, done: Array, before: Any, after: Any
) -> Any:
    """The parameters `after` a step from `before`, as `own` allows them after `done` steps of
    `steps`. The number `sparsity` stands in the place of own's, which says only whether there is
    one.
    """
    done = _together(done)
    leaves, tree = jax.tree_util.tree_flatten_with_path(after)
    places = [i for i, (path, _) in enumerate(leaves) if path[-1].key == "kernel"]
    old = [leaf for i, leaf in enumerate(jax.tree.leaves(before)) if i in places]
    new = [leaves[i][1] for i in places]
    if own.sparsity:
        new = [jnp.where(o == 0, 0.0, n) for o, n in zip(old, new, strict=True)]
        first, last = _moments(own, steps)
        every = max(1, (last - first) // PRUNINGS)
        due = (done == last) | ((first <= done) & (done < last) & ((done - first) % every == 0))
        share = sparsity * (1 - (1 - (done - first) / max(1, last - first)) ** 3)
        share = jnp.where(done == last, sparsity, share)
        new = lax.cond(due, lambda k: _pruned(k, share, own.scope), lambda k: k, new)
    if own.bits is not None:
        count = 2**own.bits
        stage = jnp.sign(done - _shares(own, steps)) + 1

        def begin(kernels: list[Array]) -> list[Array]:
            return [_clustered(k, count, own.sparsity > 0) for k in kernels]

        def keep(kernels: list[Array]) -> list[Array]:
            return [_shared(o, n, count) for o, n in zip(old, kernels, strict=True)]

        new = lax.switch(stage, [lambda kernels: kernels, begin, keep], new)
    if own.int8:
        new = lax.cond(done == steps, lambda k: [kernel_on_grid(w) for w in k], lambda k: k, new)
    found = [leaf for _, leaf in leaves]
    for i, kernel in zip(places, new, strict=True):
        found[i] = kernel
    return jax.tree.unflatten(tree, found)


def factored(params: Any, like: Any) -> Any:
    """`params` with those fully-connected layers as products of two that are so in `like`: the
    nearest of that rank, by singular value decomposition; of arrays or of their shapes.
    """
    found = {}
    for name, own in params.items():
        thin = like.get(name + THIN) if isinstance(like, Mapping) else None
        if thin is None or name + THIN in params:
            inside = "kernel" not in own and name in like
            found[name] = factored(own, like[name]) if inside else own
            continue
        kernel, rank = own["kernel"], thin["kernel"].shape[-1]
        abstract = isinstance(kernel, jax.ShapeDtypeStruct)
        first, second = (
            jax.eval_shape(_factors(rank), kernel) if abstract else _factors(rank)(kernel)
        )
        found |= {name + THIN: {"kernel": first}, name: {**own, "kernel": second}}
    return found


def _factors(rank: int) -> Callable[[Array], tuple[Array, Array]]:
    """kernel [D, F] -> [D, rank], [rank, F]; each has the root of every singular value."""

    def factors(kernel: Array) -> tuple[Array, Array]:
        u, s, v = jnp.linalg.svd(kernel, full_matrices=False)
        root = jnp.sqrt(s[:rank])
        return u[:, :rank] * root[None], root[:, None] * v[:rank]

    return factors


@custom_vmap
def _together(done: Array) -> Array:
    """`done` itself; of runs side by side, which are all at one step, one for all: of the branches
    of a condition that each run had for its own, all would be computed at every step.
    """
    return done


@_together.def_vmap
def _(runs: int, batched: list[bool], done: Array) -> tuple[Array, bool]:
    return (done[0] if batched[0] else done), False


def pooled(own: Compress, steps: int, done: Array, params: Any, grads: Any) -> Any:
    """The gradients after `done` steps of `steps`: of weights that share a value, their mean.

    Without, of the updates of an optimiser that scales each weight's to about one length, most
    would cancel out, and the values would stay where they are.
    """
    if own.bits is None:
        return grads
    count = 2**own.bits

    def mean(grads: Any) -> Any:
        def own(path: Any, old: Array, grad: Array) -> Array:
            return _shared(old, grad, count) if path[-1].key == "kernel" else grad

        return jax.tree_util.tree_map_with_path(own, params, grads)

    return lax.cond(_together(done) >= _shares(own, steps), mean, lambda grads: grads, grads)


def _shares(own: Compress, steps: int) -> int:
    """After how many steps weights share values."""
    return max(1, round(own.share_from * steps))


def _moments(own: Compress, steps: int) -> tuple[int, int]:
    """After how many steps the first and the last weights go."""
    last = max(1, round(own.prune_until * steps))
    return min(last, max(1, round(own.prune_from * steps))), last


def _pruned(kernels: list[Array], share: Array, scope: str) -> list[Array]:
    """Zero in place of the `share` of weights that are smallest in their kernel, or in the net."""
    sizes = [jnp.abs(k).ravel() for k in kernels]
    if scope == "net":
        limits = [_limit(jnp.concatenate(sizes), share)] * len(kernels)
    else:
        limits = [_limit(size, share) for size in sizes]
    return [jnp.where(jnp.abs(k) > a, k, 0.0) for k, a in zip(kernels, limits, strict=True)]


def _limit(sizes: Array, share: Array) -> Array:
    """The largest of the `share` smallest; -1 where that is none. sizes [N]."""
    count = jnp.floor(share * sizes.size).astype(jnp.int32)
    return jnp.where(count > 0, jnp.sort(sizes)[jnp.maximum(count, 1) - 1], -1.0)


def _clustered(kernel: Array, count: int, sparse: bool) -> Array:
    """Each weight the nearest of `count` values by k-means in one dimension; zeros stay beside
    them where `sparse`.
    """
    w = kernel.ravel()
    counts = w != 0 if sparse else jnp.ones_like(w, bool)
    low, high = (
        jnp.min(w, where=counts, initial=jnp.inf),
        jnp.max(w, where=counts, initial=-jnp.inf),
    )

    def nearest(centers: Array) -> Array:
        return jnp.searchsorted((centers[1:] + centers[:-1]) / 2, w)

    def improved(_: int, centers: Array) -> Array:
        code = nearest(centers)
        members = jax.ops.segment_sum(counts.astype(w.dtype), code, count)
        total = jax.ops.segment_sum(jnp.where(counts, w, 0.0), code, count)
        # One that nobody is nearest to stays where it is.
        return jnp.sort(jnp.where(members > 0, total / jnp.maximum(members, 1), centers))

    # Where all were pruned, low and high are infinite, and nothing below is used.
    centers = lax.fori_loop(0, ITERATIONS, improved, jnp.linspace(low, high, count))
    return jnp.where(counts, centers[nearest(centers)], w).reshape(kernel.shape)


def _shared(old: Array, new: Array, count: int) -> Array:
    """Weights that were equal in `old` have the mean of their values in `new`."""
    values = jnp.unique(old, size=count + 1, fill_value=jnp.inf)
    code = jnp.searchsorted(values, old.ravel())
    members = jax.ops.segment_sum(jnp.ones(code.shape, new.dtype), code, count + 1)
    total = jax.ops.segment_sum(new.ravel(), code, count + 1)
    return (total / jnp.maximum(members, 1))[code].reshape(new.shape)
