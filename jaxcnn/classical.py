"""Models that are fitted at once by scikit-learn, not trained by steps: rivals of LeCun, Bottou,
Bengio, Haffner 1998, section III.C, the principal components of Hinton, Salakhutdinov 2006, and the
texture of faces of Ahonen, Hadid, Pietikainen 2006, Face description with local binary patterns,
IEEE PAMI 28(12).

| name          | is                                                                    |
|---------------|-----------------------------------------------------------------------|
| linear        | a weighted sum of the pixels for each class, by least squares         |
| knn           | the majority of the K nearest training pictures, Euclidean distance   |
| svm_rbf       | support vector machine, kernel exp(-gamma (x - y)^2), one against one |
| svm_poly4     | the same, kernel (gamma x y + 1)^4                                    |
| pca_quadratic | `linear` on 40 principal components and all their products            |
| pca           | no classifier: a picture from its principal components                |
| svm_linear    | support vector machine without a kernel, one against one              |
| logistic      | logistic regression, the softmax of a weighted sum                    |
| lbp           | `knn` of histograms of local binary patterns, by chi-square           |
| lbp_svm       | support vector machine on those, kernel exp(-gamma chi-square)        |

All see a picture as the nets' evaluation does, flattened, or, with `start.features`, the features
that the source's net has of it; `svm_linear` and `logistic` see each number standardised by its
mean and deviation over the training pictures. With `components`, the nearest neighbours and the
support vector machines see so many principal components (of faces, the eigenfaces of Turk &
Pentland 1991). None draws a random number, so a fit depends on its data alone, and the fit for the
test split is made anew rather than kept on disk.
"""

import warnings
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.metrics.pairwise import (
    additive_chi2_kernel,
    chi2_kernel,
    polynomial_kernel,
    rbf_kernel,
)
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, PolynomialFeatures, StandardScaler
from sklearn.svm import SVC

from jaxcnn import config
from jaxcnn.config import CLASSICAL, InputError, Run
from jaxcnn.data import augment
from jaxcnn.data.sources import Dataset, Split

GRAM = 10_000  # up to so many pictures the whole kernel matrix (800 MB) is made at once: faster
CHUNK = 1000  # pictures that are judged at a time
STORED = (
    *("coef_", "intercept_", "components_", "mean_", "explained_variance_", "dual_coef_"),
    "scale_",
)

Knobs = dict[str, Any]
# What a model is shown in place of the pixels: [N, h, w, C] float32, normalised -> [N, ...]
See = Callable[[np.ndarray], np.ndarray]


class Kind(NamedTuple):
    make: Callable[[Knobs, np.ndarray], Any]  # (knobs, pictures [N, D]) -> an estimator to fit
    paper: Knobs  # what 'paper' stands for


class Fitted(NamedTuple):
    run: Run
    estimator: Any
    data: Dataset
    see: See | None
    size: int  # numbers that stand for a picture


def fit(run: Run, data: Dataset, see: See | None = None) -> Fitted:
    """`see` gives the features that `start.features` asks for."""
    assert (see is None) == (run.start.features is None)
    x = _pictures(run, data, data.train, see)
    check(run, data, x.shape[1])
    estimator = KINDS[run.model.name].make(knobs(run.model), x)
    with warnings.catch_warnings():
        # One picture of each class is a question here, not an oversight.
        warnings.filterwarnings("ignore", "The number of unique classes is greater", UserWarning)
        fitted = estimator.fit(x, data.train.labels)
    return Fitted(run, fitted, data, see, x.shape[1])


def means(fitted: Fitted, split: Split) -> dict[str, float]:
    """As of a net (`losses.means`), but a classifier has no loss, and `pca` no error."""
    count = len(split.labels)
    rebuilds = fitted.run.train.objective == "reconstruction"
    total = 0.0
    for start in range(0, count, CHUNK):
        part = Split(*(a[start : start + CHUNK] for a in (split.images, split.labels)))
        x = _pictures(fitted.run, fitted.data, part, fitted.see)
        if rebuilds:
            back = fitted.estimator.inverse_transform(fitted.estimator.transform(x))
            total += float(np.square(back - x).sum())
        else:
            total += float((fitted.estimator.predict(x) != part.labels).sum())
    return {"loss" if rebuilds else "error": total / count, "count": count}


def parameters(fitted: Fitted) -> int:
    """How many numbers must be kept to judge a picture: of a support vector machine its vectors,
    of the nearest neighbours all training pictures. A net that gives the features is not counted.
    """
    total, width = 0, fitted.size  # numbers that a part sees of a picture
    for _, part in getattr(fitted.estimator, "steps", [("", fitted.estimator)]):
        stored, vectors = set(STORED), len(getattr(part, "support_", ()))
        if getattr(part, "kernel", None) == "linear":  # its weights are enough
            stored, vectors = stored - {"dual_coef_"}, 0
        if isinstance(part, KNeighborsClassifier):
            vectors = len(fitted.data.train.labels)
        total += vectors * width
        width = getattr(part, "n_components_", width)
        total += sum(np.size(getattr(part, name, ())) for name in stored)
    return total


