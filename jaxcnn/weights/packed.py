"""Named tensors in few bytes: what Deep Compression (Han et al. 2016, sections 3 and 4) counts.

A tensor with many zeros is the numbers of zeros between its other weights; one with few different
values is those values and, for each weight, which it is. Both lists are Huffman-coded by zlib, with
their tables. One of 8-bit integers times a scale for each output channel (quantization.py) is those
scales and, in the same ways, the integers. Whatever would not shrink is stored as it is, float32.
Nothing is lost.

    MAGIC | length of the header, 4 bytes, little-endian | header, JSON by zlib | the parts

The header has, for each tensor, its name, its shape and the lengths of its parts: values, which of
them, zeros between; and, of integers, scales.
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
LARGEST = 127  # of integers
SKIP = 255  # in the list of zeros between: so many zeros, and no weight behind them


def pack(tensors: Mapping[str, np.ndarray], said: Mapping[str, Any] | None = None) -> bytes:
    """float32 tensors, and `said`, anything that JSON has a word for."""
    entries, content = [], []
    for name, tensor in tensors.items():
        flat = np.asarray(tensor, np.float32).ravel()
        parts = _parts(flat)
        if (scaled := _scaled(flat.reshape(tensor.shape))) is not None:
            integers, scales = scaled
            parts = min(parts, (*_parts(integers.ravel()), scales.tobytes()), key=_length)
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
            tensors[name] = _whole(parts[:3], math.prod(shape), len(parts) > 3).reshape(shape)
            if len(parts) > 3:
                tensors[name] = tensors[name] * np.frombuffer(parts[3], np.float32)
    except (zlib.error, struct.error, IndexError, TypeError, ValueError) as error:
        raise ValueError(f"it is damaged ({error})") from error
    return tensors, said


def _scaled(tensor: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """(integers int8 [..., O], scales float32 [O]) whose products are the tensor to the bit, or
    None.
    """
    if tensor.ndim < 2 or tensor.size == 0:
        return None
    scales = np.abs(tensor).max(tuple(range(tensor.ndim - 1))) / np.float32(LARGEST)
    scales = np.where(scales > 0, scales, np.float32(1))
    integers = np.rint(tensor / scales)
    exact = np.isfinite(tensor).all() and (integers * scales == tensor).all()
    return (integers.astype(np.int8), scales) if exact else None


def _parts(flat: np.ndarray) -> tuple[bytes, bytes, bytes]:
    """(values, which of them, zeros between); (b"", values of all, ...) without a codebook. float32
    or int8 [N].
    """
    there = np.flatnonzero(flat)
    forms = [(flat, b"")]
    if len(there) < len(flat):  # which few zeros do not pay for
        forms.append((flat[there], _huffman(_with_skips(np.diff(there, prepend=-1) - 1))))
    choices = []
    for weights, between in forms:
        choices.append((b"", weights.tobytes(), between))
        values = np.unique(weights)
        if 0 < len(values) <= MOST_VALUES:
            which = np.searchsorted(values, weights).astype(np.uint8)
            choices.append((values.tobytes(), _huffman(which), between))
    return min(choices, key=_length)


def _length(parts: tuple[bytes, ...]) -> int:
    return sum(map(len, parts))


def _whole(parts: list[bytes], size: int, integers: bool) -> np.ndarray:
    """float32 [size]."""
    values, weights, between = parts
    kind = np.int8 if integers else np.float32
    if values:
        weights = np.frombuffer(values, kind)[np.frombuffer(_plain(weights), np.uint8)]
    else:
        weights = np.frombuffer(weights, kind)
    if len(weights) == size:
        return weights.astype(np.float32)
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
