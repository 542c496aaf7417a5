"""Optimisers and schedules: optax, by name. The numbers may be traced, so that runs share a
program.
"""

from typing import Any, NamedTuple

import jax
import optax

from jaxcnn.config import Optim

Number = float | jax.Array


def schedule(optim: Optim, steps: int) -> optax.Schedule:
    """The learning rate as a share of its base value, over `steps` steps, warm-up first."""
    warmup = round(optim.warmup * steps)
    rest = max(1, steps - warmup)
    shapes: dict[str, optax.Schedule] = {
        "constant": optax.constant_schedule(1.0),
        "step": optax.piecewise_constant_schedule(
            1.0, {round(m * steps) - warmup: optim.factor for m in optim.milestones}
        ),
        "cosine": optax.cosine_decay_schedule(1.0, rest),
        "exponential": optax.exponential_decay(1.0, rest, optim.factor),
    }
    shape = shapes[optim.schedule]
    if warmup == 0:
        return shape
    return optax.join_schedules([optax.linear_schedule(0.0, 1.0, warmup), shape], [warmup])


def optimizer(optim: Optim, numbers: dict[str, Number], steps: int) -> optax.GradientTransformation:
    """The update of a run, with lr, momentum, beta2 and weight_decay from `numbers`.

    Coupled decay is added to the gradient and goes through the momentum (Krizhevsky 2012, section
    5); decoupled decay acts on the weights beside it (Loshchilov & Hutter 2019). Both reach every
    parameter.
    """
    share = schedule(optim, steps)
    direction: dict[str, Any] = {
        "sgd": optax.trace(numbers["momentum"], optim.nesterov),
        "adam": optax.scale_by_adam(numbers["momentum"], numbers["beta2"], nesterov=optim.nesterov),
    }
    decay = optax.add_decayed_weights(numbers["weight_decay"])
    parts = [decay, direction[optim.name]]
    if optim.decay == "decoupled":
        parts.reverse()
    return optax.chain(
        *parts, optax.scale_by_learning_rate(lambda count: numbers["lr"] * share(count))
    )


class Averaged(NamedTuple):
    """optax's state, and running means of the weights and of the statistics beside them."""

    own: Any
    params: Any
    batch_stats: Any


def averaged(
    decay: Number, step: jax.Array, mean: Averaged, own: Any, params: Any, batch_stats: Any
) -> Averaged:
    """`mean` after `step` steps, the last of which gave `own`, `params` and `batch_stats`; each
    counts `decay` times as much as the next (Polyak & Juditsky 1992, Acceleration of stochastic
    approximation by averaging, SIAM; Szegedy et al. 2016, arXiv:1512.00567, section 8).

    What was before the first step does not count, as in optax.ema(debias=True), whose state would
    need the decay to be read.
    """
    share = (1 - decay) / (1 - decay**step)
    new: Any = optax.incremental_update((params, batch_stats), mean[1:], share)
    return Averaged(own, *new)


def grouped(
    whole: optax.GradientTransformation, groups: Any, rate: float
) -> optax.GradientTransformation:
    """`whole` for the parameters that `groups`, a tree like theirs, calls 'free'; at `rate` times
    its learning rate for those called 'taken'; and nothing, weight decay neither, for 'frozen'.
    """
    slower = optax.chain(whole, optax.scale(rate))
    kinds: dict[Any, Any] = {"free": whole, "taken": slower, "frozen": optax.set_to_zero()}
    return optax.multi_transform(kinds, groups)
