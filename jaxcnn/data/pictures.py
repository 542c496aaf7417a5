"""An encoded picture -> uint8 RGB of one size: the shorter side brought to `side`, the square in
the middle of it (Krizhevsky et al. 2012, section 2).
"""

import numpy as np

REDUCED = (8, 4, 2)  # the scales at which a JPEG can be decoded for less than the whole
# The markers that begin a JPEG's frame and say its size: all from C0 to CF but tables.
FRAMES = set(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


class Unreadable(Exception):
    """Why a picture cannot be decoded."""


def decode(data: bytes, side: int) -> np.ndarray:
    """A JPEG, or what else OpenCV reads, -> [H, W, 3] uint8 RGB whose shorter side is `side`.

    Grey and CMYK become RGB. A camera's orientation tag is not obeyed: published weights were
    trained without. Raises `Unreadable` for what is damaged or cut off.
    """
    import cv2

    return cv2.cvtColor(_decoded(data, side), cv2.COLOR_BGR2RGB)


def into(data: bytes, side: int, out: np.ndarray) -> None:
    """The square in the middle of `decode`, written to `out` [S, S, 3]: with no copy of it."""
    import cv2

    cv2.cvtColor(_middle(_decoded(data, side)), cv2.COLOR_BGR2RGB, dst=out)


def _decoded(data: bytes, side: int) -> np.ndarray:
    """As `decode`, but BGR. OpenCV turns it, for numpy's [..., ::-1] has to be copied later, which
    takes half as long as the decoding.
    """
    import cv2

    size = _jpeg_size(data)
    # What OpenCV before 5 makes of a JPEG without its end is grey from there on, and no error. The
    # last end comes after the last scan: a thumbnail in the header has an end of its own.
    whole = data.endswith(b"\xff\xd9") or data.rfind(b"\xff\xd9") > data.rfind(b"\xff\xda")
    if size and not whole:
        raise Unreadable("it is cut off")
    factor = next((f for f in REDUCED if size and min(size) >= f * side), 1)
    flag = getattr(cv2, f"IMREAD_REDUCED_COLOR_{factor}") if factor > 1 else cv2.IMREAD_COLOR
    image = None
    if data:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flag | cv2.IMREAD_IGNORE_ORIENTATION)
    if image is None:
        raise Unreadable("it cannot be decoded" if data else "it is empty")
    return _resize(
        image, size or image.shape[:2], side
    )  # of the size before reducing, which rounds


def square(image: np.ndarray) -> np.ndarray:
    """[H, W, C] -> [S, S, C], S the shorter side: the middle."""
    return np.ascontiguousarray(_middle(image))


def _middle(image: np.ndarray) -> np.ndarray:
    height, width, _ = image.shape
    side = min(height, width)
    top, left = round((height - side) / 2), round((width - side) / 2)
    return image[top : top + side, left : left + side]


def fits(data: bytes, side: int) -> bool:
    """Whether a picture is a JPEG in grey or RGB whose shorter side is `side` already."""
    size = _jpeg_size(data)
    return size is not None and min(size) == side and _components(data) in (1, 3)


def encode(image: np.ndarray) -> bytes:
    """[H, W, 3] uint8 RGB -> a JPEG of quality 95."""
    import cv2

    _, data = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95])
    return data.tobytes()


def _resize(image: np.ndarray, size: tuple[int, ...], side: int) -> np.ndarray:
    """`image`, a picture of `size` (H, W) or that picture reduced, at the shorter side `side`."""
    import cv2

    short = min(size)
    # As torchvision rounds: the longer side down.
    height, width = (side if n == short else side * n // short for n in size)
    if image.shape[:2] == (height, width):
        return image
    # Each new pixel is a mean over the old ones that it covers; of an enlarged picture, between.
    method = cv2.INTER_AREA if short > side else cv2.INTER_LINEAR
    return cv2.resize(image, (width, height), interpolation=method)


def _jpeg_size(data: bytes) -> tuple[int, int] | None:
    """(H, W) as the header has it; None if it is no JPEG or has no such header."""
    frame = _frame(data)
    if frame is None:
        return None
    at = frame + 5
    return int.from_bytes(data[at : at + 2], "big"), int.from_bytes(data[at + 2 : at + 4], "big")


def _components(data: bytes) -> int:
    frame = _frame(data)
    return 0 if frame is None else data[frame + 9]


def _frame(data: bytes) -> int | None:
    """Where a JPEG's frame header begins."""
    at = 2
    while data[:2] == b"\xff\xd8" and at + 9 < len(data) and data[at] == 0xFF:
        if data[at + 1] in FRAMES:
            return at
        if data[at + 1] == 0xFF:  # padding
            at += 1
        else:
            at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return None
