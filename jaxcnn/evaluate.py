"""`launch.py evaluate`: the error of a model with given weights on pictures that are streamed."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from statsmodels.stats.proportion import proportion_confint

from jaxcnn import backend, models, published, sharding, weights
from jaxcnn.config import InputError
from jaxcnn.data.photos import Source
from jaxcnn.data.stream import LEFT_OUT, Stream
from jaxcnn.listing import Column, Listing

Array = jax.Array
Crops = Literal[1, 10]

# What published weights take; see weights/. Of RGB in 0..1, and of BGR in 0..255.
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CAFFE_MEAN = (103.939, 116.779, 123.68)
# The protocols of `published` that are ours, by the number of crops.
PROTOCOLS = {1: (published.ONE, "one net, 1 crop"), 10: (published.TEN,)}

# As torchvision's loader builds it: its weights were trained on other means; see weights/.
FIELDS: dict[str, dict[str, Any]] = {"googlenet_bn": {"transform_input": True}}


def torchvision_input(images: Array) -> Array:
    """[B, H, W, 3] uint8 RGB -> float32."""
    return (images.astype(jnp.float32) / 255 - _channels(MEAN)) / _channels(STD)


def caffe_input(images: Array) -> Array:
    """[B, H, W, 3] uint8 RGB -> float32 BGR."""
    return images[..., ::-1].astype(jnp.float32) - _channels(CAFFE_MEAN)


def _channels(values: tuple[float, ...]) -> Array:
    return jnp.array(values, jnp.float32)[None, None, None]


INPUTS: dict[str, Callable[[Array], Array]] = {
    "torchvision": torchvision_input,
    "caffe": caffe_input,
}


@dataclass(frozen=True)
class Evaluation:
    """Counts of pictures, and how long they took."""

    pictures: int  # that were read
    errors: tuple[int, int]  # top-1, top-5
    unreadable: dict[str, str]  # name -> why
    seconds: float  # without compiling

    def as_json(self) -> dict[str, Any]:
        both = zip(("top1", "top5"), self.errors, strict=True)
        errors = {n: {"errors": e, "interval": interval(e, self.pictures)} for n, e in both}
        rest = {"pictures": self.pictures, "seconds": self.seconds, "unreadable": self.unreadable}
        return rest | errors


def views(images: Array, crop: int, crops: Crops) -> Array:
    """images [B, S, S, C] -> [crops, B, crop, crop, C]: the centre; or the four corners and the
    centre, and the same mirrored (Krizhevsky et al. 2012, section 4.1).
    """
    return jnp.stack(
        [_view(images, crop, *place) for place in places(images.shape[1], crop, crops)]
    )


def places(side: int, crop: int, crops: Crops) -> list[tuple[int, int, bool]]:
    """(top, left, mirrored) of each crop in a square of `side` pixels."""
    middle, end = round((side - crop) / 2), side - crop
    if crops == 1:
        return [(middle, middle, False)]
    corners = [(0, 0), (0, end), (end, 0), (end, end), (middle, middle)]
    return [(*corner, mirrored) for mirrored in (False, True) for corner in corners]


def _view(images: Array, crop: int, top: Any, left: Any, mirrored: Any) -> Array:
    batch, _, _, channels = images.shape
    part = lax.dynamic_slice(images, (0, top, left, 0), (batch, crop, crop, channels))
    return jnp.where(mirrored, part[:, :, ::-1], part)


def predict(model: Any, variables: Any, images: Array, crop: int, crops: Crops, kind: str) -> Array:
    """Probabilities [B, K] of pictures [B, S, S, 3] uint8: the softmax, averaged over the crops, as
    Krizhevsky 2012 and Szegedy 2015 average it. One crop after the other, so ten take the memory
    of one.
    """

    def one(place: Array) -> Array:
        x = INPUTS[kind](_view(images, crop, place[0], place[1], place[2] > 0))
        logits, _ = model.apply(variables, x, train=False)
        return jax.nn.softmax(logits.astype(jnp.float32))

    return lax.map(one, jnp.array(places(images.shape[1], crop, crops), jnp.int32)).mean(0)


def count(scores: Array, labels: Array) -> Array:
    """scores [B, K], labels [B] int -> [3] int32: pictures, top-1 errors, top-5 errors; those
    labelled `LEFT_OUT` count nowhere, and scores that are not numbers are errors.
    """
    there = labels != LEFT_OUT
    best = lax.top_k(scores, min(5, scores.shape[1]))[1] == labels[:, None]
    best &= jnp.isfinite(scores).all(-1, keepdims=True)
    wrong = [~best[:, 0], ~best.any(-1)]
    return jnp.stack([there.sum(), *((w & there).sum() for w in wrong)])


def evaluate(
    name: str,
    path: Path,
    source: Source,
    *,
    places: Sequence[int] | None = None,
    crops: Crops = 1,
    kind: str | None = None,
    batch_size: int = 64,
    limit: int | None = None,
    workers: int = 0,
    trust: bool = False,
    devices: Sequence[Any] | None = None,
    progress: Callable[[int, int], None] | None = None,
    tell: Callable[[str], None] | None = None,
) -> Evaluation:
    """The model `name` with the weights in `path`, on the pictures of `source`.

    `places` are the model's outputs for the classes of the source (`output_places`); `kind` is one
    of `INPUTS`; `limit` pictures are drawn by seed 0; each batch is split over `devices`, by
    default all accelerators. Raises `InputError` before anything is decoded if model, weights and
    pictures do not fit.
    """
    if crops not in PROTOCOLS:
        raise InputError(f"--crops: {crops} is not one of {', '.join(map(str, PROTOCOLS))}.")
    model = build(name)
    crop, _, channels = models.MODELS[name].image
    if channels != 3:
        raise InputError(f"MODEL: {name!r} takes pictures of {channels} channel, not of 3.")
    if source.side < crop:
        raise InputError(f"--resize: {source.side} is less than the {crop} pixels of {name!r}.")
    places = output_places(source.classes, model) if places is None else places
    kind = kind or ("caffe" if name.endswith("_keras") else "torchvision")
    if kind not in INPUTS:
        raise InputError(f"--input: {kind!r} is not one of {', '.join(map(repr, INPUTS))}.")
    stream = Stream(source, batch_size, examples=limit)
    total = min(len(source), limit or len(source))
    variables, _ = weights.load(path, model, trust=trust)
    # One CPU device has all cores, and convolutions by oneDNN cannot be split over several.
    if devices is None:
        devices = jax.devices()[:1] if jax.default_backend() == "cpu" else jax.devices()
    mesh = sharding.make_mesh(1, len(devices), devices)
    variables = sharding.put(mesh, variables)
    step = _compiled(model, variables, mesh, stream, crop, crops, kind)
    where = np.array([*places, LEFT_OUT], np.int32)  # LEFT_OUT is the last one's index
    counts: list[Array] = []
    begun = time.perf_counter()
    with stream.batches(processes=workers, tell=tell) as batches:
        for i, (images, labels) in enumerate(batches, 1):
            images, labels = _padded(images, where[labels], _rows(batch_size, mesh))
            counts.append(step(variables, *sharding.put(mesh, (images, labels), "data")))
            if i > 1:  # one is computed while the next is decoded, and no more wait
                counts[-2].block_until_ready()
            if progress is not None:
                progress(min(i * batch_size, total), total)
    pictures, *errors = np.sum([np.asarray(c) for c in counts], axis=0).tolist()
    seconds = time.perf_counter() - begun
    return Evaluation(pictures, (errors[0], errors[1]), batches.unreadable, seconds)


def build(name: str) -> Any:
    """The model `name`, as published weights are for."""
    return models.create_model(name, **FIELDS.get(name, {}))


def output_places(
    classes: Sequence[str], model: Any, synsets: Sequence[str] | None = None
) -> list[int]:
    """Which output of the model each class is: its place among all classes, or among `synsets`."""
    if synsets is None:
        if len(classes) != model.classes:
            raise InputError(
                f"--data: it has {len(classes)} classes and the model {model.classes}. For some of"
                " ImageNet's, --synsets FILE names all of the model's, one a line."
            )
        return list(range(len(classes)))
    ordered = sorted(set(synsets))
    if len(ordered) != model.classes:
        raise InputError(
            f"--synsets: it names {len(ordered)} classes and the model has {model.classes}."
        )
    place = {synset: i for i, synset in enumerate(ordered)}
    if strange := [c for c in classes if c not in place]:
        raise InputError(
            f"--data: {len(strange)} of its {len(classes)} classes are none of --synsets:"
            f" {', '.join(strange[:3])}."
        )
    return [place[c] for c in classes]


def read_synsets(path: Path) -> list[str]:
    """The first word of each line."""
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"--synsets: {str(path)!r} cannot be read ({error}).") from error
    return [line.split()[0] for line in lines if line.strip()]


def interval(errors: int, pictures: int) -> tuple[float, float]:
    """Wilson's 95 % interval of an error rate."""
    bounds = np.asarray(proportion_confint(errors, pictures, method="wilson"))
    return float(bounds[0]), float(bounds[1])


