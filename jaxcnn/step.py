"""State, and the pure functions on it. Written for one run on one device; jit, the loop over steps,
runs side by side and sharding are applied outside, in cohorts.py.
"""

import contextlib
import dataclasses
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import lax

from jaxcnn import compress, losses, nets, ops, optim, quantization, transfer
from jaxcnn.config import InputError, Run, Start, get, override
from jaxcnn.data import augment
from jaxcnn.losses import Sums
from jaxcnn.nets import Numbers, Problem

# Every key is fold_in(key(seed), purpose), then the step or epoch: none is stored, and a new
# purpose at the end of the list moves no other.
PURPOSES = ("init", "order", "augment", "dropout")

# What is only a number in the program. The rest of a Run decides what is compiled.
TRACED = (
    "optim.lr",
    "optim.momentum",
    "optim.beta2",
    "optim.weight_decay",
    "optim.ema",
    "model.dropout",
    "data.noise",
    "data.color",
    "data.scale",
    "data.area",
    "data.aspect",
    "data.rotate",
    "data.zoom",
    "train.label_smoothing",
    "train.side_head_weight",
    "compress.sparsity",
    "compress.distill",
    "compress.temperature",
)

Moments = tuple[jax.Array, jax.Array, jax.Array]  # of pixels: mean, std [C], covariance [C, C]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class State:
    """What a training step maps to itself."""

    step: jax.Array  # [] int32
    params: Any
    batch_stats: Any  # {} for a net without BatchNorm
    opt_state: Any  # optax's; with `optim.ema` an `optim.Averaged` around it


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Taught(State):
    """That of a run with a teacher (compress.distill), whose variables never change."""

    teacher: Any


def numbers(run: Run) -> Numbers:
    """The traced part of a run: name -> number, and its seed."""
    values = {path.rpartition(".")[2]: get(run, path) for path in TRACED}
    return {k: 0.0 if v == "paper" else float(v) for k, v in values.items()} | {"seed": run.seed}


def static(run: Run) -> Run:
    """The run with every traced number made neutral: equal for runs that share a program. Which
    examples it is trained on is no part of that, nor what its weights start from.

    Off stays off: a zero leaves no trace in the program (dropout, noise, color, rotate, sparsity,
    distill, ema; of scale, area and zoom it is a one), so it is not any number.
    """
    zeros = ("data.noise", "data.color", "data.rotate")
    zeros += ("compress.sparsity", "compress.distill", "optim.ema")
    ones = ("data.scale", "data.area", "data.zoom")
    off: dict[str, tuple[Any, ...]] = {"model.dropout": (0, "paper")}
    off |= {**dict.fromkeys(zeros, (0,)), **dict.fromkeys(ones, (1,))}
    neutral = {
        path: value if value in off.get(path, ()) else 0.5
        for path in TRACED
        for value in [get(run, path)]
    }
    start = transfer.static(run.start)
    if run.compress.distill:
        start = dataclasses.replace(start, model=run.start.model)
    return dataclasses.replace(override(run, neutral | {"data.split_seed": 0}), start=start, seed=0)


def key(seed: int | jax.Array, purpose: str) -> jax.Array:
    return jax.random.fold_in(jax.random.key(seed), PURPOSES.index(purpose))


def init_state(run: Run, problem: Problem, values: Numbers) -> State:
    """The state at step 0, but for what `started` takes over. Linen keys weights by (key, name):
    arms of equal seed start from equal weights.
    """
    net = nets.build(run, problem, values)
    shape = augment.image_shape(run.data, problem.image_shape)
    variables = net.init(key(values["seed"], "init"), jnp.zeros((1, *shape)), train=False)
    params = variables["params"]
    opt_state = _optimizer(run, problem, values, params).init(params)
    stats = variables.get("batch_stats", {})
    if run.train.norm_parts > 1 and not stats:
        raise InputError(
            f"train.norm_parts: {run.train.norm_parts} is of batch normalisation, which"
            f" {run.model.name!r} does not have as it is."
        )
    if run.optim.ema:
        opt_state = optim.Averaged(opt_state, params, stats)
    if not run.compress.distill:
        return State(jnp.zeros((), jnp.int32), params, stats, opt_state)
    known = jax.eval_shape(
        partial(nets.teacher(run, problem).init, train=False),
        jax.random.key(0),
        jnp.zeros((1, *shape)),
    )
    teacher = {
        name: jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), known.get(name, {}))
        for name in ("params", "batch_stats")
    }
    return Taught(jnp.zeros((), jnp.int32), params, stats, opt_state, teacher)


