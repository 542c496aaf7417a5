"""An encoded picture -> uint8 RGB of one size: the shorter side brought to `side`, the square in
the middle of it (Krizhevsky et al. 2012, section 2).
"""

import numpy as np
import simplejpeg

REDUCED = (8, 4, 2)  # the scales at which a JPEG can be decoded for less than the whole


class Unreadable(Exception):
    """Why a picture cannot be decoded."""


def decode(data: bytes, side: int) -> np.ndarray:
    """A JPEG, or what else OpenCV reads, -> [H, W, 3] uint8 RGB whose shorter side is `side`.

    Grey and CMYK become RGB. A camera's orientation tag is not obeyed: published weights were
    trained without. Raises `Unreadable` for what is damaged or cut off.
    """
    # What OpenCV before 5 makes of a JPEG without its end is grey from there on, and no error. The
    # last end comes after the last scan: a thumbnail in the header has an end of its own.
    whole = data.endswith(b"\xff\xd9") or data.rfind(b"\xff\xd9") > data.rfind(b"\xff\xda")
    if data.startswith(b"\xff\xd8") and not whole:
        raise Unreadable("it is cut off")
    size, _ = _header(data)
    image = _by_simplejpeg(data, size, side) if size else None
    if image is None:
        image = _by_opencv(data)
    return _resize(image, size or image.shape[:2], side)


def into(data: bytes, side: int, out: np.ndarray) -> None:
    """The square in the middle of `decode`, written to `out` [S, S, 3]."""
    out[:] = _middle(decode(data, side))


def _by_simplejpeg(data: bytes, size: tuple[int, int], side: int) -> np.ndarray | None:
    """OpenCV's pixels of a JPEG, in nine tenths of its time; None where there is anything odd about
    it: OpenCV reads some of those. It can be reduced, as long as both sides are `side` or more.
    """
    factor = next((f for f in REDUCED if min(size) >= f * side), 1)
    height, width = (-(-n // factor) for n in size)
    try:
        return simplejpeg.decode_jpeg(data, min_height=height, min_width=width, min_factor=factor)
    except ValueError:
        return None


def _by_opencv(data: bytes) -> np.ndarray:
    import cv2

    flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    image = cv2.imdecode(np.frombuffer(data, np.uint8), flags) if data else None
    if image is None:
        raise Unreadable("it cannot be decoded" if data else "it is empty")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


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
    size, colours = _header(data)
    return size is not None and min(size) == side and colours in ("Gray", "RGB", "YCbCr")


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


def _header(data: bytes) -> tuple[tuple[int, int] | None, str]:
    """(H, W) and the kind of colours of a JPEG; None and "" of what else there is."""
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
    except (KeyError, ValueError):  # the former at a subsampling that it does not know
        return None, ""
    return (int(height), int(width)), colours
