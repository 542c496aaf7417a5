"""Every architecture by name."""

import dataclasses
import fnmatch
from typing import Any

import flax.linen as nn

from jaxcnn import config
from jaxcnn.config import InputError
from jaxcnn.models.lenet import LENETS, LeNet5
from jaxcnn.models.mlp import MLP, MLPS

# name -> (module, the fields in which the named form differs from the module's defaults)
MODELS: dict[str, tuple[type[nn.Module], dict[str, Any]]] = {
    **{name: (LeNet5, row) for name, row in LENETS.items()},
    **{name: (MLP, row) for name, row in MLPS.items()},
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
    module, row = MODELS[name]
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
