"""`launch.py prepare DIR --to SHARDS`: a folder of pictures, or a TFDS set's, decoded once, as
ArrayRecord files, or as numpy's.

    index.json       classes; of each split its shards, with counts and SHA-256; what was unreadable
    train-00000-of-01252.array_record, ...   or, of pixels, .npy (squares.py)
    begun.jsonl      while it is not whole: how it was begun, then a line a finished shard

A shard appears whole or not at all, so a killed preparation goes on with those that are missing.
"""

import hashlib
import json
import multiprocessing
import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout

from jaxcnn.config import InputError
from jaxcnn.data import photos, pictures, squares
from jaxcnn.data import workers as processes
from jaxcnn.data.builders import Records
from jaxcnn.data.photos import Folder
from jaxcnn.data.pictures import Unreadable

BEGUN = "begun.jsonl"
SUFFIXES = {"jpeg": ".array_record", "pixels": squares.SUFFIX}

Entry = dict[str, Any]  # of a shard: split, file, pictures, bytes, sha256, unreadable
Progress = Callable[[int, int], None]  # pictures done, of how many


def prepare(
    root: Path,
    to: Path,
    *,
    side: int = 256,
    form: str = "jpeg",
    shard_size: int = 1024,
    workers: int | None = None,
    progress: Progress | None = None,
) -> Entry:
    """Write the splits of the folder `root` as shards of `shard_size` pictures into `to`; gives the
    index.

    Of a picture whose shorter side is brought to `side` the square in the middle is kept: `form`
    'jpeg' as a JPEG, but JPEGs of that side already as they are, 'pixels' as `3 side^2` bytes that
    need no decoding. The same call again writes what is missing or damaged.
    """
    for name, value in (("--side", side), ("--shard-size", shard_size), ("--workers", workers)):
        if value is not None and value < 1:
            raise InputError(f"{name}: {value} is not allowed; it must be at least 1.")
    if form not in photos.FORMATS:
        raise InputError(f"--form: {form!r} is not one of {', '.join(map(repr, SUFFIXES))}.")
    if not root.is_dir():
        raise InputError(f"--to: is for folders of pictures, and {str(root)!r} is none.")
    splits = photos.encoded(root, side)
    to.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(to / ".lock", timeout=0):
            return _prepare(splits, to, side, form, shard_size, workers, progress)
    except Timeout:
        raise InputError(f"--to: another preparation is writing to {str(to)!r}.") from None


def _prepare(
    splits: Mapping[str, Folder | Records],
    to: Path,
    side: int,
    form: str,
    shard_size: int,
    workers: int | None,
    progress: Progress | None,
) -> Entry:
    classes = next(iter(splits.values())).classes
    plan: Entry = {"format": photos.FORMATS[form], "form": form, "side": side}
    plan |= {"shard_size": shard_size}
    plan |= {"fingerprints": {s: f.fingerprint for s, f in splits.items()}}
    plan |= {"classes": hashlib.sha256("\n".join(classes).encode()).hexdigest()}
    before = _before(to, plan)
    todo, done = [], []
    for split, folder in splits.items():
        starts = range(0, len(folder), shard_size)
        for i, start in enumerate(starts):
            file = f"{split}-{i:05d}-of-{len(starts):05d}{SUFFIXES[form]}"
            end = min(start + shard_size, len(folder))
            whole = file in before and _sound(to / file, before[file])
            if whole:
                done.append(before[file])
            else:
                todo.append((split, to / file, start, end))
    # From here on the index is no longer true, or not yet.
    (to / photos.INDEX).unlink(missing_ok=True)
    total = sum(map(len, splits.values()))
    count = sum(entry["pictures"] for entry in done)
    with (to / BEGUN).open("w") as log:
        for line in (plan, *done):
            _append(log, line)
        if progress is not None:
            progress(count, total)
        for entry in _written(splits, todo, form, workers):
            _append(log, entry)
            done.append(entry)
            count += entry["pictures"]
            if progress is not None:
                progress(count, total)
    index = plan | {"classes": list(classes)}
    index["splits"] = {s: _summary(s, f, done) for s, f in splits.items()}
    del index["fingerprints"]
    draft = to / f".{photos.INDEX}"
    draft.write_text(json.dumps(index, indent=1) + "\n")
    os.replace(draft, to / photos.INDEX)
    (to / BEGUN).unlink()
    return index


def _summary(split: str, folder: Folder | Records, entries: list[Entry]) -> Entry:
    own = sorted((e for e in entries if e["split"] == split), key=lambda e: e["file"])
    sums = hashlib.sha256("\n".join(e["sha256"] for e in own).encode()).hexdigest()
    return {
        "pictures": len(folder),
        "unreadable": sum(len(e["unreadable"]) for e in own),
        "fingerprint": folder.fingerprint,
        "sha256": sums,
        "shards": [{k: v for k, v in e.items() if k != "split"} for e in own],
    }


