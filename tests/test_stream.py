"""Pictures that do not fit in memory: a batch is a function of its number, none is lost or met
twice, and what cannot be read is told and counted.
"""

import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import simplejpeg
from PIL import Image

from jaxcnn import crops as crops_room
from jaxcnn import evaluate, jobs, models, weights
from jaxcnn.config import InputError
from jaxcnn.crops import Net
from jaxcnn.data import photos, shards
from jaxcnn.data import stream as stream_module
from jaxcnn.data.photos import open_split
from jaxcnn.data.pictures import Unreadable, decode, square
from jaxcnn.data.stream import LEFT_OUT, Stream

REPOSITORY = Path(__file__).resolve().parent.parent
SIDE = 20
CLASSES = tuple(f"n{i:08d}" for i in range(10))


def photo(seed: int, height: int = 30, width: int = 40) -> np.ndarray:
    """[height, width, 3] uint8, smooth as photos are."""
    rough = np.random.default_rng(seed).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    return cv2.resize(rough, (width, height), interpolation=cv2.INTER_CUBIC)


def jpeg(image: np.ndarray | Image.Image, **options) -> bytes:
    raw = io.BytesIO()
    kind = image if isinstance(image, Image.Image) else Image.fromarray(image)
    kind.save(raw, "JPEG", quality=95, **options)
    return raw.getvalue()


def make(root: Path, split: str, each: int, classes=CLASSES) -> None:
    for i, name in enumerate(classes):
        (root / split / name).mkdir(parents=True)
        for k in range(each):
            path = root / split / name / f"{name}_{k}.JPEG"
            path.write_bytes(jpeg(photo(100 * i + k)))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """47 of train, of sizes of their own; 10 classes."""
    root = tmp_path_factory.mktemp("photos")
    make(root, "train", 4)
    for k in range(7):
        path = root / "train" / CLASSES[3] / f"more_{k}.jpg"
        path.write_bytes(jpeg(photo(900 + k, 20 + 3 * k, 50)))
    return root


def train(root: Path) -> photos.Source:
    return open_split(root, "train", SIDE)


def taken(stream: Stream, *where, **how) -> list[bytes]:
    """Every picture with its label, in order."""
    with stream.batches(*where, **how) as batches:
        return [rows for images, labels in batches for rows in rows_of(images, labels)]


def rows_of(images: np.ndarray, labels: np.ndarray) -> list[bytes]:
    assert (images.dtype, labels.dtype) == (np.uint8, np.int32)
    assert images.shape == (len(labels), SIDE, SIDE, 3)
    return [i.tobytes() + bytes([n]) for i, n in zip(images, labels, strict=True)]


def everything(source: photos.Source) -> list[bytes]:
    return [
        image.tobytes() + bytes([n])
        for image, n in (photos.read(source, i) for i in range(len(source)))
    ]


# One picture


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


# The order of a stream


def test_a_batch_is_a_function_of_seed_epoch_and_number(folder):
    source = train(folder)

    def epochs(seed: int) -> list[list[bytes]]:
        both = taken(Stream(source, 5, seed=seed, training=True, epochs=2))
        assert len(both) == 90  # 47 a time, less what makes no whole batch
        return [both[:45], both[45:]]

    first = epochs(0)
    assert epochs(0) == first
    orders = [*first, *epochs(1), *epochs(2)]
    assert len({tuple(order) for order in orders}) == 6  # not even shifted by an epoch
    assert all(Counter(order) <= Counter(everything(source)) for order in orders)


def test_evaluation_meets_each_picture_once_in_order(folder):
    source = train(folder)
    stream = Stream(source, 5)
    assert taken(stream) == everything(source)
    with stream.batches() as batches:
        sizes = [len(labels) for _, labels in batches]
    assert sizes == [5] * 9 + [2]
    some = Stream(source, 5, examples=13)
    assert len(taken(some)) == 13 and taken(some) == taken(some)
    assert len({row[-1] for row in taken(some)}) > 4  # not the first classes alone