def table(name: str, result: Evaluation, crops: Crops) -> Listing:
    """Ours, and below it what is published of this model by this protocol."""
    columns = (
        Column("what", "net", "l"),
        *(Column("top1", "top-1 error, %", form=".2f"), Column("top1_interval", "95 %")),
        *(Column("top5", "top-5 error, %", form=".2f"), Column("top5_interval", "95 %")),
        Column("pictures", "pictures"),
    )
    row: dict[str, Any] = {"what": f"{name}, {crops} crop{'s' * (crops > 1)}, here"}
    row["pictures"] = result.pictures
    for key, errors in zip(("top1", "top5"), result.errors, strict=True):
        row[key] = 100 * errors / result.pictures
        low, high = interval(errors, result.pictures)
        row[f"{key}_interval"] = f"{100 * low:.2f} to {100 * high:.2f}"
    rows = [row]
    for one in published.RESULTS:
        if (one.model, one.data) == (name, published.VALIDATION) and one.protocol.startswith(
            PROTOCOLS[crops]
        ):
            figures = {"top1": one.top1, "top5": one.top5, "pictures": 50_000}
            nothing = {"top1_interval": None, "top5_interval": None}
            rows.append({"what": f"published: {one.source}"} | figures | nothing)
    note = "Published figures are of all 50,000 pictures of ILSVRC-2012's validation split."
    title = f"{name} with the given weights"
    return Listing("evaluation", title, columns, tuple(rows), note if len(rows) > 1 else "")


def _compiled(
    model: Any, variables: Any, mesh: Any, stream: Stream, crop: int, crops: Crops, kind: str
) -> Any:
    side, rows = stream.source.side, _rows(stream.batch_size, mesh)
    images, labels = np.zeros((rows, side, side, 3), np.uint8), np.zeros(rows, np.int32)
    put = partial(sharding.put, mesh)

    def step(variables: Any, images: Array, labels: Array) -> Array:
        return count(predict(model, variables, images, crop, crops, kind), labels)

    program = jax.jit(step, compiler_options=backend.compiler_options())
    return program.lower(variables, *put((images, labels), "data")).compile()


def _rows(batch_size: int, mesh: Any) -> int:
    """Rows of the program: each device has as many."""
    return -(-batch_size // mesh.size) * mesh.size


def _padded(images: np.ndarray, labels: np.ndarray, rows: int) -> tuple[np.ndarray, np.ndarray]:
    missing = rows - len(labels)
    if missing == 0:
        return images, labels
    return (
        np.pad(images, ((0, missing), (0, 0), (0, 0), (0, 0))),
        np.pad(labels, (0, missing), constant_values=LEFT_OUT),
    )
