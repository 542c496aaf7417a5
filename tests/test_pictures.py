"""One picture: decoded as other libraries have it, no larger than it is wanted; what cannot be read
says why.
"""

import io

import cv2
import numpy as np
import pytest
import simplejpeg
from photographs import SIDE, jpeg, photo
from PIL import Image

from jaxcnn.data.pictures import Unreadable, decode, square


def test_every_kind_of_jpeg_is_as_pillow_has_it():
    image = Image.fromarray(photo(0, 60, 81))
    kinds = {"rgb": image, "grey": image.convert("L"), "cmyk": image.convert("CMYK")}
    turned = Image.Exif()
    turned[0x0112] = 6  # a camera held upright
    for name, kind in kinds.items():
        for options in ({}, {"progressive": True}, {"exif": turned.tobytes()}):
            data = jpeg(kind, **options)
            want = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"), int)
            assert np.abs(decode(data, 60) - want).max() <= 2, (name, options)


def test_the_shorter_side_and_the_square_in_its_middle():
    image = photo(1, 50, 117)
    for shape, want in (((50, 117), (20, 46)), ((117, 50), (46, 20)), ((10, 11), (20, 22))):
        resized = decode(jpeg(cv2.resize(image, shape[::-1])), SIDE)
        assert resized.shape == (*want, 3)
        assert square(resized).shape == (SIDE, SIDE, 3)
    wide = np.arange(20 * 46 * 3).reshape(20, 46, 3)
    np.testing.assert_array_equal(square(wide), wide[:, 13:33])
    np.testing.assert_array_equal(square(wide.swapaxes(0, 1)), wide.swapaxes(0, 1)[13:33])


def test_a_much_larger_jpeg_is_decoded_at_less_than_its_size(monkeypatch):
    image = photo(2, 330, 400)
    heights, real = [], simplejpeg.decode_jpeg

    def noted(*arguments, **options) -> np.ndarray:
        found = real(*arguments, **options)
        heights.append(len(found))
        return found

    monkeypatch.setattr(simplejpeg, "decode_jpeg", noted)
    for side, height in ((40, 42), (42, 83), (165, 165), (166, 330)):
        got = decode(jpeg(image), side)
        assert heights.pop() == height
        want = cv2.resize(image, got.shape[1::-1], interpolation=cv2.INTER_AREA)
        assert got.shape == (side, int(side * 400 / 330), 3)
        assert np.abs(got.astype(int) - want).mean() < 3


def by_opencv(data: bytes, factor: int = 1) -> np.ndarray | None:
    flag = {1: cv2.IMREAD_COLOR, 2: cv2.IMREAD_REDUCED_COLOR_2, 4: cv2.IMREAD_REDUCED_COLOR_4}
    flags = flag[factor] | cv2.IMREAD_IGNORE_ORIENTATION
    image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    return None if image is None else image[..., ::-1]


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}])
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK", "YCCK"])
def test_its_pixels_are_opencvs(mode, options):
    size = (64, 104)  # which its reductions divide
    image = Image.fromarray(photo(5, *size)).convert(mode.replace("YCCK", "CMYK"))
    data = jpeg(image, **options)
    if mode == "YCCK":  # as Photoshop writes CMYK: Adobe's marker ends in a 2
        data = data.replace(b"Adobe\0d\0\0\0\0\0", b"Adobe\0d\0\0\0\0\2")
        assert data != jpeg(image, **options)
    for factor in (1, 2, 4):
        np.testing.assert_array_equal(decode(data, 64 // factor), by_opencv(data, factor))


def test_what_is_damaged_or_odd_is_what_opencv_makes_of_it():
    random = np.random.default_rng(0)
    image = photo(5, 64, 104)
    turned = Image.Exif()
    turned[0x0112] = 6
    odd = bytearray(jpeg(image, subsampling=0, exif=turned.tobytes()))
    odd[odd.index(b"\xff\xc0") + 11] = 0x14  # a subsampling that simplejpeg has no name for
    read, unread = 0, 0
    for k in range(200):
        data = bytearray(jpeg(image, progressive=k % 2 == 0))
        for place in random.integers(2, len(data) - 2, size=2):
            data[place] = random.integers(256)
        data = bytes(data if k else odd)
        want = by_opencv(data)
        if want is None:
            unread += 1
            with pytest.raises(Unreadable):
                decode(data, 64)
        elif min(want.shape[:2]) == 64:
            read += 1
            np.testing.assert_array_equal(decode(data, 64), want)
    assert read > 20 and unread > 20


def test_what_cannot_be_read_says_why():
    data = jpeg(photo(3, 200, 300))
    thumbnail = Image.fromarray(photo(4))
    exif = b"Exif\0\0" + jpeg(thumbnail)  # it has an end of its own, before the picture's scan
    for damaged in (b"", b"no picture" * 20, data[:30], data[:-2], data[: len(data) // 2]):
        with pytest.raises(Unreadable):
            decode(damaged, SIDE)
    with pytest.raises(Unreadable, match="cut off"):
        decode(jpeg(photo(3), exif=exif)[:-2], SIDE)
    assert decode(data + b"\0\0junk", SIDE).shape == (20, 30, 3)