@pytest.mark.parametrize("hosts", [2, 3])
def test_hosts_share_without_overlap_or_loss(folder, hosts):
    source = train(folder)
    want = Counter(everything(source))

    def parts(**how) -> list[list[bytes]]:
        own = [Stream(source, 4, process_index=i, process_count=hosts, **how) for i in range(hosts)]
        return [taken(stream) for stream in own]

    assert sum(map(Counter, parts()), Counter()) == want
    shared = parts(training=True, epochs=1)
    assert len({len(part) for part in shared}) == 1
    assert sum(map(Counter, shared), Counter()) <= want
    alone = Stream(source, 4 * hosts, training=True)  # whose batches they take a part of each
    with alone.batches() as batches:
        parts = [np.split(np.arange(4 * hosts), hosts) for _ in range(alone.per_epoch)]
        whole = [rows_of(*batch) for batch in batches]
    for i, part in enumerate(shared):
        assert part == [rows[k] for rows, own in zip(whole, parts, strict=True) for k in own[i]]


@pytest.mark.parametrize("processes", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_a_saved_position_repeats_and_skips_nothing(folder, processes):
    source = train(folder)
    stream = Stream(source, 5, seed=3, training=True, epochs=3)
    whole = taken(stream, processes=processes)
    assert whole == taken(stream)  # how many decode is no matter
    for stop in (0, 4, 9, 13, 27):
        with stream.batches(processes=processes) as batches:
            begun = [row for _ in range(stop) for row in rows_of(*next(batches))]
            saved = json.loads(json.dumps(batches.position))
        assert begun + taken(stream, saved, processes=processes) == whole
    assert taken(stream, 13) == whole[13 * 5 :]  # a step counter is a position, too


def test_positions_and_numbers_that_do_not_fit(folder):
    source = train(folder)
    with Stream(source, 5).batches() as batches:
        saved = batches.position
    for other in (Stream(source, 6), Stream(source, 5, seed=1), Stream(source, 5, training=True)):
        with pytest.raises(InputError, match="of another stream"):
            other.batches(saved)
    with pytest.raises(InputError, match="--workers: -1"):
        Stream(source, 5).batches(processes=-1)
    for wrong, words in (
        ({"batch_size": 0}, "batch_size: 0"),
        ({"batch_size": 48, "training": True}, "more than the 47 pictures"),
        ({"batch_size": 5, "process_index": 2, "process_count": 2}, "process_index: 2"),
        ({"batch_size": 5, "examples": 0}, "examples: 0"),
    ):
        with pytest.raises(InputError, match=words):
            Stream(source, **wrong)


# What cannot be read


@pytest.fixture
def damaged(tmp_path: Path) -> tuple[Path, set[str]]:
    """40 pictures; one grey, one CMYK, four that cannot be read, two of them in a row."""
    make(tmp_path, "train", 4)
    image = Image.fromarray(photo(7))

    def path(i: int, k: int) -> Path:
        return tmp_path / "train" / CLASSES[i] / f"{CLASSES[i]}_{k}.JPEG"

    path(0, 1).write_bytes(jpeg(image.convert("L")))
    path(0, 2).write_bytes(jpeg(image.convert("CMYK")))
    path(1, 1).write_bytes(b"")
    path(1, 2).write_bytes(jpeg(photo(8))[:-300])
    path(4, 0).write_bytes(b"\xff\xd8 no picture")
    path(9, 3).write_bytes(b"GIF, it says")
    bad = {(1, 1), (1, 2), (4, 0), (9, 3)}
    return tmp_path, {f"{CLASSES[i]}/{CLASSES[i]}_{k}.JPEG" for i, k in bad}


@pytest.mark.parametrize("prepared", [False, True])
def test_unreadable_pictures_are_left_out_or_replaced_and_named(damaged, tmp_path, prepared):
    root, bad = damaged
    if prepared:
        shards.prepare(root, tmp_path / "shards", side=SIDE, shard_size=7, workers=1)
    source = train(tmp_path / "shards" if prepared else root)
    places = [i for i in range(40) if source.name(i) in bad]
    said: list[str] = []
    with Stream(source, 16).batches(tell=said.append) as batches:
        labels = np.concatenate([labels for _, labels in batches])
        assert set(batches.unreadable) == bad
    assert np.flatnonzero(labels == LEFT_OUT).tolist() == places == [5, 6, 16, 39]
    assert sorted(line.partition(":")[0] for line in said) == sorted(bad)
    stream = Stream(source, 8, training=True, epochs=2)
    with stream.batches() as batches:
        both = [row for images, labels in batches for row in rows_of(images, labels)]
        assert set(batches.unreadable) == bad
    good = [photos.read(source, i) for i in range(40) if i not in places]
    own = Counter(image.tobytes() + bytes([n]) for image, n in good)
    # The next that can be read: 7 for 5 and 6, 17 for 16, and behind the last comes the first.
    instead = [photos.read(source, i) for i in (7, 7, 17, 0)]
    own.update(image.tobytes() + bytes([n]) for image, n in instead)
    assert Counter(both) == own + own
    assert both == taken(stream)


def test_a_folder_of_which_nothing_can_be_read(tmp_path):
    (tmp_path / "train" / "a").mkdir(parents=True)
    (tmp_path / "train" / "a" / "b.jpg").write_bytes(b"")
    with pytest.raises(InputError, match="none of 100 pictures from a/b.jpg on"):
        taken(Stream(train(tmp_path), 1, training=True))


def test_too_little_shared_memory_is_said_before_a_process_dies_of_it(folder, monkeypatch):
    usage = shutil.disk_usage("/")._replace(free=2**26)  # Docker's 64 MB
    monkeypatch.setattr(shutil, "disk_usage", lambda place: usage)
    monkeypatch.setattr(stream_module, "SHARED_MEMORY", folder)
    with pytest.raises(InputError, match="--workers: 2 .* up to 96 MB of .*, which has 67 MB"):
        Stream(open_split(folder, "train", 1000), 4).batches(processes=2)


def test_folders_that_do_not_fit(tmp_path):
    with pytest.raises(InputError, match="is no folder"):
        train(tmp_path / "absent")
    with pytest.raises(InputError, match="neither index.json"):
        train(tmp_path)
    (tmp_path / "train").mkdir()
    with pytest.raises(InputError, match="no folders of pictures"):
        train(tmp_path)
    (tmp_path / "train" / "a").mkdir()
    with pytest.raises(InputError, match="has no picture"):
        train(tmp_path)
    (tmp_path / "train" / "a" / "a.JPEG").write_bytes(jpeg(photo(0)))
    (tmp_path / "val" / "b").mkdir(parents=True)
    with pytest.raises(InputError, match="val'?: b: train/ has no such class"):
        train(tmp_path)
    (tmp_path / "val" / "b").rmdir()
    (tmp_path / "val").rmdir()
    with pytest.raises(InputError, match="has no 'test', only train"):
        open_split(tmp_path, "test", SIDE)


# Shards


@pytest.mark.parametrize("form", photos.FORMATS)
def test_shards_are_the_folder_picture_for_picture(folder, tmp_path, form):
    seen = []
    index = shards.prepare(
        *(folder, tmp_path),
        **{"side": SIDE, "form": form, "shard_size": 10, "workers": 1},
        progress=lambda *at: seen.append(at),
    )
    assert seen == [(0, 47), (10, 47), (20, 47), (30, 47), (40, 47), (47, 47)]
    assert index == json.loads((tmp_path / "index.json").read_text())
    names = {f"train-{i:05d}-of-00005{shards.SUFFIXES[form]}" for i in range(5)}
    left = {path.name for path in tmp_path.iterdir()} - {".lock"}
    assert left == names | {"index.json"}
    own, source = train(folder), train(tmp_path)
    assert (source.classes, source.fingerprint, len(source)) == (CLASSES, own.fingerprint, 47)
    for i in range(47):
        (image, label), (want, place) = photos.read(source, i), photos.read(own, i)
        assert (label, source.name(i)) == (place, own.name(i))
        difference = np.abs(image.astype(int) - want)
        # Encoded once more, so small a picture changes by 3 to 5; another one differs by 60.
        assert difference.max() == 0 if form == "pixels" else difference.mean() < 8
    if form == "pixels":
        rows = np.load(tmp_path / "train-00004-of-00005.npy")  # as anyone reads it
        assert rows["readable"].all() and rows["label"].tolist() == own.labels[40:].tolist()
        np.testing.assert_array_equal(rows["picture"][0], photos.read(own, 40)[0])
        stream = {"batch_size": 6, "seed": 5, "training": True}
        assert taken(Stream(source, **stream)) == taken(Stream(own, **stream))


def test_a_file_that_is_small_enough_is_kept_as_it_is(tmp_path):
    (tmp_path / "train" / "a").mkdir(parents=True)
    data = {"grey": jpeg(Image.fromarray(photo(1, SIDE, 33)).convert("L"))}
    data |= {"rgb": jpeg(photo(0, 25, SIDE)), "a_png": b""}
    data["a_png"] = cv2.imencode(".png", photo(2, SIDE, 25)[..., ::-1])[1].tobytes()
    for name, content in data.items():
        (tmp_path / "train" / "a" / f"{name}.jpg").write_bytes(content)
    shards.prepare(tmp_path, tmp_path / "s", side=SIDE, workers=1)
    source = train(tmp_path / "s")
    assert isinstance(source, photos.Shards)
    records = [source._record(i) for i in range(3)]
    stored = {source.name(i)[2:-4]: record[1][record[2] :] for i, record in enumerate(records)}
    assert stored["grey"] == data["grey"] and stored["rgb"] == data["rgb"]
    assert simplejpeg.decode_jpeg_header(stored["a_png"])[:2] == (SIDE, SIDE)  # all that is used


KILLED = """
import multiprocessing, os, signal, sys
from pathlib import Path
from jaxcnn.data import shards

if __name__ == "__main__":
    def progress(done, total):
        if done >= 20:
            print(*(child.pid for child in multiprocessing.active_children()), flush=True)
            os.kill(os.getpid(), signal.SIGKILL)

    root, to, workers = sys.argv[1:]
    shards.prepare(Path(root), Path(to), side=20, shard_size=10, workers=int(workers),
                   progress=progress)
"""


@pytest.fixture
def killed(tmp_path: Path, folder: Path, environment: dict[str, str]) -> Callable[..., list[int]]:
    """A preparation that is killed after two shards -> the ids of its processes."""
    script = tmp_path / "killed.py"
    script.write_text(KILLED)
    own = environment | {"PYTHONPATH": os.pathsep.join(sys.path)}

    def run(to: Path, workers: int) -> list[int]:
        arguments = [sys.executable, script, folder, to, str(workers)]
        done = subprocess.run(arguments, env=own, timeout=60, stdout=subprocess.PIPE, text=True)
        assert done.returncode == -signal.SIGKILL
        return [int(process) for process in done.stdout.split()]

    return run


def alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    status = Path(f"/proc/{process}/stat")
    return not (status.exists() and status.read_text().rpartition(")")[2].split()[0] == "Z")


def test_of_a_killed_preparation_no_process_stays(killed, tmp_path):
    processes = killed(tmp_path / "shards", 2)
    assert len(processes) == 2
    end = time.monotonic() + 20
    while any(map(alive, processes)) and time.monotonic() < end:
        time.sleep(0.05)
    left = [process for process in processes if alive(process)]
    for process in left:
        os.kill(process, signal.SIGKILL)
    assert not left


def test_a_killed_preparation_goes_on_with_what_is_missing(folder, tmp_path, killed):
    to = tmp_path / "shards"
    killed(to, 1)
    whole = sorted(to.glob("train-*"))
    assert len(whole) == 2
    before = {path: path.stat().st_mtime_ns for path in whole}
    with pytest.raises(InputError, match="neither index.json"):
        train(to)
    with (to / "begun.jsonl").open("a") as log:
        log.write('{"split": "train", "fi')  # torn
    with pytest.raises(InputError, match="made otherwise .side 20, now 24."):
        shards.prepare(folder, to, side=24, shard_size=10, workers=1)
    options = {"side": SIDE, "shard_size": 10, "workers": 1}
    index = shards.prepare(folder, to, **options)
    assert {path: path.stat().st_mtime_ns for path in before} == before
    fresh = shards.prepare(folder, tmp_path / "fresh", **options)
    assert index == fresh
    # Whole, it is only looked through; what is damaged is made again.
    victim, short = sorted(to.glob("train-*"))[1:3]
    raw = bytearray(victim.read_bytes())
    raw[-100] ^= 1
    victim.write_bytes(raw)
    short.write_bytes(short.read_bytes()[:-1])
    with pytest.raises(InputError, match="bytes, not"):
        train(to)
    times = {path: path.stat().st_mtime_ns for path in to.glob("train-*")}
    assert shards.prepare(folder, to, **options) == fresh
    again = {path: path.stat().st_mtime_ns for path in to.glob("train-*")}
    assert {path for path in times if times[path] != again[path]} == {victim, short}
    for path in again:
        assert path.read_bytes() == (tmp_path / "fresh" / path.name).read_bytes()


def test_shards_that_do_not_fit(folder, tmp_path):
    for changes, words in (
        ({"side": 0}, "--side: 0"),
        ({"form": "png"}, "--form: 'png' is not one of 'jpeg', 'pixels'"),
    ):
        with pytest.raises(InputError, match=words):
            shards.prepare(folder, tmp_path, **changes)
    with pytest.raises(InputError, match="--to: is for folders"):
        shards.prepare(folder / "absent", tmp_path)
    for form, side in (("jpeg", 21), ("pixels", 19)):
        to = tmp_path / form
        shards.prepare(folder, to, side=SIDE, form=form, shard_size=50, workers=1)
        with pytest.raises(InputError, match=f"--resize: {side} is not possible"):
            open_split(to, "train", side)
    index = json.loads((tmp_path / "pixels" / "index.json").read_text()) | {"format": 1}
    (tmp_path / "pixels" / "index.json").write_text(json.dumps(index))
    with pytest.raises(InputError, match="of a form that is no longer read"):
        train(tmp_path / "pixels")
    index = json.loads((tmp_path / "jpeg" / "index.json").read_text()) | {"format": 1}
    (tmp_path / "jpeg" / "index.json").write_text(json.dumps(index))
    assert len(train(tmp_path / "jpeg")) == 47  # whole pictures, of which the squares are read
    with pytest.raises(InputError, match="made otherwise .format 1, now 2"):
        shards.prepare(folder, tmp_path / "jpeg", side=SIDE, shard_size=50, workers=1)
    (tmp_path / "jpeg" / "index.json").write_text("{}")
    with pytest.raises(InputError, match="is no index of shards"):
        train(tmp_path / "jpeg")


# Evaluation


def test_crops_are_the_papers():
    images = jnp.asarray(np.random.default_rng(0).integers(0, 256, (2, 256, 256, 3), np.uint8))
    [one] = crops_room.views(images, 224, 1)
    np.testing.assert_array_equal(one, images[:, 16:240, 16:240])
    ten = crops_room.views(images, 224, 10)
    corners = [(0, 0), (0, 32), (32, 0), (32, 32), (16, 16)]
    for i, (top, left) in enumerate(corners):
        want = images[:, top : top + 224, left : left + 224]
        np.testing.assert_array_equal(ten[i], want)
        np.testing.assert_array_equal(ten[i + 5], want[:, :, ::-1])


def test_inputs_are_what_the_weights_were_trained_on():
    pixel = jnp.array([255, 0, 128], jnp.uint8).reshape(1, 1, 1, 3)
    torch = [(1 - 0.485) / 0.229, (0 - 0.456) / 0.224, (128 / 255 - 0.406) / 0.225]
    np.testing.assert_allclose(jobs.torchvision_input(pixel).ravel(), torch, rtol=1e-5)
    caffe = [128 - 103.939, 0 - 116.779, 255 - 123.68]
    np.testing.assert_allclose(jobs.caffe_input(pixel).ravel(), caffe, rtol=1e-5)


def opinionated() -> tuple[Any, Any]:
    """A ResNet-20 that tells pictures and crops apart and is sure of none, unlike a new one."""
    model = models.create_model("resnet20")
    variables = model.init(jax.random.key(0), jnp.zeros((1, 32, 32, 3)), train=False)
    x = np.stack([photo(100 * i, 32, 32) for i in range(10)]) / 255
    x = ((x - jobs.MEAN) / jobs.STD).astype(np.float32)
    logits = np.asarray(model.apply(variables, x, train=False)[0])
    scale = logits.std(0).mean()
    fc = variables["params"]["fc"]
    fc = {"kernel": fc["kernel"] / scale, "bias": jnp.asarray(-logits.mean(0) / scale)}
    return model, variables | {"params": variables["params"] | {"fc": fc}}


@pytest.mark.slow
@pytest.mark.parametrize("crops", [1, 10])
def test_predictions_are_the_mean_over_the_crops(crops):
    model, variables = opinionated()
    images = np.stack([photo(i, 36, 36) for i in range(3)])
    net = Net("resnet20", model, 32, 3, jobs.torchvision_input, CLASSES)
    got = crops_room.predict(net, variables, jnp.asarray(images), crops)
    want = []
    for top, left in [(0, 0), (0, 4), (4, 0), (4, 4), (2, 2)] if crops == 10 else [(2, 2)]:
        part = images[:, top : top + 32, left : left + 32]
        for shown in (part, part[:, :, ::-1]) if crops == 10 else (part,):
            x = (shown / 255 - np.array(jobs.MEAN)) / np.array(jobs.STD)
            logits = np.asarray(model.apply(variables, x.astype(np.float32), train=False)[0])
            powers = np.exp(logits - logits.max(-1, keepdims=True))
            want.append(powers / powers.sum(-1, keepdims=True))
    np.testing.assert_allclose(got, np.mean(want, 0), rtol=2e-4, atol=1e-6)


def test_errors_are_counted_once_and_nothing_is_given_away():
    scores = jnp.array(np.eye(8, dtype=np.float32)[[1, 1, 1, 1]] + np.linspace(0.1, 0, 8))
    labels = jnp.array([1, 7, 4, LEFT_OUT])  # best; in place 8; in place 5; left out
    assert evaluate.count(scores, labels).tolist() == [3, 2, 1]
    broken = jnp.full((2, 8), jnp.nan)
    assert evaluate.count(broken, jnp.array([0, 3])).tolist() == [2, 2, 2]


def test_wilsons_interval():
    # By hand: (p + z^2 / 2n -+ z sqrt(p (1 - p) / n + z^2 / 4n^2)) / (1 + z^2 / n)
    z, n, p = 1.959964, 50, 0.1
    root = z * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    want = [(p + z**2 / (2 * n) + sign * root) / (1 + z**2 / n) for sign in (-1, 1)]
    np.testing.assert_allclose(evaluate.interval(5, 50), want, rtol=1e-6)


def test_places_of_some_classes_among_all(tmp_path):
    model = models.create_model("resnet20")
    names = [f"n{i:08d}" for i in (5, 3, 9, 1, 7, 2, 8, 4, 6, 0)]
    path = tmp_path / "synsets.txt"
    path.write_text("\n".join(f"{n} a word, another" for n in names) + "\n")
    synsets = jobs.read_synsets(path)
    assert jobs.output_places(["n00000002", "n00000007"], model, synsets) == [2, 7]
    assert jobs.output_places(CLASSES, model) == list(range(10))
    for classes, named, words in (
        (CLASSES[:4], None, "has 4 classes and the model 10"),
        (CLASSES[:4], synsets[:9], "names 9 classes and the model has 10"),
        (("cat", "n00000002"), synsets, "1 of its 2 classes are none of --synsets: cat"),
    ):
        with pytest.raises(InputError, match=words):
            jobs.output_places(classes, model, named)


@pytest.fixture(scope="module")
def weighted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict]:
    """A ResNet-20 with random weights, as a file."""
    _, variables = opinionated()
    path = tmp_path_factory.mktemp("weights") / "resnet20.npz"
    weights.save(path, variables, model="resnet20")
    return path, variables