def started(run: Run, problem: Problem, state: State, source: State) -> State:
    """`state` with the layers of `start.layers` as they are in `source`, weights and running
    statistics, and with `source` as its teacher where it has one; of arrays or of their shapes.
    Raises `InputError` where those differ, and for a pattern that names no layer.
    """
    met = nets.layers(run, problem)
    transfer.check(run.start, state.params, met, run.model.name)
    taken = transfer.taken(run.start, met)
    theirs = source.params
    if run.compress.rank is not None:
        theirs = compress.factored(theirs, state.params)
    params = transfer.replaced(state.params, theirs, taken)
    stats = transfer.replaced(state.batch_stats, source.batch_stats, taken)
    if isinstance(state, Taught):
        teacher = {"params": source.params, "batch_stats": source.batch_stats}
        state = dataclasses.replace(state, teacher=teacher)
    return begun(state, params, stats)


def begun(state: State, params: Any, batch_stats: Any) -> State:
    """`state` with other weights and statistics to begin with, their means included."""
    own = state.opt_state
    if isinstance(own, optim.Averaged):
        own = own._replace(params=params, batch_stats=batch_stats)
    return dataclasses.replace(state, params=params, batch_stats=batch_stats, opt_state=own)


def used(state: State) -> State:
    """The state with the weights and statistics that the net is judged and used by: of `optim.ema`
    their means.
    """
    mean = state.opt_state
    if not isinstance(mean, optim.Averaged):
        return state
    return dataclasses.replace(state, params=mean.params, batch_stats=mean.batch_stats)


def _optimizer(
    run: Run, problem: Problem, values: Numbers, params: Any
) -> optax.GradientTransformation:
    whole = optim.optimizer(run.optim, values, problem.steps)
    if transfer.static(run.start) == Start():
        return whole
    met = nets.layers(run, problem)
    transfer.check(run.start, params, met, run.model.name)
    return optim.grouped(whole, transfer.groups(run.start, params, met), run.start.rate)


def epoch_order(run: Run, problem: Problem, values: Numbers, epoch: jax.Array) -> jax.Array:
    """The order in which an epoch visits the training examples, [N] int32."""
    order = jax.random.fold_in(key(values["seed"], "order"), epoch)
    return jax.random.permutation(order, problem.train_examples)


def training_view(
    run: Run,
    state: State,
    images: jax.Array,
    moments: Moments,
    values: Numbers,
) -> jax.Array:
    """What the step shows the model of images [B, H, W, C] uint8: augmented, normalised."""
    own = jax.random.fold_in(key(values["seed"], "augment"), state.step)
    names = ("noise", "color", "scale", "area", "aspect", "rotate", "zoom")
    return augment.augment(own, images, run.data, *moments, *(values[name] for name in names))


def training_loss(
    run: Run,
    problem: Problem,
    state: State,
    x: jax.Array,
    labels: jax.Array,
    values: Numbers,
    params: Any,
    part: jax.Array | None = None,
) -> tuple[jax.Array, tuple[Sums, Any]]:
    """What the step descends: the mean loss [] of the batch x [B, h, w, C], labels [B], under
    `params` in place of the state's; with its sums and the new running statistics. Each `part` of a
    batch that is taken in parts drops units of its own.
    """
    drop = jax.random.fold_in(key(values["seed"], "dropout"), state.step)
    rngs = {"dropout": drop if part is None else jax.random.fold_in(drop, part)}
    mask = jnp.ones(labels.shape[:1], jnp.float32)
    frozen = partial(transfer.matches, patterns=run.start.freeze)
    net, variables = nets.build(run, problem, values), _variables(run, problem, state, params)
    still = ops.still(frozen) if run.start.freeze else contextlib.nullcontext()
    parts = ops.normalised_in(run.train.norm_parts)
    with still, parts, in_integers(run, problem, state):
        (output, extras), updates = net.apply(
            variables,
            x,
            train=True,
            rngs=rngs,
            mutable=["batch_stats"],
        )
    smoothing = values["label_smoothing"]
    sums = _judged(run, problem, output, x, labels, mask, smoothing, train=True)
    total = sums["loss"]
    for name, side in extras.items():
        if name.startswith("side_"):  # what a side head adds is no part of the curve
            more = _judged(run, problem, side, x, labels, mask, smoothing, train=True)
            total += values["side_head_weight"] * more["loss"]
    if isinstance(state, Taught):
        theirs, _ = nets.teacher(run, problem).apply(state.teacher, x, train=False)
        soft = losses.distillation(output, lax.stop_gradient(theirs), values["temperature"])
        total = (1 - values["distill"]) * total + values["distill"] * soft
    return total / labels.shape[0], (sums, updates.get("batch_stats", {}))