def knobs(model: config.Model) -> Knobs:
    """Every knob of the model, with its own value in place of 'paper'."""
    own = {name: getattr(model, name) for name in CLASSICAL[model.name]}
    return {k: KINDS[model.name].paper[k] if v == "paper" else v for k, v in own.items()}


def check(run: Run, data: Dataset, size: int | None = None) -> None:
    """Raise `InputError` for what the model does not have or the data cannot feed; `size`: numbers
    that stand for a picture, where they are not its pixels.
    """
    name, own = run.model.name, CLASSICAL[run.model.name]
    for path in config.paths(run):
        # Under `start.features` a net's knobs are those of the source.
        own_or_net = (name, run.start.model or name)
        if path.startswith("model.") and not any(config.concerns(path, m) for m in own_or_net):
            if config.get(run, path) != "paper":
                raise InputError(f"{path}: {name} has no such knob; its knobs: {', '.join(own)}.")
    for path in ("data.shift", "data.crop", "data.flip", "data.noise", "data.color"):
        if config.get(run, path) not in (0, None):
            raise InputError(
                f"{path}: {config.get(run, path)}; {name} is fitted once, to the pictures as they"
                " are, and has no augmentation."
            )
    if run.train.probes:
        raise InputError(f"train.probes: {name} has no layers and no gradients to record.")
    objective = "reconstruction" if name == "pca" else "classification"
    if run.train.objective != objective:
        raise InputError(f"train.objective: {name} has {objective!r}, not {run.train.objective!r}.")
    n = len(data.train.labels)
    pixels = size or int(np.prod(augment.image_shape(run.data, data.train.images.shape[1:])))
    most = {"neighbors": n, "components": min(n, pixels)}
    if "cells" in own:
        if run.start.features is not None:
            raise InputError(f"start.features: {run.start.features!r}; {name} is of pixels.")
        sides = augment.image_shape(run.data, data.train.images.shape[1:])[:2]
        most["cells"] = min(sides) - 2 * RADIUS
    for knob, value in knobs(run.model).items():
        if value is not None and value > most.get(knob, value):
            raise InputError(
                f"model.{knob}: {value} is more than {n} training examples of {pixels} numbers"
                f" allow: at most {most[knob]}."
            )


def _pictures(run: Run, data: Dataset, split: Split, see: See | None) -> np.ndarray:
    """[N, D] float64."""
    moments: Any = (data.mean, data.std)
    if "cells" in CLASSICAL[run.model.name]:
        see = partial(texture, cells=knobs(run.model)["cells"])
    chunks: Any = (split.images[i : i + CHUNK] for i in range(0, len(split.labels), CHUNK))
    parts = [np.asarray(augment.evaluate_view(c, run.data, *moments)) for c in chunks]
    parts = parts if see is None else map(see, parts)
    return np.concatenate([*parts]).reshape(len(split.labels), -1).astype(np.float64)


# Local binary patterns ---------------------------------------------------------------------------

# Of a pixel's eight neighbours, those on a circle around it, which are no darker than it is are a
# ring of bits. Rings with at most two changes all around are uniform, and have a number each; the
# others share the last. Ojala, Pietikainen, Maenpaa 2002, IEEE PAMI 24(7), section 2.
NEIGHBORS, RADIUS = 8, 2
_RINGS = np.arange(2**NEIGHBORS)[:, None] >> np.arange(NEIGHBORS) & 1
_UNIFORM = (_RINGS != np.roll(_RINGS, 1, axis=1)).sum(1) <= 2
NUMBERS = np.where(_UNIFORM, np.cumsum(_UNIFORM) - 1, _UNIFORM.sum())  # [256], from 0 to 58
PATTERNS = int(NUMBERS.max()) + 1


def patterns(images: np.ndarray) -> np.ndarray:
    """[N, H, W, C] -> [N, H - 4, W - 4, C], from 0 to 58: of all pixels with a circle around them,
    that with the neighbour on their right as the first bit, the one above it as the next.
    """
    high, wide = (n - 2 * RADIUS for n in images.shape[1:3])

    def moved(down: int, right: int) -> np.ndarray:
        top, left = RADIUS + down, RADIUS + right
        return images[:, top : top + high, left : left + wide]

    middle = moved(0, 0)
    code = np.zeros(middle.shape, np.uint8)
    for bit, angle in enumerate(2 * np.pi * np.arange(NEIGHBORS) / NEIGHBORS):
        down, right = _between(-RADIUS * np.sin(angle)), _between(RADIUS * np.cos(angle))
        # Of differences: what is equal stays so, but for rounding.
        more = sum(
            p * q * (moved(i, j) - middle) for i, p in down.items() for j, q in right.items()
        )
        code |= np.uint8(1 << bit) * (more > -1e-5)
    return NUMBERS[code]