def test_evaluate_on_the_command_line(weighted, tmp_path, command):
    path, variables = weighted
    make(tmp_path, "val", 3)
    bad = tmp_path / "val" / CLASSES[6] / f"{CLASSES[6]}_1.JPEG"
    bad.write_bytes(b"")
    source = open_split(tmp_path, "validation", 36)
    read = [
        photos.read(source, i) for i in range(30) if source.name(i) != f"{CLASSES[6]}/{bad.name}"
    ]
    shown = np.stack([image for image, _ in read])[:, 2:34, 2:34]
    x = ((shown / 255 - jobs.MEAN) / jobs.STD).astype(np.float32)
    logits = models.create_model("resnet20").apply(variables, x, train=False)[0]
    order, labels = np.argsort(-np.asarray(logits), -1), np.array([n for _, n in read])
    wrong = [int((order[:, :k] != labels[:, None]).all(-1).sum()) for k in (1, 5)]
    assert len(np.unique(order[:, 0])) > 1  # a net that says the same of all would show nothing
    arguments = ("evaluate", "resnet20", "--weights", path, "--data", tmp_path, "--resize", 36)
    record = tmp_path / "record.json"
    code, out, err = command(*arguments, "--batch-size", 9, "--out", record)
    assert code == 0, err
    assert "1 pictures could not be read and are left out" in out
    assert f"{CLASSES[6]}/{bad.name}: it is empty" in out
    assert "29 pictures, " in out and "pictures/s" in out
    assert f"{100 * wrong[0] / 29:.2f}" in out and f"{100 * wrong[1] / 29:.2f}" in out
    written = json.loads(record.read_text())
    assert [written[k]["errors"] for k in ("top1", "top5")] == wrong
    assert written["pictures"] == 29 and len(written["unreadable"]) == 1
    # Shards, ten crops, some of the pictures, some of the classes
    code, out, err = command(
        *("prepare", tmp_path, "--to", tmp_path / "shards", "--side", 36, "--form", "pixels"),
        *("--workers", 1),
    )
    assert code == 0, err
    assert "validation, 30 pictures in 1 shards; 1 could not be read" in out
    arguments = (*arguments[:5], tmp_path / "shards", "--resize", 36)
    code, out, err = command(*arguments, "--batch-size", 9, "--out", record)
    assert code == 0, err
    again = json.loads(record.read_text())
    assert (again["top1"], again["top5"]) == (written["top1"], written["top5"])
    code, out, err = command(*arguments, "--crops", 10, "--limit", 12, "--out", record)
    assert code == 0, err
    assert "resnet20, 10 crops, here" in out
    assert json.loads(record.read_text())["pictures"] in (11, 12)