def train_step(
    run: Run,
    problem: Problem,
    state: State,
    images: jax.Array,
    labels: jax.Array,
    moments: Moments,
    values: Numbers,
) -> tuple[State, Sums]:
    """One update. images [B, H, W, C] uint8, labels [B] int -> state, sums."""
    x = training_view(run, state, images, moments, values)
    if labels.ndim > 1:
        own = jax.random.fold_in(key(values["seed"], "augment"), state.step)
        turned = values["rotate"], values["zoom"]
        labels = augment.points(own, labels, run.data, images.shape[1:], *turned)
    ends = nets.greedy_ends(run, problem)
    count = len(ends)
    # No array of them: jaxlib 0.11.2 dies of an empty one over several devices.
    stage = sum((state.step >= end for end in ends), jnp.int32(0))
    gradients = partial(_gradients, run, problem, values, stage)
    if run.train.accumulate == 1:
        grads, (sums, batch_stats) = gradients(state, x, labels)
    else:
        grads, (sums, batch_stats) = _accumulated(run, gradients, state, x, labels)
    grads = compress.pooled(run.compress, problem.steps, state.step, state.params, grads)
    optimizer = _optimizer(run, problem, values, state.params)
    mean = state.opt_state if isinstance(state.opt_state, optim.Averaged) else None
    own = state.opt_state if mean is None else mean.own
    updates, opt_state = optimizer.update(grads, own, state.params)
    if count:
        updates = _held(updates, stage, count)
    if run.start.thaw:
        met = nets.layers(run, problem)
        updates = transfer.held(run.start, updates, met, state.step, problem.steps)
    params = optax.apply_updates(state.params, updates)
    done = state.step + 1
    params = compress.constrained(
        run.compress, values["sparsity"], problem.steps, done, state.params, params
    )
    if mean is not None:
        opt_state = optim.averaged(values["ema"], done, mean, opt_state, params, batch_stats)
    now = {"step": done, "params": params, "batch_stats": batch_stats, "opt_state": opt_state}
    return dataclasses.replace(state, **now), sums


Gradients = tuple[Any, tuple[Sums, Any]]  # with the sums and the new running statistics


def _gradients(
    run: Run,
    problem: Problem,
    values: Numbers,
    stage: jax.Array,
    state: State,
    x: jax.Array,
    labels: jax.Array,
    part: jax.Array | None = None,
) -> Gradients:
    """Of x [B, h, w, C] as the model sees it, labels [B]."""

    def loss(params: Any) -> tuple[jax.Array, tuple[Sums, Any]]:
        return training_loss(run, problem, state, x, labels, values, params, part)

    def layer_loss(params: Any, k: int) -> tuple[jax.Array, tuple[Sums, Any]]:
        """Of layer k as an autoencoder of its own: nothing that the curve shows, so no sums."""
        net = nets.build(run, problem, values)
        output, extras = net.apply({"params": params}, x, train=True, layer=k)
        mask = jnp.ones(labels.shape, jnp.float32)
        sums = losses.reconstruction(output, extras["target"], mask)
        nothing = losses.zeros(run.train.objective)
        return sums["loss"] / labels.shape[0], (nothing, state.batch_stats)

    count = len(nets.greedy_ends(run, problem))
    choices: list[Any] = [
        jax.grad(partial(layer_loss, k=k), has_aux=True) for k in range(1, count + 1)
    ]
    choices.append(jax.grad(loss, has_aux=True))
    return lax.switch(stage, choices, state.params)


