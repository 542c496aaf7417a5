"""Points on faces: which are which, by how many there are.

68 are those of iBUG's 300-W (Sagonas et al. 2013), numbered from 0: jaw 0 to 16, brows 17 to 26,
nose 27 to 35, eyes 36 to 47, mouth 48 to 67; left is the picture's.
"""

from typing import NamedTuple

from jaxcnn.config import InputError


class Points(NamedTuple):
    """What a number of points stands for."""

    eyes: tuple[int, int]  # the outer corners, whose distance is the unit of errors
    mirror: tuple[int, ...]  # the point that each is in a mirror


def _mirrored(count: int, pairs: list[tuple[int, int]]) -> tuple[int, ...]:
    order = list(range(count))
    for a, b in pairs:
        order[a], order[b] = b, a
    return tuple(order)


def _across(first: int, last: int) -> list[tuple[int, int]]:
    """Points of a line from one side to the other: the first with the last, and so on."""
    return [(first + i, last - i) for i in range((last - first + 1) // 2)]


KNOWN = {
    68: Points(
        (36, 45),
        _mirrored(
            68,
            [*_across(0, 16), *_across(17, 26), *_across(31, 35)]
            + [*_across(36, 45)[:4], (40, 47), (41, 46)]
            + [*_across(48, 54), *_across(55, 59), *_across(60, 64), *_across(65, 67)],
        ),
    )
}


def points(count: int) -> Points:
    """Raises `InputError` for a number of points of which nothing is known here."""
    if count not in KNOWN:
        known = ", ".join(map(str, KNOWN))
        raise InputError(
            f"data.name: its pictures have {count} points; what they are is known of {known}."
        )
    return KNOWN[count]
