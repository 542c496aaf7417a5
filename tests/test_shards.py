"""A folder of pictures prepared as shards: the same pictures, also after a kill or damage."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import simplejpeg
from photographs import CLASSES, SIDE, jpeg, photo, taken, train, uneven
from PIL import Image

from jaxcnn.config import InputError
from jaxcnn.data import photos, shards
from jaxcnn.data.photos import open_split
from jaxcnn.data.stream import Stream


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return uneven(tmp_path_factory.mktemp("photos"))


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
