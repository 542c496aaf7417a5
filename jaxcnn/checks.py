"""What a `Run` may be: the range of each number, and which parts have a use beside which."""

import math
import operator
from collections.abc import Callable
from typing import Any

from jaxcnn.config import CLASSICAL, PROBES, Data, InputError, Run, Start, Train

SHARE = (lambda v: 0 <= v < 1, "in [0, 1)")
POSITIVE = (lambda v: v >= 1, "at least 1")
ABOVE_0 = (lambda v: v > 0, "above 0")
NOT_NEGATIVE = (lambda v: v >= 0, "at least 0")
CLASSES = (
    lambda v: len(set(v)) == len(v) >= 2 and min(v) >= 0,
    "two or more different numbers, all at least 0",
)
RANGES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "model.pool_window": POSITIVE,
    "model.pool_stride": POSITIVE,
    "model.dropout": SHARE,
    "model.widths": (lambda v: len(v) > 0 and min(v) >= 1, "one or more, all at least 1"),
    "model.head": (lambda v: all(n >= 1 for n in v), "all at least 1"),
    "model.width_multiplier": ABOVE_0,
    "model.bn_momentum": SHARE,
    "model.bn_epsilon": ABOVE_0,
    "model.groups": POSITIVE,
    "model.blocks": (lambda v: len(v) > 0 and min(v) >= 1, "one or more, all at least 1"),
    "model.heatmaps": NOT_NEGATIVE,
    "model.penalty": ABOVE_0,
    "model.gamma": ABOVE_0,
    "model.ridge": ABOVE_0,
    "model.neighbors": POSITIVE,
    "model.components": POSITIVE,
    "model.cells": POSITIVE,
    "data.classes": CLASSES,
    "data.train_examples": POSITIVE,
    "data.per_class": POSITIVE,
    "data.validation_examples": NOT_NEGATIVE,
    "data.test_per_class": POSITIVE,
    "data.unseen": (lambda v: v >= 2, "at least 2"),
    "data.split_seed": NOT_NEGATIVE,
    "data.side": POSITIVE,
    "data.resize": POSITIVE,
    "data.pad": NOT_NEGATIVE,
    "data.shift": NOT_NEGATIVE,
    "data.crop": POSITIVE,
    "data.scale": POSITIVE,
    "data.area": (lambda v: 0 < v <= 1, "in (0, 1]"),
    "data.aspect": POSITIVE,
    "data.rotate": (lambda v: 0 <= v <= 180, "in [0, 180]"),
    "data.zoom": POSITIVE,
    "data.noise": NOT_NEGATIVE,
    "data.color": NOT_NEGATIVE,
    "optim.lr": ABOVE_0,
    "optim.momentum": SHARE,
    "optim.beta2": SHARE,
    "optim.weight_decay": NOT_NEGATIVE,
    "optim.warmup": SHARE,
    "optim.milestones": (
        lambda v: list(v) == sorted(set(v)) and all(0 < m < 1 for m in v),
        "rising shares of all steps, in (0, 1)",
    ),
    "optim.factor": (lambda v: 0 < v <= 1, "in (0, 1]"),
    "optim.ema": SHARE,
    "train.batch_size": POSITIVE,
    "train.accumulate": POSITIVE,
    "train.norm_parts": POSITIVE,
    "train.epochs": ABOVE_0,
    "train.steps": POSITIVE,
    "train.eval_every": POSITIVE,
    "train.eval_train_examples": POSITIVE,
    "train.label_smoothing": SHARE,
    "train.side_head_weight": NOT_NEGATIVE,
    "train.margin": (lambda v: 0 <= v < math.pi / 2, "in [0, pi/2)"),
    "train.radius": ABOVE_0,
    "train.greedy": SHARE,
    "train.probes": (lambda v: set(v) <= set(PROBES), f"some of {', '.join(map(repr, PROBES))}"),
    "compress.sparsity": SHARE,
    "compress.prune_from": (lambda v: 0 <= v <= 1, "in [0, 1]"),
    "compress.prune_until": (lambda v: 0 <= v <= 1, "in [0, 1]"),
    "compress.bits": (lambda v: 1 <= v <= 8, "1 to 8"),
    "compress.share_from": (lambda v: 0 <= v <= 1, "in [0, 1]"),
    "compress.int8_from": (lambda v: 0 <= v <= 1, "in [0, 1]"),
    "compress.rank": POSITIVE,
    "compress.distill": (lambda v: 0 <= v <= 1, "in [0, 1]"),
    "compress.temperature": ABOVE_0,
    "start.classes": CLASSES,
    "start.train_examples": POSITIVE,
    "start.epochs": ABOVE_0,
    "start.steps": POSITIVE,
    "start.lr": ABOVE_0,
    "start.rate": ABOVE_0,
    "start.thaw": SHARE,
    "seed": (lambda v: 0 <= v < 2**31, "in [0, 2^31)"),
}


