"""What `launch.py evaluate` judges: a net, its weights and pictures; of a file of weights, or of a
trained run.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxcnn import crops, models, nets, trained, weights
from jaxcnn.config import InputError
from jaxcnn.crops import Crops, Net
from jaxcnn.data import augment, photos
from jaxcnn.data.photos import Source
from jaxcnn.data.streamed import Held, Streamed
from jaxcnn.starts import LAST

Array = jax.Array
RESIZE = 256  # the shorter side of pictures, for published weights

# What published weights take; see weights/. Of RGB in 0..1, and of BGR in 0..255.
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CAFFE_MEAN = (103.939, 116.779, 123.68)

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


class Job(NamedTuple):
    """A net, its weights, and pictures: which of its outputs each of their classes is."""

    net: Net
    variables: Any
    source: Source
    places: list[int]
    step: int | None = None  # of a run's checkpoint


def of_weights(
    name: str,
    path: Path,
    source: Source,
    *,
    synsets: Sequence[str] | None = None,
    how: Crops = 1,
    sides: tuple[int, ...] = (),
    kind: str | None = None,
    trust: bool = False,
) -> Job:
    """The model `name` with the weights in `path`, on the pictures of `source`; its outputs are the
    classes of `source`, or `synsets`. `kind` is one of `INPUTS`.

    Raises `InputError` before anything is decoded if model, weights and pictures do not fit.
    """
    model = build(name)
    side, _, channels = models.MODELS[name].image
    if channels != 3:
        raise InputError(f"MODEL: {name!r} takes pictures of {channels} channel, not of 3.")
    kind = kind or ("caffe" if name.endswith("_keras") else "torchvision")
    if kind not in INPUTS:
        raise InputError(f"--input: {kind!r} is not one of {', '.join(map(repr, INPUTS))}.")
    places = output_places(source.classes, model, synsets)
    classes = tuple(sorted(set(synsets))) if synsets is not None else source.classes
    net = Net(name, model, side, channels, INPUTS[kind], classes)
    crops.check(net, how, sides or (source.side,))
    variables, _ = weights.load(path, model, trust=trust)
    return Job(net, variables, source, places)


def of_run(
    folder: Path,
    *,
    data_dir: Path | None = None,
    checkpoint: str = LAST,
    data: Path | None = None,
    split: str | None = None,
    how: Crops = 1,
    sides: tuple[int, ...] = (),
) -> Job:
    """A finished run, on a split of its own pictures, or of those in `data`, whose classes are some
    of its own; 'test' or, of those, 'validation' unless another is named. It is given what it is
    given in training: its `data.crop`, normalised by the moments of its training pictures.
    """
    found = trained.load(folder, data_dir, checkpoint)
    run, own = found.run, found.data
    if run.train.objective != "classification":
        raise InputError(
            f"RUN: its train.objective is {run.train.objective!r}; errors of classes come from"
            " 'classification' alone."
        )
    height, width, channels = found.problem.image_shape
    if height != width:
        raise InputError(f"RUN: crops are of squares; its pictures are {height}x{width} pixels.")
    normalize = augment.NORMALIZERS[run.data.normalize]
    mean, std = map(jnp.asarray, (own.mean, own.std))
    net = Net(
        name=run.model.name,
        model=nets.build(run, found.problem, {}),
        side=nets.seen(run, found.problem)[0],
        channels=channels,
        see=lambda x: normalize(x.astype(jnp.float32) / 255, mean, std),
        classes=own.classes,
        pad=run.data.pad,
        down=True,
    )
    sides = sides or (height,)
    crops.check(net, how, sides)
    source = _pictures(found, data, split or ("test" if data is None else "validation"), max(sides))
    if strange := [name for name in source.classes if name not in own.classes]:
        raise InputError(
            f"--data: {len(strange)} of its {len(source.classes)} classes are none of the run's:"
            f" {', '.join(strange[:3])}."
        )
    state = found.state
    variables = {"params": state.params, "batch_stats": state.batch_stats}
    places = [own.classes.index(name) for name in source.classes]
    return Job(net, variables, source, places, found.at)


def _pictures(found: trained.Trained, data: Path | None, split: str, side: int) -> Source:
    own, name = found.data, found.run.data.name
    if data is not None:
        if not isinstance(own, Streamed):
            raise InputError(f"--data: the run's {name!r} is in memory; only a run of data.stream.")
        return photos.open_split(data, split, side)
    if own.sizes[split] == 0:
        raise InputError(f"--split: {split!r} has no pictures in {name!r}.")
    if isinstance(own, Streamed):
        return getattr(own, split).at(side)
    if side != own.image_shape[0]:
        raise InputError(
            f"--resize: {side}; the run's {name!r} is in memory, at {own.image_shape[0]} pixels."
        )
    return Held(getattr(own, split), own.classes, f"{own.fingerprint} {split}")


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
