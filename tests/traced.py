"""Models as traced programs, for tests: their variables and operations without making weights, and
how many places a knob has to reach in each family.
"""

import math
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxcnn import kernels, models

Image = tuple[int, int, int]

# One of each family, in a form that has everything its knobs reach; and the sites of each.
FAMILIES = ("lenet5", "alexnet", "cuda_convnet", "vgg16", "googlenet", "resnet50", "resnet20")
CONVOLUTIONS = {"lenet5": 2, "alexnet": 5, "cuda_convnet": 3, "vgg16": 13, "googlenet": 59}
CONVOLUTIONS |= {"resnet50": 53, "resnet20": 19}
HIDDEN = {"lenet5": 2, "alexnet": 2, "vgg16": 2, "googlenet": 2}  # fully-connected, with activation
POOLINGS = {"lenet5": 2, "alexnet": 3, "cuda_convnet": 3, "vgg16": 5, "googlenet": 13}
POOLINGS |= {"resnet50": 1}
LRNS = {"lenet5": 2, "alexnet": 2, "vgg16": 1, "googlenet": 2, "resnet50": 1, "resnet20": 1}
DROPOUTS = {"lenet5": 2, "alexnet": 2, "vgg16": 2, "googlenet": 3, "resnet50": 1, "resnet20": 1}


def variables(name: str, image: Image | None = None, **fields: Any) -> dict[str, Any]:
    """The shapes of a model's variables; no weights are made."""
    model = models.create_model(name, **fields)
    x = jnp.zeros((1, *(image or models.MODELS[name].image)))
    return jax.eval_shape(lambda: model.init(jax.random.key(0), x, train=False))


def shapes(name: str, image: Image | None = None, **fields: Any) -> dict[str, Any]:
    return variables(name, image, **fields)["params"]


def initial(model: Any, image: Image, seed: int) -> dict[str, Any]:
    """Real weights, of a small model."""
    return model.init(jax.random.key(seed), jnp.zeros((1, *image)), train=False)


def count(tree: Any) -> int:
    return sum(math.prod(a.shape) for a in jax.tree.leaves(tree))


def program(name: str, image: Image | None = None, *, train: bool = True, **fields: Any) -> Any:
    """The traced forward pass in the operations of lax, without making weights."""
    model = models.create_model(name, **fields)
    x = jax.ShapeDtypeStruct((2, *(image or models.MODELS[name].image)), jnp.float32)
    key = jax.eval_shape(lambda: jax.random.key(0))

    def apply(variables: Any, x: jax.Array, key: jax.Array) -> Any:
        return model.apply(
            variables, x, train=train, rngs={"dropout": key}, mutable=["batch_stats"]
        )

    with kernels.plain():
        return jax.make_jaxpr(apply)(variables(name, image, **fields), x, key).jaxpr


def equations(jaxpr: Any) -> Iterator[Any]:
    """Every equation, those of inner programs too."""
    for equation in jaxpr.eqns:
        yield equation
        for value in jax.tree.leaves(equation.params, is_leaf=lambda v: hasattr(v, "eqns")):
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                yield from equations(inner)


def uses(jaxpr: Any, name: str, **params: Any) -> int:
    """How often a program has a primitive with these parameters, or a function such as relu."""
    return sum(
        (e.primitive.name == name or (e.primitive.name, e.params.get("name")) in FUNCTIONS[name])
        and all(e.params[k] == v for k, v in params.items())
        for e in equations(jaxpr)
    )


FUNCTIONS: dict[str, tuple[Any, ...]] = defaultdict(
    tuple, relu=(("jit", "relu"),), leaky_relu=(("jit", "leaky_relu"),)
)


def constants(jaxpr: Any, value: float) -> int:
    """How often a program has a number among its operands."""
    found = [v for e in equations(jaxpr) for v in e.invars if hasattr(v, "val")]
    return sum(np.ndim(v.val) == 0 and v.val == value for v in found)


def results(jaxpr: Any, name: str) -> list[tuple[int, ...]]:
    """The shapes that a primitive gives."""
    return [e.outvars[0].aval.shape for e in equations(jaxpr) if e.primitive.name == name]
