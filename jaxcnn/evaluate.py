"""`launch.py evaluate`: the error of a model with given weights, or of a trained run, on pictures
that are streamed.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from statsmodels.stats.proportion import proportion_confint

from jaxcnn import backend, crops, published, sharding
from jaxcnn.crops import Crops, Net
from jaxcnn.data.stream import LEFT_OUT, Stream
from jaxcnn.jobs import Job
from jaxcnn.listing import Column, Listing
from jaxcnn.wordnet import Levels

Array = jax.Array

# The protocols of `published` that are ours, by the crops, of one size and of several.
PROTOCOLS: dict[tuple[Crops, bool], tuple[str, ...]] = {
    (1, False): (published.ONE, "one net, 1 crop"),
    (10, False): (published.TEN,),
    ("dense", False): (published.DENSE,),
    ("dense", True): (published.MANY,),
}


@dataclass(frozen=True)
class Evaluation:
    """Counts of pictures, and how long they took."""

    pictures: int  # that were read
    errors: tuple[int, int]  # top-1, top-5
    unreadable: dict[str, str]  # name -> why
    seconds: float  # without compiling
    levels: tuple[int, ...] = ()  # errors at each of `wordnet.Levels`

    def as_json(self) -> dict[str, Any]:
        both = zip(("top1", "top5"), self.errors, strict=True)
        errors = {n: {"errors": e, "interval": interval(e, self.pictures)} for n, e in both}
        rest = {"pictures": self.pictures, "seconds": self.seconds, "unreadable": self.unreadable}
        return rest | errors | ({"levels": list(self.levels)} if self.levels else {})


def count(scores: Array, labels: Array, above: Array | None = None) -> Array:
    """scores [B, K], labels [B] int -> [3 + D] int32: pictures, top-1 errors, top-5 errors, and
    errors at each of the levels `above` [D, K]; those labelled `LEFT_OUT` count nowhere, and scores
    that are not numbers are errors.
    """
    there = labels != LEFT_OUT
    finite = jnp.isfinite(scores).all(-1)
    first = lax.top_k(scores, min(5, scores.shape[1]))[1]
    best = (first == labels[:, None]) & finite[:, None]
    wrong = [~best[:, 0], ~best.any(-1)]
    if above is not None:
        wrong += [~(finite & (level[first[:, 0]] == level[labels])) for level in above]
    return jnp.stack([there.sum(), *((w & there).sum() for w in wrong)])


def judge(
    job: Job,
    *,
    how: Crops = 1,
    sides: tuple[int, ...] = (),
    levels: Levels | None = None,
    batch_size: int = 64,
    limit: int | None = None,
    workers: int = 0,
    devices: Sequence[Any] | None = None,
    progress: Callable[[int, int], None] | None = None,
    tell: Callable[[str], None] | None = None,
) -> Evaluation:
    """The errors of a net. `limit` pictures are drawn by seed 0; each batch is split over
    `devices`, by default all accelerators.
    """
    source = job.source
    stream = Stream(source, batch_size, examples=limit)
    total = min(len(source), limit or len(source))
    # One CPU device has all cores, and convolutions by oneDNN cannot be split over several.
    if devices is None:
        devices = jax.devices()[:1] if jax.default_backend() == "cpu" else jax.devices()
    mesh = sharding.make_mesh(1, len(devices), devices)
    variables = sharding.put(mesh, job.variables)
    one = _compiled(job.net, variables, mesh, stream, how, sides, levels)
    where = np.array([*job.places, LEFT_OUT], np.int32)  # LEFT_OUT is the last one's index
    counts: list[Array] = []
    begun = time.perf_counter()
    with stream.batches(processes=workers, tell=tell) as batches:
        for i, (images, labels) in enumerate(batches, 1):
            images, labels = _padded(images, where[labels], _rows(batch_size, mesh))
            counts.append(one(variables, *sharding.put(mesh, (images, labels), "data")))
            if i > 1:  # one is computed while the next is decoded, and no more wait
                counts[-2].block_until_ready()
            if progress is not None:
                progress(min(i * batch_size, total), total)
    pictures, first, five, *rest = np.sum([np.asarray(c) for c in counts], axis=0).tolist()
    seconds = time.perf_counter() - begun
    return Evaluation(pictures, (first, five), batches.unreadable, seconds, tuple(rest))


def interval(errors: int, pictures: int) -> tuple[float, float]:
    """Wilson's 95 % interval of an error rate."""
    bounds = np.asarray(proportion_confint(errors, pictures, method="wilson"))
    return float(bounds[0]), float(bounds[1])