def test_evaluate_on_some_of_the_classes(weighted, tmp_path, command):
    path, variables = weighted
    make(tmp_path, "val", 8, CLASSES[1:4])
    (tmp_path / "synsets.txt").write_text("".join(f"{name} a word\n" for name in CLASSES[::-1]))
    source = open_split(tmp_path, "validation", 32)
    x = np.stack([photos.read(source, i)[0] for i in range(24)]) / 255
    x = ((x - jobs.MEAN) / jobs.STD).astype(np.float32)
    logits = models.create_model("resnet20").apply(variables, x, train=False)[0]
    best = np.asarray(logits).argmax(-1)
    wrong, as_first = (int((best != np.repeat(p, 8)).sum()) for p in ([1, 2, 3], [0, 1, 2]))
    assert wrong != as_first
    record = tmp_path / "record.json"
    code, _, err = command(
        *("evaluate", "resnet20", "--weights", path, "--data", tmp_path, "--resize", 32),
        *("--synsets", tmp_path / "synsets.txt", "--batch-size", 9, "--out", record),
    )
    assert code == 0, err
    assert json.loads(record.read_text())["top1"]["errors"] == wrong


def test_devices_share_a_batch_that_they_do_not_divide(weighted, tmp_path):
    path, _ = weighted
    make(tmp_path, "val", 3)
    source = open_split(tmp_path, "validation", 32)
    job = jobs.of_weights("resnet20", path, source)
    alone, shared = (evaluate.judge(job, batch_size=9, devices=jax.devices()[:n]) for n in (1, 8))
    assert (alone.pictures, alone.errors) == (shared.pictures, shared.errors)
    assert alone.pictures == 30 and 0 < alone.errors[1] < 30