def _accumulated(
    run: Run, gradients: Any, state: State, x: jax.Array, labels: jax.Array
) -> Gradients:
    """`gradients` of the batch in parts, one after the other: their mean, the sums of all, and the
    running statistics after the last.
    """
    parts = run.train.accumulate

    def cut(a: jax.Array) -> jax.Array:  # each part is spread over the devices that share the batch
        return a.reshape(-1, parts, *a.shape[1:]).swapaxes(0, 1)

    def one(carry: Gradients, part: tuple[jax.Array, ...]) -> tuple[Gradients, None]:
        total, (sums, batch_stats) = carry
        i, x, labels = part
        now = dataclasses.replace(state, batch_stats=batch_stats)
        grads, (more, batch_stats) = gradients(now, x, labels, i)
        add = partial(jax.tree.map, jnp.add)
        return (add(total, grads), (add(sums, more), batch_stats)), None

    nothing = jax.tree.map(jnp.zeros_like, state.params)
    start = nothing, (losses.zeros(run.train.objective), state.batch_stats)
    (total, rest), _ = lax.scan(one, start, (jnp.arange(parts), cut(x), cut(labels)))
    return jax.tree.map(lambda g: g / parts, total), rest


def evaluate(
    run: Run, problem: Problem, state: State, images: jax.Array, moments: Moments
) -> tuple[jax.Array, jax.Array]:
    """What evaluation computes of images [B, H, W, C], uint8 or float32 of the same values: the
    output [B, K], and x [B, h, w, C], what the model saw.
    """
    x = augment.evaluate_view(images, run.data, *moments[:2])
    state = used(state)
    variables = _variables(run, problem, state, state.params)
    with in_integers(run, problem, state):
        output, _ = nets.build(run, problem, {}).apply(variables, x, train=False)
    return output, x


def eval_step(
    run: Run,
    problem: Problem,
    state: State,
    images: jax.Array,
    labels: jax.Array,
    moments: Moments,
    mask: jax.Array,
) -> Sums:
    """Sums over the examples with mask 1. images [B, H, W, C] uint8, labels [B] int, mask [B]."""
    output, x = evaluate(run, problem, state, images, moments)
    if labels.ndim > 1:
        labels = augment.evaluate_points(labels, run.data, images.shape[1:])
    sums = _judged(run, problem, output, x, labels, mask)
    return sums | losses.beyond_five(output, labels, mask) if nets.five(run, problem) else sums


def _judged(
    run: Run,
    problem: Problem,
    output: jax.Array,
    x: jax.Array,
    labels: jax.Array,
    mask: jax.Array,
    smoothing: float | jax.Array = 0.0,
    train: bool = False,
) -> Sums:
    """Sums of the run's objective. output [B, D], x [B, h, w, C] what the model saw, labels [B]."""
    objective = run.train.objective
    if objective == "reconstruction":
        return losses.reconstruction(output, x.reshape(output.shape), mask)
    if objective == "landmarks":
        return losses.landmarks(output, labels, x.shape[1:3], mask)
    if objective == "margin" and train:
        return losses.margin(output, labels, mask, run.train.margin, run.train.radius)
    if objective in losses.OF_CLASSES:
        return losses.classification(output, labels, mask, smoothing)
    return losses.coded(output, labels, losses.codes(objective, problem.classes), mask)


def _variables(run: Run, problem: Problem, state: State, params: Any) -> dict[str, Any]:
    """What the net computes with at the state's step, `params` in the place of its own."""
    if run.compress.int8:
        on = state.step >= quantization.begins(run.compress, problem.steps)
        params = quantization.kernels_on_grid(params, on)
    return {"params": params, "batch_stats": state.batch_stats}


def in_integers(
    run: Run, problem: Problem, state: State
) -> contextlib.AbstractContextManager[None]:
    """Within, the net's layers are given integers where compress.int8 has them at that step."""
    if not run.compress.int8:
        return contextlib.nullcontext()
    on = state.step >= quantization.begins(run.compress, problem.steps)
    return quantization.inputs_on_grid(on)


def _held(updates: Any, stage: jax.Array, layers: int) -> Any:
    """The updates, zero outside of the layer that stage trains, as long as it trains one: momentum
    left from its own stage must not move a layer that is done.
    """

    def own(path: Any, update: jax.Array) -> jax.Array:
        names = [(f"fc{k}", f"decoder{k}") for k in range(1, layers + 1)]
        mine = next((i for i, pair in enumerate(names) if path[0].key in pair), layers)
        return jnp.where((stage == mine) | (stage == layers), update, jnp.zeros_like(update))

    return jax.tree_util.tree_map_with_path(own, updates)
