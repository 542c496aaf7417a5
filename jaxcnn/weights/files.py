"""Named tensors in files: .npz, .safetensors, .packed, PyTorch's .pth and Keras's .h5.

Beside the tensors a file may say, as a dict of a model's fields, what net they are of: ours do in
their "jaxcnn" field, and a whole Keras model in its config. PyTorch, safetensors and h5py are
imported where a file needs them, and no sooner.
"""

import importlib
import json
import os
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from jaxcnn.config import InputError
from jaxcnn.weights import packed

Tensors = dict[str, np.ndarray]
Said = dict[str, Any] | None
FIELD = "jaxcnn"  # under which our own files say what net they are of


def read(path: Path) -> tuple[Tensors, Said]:
    reader = _of(READERS, path)
    if not path.is_file():
        raise InputError(f"{path}: no such file.")
    try:
        tensors, said = reader(path)
    except InputError:
        raise
    except Exception as error:  # whatever numpy, torch, safetensors or h5py raise on damaged files
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        raise InputError(f"{path}: cannot be read as {path.suffix}: {reason}") from error
    # What torch.nn.DataParallel and torch.compile put before every name is no name.
    for prefix in ("_orig_mod.", "module."):
        if tensors and all(name.startswith(prefix) for name in tensors):
            tensors = {name.removeprefix(prefix): a for name, a in tensors.items()}
    if not any(name.startswith(("params/", "AlexNet_0/")) for name in tensors):
        tensors = {_keras(name): a for name, a in tensors.items()}
    # PyTorch's count of batches is needed only where the running mean is a plain one.
    counted = [name for name in tensors if name.endswith("num_batches_tracked")]
    return {name: a for name, a in tensors.items() if name not in counted}, said


def write(path: Path, tensors: Tensors, said: Said) -> None:
    """Whole or not at all."""
    writer = _of(WRITERS, path)
    draft = path.with_name(f"{os.getpid()}.{path.name}")  # of the same ending
    try:
        writer(draft, tensors, said)
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)


def _of(choices: dict[str, Any], path: Path) -> Any:
    if path.suffix not in choices:
        known = ", ".join(choices)
        raise InputError(
            f"{path}: {path.suffix!r} is no kind of file with weights; known: {known}."
        )
    return choices[path.suffix]


def _library(name: str, path: Path) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        package = name.partition(".")[0]
        raise InputError(f"{path.suffix} needs {package}. Run: pip install {package}") from error


def _read_npz(path: Path) -> tuple[Tensors, Said]:
    if not zipfile.is_zipfile(path):  # numpy would take it for a pickle, and say so
        raise zipfile.BadZipFile("it is no archive")
    with np.load(path, allow_pickle=False) as file:
        tensors = {name: file[name] for name in file.files}
    said = tensors.pop(FIELD, None)
    return tensors, None if said is None else json.loads(str(said))


def _write_npz(path: Path, tensors: Tensors, said: Said) -> None:
    more = {} if said is None else {FIELD: np.array(json.dumps(said))}
    with open(path, "wb") as file:  # numpy adds an ending to a name, not to an open file
        np.savez(file, allow_pickle=False, **tensors, **more)


def _read_safetensors(path: Path) -> tuple[Tensors, Said]:
    with _library("safetensors", path).safe_open(path, "numpy") as file:
        said = (file.metadata() or {}).get(FIELD)
        tensors = {name: file.get_tensor(name) for name in file.keys()}
    return tensors, None if said is None else json.loads(said)


def _write_safetensors(path: Path, tensors: Tensors, said: Said) -> None:
    metadata = None if said is None else {FIELD: json.dumps(said)}
    _library("safetensors.numpy", path).save_file(tensors, path, metadata)


def _read_packed(path: Path) -> tuple[Tensors, Said]:
    return packed.unpack(path.read_bytes())


def _write_packed(path: Path, tensors: Tensors, said: Said) -> None:
    path.write_bytes(packed.pack(tensors, said))


def _read_pth(path: Path) -> tuple[Tensors, Said]:
    torch = _library("torch", path)
    state = torch.load(path, map_location="cpu", weights_only=True)
    for inside in ("state_dict", "model"):  # as training scripts keep it, beside the optimiser's
        if isinstance(state.get(inside), dict):
            state = state[inside]
    tensors = {name: a for name, a in state.items() if isinstance(a, torch.Tensor)}
    half = (torch.float16, torch.bfloat16)  # numpy has no bfloat16
    return {n: (a.float() if a.dtype in half else a).numpy() for n, a in tensors.items()}, None


def _write_pth(path: Path, tensors: Tensors, said: Said) -> None:
    torch = _library("torch", path)
    torch.save({name: torch.tensor(a) for name, a in tensors.items()}, path)


def _read_h5(path: Path) -> tuple[Tensors, Said]:
    h5py = _library("h5py", path)
    tensors: Tensors = {}
    with h5py.File(path, "r") as file:

        def visit(name: str, node: Any) -> None:
            if isinstance(node, h5py.Dataset):
                tensors[name] = node[()]

        file.get("model_weights", file).visititems(visit)
        config = file.attrs.get("model_config")
    said = None if config is None else _keras_epsilon(json.loads(config))
    return tensors, said


def _keras_epsilon(config: Any) -> Said:
    """{"bn_epsilon": that of all normalisations}, of a model's config."""
    found = set()

    def visit(node: Any) -> None:
        if isinstance(node, dict):
            if node.get("class_name") == "BatchNormalization":
                found.add(node["config"]["epsilon"])
            node = list(node.values())
        if isinstance(node, list):
            for inside in node:
                visit(inside)

    visit(config)
    return {"bn_epsilon": found.pop()} if len(found) == 1 else None


def _keras(name: str) -> str:
    """'conv1/conv1/kernel:0' -> 'conv1/kernel', 'conv1/conv1_W:0' too: Keras 1, whose running_std
    is a variance.
    """
    found = re.fullmatch(r"(?:.*/)?([^/]+)/([^/:]+)(?::\d+)?", name)
    if found is None:
        return name
    layer, leaf = found.groups()
    leaf = leaf.removeprefix(f"{layer}_")
    return f"{layer}/{KERAS1.get(leaf, leaf)}"


KERAS1 = {
    **{"W": "kernel", "b": "bias"},
    **{"running_mean": "moving_mean", "running_std": "moving_variance"},
}
READERS: dict[str, Callable[[Path], tuple[Tensors, Said]]] = {
    ".npz": _read_npz,
    ".safetensors": _read_safetensors,
    ".packed": _read_packed,
    **dict.fromkeys((".pth", ".pt", ".th"), _read_pth),
    **dict.fromkeys((".h5", ".hdf5"), _read_h5),
}
WRITERS: dict[str, Callable[[Path, Tensors, Said], None]] = {
    ".npz": _write_npz,
    ".safetensors": _write_safetensors,
    ".packed": _write_packed,
    **dict.fromkeys((".pth", ".pt", ".th"), _write_pth),
}
