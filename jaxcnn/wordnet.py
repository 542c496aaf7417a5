"""Errors at the levels of WordNet: a tabby taken for a tiger is wrong, and right as a feline.

The hierarchy of ILSVRC-2012's 1,000 synsets is that of WordNet 3.0, whose noun n02123045 is the
class n02123045 (Fellbaum 1998, WordNet: an electronic lexical database; Deng et al. 2009, ImageNet:
a large-scale hierarchical image database, CVPR, section 2). Of a synset with several hypernyms the
first counts, so that each class has one way from the root: n00001740, entity.
"""

import functools
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxcnn.config import InputError

FILE = Path(__file__).parent / "data" / "wordnet" / "hypernyms.txt"  # synset, hypernym or -, word
NAMED = 3  # of a level's synsets


class Levels(NamedTuple):
    """Of some classes, from the level below the root to that where each class is its own."""

    above: np.ndarray  # int32 [D, K]: which synset of its level stands above each class, or is it
    sizes: tuple[int, ...]  # synsets of each level
    largest: tuple[tuple[str, ...], ...]  # the words of those with the most classes


@functools.cache
def hypernyms() -> dict[str, tuple[str, str]]:
    """synset -> (the one above, its first word)."""
    rows = (line.split() for line in FILE.read_text().splitlines())
    return {synset: (above, word.replace("_", " ")) for synset, above, word in rows}


def way(synset: str) -> list[str]:
    """From the root to the synset itself."""
    up, found = hypernyms(), [synset]
    while (above := up[found[-1]][0]) != "-":
        found.append(above)
    return found[::-1]


def levels(classes: Sequence[str]) -> Levels:
    """Raises `InputError` for classes that are none of ILSVRC-2012's synsets."""
    known = hypernyms()
    if strange := [name for name in classes if name not in known]:
        raise InputError(
            f"--wordnet: {len(strange)} of the {len(classes)} classes are none of ILSVRC-2012's"
            f" synsets, n01440764 and so on: {', '.join(strange[:3])}."
        )
    ways = [way(name) for name in classes]
    rows = []
    for depth in range(1, max(map(len, ways))):
        rows.append([way[min(depth, len(way) - 1)] for way in ways])
    counts = [Counter(row) for row in rows]
    numbers = [dict(zip(count, range(len(count)), strict=True)) for count in counts]
    above = [[number[s] for s in row] for row, number in zip(rows, numbers, strict=True)]
    largest = (tuple(known[s][1] for s, _ in count.most_common(NAMED)) for count in counts)
    return Levels(np.array(above, np.int32), tuple(map(len, counts)), tuple(largest))
