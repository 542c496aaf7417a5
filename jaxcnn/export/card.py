"""The model card: what a file is, how it came about and how to feed it, in Markdown."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from statsmodels.stats.proportion import proportion_confint

from jaxcnn import config, nets, weights
from jaxcnn.config import Run
from jaxcnn.trained import Trained

WEIGHTS = """from jaxcnn import models, weights
model = models.{spelled}
variables, _ = weights.load("{file}", model, image={seen})
logits, _ = model.apply(variables, x, train=False)  # x: normalised as above"""
CALLS = {
    "safetensors": WEIGHTS,
    "packed": WEIGHTS,
    "stablehlo": """function = jax.export.deserialize(bytearray(open("{file}", "rb").read()))
logits = function.call(pixels)""",
    "onnx": """session = onnxruntime.InferenceSession("{file}")
(logits,) = session.run(None, {{"pixels": pixels}})""",
    "c": """cc -std=c99 -O3 -c {file}   # {name}.h says how it is called; link with -lm""",
}

# Of data sets that this project knows; whoever brings others knows theirs.
LICENCES = {
    "mnist": "usually given under CC BY-SA 3.0 (LeCun, Cortes, Burges)",
    "fashion_mnist": "MIT (Zalando)",
    "cifar10": "none is stated (Krizhevsky 2009)",
    "imagenet2012": "research only, by ImageNet's terms",
    "orl_faces": "free with credit to the Olivetti Research Laboratory",
}


def text(source: Trained, to: str, files: Sequence[Path], module: Any) -> str:
    """The card of `files`, the form `to` of a run; `module` is its model."""
    record, run = source.record, source.run
    info, name = record.info, run.model.name
    count, points = len(source.data.classes), run.train.objective == "landmarks"
    sizes, at = info["data"], source.at
    row = next((row for row in record.rows if row["step"] == at), {})
    rows = {
        "model": f"`{name}`, {info['parameters']:,} parameters",
        "run": ", ".join(f"{k} `{info[k]}`" for k in ("experiment", "arm") if k in info)
        + f", seed {run.seed}, "
        + (f"{at:,} steps" if at == info["steps"] else f"step {at:,} of {info['steps']:,}"),
        "data": f"`{run.data.name}`, fingerprint `{sizes['fingerprint']}`: {sizes['train']:,}"
        f" training, {sizes['validation']:,} validation, {sizes['test']:,} test examples of"
        f" {count} {'points' if points else 'classes'}",
        "licence of the data": LICENCES.get(run.data.name.removeprefix("tfds:"), "not known here"),
        "validation": measured(row.get("validation"), points),
        "test": measured(record.test if at == info["steps"] else None, points),
        "commit": f"`{info['commit']}`" + (", with uncommitted changes" if info["dirty"] else ""),
        "versions": ", ".join(f"{k} {v}" for k, v in info["versions"].items()),
        "command": f"`{info['command']}`",
    }
    recipe = {path: config.get(run, path) for path in config.paths(run)}
    changed = {k: v for k, v in recipe.items() if v != config.get(Run(), k) and k != "seed"}
    spelled, seen = weights.spelled(module), nets.seen(run, source.problem)
    if "(" not in spelled:
        spelled = f'create_model("{spelled}")'
    call = CALLS[to].format(file=files[0].name, name=files[0].stem, spelled=spelled, seen=seen)
    parts = [
        f"# {name}, as {to}",
        _table(rows),
        "## Files",
        _table({f"`{f.name}`": f"SHA-256 `{_digest(f)}`" for f in files}),
        "## Input and output",
        _input(source, whole=CALLS[to] != WEIGHTS),
        f"```{'sh' if to == 'c' else 'python'}\n{call}\n```",
        f"Points: {count}, x and y of each in turn, as `jaxcnn/landmarks.py` numbers them."
        if points
        else "Classes, in the order of the output: " + ", ".join(source.data.classes) + ".",
        "## Recipe",
        "What differs from the defaults of `jaxcnn.config.Run`:",
        _table({f"`{k}`": f"`{v}`" for k, v in changed.items()}),
    ]
    return "\n\n".join(parts) + "\n"


def measured(means: dict[str, Any] | None, points: bool = False) -> str:
    """'0.97 % error (95 % interval 0.80 to 1.18, Wilson), 10,000 examples', or what there is; of
    `points` of faces their error too.
    """
    if not means:
        return "not measured"
    n = means["count"]
    if means.get("error") is None:
        return f"loss {means['loss']:.4g}, {n:,} examples"
    low, high = proportion_confint(round(means["error"] * n), n, method="wilson")
    what = "of faces above 10 %" if points else "error"
    mean = f"normalised mean error {100 * means['loss']:.2f} %; " if points else ""
    return (
        f"{mean}{100 * means['error']:.2f} % {what} (95 % interval {100 * low:.2f} to"
        f" {100 * high:.2f}, Wilson: of the examples, not of the seeds), {n:,} examples"
    )


def _input(source: Trained, whole: bool) -> str:
    """How the file wants its pictures, and what becomes of them there or must before."""
    data, shape = source.run.data, source.problem.image_shape
    size = ", ".join(map(str, shape))
    first = (
        f"Input: pixels from 0 to 255 as float32 [B, {size}], that is NHWC, channels"
        f" {'grey' if shape[2] == 1 else 'R, G, B'}; not divided, not normalised, not NCHW."
    )
    if data.resize is not None:
        first += f" They are the data set's, averaged down to {shape[0]}x{shape[1]}."
    steps = []
    if data.pad:
        steps.append(f"pad with {data.pad} zeros on every side")
    if data.crop is not None:
        steps.append(f"take the central {data.crop}x{data.crop}")
    steps.append("divide by 255")
    if data.normalize == "lecun1998":
        steps.append("multiply by 1.275 and take away 0.1")
    elif data.normalize == "standardize":
        std = np.where(source.data.std > 0, source.data.std, 1)  # as in augment.py
        mean, std = (np.array2string(a, separator=", ") for a in (source.data.mean, std))
        steps.append(f"take away {mean} and divide by {std}, a number a channel")
    listed = ", ".join(steps)
    output = {"classification": "logits", "reconstruction": "the reconstruction"}
    output["margin"] = "cosines of the embedding and each class's weights, times `train.radius`"
    output["landmarks"] = "x, y of each point from the picture's middle, in halves of the picture"
    made = output.get(source.run.train.objective, "the output of the last layer")
    if whole:
        return f"{first}\n\nThe file itself does: {listed}. Output: {made}, float32 [B, ...]."
    return (
        f"Weights alone: what feeds them must first do this to pixels from 0 to 255, float32"
        f" [B, {size}], NHWC: {listed}. Output: {made}, float32 [B, ...]."
    )


def _table(rows: dict[str, str]) -> str:
    lines = [f"| {k} | {v.replace('|', chr(92) + '|')} |" for k, v in rows.items()]
    return "\n".join(["| | |", "|---|---|", *lines])


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
