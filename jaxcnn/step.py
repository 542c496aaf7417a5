"""State, and the pure functions on it. Written for one run on one device; jit, the loop over steps,
runs side by side and sharding are applied outside, in cohorts.py.
"""

import dataclasses
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxcnn import losses, models, optim
from jaxcnn.config import Run, get, override
from jaxcnn.data import augment
from jaxcnn.losses import Sums

# Every key is fold_in(key(seed), purpose), then the step or epoch: none is stored, and a new
# purpose at the end of the list moves no other.
PURPOSES = ("init", "order", "augment", "dropout")

# What is only a number in the program. The rest of a Run decides what is compiled.
TRACED = (
    "optim.lr",
    "optim.momentum",
    "optim.beta2",
    "optim.weight_decay",
    "model.dropout",
    "data.noise",
    "train.label_smoothing",
    "train.side_head_weight",
)

Numbers = dict[str, Any]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class State:
    """What a training step maps to itself."""

    step: jax.Array  # [] int32
    params: Any
    batch_stats: Any  # {} for a net without BatchNorm
    opt_state: Any


@dataclass(frozen=True)
class Problem:
    """What a program needs to know besides the Run: the data's shape and the length of the
    training.
    """

    image_shape: tuple[int, int, int]  # H, W, C as stored
    classes: int
    train_examples: int
    steps: int


def numbers(run: Run) -> Numbers:
    """The traced part of a run: name -> number, and its seed."""
    values = {path.rpartition(".")[2]: get(run, path) for path in TRACED}
    return {k: 0.0 if v == "paper" else float(v) for k, v in values.items()} | {"seed": run.seed}


def static(run: Run) -> Run:
    """The run with every traced number made neutral: equal for runs that share a program.

    Off stays off: a zero leaves no trace in the program (dropout, noise), so it is not any number.
    """
    off_matters = ("model.dropout", "data.noise")
    neutral = {
        path: value if path in off_matters and value in (0, "paper") else 0.5
        for path in TRACED
        for value in [get(run, path)]
    }
    return dataclasses.replace(override(run, neutral), seed=0)


def key(seed: int | jax.Array, purpose: str) -> jax.Array:
    return jax.random.fold_in(jax.random.key(seed), PURPOSES.index(purpose))


def init_state(run: Run, problem: Problem, values: Numbers) -> State:
    """The state at step 0. Linen keys weights by (key, name): arms of equal seed start from equal
    weights.
    """
    model = _model(run, problem, values)
    shape = augment.image_shape(run.data, problem.image_shape)
    variables = model.init(key(values["seed"], "init"), jnp.zeros((1, *shape)), train=False)
    params = variables["params"]
    opt_state = optim.optimizer(run.optim, values, problem.steps).init(params)
    return State(jnp.zeros((), jnp.int32), params, variables.get("batch_stats", {}), opt_state)


def epoch_order(run: Run, problem: Problem, values: Numbers, epoch: jax.Array) -> jax.Array:
    """The order in which an epoch visits the training examples, [N] int32."""
    order = jax.random.fold_in(key(values["seed"], "order"), epoch)
    return jax.random.permutation(order, problem.train_examples)


def train_step(
    run: Run,
    problem: Problem,
    state: State,
    images: jax.Array,
    labels: jax.Array,
    moments: tuple[jax.Array, jax.Array],
    values: Numbers,
) -> tuple[State, Sums]:
    """One update. images [B, H, W, C] uint8, labels [B] int, moments: mean and std [C] -> state,
    sums.
    """
    x = augment.augment(
        jax.random.fold_in(key(values["seed"], "augment"), state.step),
        images,
        run.data,
        *moments,
        values["noise"],
    )
    rngs = {"dropout": jax.random.fold_in(key(values["seed"], "dropout"), state.step)}
    model = _model(run, problem, values)
    mask = jnp.ones(labels.shape, jnp.float32)

    def loss(params: Any) -> tuple[jax.Array, tuple[Sums, Any]]:
        (logits, extras), updates = model.apply(
            {"params": params, "batch_stats": state.batch_stats},
            x,
            train=True,
            rngs=rngs,
            mutable=["batch_stats"],
        )
        smoothing = values["label_smoothing"]
        sums = losses.classification(logits, labels, mask, smoothing)
        total = sums["loss"]
        for name, side in extras.items():
            if name.startswith("side_"):  # what a side head adds is no part of the curve
                side_loss = losses.classification(side, labels, mask, smoothing)["loss"]
                total += values["side_head_weight"] * side_loss
        return total / labels.shape[0], (sums, updates.get("batch_stats", {}))

    (_, (sums, batch_stats)), grads = jax.value_and_grad(loss, has_aux=True)(state.params)
    optimizer = optim.optimizer(run.optim, values, problem.steps)
    updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    return State(state.step + 1, params, batch_stats, opt_state), sums


def eval_step(
    run: Run,
    problem: Problem,
    state: State,
    images: jax.Array,
    labels: jax.Array,
    moments: tuple[jax.Array, jax.Array],
    mask: jax.Array,
) -> Sums:
    """Sums over the examples with mask 1. images [B, H, W, C] uint8, labels [B] int, mask [B]."""
    x = augment.evaluate_view(images, run.data, *moments)
    variables = {"params": state.params, "batch_stats": state.batch_stats}
    logits, _ = _model(run, problem, {}).apply(variables, x, train=False)
    return losses.classification(logits, labels, mask)


def _model(run: Run, problem: Problem, values: Numbers) -> Any:
    dropout = {} if run.model.dropout in (0, "paper") else {"dropout": values.get("dropout", 0.0)}
    dtype = jnp.dtype(run.train.precision)
    return models.from_config(run.model, problem.classes, dtype=dtype, **dropout)
