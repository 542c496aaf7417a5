"""Every architecture by name."""

import dataclasses
import fnmatch
from typing import Any, NamedTuple

import flax.linen as nn

from jaxcnn import config
from jaxcnn.config import InputError
from jaxcnn.models.alexnet import ALEXNETS, AlexNet
from jaxcnn.models.autoencoder import AUTOENCODERS, Autoencoder
from jaxcnn.models.googlenet import GOOGLENETS, GoogLeNet
from jaxcnn.models.lenet import LENETS, LeNet
from jaxcnn.models.mlp import MLP, MLPS
from jaxcnn.models.resnet import RESNETS, ResNet
from jaxcnn.models.vgg import VGGS, VGGNet


class Architecture(NamedTuple):
    module: type[nn.Module]
    image: tuple[int, int, int]  # H, W, C of the paper's input
    row: dict[str, Any]  # the fields in which the named form differs from the module's defaults


FAMILIES: dict[type[nn.Module], dict[str, tuple[tuple[int, int, int], dict[str, Any]]]] = {
    LeNet: LENETS,
    MLP: MLPS,
    Autoencoder: AUTOENCODERS,
    AlexNet: ALEXNETS,
    VGGNet: VGGS,
    GoogLeNet: GOOGLENETS,
    ResNet: RESNETS,
}
MODELS: dict[str, Architecture] = {
    name: Architecture(module, *row)
    for module, rows in FAMILIES.items()
    for name, row in rows.items()
}
KNOBS = tuple(f.name for f in dataclasses.fields(config.Model) if f.name != "name")


def list_models(pattern: str = "*") -> list[str]:
    """The names that match a wildcard."""
    return sorted(fnmatch.filter(MODELS, pattern))


def create_model(name: str, **fields: Any) -> nn.Module:
    """The architecture `name`, with `fields` in place of its own.

    Raises `InputError` for an unknown name, and for a field that the architecture does not have.
    """
    if name not in MODELS:
        hint = config.suggest(name, MODELS)
        raise InputError(
            f"model.name: {name!r} is no model.{hint} The models: {', '.join(list_models())}."
        )
    module, _, row = MODELS[name]
    known = {f.name for f in dataclasses.fields(module)} - {"parent", "name"}
    for field in fields:
        if field not in known:
            knobs = ", ".join(k for k in KNOBS if k in known)
            raise InputError(f"model.{field}: {name} has no such knob; its knobs: {knobs}.")
    return module(**(row | fields))


def from_config(model: config.Model, classes: int, **fields: Any) -> nn.Module:
    """The model of a run: every knob that is not left to the paper, and `fields` over those."""
    knobs = {k: getattr(model, k) for k in KNOBS if getattr(model, k) != "paper"}
    return create_model(model.name, classes=classes, **(knobs | fields))