def _between(place: float) -> dict[int, float]:
    """The whole numbers around it and their shares in it."""
    place = round(place, 9)
    low, share = int(np.floor(place)), place % 1
    return {low: 1 - share, low + 1: share} if share else {low: 1.0}


def texture(images: np.ndarray, cells: int) -> np.ndarray:
    """[N, H, W, C] -> [N, cells, cells, C, 59]: each pattern's share of each cell of a grid."""
    rows = np.array_split(patterns(images), cells, axis=1)
    grid = [np.array_split(row, cells, axis=2) for row in rows]
    return np.array([[_shares(cell) for cell in row] for row in grid]).transpose(2, 0, 1, 3, 4)


def _shares(cell: np.ndarray) -> np.ndarray:
    return np.stack([(cell == k).mean((1, 2)) for k in range(PATTERNS)], axis=-1)


def _nearest_texture(knobs: Knobs, x: np.ndarray) -> Any:
    distances = FunctionTransformer(lambda other: -additive_chi2_kernel(other, x))
    return make_pipeline(distances, KNeighborsClassifier(knobs["neighbors"], metric="precomputed"))


def _texture_svm(knobs: Knobs, x: np.ndarray) -> SVC:
    gamma = knobs["gamma"]
    if gamma == "scale":
        gamma = -1 / additive_chi2_kernel(x).mean()
    return SVC(C=knobs["penalty"], kernel=partial(chi2_kernel, gamma=gamma))  # type: ignore


# The models --------------------------------------------------------------------------------------


def _least_squares(knobs: Knobs, x: np.ndarray) -> RidgeClassifier:
    return RidgeClassifier(alpha=knobs["ridge"] * len(x))


def _quadratic(knobs: Knobs, x: np.ndarray) -> Any:
    # The paper counts 821 products; with the components themselves these are 860 and a bias.
    # Whitened, so that `ridge` weighs all of them alike.
    pca = PCA(knobs["components"], whiten=True, svd_solver="covariance_eigh")
    return make_pipeline(pca, PolynomialFeatures(2, include_bias=False), _least_squares(knobs, x))


def _on_components(
    make: Callable[[Knobs, np.ndarray], Any],
) -> Callable[[Knobs, np.ndarray], Any]:
    """`make` for the principal components, where the knobs ask for any."""

    def made(knobs: Knobs, x: np.ndarray) -> Any:
        if knobs["components"] is None:
            return make(knobs, x)
        pca = PCA(knobs["components"], svd_solver="full")
        return make_pipeline(pca, make(knobs, pca.fit_transform(x)))

    return made


def _svm(kernel: Any, name: Any, **fixed: Any) -> Callable[[Knobs, np.ndarray], SVC]:
    def make(knobs: Knobs, x: np.ndarray) -> SVC:
        gamma = 1 / (x.shape[1] * x.var()) if knobs["gamma"] == "scale" else knobs["gamma"]
        if len(x) <= GRAM:
            whole: Any = partial(kernel, gamma=gamma, **fixed)
            return SVC(C=knobs["penalty"], kernel=whole)
        return SVC(C=knobs["penalty"], kernel=name, gamma=gamma, cache_size=2000, **fixed)

    return make


def _standardized(make: Callable[[float], Any]) -> Callable[[Knobs, np.ndarray], Any]:
    return lambda knobs, x: make_pipeline(StandardScaler(), make(knobs["penalty"]))


# scale: 1 / (pixels x their variance); of chi-square 1 / its mean
SVM: Knobs = {"penalty": 10.0, "gamma": "scale", "components": None}
KINDS: dict[str, Kind] = {
    "linear": Kind(_least_squares, {"ridge": 0.01}),
    "knn": Kind(
        _on_components(
            lambda knobs, x: KNeighborsClassifier(knobs["neighbors"], algorithm="brute")
        ),
        {"neighbors": 3, "components": None},
    ),
    "svm_rbf": Kind(_on_components(_svm(rbf_kernel, "rbf")), SVM),
    "svm_poly4": Kind(_on_components(_svm(polynomial_kernel, "poly", degree=4, coef0=1)), SVM),
    "pca_quadratic": Kind(_quadratic, {"components": 40, "ridge": 0.01}),
    "pca": Kind(
        lambda knobs, x: PCA(knobs["components"], svd_solver="covariance_eigh"),
        {"components": 30},
    ),
    "svm_linear": Kind(_standardized(lambda c: SVC(C=c, kernel="linear")), {"penalty": 0.01}),
    "logistic": Kind(
        _standardized(lambda c: LogisticRegression(C=c, max_iter=1000)), {"penalty": 0.01}
    ),
    "lbp": Kind(_nearest_texture, {"neighbors": 1, "cells": 7}),
    "lbp_svm": Kind(_texture_svm, {"penalty": 10.0, "gamma": "scale", "cells": 7}),
}