def _before(to: Path, plan: Entry) -> dict[str, Entry]:
    """The shards by file that an earlier preparation by the same plan says it wrote."""
    entries: list[Entry] = []
    if (to / BEGUN).is_file():
        lines = []
        for line in (to / BEGUN).read_text().splitlines():
            try:
                lines.append(json.loads(line))
            except ValueError:  # torn by the kill
                continue
        was, entries = (lines[0], lines[1:]) if lines else (plan, [])
    elif (to / photos.INDEX).is_file():
        index = json.loads((to / photos.INDEX).read_text())
        was = {k: index.get(k) for k in plan}
        was["fingerprints"] = {s: e["fingerprint"] for s, e in index["splits"].items()}
        was["classes"] = hashlib.sha256("\n".join(index["classes"]).encode()).hexdigest()
        for split, entry in index["splits"].items():
            entries += [shard | {"split": split} for shard in entry["shards"]]
    else:
        return {}
    differing = [k for k, v in plan.items() if was.get(k) != v]
    if differing:
        was_is = "; ".join(f"{k} {was.get(k)}, now {plan[k]}" for k in differing)
        raise InputError(
            f"--to: {str(to)!r} holds shards made otherwise ({was_is}). Name another folder, or"
            " remove it."
        )
    return {entry["file"]: entry for entry in entries}


def _written(
    splits: Mapping[str, Folder | Records],
    todo: list[tuple[str, Path, int, int]],
    form: str,
    workers: int | None,
) -> Iterator[Entry]:
    at_once = min(workers or processes.cores(), len(todo))
    if at_once <= 1:
        for split, file, start, end in todo:
            yield write_shard(split, file, splits[split].part(start, end), form)
        return
    # Not by fork: a library's threads would not come along, nor their locks be released.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(at_once, context, initializer=processes.begin) as pool:
        parts = [(split, file, splits[split].part(*ends), form) for split, file, *ends in todo]
        futures = [pool.submit(write_shard, *part) for part in parts]
        try:
            for future in as_completed(futures):
                yield future.result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def write_shard(split: str, file: Path, folder: Folder | Records, form: str) -> Entry:
    """Every picture of `folder` as a record of one file, which appears when it is whole."""
    draft = file.with_name(f".{file.name}")
    unreadable = (_write_squares if form == "pixels" else _write_jpegs)(draft, folder)
    entry = {"split": split, "file": file.name, "pictures": len(folder)}
    entry |= {"bytes": draft.stat().st_size, "sha256": _sha256(draft), "unreadable": unreadable}
    os.replace(draft, file)
    return entry


def _write_jpegs(draft: Path, folder: Folder | Records) -> dict[str, str]:
    """Names of the pictures that cannot be read, and why."""
    from array_record.python.array_record_module import ArrayRecordWriter

    # A record a group: any can be read alone. JPEGs do not get smaller.
    writer = ArrayRecordWriter(str(draft), "group_size:1,uncompressed")
    unreadable = {}
    for i in range(len(folder)):
        name, label = folder.name(i), folder.label(i)
        try:
            data = folder.load(i)[0]
            image = pictures.decode(data, folder.side)  # also of a file that is kept: is it whole?
            kept = pictures.fits(data, folder.side)
            picture = data if kept else pictures.encode(pictures.square(image))
        except (Unreadable, OSError) as error:
            unreadable[name], picture = str(error), b""
        writer.write(photos.record(label, name, picture))
    writer.close()
    return unreadable


def _write_squares(draft: Path, folder: Folder | Records) -> dict[str, str]:
    names = [os.fsencode(folder.name(i)) for i in range(len(folder))]
    kind = squares.record(folder.side, max(map(len, names)))
    rows = np.lib.format.open_memmap(draft, "w+", kind, (len(folder),), version=(1, 0))
    unreadable = {}
    for i, name in enumerate(names):
        rows["name"][i], rows["label"][i] = name, folder.label(i)
        try:
            folder.into(i, rows["picture"][i])
            rows["readable"][i] = True
        except (Unreadable, OSError) as error:
            unreadable[os.fsdecode(name)] = str(error)
    rows.flush()
    return unreadable


def _sound(file: Path, entry: Entry) -> bool:
    return (
        file.is_file()
        and file.stat().st_size == entry["bytes"]
        and _sha256(file) == entry["sha256"]
    )


def _sha256(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _append(log: Any, line: Entry) -> None:
    log.write(json.dumps(line) + "\n")
    log.flush()
    os.fsync(log.fileno())