_numbers = operator.attrgetter(*RANGES)  # all at once: experiments have runs by the thousand


def check(run: Run) -> None:
    """Raise `InputError` for a number out of range; shapes are checked where programs are built."""
    for (path, (allowed, words)), value in zip(RANGES.items(), _numbers(run), strict=True):
        if value is None or value in ("paper", "auto"):
            continue
        if (isinstance(value, float) and not math.isfinite(value)) or not allowed(value):
            raise InputError(f"{path}: {value!r} is not allowed; it must be {words}.")
    parts = run.train.accumulate * run.train.norm_parts
    if run.train.batch_size != "auto" and run.train.batch_size % parts:
        raise InputError(
            f"train.batch_size: {run.train.batch_size} is no multiple of train.accumulate times"
            f" train.norm_parts, {run.train.accumulate} x {run.train.norm_parts}."
        )
    if run.train.label_smoothing and run.train.objective != "classification":
        raise InputError(
            f"train.label_smoothing: {run.train.label_smoothing} is of the cross-entropy;"
            f" train.objective {run.train.objective!r} has none."
        )
    for name in ("margin", "radius"):
        if (value := getattr(run.train, name)) != getattr(Train, name):
            if run.train.objective != "margin":
                raise InputError(
                    f"train.{name}: {value} is of train.objective margin, not of"
                    f" {run.train.objective!r}."
                )
    _check_compress(run)
    _check_start(run)
    _check_boxes(run.data)
    if run.data.unseen is not None:
        _check_unseen(run)
    _check_heatmaps(run)
    if run.train.objective == "landmarks":
        for name, off in (("scale", 1), ("area", 1), ("classes", None), ("per_class", None)):
            if (value := getattr(run.data, name)) != off:
                raise InputError(
                    f"data.{name}: {value} has no use beside train.objective landmarks."
                )
    if run.data.stream:
        _check_stream(run)
    elif run.data.side != Data.side:
        raise InputError(f"data.side: {run.data.side} is of streamed pictures: data.stream=true.")


def _check_compress(run: Run) -> None:
    own = run.compress
    if own.prune_from > own.prune_until:
        raise InputError(
            f"compress.prune_from: {own.prune_from} is later than compress.prune_until,"
            f" {own.prune_until}."
        )
    if own.sparsity and own.bits and own.share_from < own.prune_until:
        raise InputError(
            f"compress.share_from: {own.share_from} is earlier than compress.prune_until,"
            f" {own.prune_until}: values are shared among the weights that are left."
        )
    if run.optim.ema and (own.sparsity or own.bits):
        raise InputError(
            f"optim.ema: {run.optim.ema} is of no use beside compress.*: a mean of weights is"
            " neither sparse nor shared."
        )
    if run.start.freeze and own.on:
        raise InputError(
            f"start.freeze: {run.start.freeze} keeps layers as they are, and compress.* changes"
            " every kernel."
        )
    if own.int8 and own.bits:
        raise InputError(
            f"compress.int8: true has no use beside compress.bits: {own.bits}, whose values are of"
            " any size."
        )
    if own.int8 and run.train.precision == "bfloat16":
        raise InputError(
            "compress.int8: true needs train.precision 'float32', which holds every product of 8"
            " bits, not 'bfloat16'."
        )
    if own.int8 and run.train.greedy:
        raise InputError(f"compress.int8: true has no use beside train.greedy: {run.train.greedy}.")
    if own.distill:
        _check_teacher(run)


def _check_teacher(run: Run) -> None:
    start, asked = run.start, f"compress.distill: {run.compress.distill:g}"
    if not start.on:
        raise InputError(
            f"{asked} needs a teacher: start.data: {run.data.name!r} for one that is trained first,"
            " or start.weights."
        )
    if run.train.objective != "classification":
        raise InputError(
            f"{asked} is of classes; train.objective is {run.train.objective!r}, not"
            " 'classification'."
        )
    if start.model in CLASSICAL:
        raise InputError(f"start.model: {start.model!r} is fitted at once and is no teacher.")
    if run.train.probes:
        raise InputError(f"{asked} has no use beside train.probes: {run.train.probes}.")
    for name in ("name", "classes"):
        theirs, ours = {"name": start.data}.get(name, start.classes), getattr(run.data, name)
        if start.data is not None and theirs != ours:
            raise InputError(
                f"start.{'data' if name == 'name' else name}: {theirs!r}; {asked} needs a teacher"
                f" of the run's own classes, data.{name} {ours!r}."
            )


