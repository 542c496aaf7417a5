"""Named tensors in few bytes: what Deep Compression (Han et al. 2016, sections 3 and 4) counts.

A tensor with many zeros is the numbers of zeros between its other weights; one with few different
values is those values and, for each weight, which it is. Both lists are Huffman-coded by zlib, with
their tables. Whatever would not shrink is stored as it is, float32. Nothing is lost.

    MAGIC | length of the header, 4 bytes, little-endian | header, JSON by zlib | the parts

The header has, for each tensor, its name, its shape and the lengths of its three parts: values,
which of them, zeros between.
"""

import json
import math
import struct
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np

MAGIC = b"jaxcnn1\n"
MOST_VALUES = 256  # which of them is a byte
SKIP = 255  # in the list of zeros between: so many zeros, and no weight behind them


def pack(tensors: Mapping[str, np.ndarray], said: Mapping[str, Any] | None = None) -> bytes:
    """float32 tensors, and `said`, anything that JSON has a word for."""
    entries, content = [], []
    for name, tensor in tensors.items():
        parts = _parts(np.asarray(tensor, np.float32).ravel())
        entries.append([name, tensor.shape, [len(p) for p in parts]])
        content += parts
    header = zlib.compress(json.dumps([said, entries], separators=(",", ":")).encode(), 9)
    return b"".join([MAGIC, struct.pack("<I", len(header)), header, *content])


def unpack(content: bytes) -> tuple[dict[str, np.ndarray], dict[str, Any] | None]:
    """The inverse of `pack`, to the bit. Raises `ValueError` for what `pack` did not write."""
    if not content.startswith(MAGIC):
        raise ValueError("it is no packed file")
    tensors = {}
    try:
        (length,) = struct.unpack_from("<I", content, len(MAGIC))
        at = len(MAGIC) + 4 + length
        said, entries = json.loads(zlib.decompress(content[len(MAGIC) + 4 : at]))
        if (expected := at + sum(sum(lengths) for *_, lengths in entries)) != len(content):
            raise ValueError(f"{len(content)} bytes, not {expected}")
        for name, shape, lengths in entries:
            parts = []
            for n in lengths:
                parts.append(content[at : at + n])
                at += n
            tensors[name] = _whole(parts, math.prod(shape)).reshape(shape)
    except (zlib.error, struct.error, IndexError, TypeError, ValueError) as error:
        raise ValueError(f"it is damaged ({error})") from error
    return tensors, said


def _parts(flat: np.ndarray) -> tuple[bytes, bytes, bytes]:
    """(values, which of them, zeros between); (b"", values of all, ...) without a codebook."""
    plain = b"", flat.tobytes(), b""
    there = np.flatnonzero(flat)
    gaps = np.diff(there, prepend=-1) - 1
    sparse = len(there) < len(flat)
    weights = flat[there] if sparse else flat
    between = _huffman(_with_skips(gaps)) if sparse else b""
    values = np.unique(weights)
    choices = [plain, (b"", weights.tobytes(), between)]
    if 0 < len(values) <= MOST_VALUES:
        which = np.searchsorted(values, weights).astype(np.uint8)
        choices.append((values.tobytes(), _huffman(which), between))
    return min(choices, key=lambda parts: sum(map(len, parts)))


def _whole(parts: list[bytes], size: int) -> np.ndarray:
    values, weights, between = parts
    if values:
        weights = np.frombuffer(values, np.float32)[np.frombuffer(_plain(weights), np.uint8)]
    else:
        weights = np.frombuffer(weights, np.float32)
    if len(weights) == size:
        return weights.copy()
    gaps = np.frombuffer(_plain(between), np.uint8)
    ends = np.cumsum(gaps.astype(np.int64) + (gaps != SKIP)) - 1
    flat = np.zeros(size, np.float32)
    flat[ends[gaps != SKIP]] = weights
    return flat


def _with_skips(gaps: np.ndarray) -> np.ndarray:
    """uint8: each gap as so many whole `SKIP`s and the rest."""
    skips = gaps // SKIP
    found = np.full(len(gaps) + skips.sum(), SKIP, np.uint8)
    found[np.cumsum(skips + 1) - 1] = gaps % SKIP
    return found


def _huffman(symbols: np.ndarray) -> bytes:
    """uint8 [N]."""
    coder = zlib.compressobj(9, zlib.DEFLATED, -15, 9, zlib.Z_HUFFMAN_ONLY)
    return coder.compress(symbols.tobytes()) + coder.flush()


def _plain(coded: bytes) -> bytes:
    return zlib.decompress(coded, -15)
