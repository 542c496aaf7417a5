"""Trained models for other programs: safetensors, StableHLO, ONNX and C, with a model card; and
weights in few bytes.

All but weights hold the whole evaluation: they take pixels from 0 to 255 as they come out of an
image file, float32 [B, H, W, C], and pad, crop and normalise them as the run's own evaluation did,
so that nobody can get that wrong. They compute in float32, whatever the training did, and give the
output of the last layer: logits, for a classifier.
"""

import importlib.util
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from jaxcnn import config, kernels, nets, records, step, trained, weights
from jaxcnn.config import InputError
from jaxcnn.export import card, graph, to_c, to_onnx
from jaxcnn.starts import LAST
from jaxcnn.trained import Trained

Pixels = Callable[[jax.Array], jax.Array]
PLATFORMS = ("cpu", "cuda", "tpu")


def export(
    folder: Path,
    to: str,
    out: Path | None = None,
    data_dir: Path | None = None,
    checkpoint: str = LAST,
) -> list[Path]:
    """Write the run in `folder` in the form `to`, one of `FORMATS`, and its card: the files' paths.

    They go into `out`, else into the run's own folder. Raises `InputError` for a run that is not
    finished, a library that is not there and an operation that the form has no word for.
    """
    if to not in FORMATS:
        raise InputError(f"--to: {to!r} is not one of {', '.join(map(repr, FORMATS))}.")
    out = folder / "export" if out is None else out
    source = trained.load(folder, data_dir, checkpoint)
    records.check_writable(out)
    paths = FORMATS[to](source, out)
    text = card.text(source, to, paths, _module(source))
    return [*paths, records.write(out / f"{source.run.model.name}.{to}.md", text)]


def evaluation(source: Trained) -> Pixels:
    """Pixels from 0 to 255, float32 [B, H, W, C] -> output float32 [B, K], as the run's evaluation
    computes it, in float32.
    """
    run, state = _plain(source)
    moments = tuple(map(jnp.asarray, (source.data.mean, source.data.std, source.data.covariance)))

    def evaluate(pixels: jax.Array) -> jax.Array:
        return step.evaluate(run, source.problem, state, pixels, moments)[0]  # type: ignore

    return evaluate


def stablehlo(function: Pixels, image: tuple[int, ...]) -> bytes:
    """`function` for any number of pictures and each of `PLATFORMS`: read by
    `jax.export.deserialize`.
    """
    import jax.export

    if importlib.util.find_spec("flatbuffers") is None:  # jax writes with it and does not bring it
        raise InputError("--to stablehlo: needs flatbuffers. Run: pip install flatbuffers")
    (batch,) = jax.export.symbolic_shape("batch")
    pixels = jax.ShapeDtypeStruct((batch, *image), jnp.float32)
    with kernels.plain():  # no operation that one platform alone has
        exported = jax.export.export(jax.jit(function), platforms=PLATFORMS)(pixels)
    return bytes(exported.serialize())


def _plain(source: Trained) -> tuple[config.Run, step.State]:
    """The run with nothing in it that is for training's speed or memory, and its weights."""
    changes: dict[str, Any] = {"train.precision": "float32"}
    state, own = source.state, source.run.model
    changes |= {f"model.{k}": False for k in ("scan", "remat") if getattr(own, k) is True}
    params, stats = map(weights.unstacked, (state.params, state.batch_stats))
    return config.override(source.run, changes), step.State(state.step, params, stats, None)


def _module(source: Trained) -> Any:
    return nets.build(_plain(source)[0], source.problem, {})


def _weights(source: Trained, out: Path, to: str) -> list[Path]:
    path = out / f"{source.run.model.name}.{to}"
    run, state = _plain(source)
    variables = {"params": state.params, "batch_stats": state.batch_stats}
    image = nets.seen(run, source.problem)
    weights.save(path, variables, model=_module(source), image=image)
    return [path]


def _stablehlo(source: Trained, out: Path) -> list[Path]:
    content = stablehlo(evaluation(source), source.problem.image_shape)
    return [records.write(out / f"{source.run.model.name}.stablehlo", content)]


def _onnx(source: Trained, out: Path) -> list[Path]:
    to_onnx.installed()
    name = source.run.model.name
    made = to_onnx.model(graph.read(evaluation(source), source.problem.image_shape), name)
    return [records.write(out / f"{name}.onnx", made.SerializeToString())]


def _c(source: Trained, out: Path) -> list[Path]:
    name = source.run.model.name
    made = graph.read(evaluation(source), source.problem.image_shape)
    about = f"{name}, trained on {source.run.data.name}; see {name}.c.md"
    code, header = to_c.sources(made, name, about)
    return [records.write(out / f"{name}.{k}", text) for k, text in (("c", code), ("h", header))]


FORMATS: dict[str, Callable[[Trained, Path], list[Path]]] = {
    "safetensors": partial(_weights, to="safetensors"),
    "packed": partial(_weights, to="packed"),
    "stablehlo": _stablehlo,
    "onnx": _onnx,
    "c": _c,
}
