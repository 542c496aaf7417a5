"""Tables about architectures: their layers, their sizes and published errors, the notes' errata;
and the numbers of the figure.

    table = tables.layers(module, (28, 28, 1), "lenet5")
    listing.show(table, console)
    listing.write(table, folder)
"""

import dataclasses
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxcnn import analysis, config, errata, models, published
from jaxcnn.analysis import CONVOLUTION, DENSE, Analysis, Layer
from jaxcnn.analysis.receptive import Span
from jaxcnn.checks import check
from jaxcnn.config import InputError, Model, Run
from jaxcnn.listing import Column, Listing, Row

FIELDS = (
    "Receptive field, stride and centre are in pixels of the picture, whose first pixel has its"
    " centre at 0.5. A field counts the padding that it reaches into. Behind the last map a unit"
    " sees what all of the map sees."
)
MACS = "A MAC is one multiply-add of a convolution or matrix product for one picture."


def named(
    name: str, settings: Mapping[str, Any], classes: int | None = None, size: int | None = None
) -> tuple[Any, tuple[int, int, int]]:
    """The module of an architecture and its picture. `settings`: dotted paths of `model`."""
    for path in settings:
        if not path.startswith("model.") or path == "model.name":
            raise InputError(
                f"--set: {path!r} is no knob of a model; they are model.pool and so on."
            )
    run = config.override(Run(model=Model(name=name)), settings)
    check(run)
    for option, value in (("--classes", classes), ("--size", size)):
        if value is not None and value < 1:
            raise InputError(f"{option}: {value} is not allowed; it must be at least 1.")
    module: Any = models.create_model(name)
    height, width, channels = models.MODELS[name].image
    module = models.from_config(run.model, module.classes if classes is None else classes)
    return module, (size or height, size or width, channels)


# Layers ----------------------------------------------------------------------------------------


def layers(module: Any, image: tuple[int, ...], name: str) -> Listing:
    """Every layer of a module, a line each, and their total."""
    net = analysis.analyse(module, image)
    columns = (
        *(Column("layer", "layer", "l"), Column("kind", "kind", "l")),
        *(Column("output", "output"), Column("parameters", "parameters")),
        *(Column("neurons", "neurons"), Column("macs", "MACs")),
        Column("receptive_field", "receptive field"),
        *(Column("stride", "stride"), Column("centre", "centre")),
    )
    total = dict.fromkeys((column.key for column in columns), "") | {"layer": "total"}
    total |= {key: getattr(net, key) for key in ("parameters", "neurons", "macs")}
    rows = (*(_layer(layer) for layer in net.layers), total)
    title = f"{name}, {_by(image)} pictures"
    note = " ".join([*_shares(net), *_partial(net), MACS, FIELDS])
    return Listing(f"layers_{name}", title, columns, rows, note)


def _layer(layer: Layer) -> Row:
    seen = layer.field or ()
    steps = [s.stride if s.axis is not None else None for s in seen]
    return {
        "layer": layer.name,
        "kind": f"{layer.kind} {layer.window}".strip(),
        "output": _by(layer.output) if layer.output else None,
        "parameters": layer.parameters,
        "neurons": layer.neurons,
        "macs": layer.macs,
        "receptive_field": _both([s.size for s in seen]),
        "stride": _both(steps),
        "centre": _both([s.centre for s in seen]),
    }


def _shares(net: Analysis) -> list[str]:
    out = []
    for kind, words in ((CONVOLUTION, "Convolutions have"), (DENSE, "Fully-connected layers have")):
        parameters = sum(layer.parameters for layer in net.kind(kind))
        macs = sum(layer.macs for layer in net.kind(kind))
        of_all = _percent(parameters, net.parameters), _percent(macs, net.macs)
        out.append(
            f"{words} {parameters:,} parameters ({of_all[0]}) and {macs:,} MACs ({of_all[1]})."
        )
    return out


def _partial(net: Analysis) -> list[str]:
    return [
        f"{layer.name} is partly connected: {layer.connected:,} of its {layer.macs:,} MACs have a"
        " weight, the others multiply by the zeros that its kernel is filled up with."
        for layer in net.layers
        if layer.connected < layer.macs
    ]


# Architectures ---------------------------------------------------------------------------------


def measured(folder: Path) -> dict[str, tuple[float, str]]:
    """Model -> pictures a second in training and the machine, from the records of
    benchmarks/cpu_step.py in `folder`; the fastest machine's where there are several.
    """
    found: dict[str, tuple[float, str]] = {}
    for path in sorted(folder.glob("cpu_step-*.json")):
        record = json.loads(path.read_text(encoding="utf-8"))
        settings, device = record["settings"], record["device"]
        speed = 1e3 * settings["batch"] / record["train"]["ms_per_run_step"]["ours"]
        machine = f"{device['cpu']}, {device['cores']} cores"
        found[settings["net"]] = max(found.get(settings["net"], (0.0, "")), (speed, machine))
    return found


def architectures(
    patterns: Sequence[str] = (), throughput: Mapping[str, tuple[float, str]] | None = None
) -> Listing:
    """Architectures by name or wildcard, all where there is none. `throughput`: what `measured`
    finds; its column is left out where that is nothing.
    """
    columns = (
        *(Column("model", "model", "l"), Column("picture", "picture")),
        *(Column("parameters", "parameters"), Column("macs", "GMACs", form="giga")),
        *(Column("depth", "depth"), Column("receptive_field", "receptive field")),
        *(Column("neurons", "neurons"), Column("top1", "top-1 error", form=".2f")),
        *(Column("top5", "top-5 error", form=".2f"), Column("protocol", "protocol", "l")),
        Column("source", "source", "l"),
    )
    rows = [_architecture(name) for name in select(patterns)]
    if throughput:
        columns = (*columns, Column("throughput", "pictures/s", form=",.0f"))
        rows = [{**row, "throughput": throughput.get(row["model"], (None,))[0]} for row in rows]
    note = (
        "Errors are published ones, in percent; protocols differ. Depth counts layers with weights"
        " on the longest way through; the receptive field is that of the last convolution or"
        " pooling; neurons are the outputs of convolutions and fully-connected layers. GoogLeNet is"
        f" counted without its side heads. {MACS}"
    )
    if throughput:
        machines = dict.fromkeys(machine for _, machine in throughput.values())
        note += f" Pictures a second in training, measured here: {'; '.join(machines)}."
    return Listing("architectures", "Architectures", columns, tuple(rows), note)


