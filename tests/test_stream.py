"""Pictures that do not fit in memory: a batch is a function of its number, none is lost or met
twice, and what cannot be read is told and counted.
"""

import json
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from photographs import CLASSES, SIDE, everything, jpeg, make, photo, rows_of, taken, train, uneven
from PIL import Image

from jaxcnn.config import InputError
from jaxcnn.data import photos, shards
from jaxcnn.data import stream as stream_module
from jaxcnn.data.photos import open_split
from jaxcnn.data.stream import LEFT_OUT, Stream


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return uneven(tmp_path_factory.mktemp("photos"))


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
    (tmp_path / "train" / "a" / "b").mkdir()
    with pytest.raises(InputError, match=r"its folders \(b\) are not looked into"):
        train(tmp_path)
    (tmp_path / "train" / "a" / "a.JPEG").write_bytes(jpeg(photo(0)))
    (tmp_path / "val" / "b").mkdir(parents=True)
    with pytest.raises(InputError, match="val'?: b: train/ has no such class"):
        train(tmp_path)
    (tmp_path / "val" / "b").rmdir()
    (tmp_path / "val").rmdir()
    with pytest.raises(InputError, match="has no 'test', only train"):
        open_split(tmp_path, "test", SIDE)