def words(how: Crops, sides: tuple[int, ...] = ()) -> str:
    """'10 crops', 'dense, 256 and 384 pixels'."""
    said = how if isinstance(how, str) else f"{how} crop{'s' * (how > 1)}"
    return said + (f", {' and '.join(map(str, sides))} pixels" if len(sides) > 1 else "")


def table(
    name: str,
    result: Evaluation,
    how: Crops,
    sides: tuple[int, ...] = (),
    run: str | None = None,
    compared: bool = True,
) -> Listing:
    """Ours, of given weights or of a run, and below it what is published of this model by this
    protocol, where it can be compared.
    """
    columns = (
        Column("what", "net", "l"),
        *(Column("top1", "top-1 error, %", form=".2f"), Column("top1_interval", "95 %")),
        *(Column("top5", "top-5 error, %", form=".2f"), Column("top5_interval", "95 %")),
        Column("pictures", "pictures"),
    )
    row: dict[str, Any] = {"what": f"{name}, {words(how, sides)}, here"}
    row["pictures"] = result.pictures
    for key, errors in zip(("top1", "top5"), result.errors, strict=True):
        row[key] = 100 * errors / result.pictures
        low, high = interval(errors, result.pictures)
        row[f"{key}_interval"] = f"{100 * low:.2f} to {100 * high:.2f}"
    rows = [row]
    protocols = PROTOCOLS.get((how, len(sides) > 1), ())
    for one in published.RESULTS:
        same = (one.model, one.data) == (name, published.VALIDATION)
        if compared and same and one.protocol.startswith(protocols):
            figures = {"top1": one.top1, "top5": one.top5, "pictures": 50_000}
            nothing = {"top1_interval": None, "top5_interval": None}
            rows.append({"what": f"published: {one.source}"} | figures | nothing)
    note = "Published figures are of all 50,000 pictures of ILSVRC-2012's validation split."
    title = f"{name} with the given weights" if run is None else run
    return Listing("evaluation", title, columns, tuple(rows), note if len(rows) > 1 else "")


def level_table(result: Evaluation, levels: Levels) -> Listing:
    """A row a level of WordNet, from the root on."""
    columns = (
        *(Column("level", "level"), Column("synsets", "synsets")),
        Column("largest", "those with the most classes", "l"),
        *(Column("error", "error, %", form=".2f"), Column("interval", "95 %")),
    )
    rows = []
    for i, errors in enumerate(result.levels):
        low, high = (100 * bound for bound in interval(errors, result.pictures))
        row = {"level": i + 1, "synsets": levels.sizes[i], "largest": ", ".join(levels.largest[i])}
        row |= {"error": 100 * errors / result.pictures, "interval": f"{low:.2f} to {high:.2f}"}
        rows.append(row)
    note = (
        "Level 0 is entity, which is all there is; a class above a level stands there for itself."
    )
    return Listing("levels", "Errors at the levels of WordNet", columns, tuple(rows), note)


def _compiled(
    net: Net,
    variables: Any,
    mesh: Any,
    stream: Stream,
    how: Crops,
    sides: tuple[int, ...],
    levels: Levels | None,
) -> Any:
    side, rows = stream.source.side, _rows(stream.batch_size, mesh)
    images = np.zeros((rows, side, side, net.channels), np.uint8)
    labels, put = np.zeros(rows, np.int32), partial(sharding.put, mesh)
    above = None if levels is None else jnp.asarray(levels.above)

    def one(variables: Any, images: Array, labels: Array) -> Array:
        return count(crops.predict(net, variables, images, how, sides), labels, above)

    program = jax.jit(one, compiler_options=backend.compiler_options())
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