def _check_start(run: Run) -> None:
    start, name = run.start, run.model.name
    if start.data is not None and start.weights is not None:
        raise InputError(
            f"start.weights: {start.weights!r}; start.data is {start.data!r}, and only one of them"
            " can be what the run starts from."
        )
    if start.thaw and not start.freeze:
        raise InputError(f"start.thaw: {start.thaw}; start.freeze names no layer to thaw.")
    if name not in CLASSICAL:
        # A teacher may be another net; only its classes are asked for.
        for path in ("features",) if run.compress.distill else ("model", "features"):
            if getattr(start, path) is not None:
                raise InputError(
                    f"start.{path}: {getattr(start, path)!r}; only for models that are fitted at"
                    f" once: {', '.join(CLASSICAL)}. model.name is {name!r}."
                )
        return
    for path in ("layers", "rate", "freeze", "thaw"):
        if getattr(start, path) != getattr(Start(), path):
            raise InputError(f"start.{path}: {name} is fitted at once and has no layers to train.")
    needed = {"start.data": start.data or start.weights}
    needed |= {f"start.{path}": getattr(start, path) for path in ("model", "features")}
    if start.model in CLASSICAL:
        raise InputError(f"start.model: {start.model!r} is fitted at once and has no layers.")
    missing = [path for path, value in needed.items() if value is None]
    if 0 < len(missing) < len(needed):
        raise InputError(
            f"{missing[0]}: none; the features of a net need start.data or start.weights,"
            " start.model and start.features."
        )


def _check_unseen(run: Run) -> None:
    asked = f"data.unseen: {run.data.unseen}"
    if run.data.test_per_class is not None:
        raise InputError(
            f"{asked}; data.test_per_class is {run.data.test_per_class}, and only one of them can"
            " make the test split."
        )
    if run.model.name in CLASSICAL:
        raise InputError(f"{asked}; {run.model.name} has no embedding, but names classes.")
    if run.train.objective not in ("classification", "margin"):
        raise InputError(
            f"{asked}; train.objective is {run.train.objective!r}, neither 'classification' nor"
            " 'margin'."
        )


def _check_heatmaps(run: Run) -> None:
    count = run.model.heatmaps
    if count in ("paper", 0):
        return
    if run.train.objective != "landmarks":
        raise InputError(
            f"model.heatmaps: {count}; they find points: train.objective landmarks, not"
            f" {run.train.objective!r}."
        )
    for name in ("head", "dropout"):
        if (value := getattr(run.model, name)) != "paper":
            raise InputError(
                f"model.{name}: {value} is of the fully-connected layers, in whose place"
                f" model.heatmaps, {count}, stands."
            )


def _check_boxes(data: Data) -> None:
    """Of crops of random size: what does not go together."""
    if data.aspect != Data.aspect and data.area == 1:
        raise InputError(f"data.aspect: {data.aspect:g} is of data.area, which is 1: off.")
    if data.scale == 1 and data.area == 1:
        return
    asked = f"data.area: {data.area:g}" if data.area != 1 else f"data.scale: {data.scale:g}"
    if data.scale != 1 and data.area != 1:
        raise InputError(f"{asked} has no use beside data.scale: {data.scale:g}; one of them is 1.")
    if data.crop is None:
        raise InputError(f"{asked} needs the side of the crop, data.crop.")
    for name in ("pad", "shift"):
        if getattr(data, name):
            raise InputError(f"{asked} has no use beside data.{name}: {getattr(data, name)}.")


def _check_stream(run: Run) -> None:
    """What takes the pictures from memory."""
    if run.data.resize is not None:
        raise InputError(
            f"data.resize: {run.data.resize} is of pictures in memory; those of data.stream have"
            " their size by data.side."
        )
    names = ("classes", "per_class", "test_per_class", "unseen")
    asked = {name: getattr(run.data, name) for name in names}
    for name, value in asked.items():
        if value is not None:
            raise InputError(f"data.{name}: {value} is of pictures in memory, not of data.stream.")
    if run.model.name in CLASSICAL:
        raise InputError(
            f"data.stream: true; model.name {run.model.name!r} is fitted at once to pictures in"
            " memory."
        )
    if run.train.probes:
        raise InputError(f"train.probes: {run.train.probes} look at pictures in memory only.")