def select(patterns: Sequence[str]) -> list[str]:
    """Names of models by name or wildcard, in the order of their papers; all where there is no
    pattern.
    """
    found: set[str] = set()
    for pattern in patterns:
        matching = models.list_models(pattern)
        if not matching:
            models.create_model(pattern)  # raises, and names close ones
        found.update(matching)
    return [name for name in models.MODELS if name in found or not patterns]


def numbers(name: str) -> Analysis:
    """Of the architecture as it classifies: without GoogLeNet's side heads."""
    has = {f.name for f in dataclasses.fields(models.MODELS[name].module)}
    return analysis.of(name, **({"side_heads": False} if "side_heads" in has else {}))


def _architecture(name: str) -> Row:
    net, result = numbers(name), published.first(name)
    span: Span | None = net.receptive_field
    return {
        "model": name,
        "picture": _by(net.image),
        "parameters": net.parameters,
        "macs": net.macs,
        "depth": net.depth,
        "receptive_field": None if span is None else _number(span.size),
        "neurons": net.neurons,
        "top1": None if result is None else result.top1,
        "top5": None if result is None else result.top5,
        "protocol": None if result is None else f"{result.data}, {result.protocol}",
        "source": None if result is None else result.source,
    }


def results() -> Listing:
    """Every published error, with its protocol and source."""
    columns = (
        *(Column("net", "net", "l"), Column("model", "here", "l"), Column("data", "data", "l")),
        *(Column("top1", "top-1 error", form=".2f"), Column("top5", "top-5 error", form=".2f")),
        *(Column("protocol", "protocol", "l"), Column("source", "source", "l")),
    )
    rows = tuple(result._asdict() for result in published.RESULTS)
    return Listing("published", "Published errors, in percent", columns, rows)


# Errata ----------------------------------------------------------------------------------------


def corrections() -> Listing:
    """The notes' statements that their sources contradict, with what is computed here."""
    columns = (
        *(Column("number", "#"), Column("notes", "the notes say", "p")),
        *(Column("source_says", "the source says", "p"), Column("computed", "computed here", "p")),
        Column("source", "source", "p"),
    )
    rows = tuple(e._asdict() | {"computed": errata.computed(e.number)} for e in errata.ERRATA)
    return Listing("errata", "Errata of the notes", columns, rows)


# Figure ----------------------------------------------------------------------------------------


CAPTION = (
    "After Canziani et al. 2016, Figure 2. Operations and parameters are counted here from the"
    " traced programs; accuracies are published ones:\nAlexNet and GoogLeNet those of Caffe's"
    " bvlc models, all others those of torchvision's IMAGENET1K_V1 weights."
)
FAMILIES = {
    "AlexNet": "alexnet",
    "VGG": r"vgg\d+$",
    "VGG, batch norm": r"vgg\d+_bn",
    "GoogLeNet": "googlenet",
    "ResNet": "resnet",
}
LABELS = {
    **{"alexnet": "AlexNet", "alexnet_owt": "AlexNet, one tower"},
    **{"googlenet": "GoogLeNet", "googlenet_bn": "GoogLeNet, BN"},
    **{f"vgg{n}": f"VGG-{n}" for n in (11, 13, 16, 19)},
    **{f"vgg{n}_bn": f"VGG-{n}, BN" for n in (11, 13, 16, 19)},
    **{f"resnet{n}": f"ResNet-{n}" for n in (18, 34)},
    **{f"resnet{n}_v1.5": f"ResNet-{n}" for n in (50, 101, 152)},
}


def points() -> dict[str, list[tuple[str, float, float, int]]]:
    """Family -> its nets' names, 10^9 operations, accuracies in percent, parameters: those with an
    error by one central crop, of Caffe's or of torchvision's first weights. Operations, twice the
    MACs, and parameters are counted here.
    """
    out: dict[str, list[tuple[str, float, float, int]]] = {}
    for name, label in LABELS.items():
        net, accuracy = numbers(name), round(100 - _central_crop(name), 3)
        family = next(f for f in FAMILIES if re.match(FAMILIES[f], name))
        out.setdefault(family, []).append((label, 2 * net.macs / 1e9, accuracy, net.parameters))
    return out


def _central_crop(name: str) -> float:
    for source in (published.CAFFE, f"{published.TORCHVISION}, {published.V1}"):
        for r in published.RESULTS:
            if r.model == name and r.source == source and r.top1 is not None:
                return r.top1
    raise LookupError(f"{name} has no published error by one central crop")


# Words -----------------------------------------------------------------------------------------


def _number(x: float) -> float | int:
    return int(x) if x == int(x) else x


def _both(numbers: Sequence[float | None]) -> float | int | str | None:
    """One number where all axes have the same."""
    if not numbers or None in numbers:
        return None
    kept = [_number(x) for x in numbers if x is not None]
    return kept[0] if len(set(kept)) == 1 else _by(kept)


def _by(numbers: Sequence[float | int]) -> str:
    return "x".join(f"{n:g}" if isinstance(n, float) else str(n) for n in numbers)


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f} %" if whole else "-"