def test_evaluate_refuses_before_long_work(weighted, tmp_path, command):
    path, _ = weighted
    make(tmp_path, "train", 1, CLASSES[:4])
    line = ("evaluate", "resnet20", "--weights", path, "--data", tmp_path)
    for more, words in (
        ((), "--split: .* has no 'validation', only train"),
        (("--split", "train"), "it has 4 classes and the model 10"),
        (("--split", "train", "--synsets", tmp_path / "absent"), "--synsets: .* cannot be read"),
    ):
        code, _, err = command(*line, *more)
        assert code == 2
        assert re.search(words, err), err
    make(tmp_path, "val", 1)
    for name in CLASSES[4:]:
        (tmp_path / "train" / name).mkdir()
        (tmp_path / "train" / name / "a.JPEG").write_bytes(jpeg(photo(0)))
    code, _, err = command(*line, "--resize", 31)
    assert code == 2 and "--resize: 31 is less than the 32 pixels of 'resnet20'" in err
    code, _, err = command("prepare", tmp_path)
    assert code == 2 and "--to: " in err
    code, _, err = command("prepare", "cifar10", "--side", 64)
    assert code == 2 and "--side, --shard-size, --workers: of shards; name their --to" in err
    code, _, err = command("prepare", tmp_path, "--to", tmp_path / "s", "--archives", tmp_path)
    assert code == 2 and "--archives: has no use beside --to" in err
    code, _, err = command("evaluate", "lenet5", *line[2:])
    assert code == 2 and "channel" in err
    code, _, err = command("evaluate", "resnet21", *line[2:])
    assert code == 2 and "Did you mean" in err


def test_published_figures_stand_below_ours():
    result = evaluate.Evaluation(1000, (240, 70), {}, 2.0)
    rows = evaluate.table("resnet50_v1.5", result, 1).rows
    assert rows[0]["top1"] == 24 and rows[0]["top1_interval"] == "21.46 to 26.74"
    assert [row["top1"] for row in rows[1:]] == [23.87, 19.142, 23.45]
    assert [row["top1"] for row in evaluate.table("alexnet", result, 10).rows[1:]] == [40.7]
    assert len(evaluate.table("resnet20", result, 1).rows) == 1
