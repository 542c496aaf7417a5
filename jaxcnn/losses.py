"""Losses and counts. A step returns sums and a count, never means; the host divides once.

Sums have 'loss' and 'count', those of a classifier 'errors' too, and those of its evaluation on
more than `FEW` classes 'errors5': examples whose class is not among its five best.
"""

import jax
import jax.numpy as jnp

from jaxcnn import landmarks as faces

Sums = dict[str, jax.Array]
FAILURE = 0.1  # a face whose normalised mean error is above
OF_CLASSES = ("classification", "margin")  # objectives whose outputs are a score for each class
FEW = 10  # classes, of which five best say little


def classification(
    logits: jax.Array, labels: jax.Array, mask: jax.Array, smoothing: float | jax.Array = 0.0
) -> Sums:
    """Summed cross-entropy and errors. logits [B, K], labels [B] int, mask [B] 0 or 1 -> sums [].

    With `smoothing` s the target is 1 - s on the label plus s / K everywhere (Szegedy 2016, section
    7).
    """
    log_p = jax.nn.log_softmax(logits.astype(jnp.float32))
    nll = -jnp.take_along_axis(log_p, labels[:, None], axis=-1)[:, 0]
    loss = (1 - smoothing) * nll - smoothing * log_p.mean(axis=-1)
    # argmax calls scores that are no numbers class 0; they name none.
    wrong = (jnp.argmax(logits, axis=-1) != labels) | jnp.isnan(nll)
    # A masked row adds nothing even when its loss is not a number.
    return {
        "loss": jnp.sum(jnp.where(mask > 0, loss, 0.0)),
        "errors": jnp.sum(wrong * mask),
        "count": jnp.sum(mask),
    }


def distillation(logits: jax.Array, teacher: jax.Array, temperature: jax.Array) -> jax.Array:
    """Summed divergence of a net's classes from its teacher's, both softened by the temperature,
    times its square, by which that makes the gradients smaller (Hinton, Vinyals, Dean 2015,
    Distilling the knowledge in a neural network, arXiv:1503.02531, section 2). logits, teacher
    [B, K] -> [].
    """
    ours = jax.nn.log_softmax(logits.astype(jnp.float32) / temperature)
    theirs = jax.nn.log_softmax(teacher.astype(jnp.float32) / temperature)
    return temperature**2 * jnp.sum(jnp.exp(theirs) * (theirs - ours))


def margin(
    logits: jax.Array, labels: jax.Array, mask: jax.Array, angle: float, radius: float
) -> Sums:
    """As `classification`, but the label's score is that of an angle larger by `angle`, in radians
    (Deng et al. 2019, ArcFace, equation 3); errors are of the scores as they are.

    logits [B, K] are `radius` times cosines. Where the larger angle would be beyond pi, and its
    cosine rise again, the cosine is lowered by what keeps it falling, as in the authors' code.
    """
    classes = jnp.arange(logits.shape[1])[None]
    # At the ends an angle's slope is infinite.
    cosine = jnp.clip(logits.astype(jnp.float32) / radius, -1 + 1e-6, 1 - 1e-6)
    larger = cosine * jnp.cos(angle) - jnp.sqrt(1 - jnp.square(cosine)) * jnp.sin(angle)
    larger = jnp.where(cosine > -jnp.cos(angle), larger, cosine - angle * jnp.sin(angle))
    moved = jnp.where(classes == labels[:, None], radius * larger, logits)
    sums = classification(moved, labels, mask)
    return sums | {"errors": classification(logits, labels, mask)["errors"]}


def beyond_five(logits: jax.Array, labels: jax.Array, mask: jax.Array) -> Sums:
    """Examples whose class is not among the five best (Russakovsky et al. 2015, section 4.1);
    logits that are not numbers are errors. logits [B, K], labels [B] int, mask [B] -> sums [].
    """
    best = jax.lax.top_k(logits.astype(jnp.float32), 5)[1]
    right = (best == labels[:, None]).any(-1) & jnp.isfinite(logits).all(-1)
    return {"errors5": jnp.sum(~right * mask)}


def coded(output: jax.Array, labels: jax.Array, codes: jax.Array, mask: jax.Array) -> Sums:
    """Summed squared error to the code of the label, and errors of the nearest code. output [B, D],
    labels [B] int, codes [K, D], mask [B] -> sums [].
    """
    distance = jnp.sum(jnp.square(output.astype(jnp.float32)[:, None] - codes[None]), axis=-1)
    loss = jnp.take_along_axis(distance, labels[:, None], axis=-1)[:, 0]
    wrong = jnp.argmin(distance, axis=-1) != labels
    return {
        "loss": jnp.sum(jnp.where(mask > 0, loss, 0.0)),
        "errors": jnp.sum(wrong * mask),
        "count": jnp.sum(mask),
    }


def codes(objective: str, classes: int) -> jax.Array:
    """[K, D]: the classes' outputs under 'one_hot' (D = K) and 'scalar' (D = 1), where they are the
    numbers of the classes less their mean, over their standard deviation.
    """
    if objective == "one_hot":
        return jnp.eye(classes)
    numbers = jnp.arange(classes, dtype=jnp.float32)
    return ((numbers - numbers.mean()) / numbers.std())[:, None]


def reconstruction(output: jax.Array, target: jax.Array, mask: jax.Array) -> Sums:
    """Squared error of a picture, summed over its pixels (Hinton & Salakhutdinov 2006). output and
    target [B, D], mask [B] -> sums [].
    """
    loss = jnp.sum(jnp.square((output - target).astype(jnp.float32)), axis=-1)
    return {"loss": jnp.sum(jnp.where(mask > 0, loss, 0.0)), "count": jnp.sum(mask)}


def landmarks(output: jax.Array, points: jax.Array, size: tuple[int, ...], mask: jax.Array) -> Sums:
    """Summed normalised mean error: the mean distance of a face's points from where they are, over
    that of its eyes' outer corners; `errors` are faces where it is above 0.1 (Sagonas et al. 2013).

    output [B, 2 P]: x, y from the middle of a picture of `size` (H, W), in halves of it; points
    [B, P, 2] in pixels; mask [B] -> sums [].
    """
    half = jnp.array([[[size[1], size[0]]]], jnp.float32) / 2
    found = output.astype(jnp.float32).reshape(points.shape) * half + (half - 0.5)
    # A root has no gradient at 0, where a point that is met exactly would be.
    distance = jnp.sqrt(jnp.sum(jnp.square(found - points), axis=-1) + 1e-6)
    left, right = faces.points(points.shape[1]).eyes
    eyes = jnp.linalg.norm(points[:, left] - points[:, right], axis=-1)
    error = jnp.mean(distance, axis=1) / eyes
    return {
        "loss": jnp.sum(jnp.where(mask > 0, error, 0.0)),
        "errors": jnp.sum(~(error <= FAILURE) * mask),
        "count": jnp.sum(mask),
    }


def zeros(objective: str, five: bool = False) -> Sums:
    """Sums of nothing; `five`: those of an evaluation that looks for the five best, too."""
    names = ("loss", "count") if objective == "reconstruction" else ("loss", "errors", "count")
    return {name: jnp.zeros(()) for name in (*names, *(("errors5",) if five else ()))}


def means(sums: dict[str, float]) -> dict[str, float]:
    """On the host: {"loss": mean, "error": share, "error5": share, "count": examples}."""
    count = float(sums["count"])
    found = {"loss": float(sums["loss"]) / count, "count": int(count)}
    if "errors" in sums:
        found["error"] = float(sums["errors"]) / count
    if "errors5" in sums:
        found["error5"] = float(sums["errors5"]) / count
    return found
