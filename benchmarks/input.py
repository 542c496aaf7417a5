"""How many pictures a second can one core read for training, beside PyTorch and tf.data?

    python benchmarks/input.py DIR             # a table; DIR has train/CLASS/*.jpg
    python benchmarks/input.py DIR --write     # and a record in benchmarks/records/
    python benchmarks/input.py DIR --tensorflow PYTHON  # and tf.data, by a Python that has it
    python benchmarks/input.py DIR --toy       # that it runs

Each contestant gives shuffled batches of uint8 squares of 256 pixels and labels, with all cores at
work: ours from the folder, from shards of its JPEGs and from shards of decoded squares; PyTorch's
DataLoader with a process a core, Pillow, the shorter side to 256 and the square in the middle, as
torchvision's transforms would have it; tf.data with a parallel call a core, which decodes no more
than the square of a picture whose shorter side is 256 already. tf.data has the settings it comes
with, the less accurate cosine transform (INTEGER_FAST) and interpolated chroma; ours and Pillow
have the accurate one, 3 % slower in libjpeg-turbo here, and the same chroma.

Two more only decode files that lie in memory, by simplejpeg as ours do: the whole of each, and each
at an eighth of its size, which takes hardly more than reading its Huffman codes. The first bounds
what a reader can reach that decodes whole pictures by it; the second, one that spared itself all
of a picture but its codes. (To have a square, those to its left and right must be read as well.)

A block opens a stream, lets it fill its buffers and times batches from there; contestants take
turns, each a process of its own. Two clocks run: the wall's, and the processor time of the
contestant and its processes (Linux), of which other programs on the machine take less. Needs the
extra `parity`, and for tf.data another environment (tensorflow-cpu); nothing else should run.
Takes some five minutes.
"""

import argparse
import itertools
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import Any

import contest
from contest import CORES, Failed, Worker

QUESTION = "How many pictures a second can one core read for training, beside PyTorch and tf.data?"
SIDE = 256
FOLDER, JPEG, PIXELS = "ours, folder", "ours, shards of JPEGs", "ours, shards of squares"
TORCH, TF = "PyTorch, DataLoader", "tf.data"
DECODER, CODES = "simplejpeg alone", "simplejpeg alone, to an eighth"
QUIET = {"CUDA_VISIBLE_DEVICES": "", "TF_CPP_MIN_LOG_LEVEL": "3"}
FORMS = {JPEG: "jpeg", PIXELS: "pixels"}


def ours(root: Path, batch: int) -> Iterator[Any]:
    from jaxcnn.data.photos import open_split
    from jaxcnn.data.stream import Stream

    stream = Stream(open_split(root, "train", SIDE), batch, training=True, epochs=None)
    with stream.batches() as batches:
        yield from batches


def listed(root: Path) -> list[tuple[Path, int]]:
    """Every file and its label."""
    classes = sorted(path.name for path in (root / "train").iterdir() if path.is_dir())
    return [
        (path, label)
        for label, name in enumerate(classes)
        for path in sorted((root / "train" / name).iterdir())
    ]


def tf_data(root: Path, batch: int) -> Iterator[Any]:
    import tensorflow as tf  # type: ignore[import-not-found]

    files, labels = zip(*listed(root), strict=True)

    def square(path: Any, label: Any) -> tuple[Any, Any]:
        data = tf.io.read_file(path)
        shape = tf.io.extract_jpeg_shape(data)
        height, width = shape[0], shape[1]
        short = tf.minimum(height, width)

        def cropped() -> Any:
            window = [(height - SIDE) // 2, (width - SIDE) // 2, SIDE, SIDE]
            return tf.io.decode_and_crop_jpeg(data, tf.stack(window), channels=3)

        def resized() -> Any:
            image = tf.io.decode_jpeg(data, channels=3)
            size = tf.where(tf.stack([height, width]) == short, SIDE, SIDE * shape[:2] // short)
            image = tf.image.resize(image, size)
            image = tf.image.resize_with_crop_or_pad(image, SIDE, SIDE)
            return tf.cast(tf.clip_by_value(tf.round(image), 0, 255), tf.uint8)

        image = tf.cond(short == SIDE, cropped, resized)
        return tf.ensure_shape(image, (SIDE, SIDE, 3)), label

    paths = tf.data.Dataset.from_tensor_slices(([str(file) for file in files], list(labels)))
    order = paths.shuffle(len(files)).repeat()
    batches = order.map(square, num_parallel_calls=CORES, deterministic=False)
    yield from batches.batch(batch, drop_remainder=True).prefetch(2).as_numpy_iterator()


def pytorch(root: Path, batch: int) -> Iterator[Any]:
    import numpy as np
    import torch
    from PIL import Image

    files = listed(root)

    class Squares(torch.utils.data.Dataset):
        def __len__(self) -> int:
            return len(files)

        def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
            path, label = files[index]
            with Image.open(path) as opened:
                image = opened.convert("RGB")
            short = min(image.size)
            if short != SIDE:
                width, height = (SIDE if n == short else SIDE * n // short for n in image.size)
                image = image.resize((width, height), Image.Resampling.BILINEAR)
            left, top = (round((n - SIDE) / 2) for n in image.size)
            image = image.crop((left, top, left + SIDE, top + SIDE))
            return torch.from_numpy(np.array(image)), label

    # Epoch after epoch, by the same processes.
    order = torch.utils.data.RandomSampler(files, num_samples=10**9)
    yield from torch.utils.data.DataLoader(Squares(), batch, sampler=order, num_workers=CORES)


def decoder(root: Path, batch: int, least: int = 0) -> Iterator[None]:
    """At the smallest size that has `least` pixels along each side; 0: as they are."""
    import simplejpeg

    files = [path.read_bytes() for path, _ in listed(root)[:1000]]

    def decode(part: list[bytes]) -> None:
        for data in part:
            simplejpeg.decode_jpeg(data, min_height=least, min_width=least)

    with ThreadPoolExecutor(CORES) as pool:
        for start in itertools.cycle(range(0, len(files) - batch + 1, batch)):
            own = files[start : start + batch]
            list(pool.map(decode, [own[k::CORES] for k in range(CORES)]))
            yield


def processor_seconds() -> float:
    """Of this session's processes: those that are alive, and those that they have waited for."""
    own, ticks = os.getsid(0), 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it has just ended
            fields = stat.read_text().rpartition(")")[2].split()
            if int(fields[3]) == own:
                ticks += sum(map(int, fields[11:15]))
    return ticks / os.sysconf("SC_CLK_TCK")


def work(who: str, root: Path, batch: int) -> None:
    streams: dict[str, Callable[[Path, int], Iterator[Any]]] = {TORCH: pytorch, TF: tf_data}
    streams |= {DECODER: decoder, CODES: partial(decoder, least=1)}
    open_stream = streams.get(who, ours)

    def block(batches: int) -> list[float]:
        """Seconds of so many batches, once the buffers are full: by the wall, of processors."""
        stream = open_stream(root, batch)
        for _ in range(2 * CORES + 2):
            next(stream)
        start, used = time.perf_counter(), processor_seconds()
        for _ in range(batches):
            next(stream)
        seconds = [time.perf_counter() - start, processor_seconds() - used]
        stream.close()  # type: ignore[attr-defined]
        return seconds

    contest.serve({"block": block})


def measure(
    root: Path, batch: int, batches: int, repeats: int, tensorflow: str | None
) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Of every block, by contestant: pictures a second and core, and a processor second."""
    from jaxcnn.data import shards

    speeds: dict[str, list[float]] = {}
    used: dict[str, list[float]] = {}
    with ExitStack() as stack:
        place = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        roots = {FOLDER: root, TORCH: root} | ({TF: root} if tensorflow else {})
        roots |= {DECODER: root, CODES: root}
        for who, form in FORMS.items():
            roots[who] = place / form
            shards.prepare(root, roots[who], side=SIDE, form=form)
        workers = {}
        for who, own in roots.items():
            arguments = [str(own), "--work", who, "--batch", str(batch)]
            python = tensorflow if who == TF and tensorflow else sys.executable
            workers[who] = stack.enter_context(Worker(who, __file__, arguments, QUIET, python))
            workers[who].ask("block", batches=1)
        for _ in range(repeats):
            for who, worker in workers.items():
                seconds, processors = worker.ask("block", batches=batches)
                speeds.setdefault(who, []).append(batch * batches / seconds / CORES)
                used.setdefault(who, []).append(batch * batches / max(processors, 0.01))
    return speeds, used


def main() -> None:
    parser = argparse.ArgumentParser(description=QUESTION)
    parser.add_argument("data", type=Path, metavar="DIR", help="train/CLASS/*.jpg")
    parser.add_argument("--batch", type=int, default=50)
    parser.add_argument("--batches", type=int, default=200, help="of a block")
    parser.add_argument("--repeats", type=int, default=7, help="blocks of each contestant")
    parser.add_argument("--tensorflow", metavar="PYTHON", help="of an environment that has it")
    parser.add_argument("--toy", action="store_true", help="small, and once: that it runs")
    parser.add_argument("--write", action="store_true", help="a record in benchmarks/records/")
    parser.add_argument("--work", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        return work(options.work, options.data, options.batch)
    if options.toy:
        options.batch, options.batches, options.repeats = 4, 1, 1
    busy = contest.load()
    try:
        amount = options.batch, options.batches, options.repeats
        speeds, used = measure(options.data, *amount, options.tensorflow)
    except Failed as error:
        sys.exit(str(error))
    spreads = {who: contest.spread(values, 0) for who, values in speeds.items()}
    processors = {who: contest.spread(values, 0) for who, values in used.items()}
    for who, s in spreads.items():
        p = processors[who]
        print(
            f"{who}: {s['median']:,.0f} pictures/s a core ({s['low']:,.0f} to {s['high']:,.0f}),"
            f" {p['median']:,.0f} a processor second ({p['low']:,.0f} to {p['high']:,.0f})"
        )
    peers = [who for who in (TORCH, TF) if who in speeds]
    ratios = {
        f"{who} / {peer}": contest.ratio(values, used[peer])
        for peer in peers
        for who, values in used.items()
        if who not in peers
    }
    for what, r in ratios.items():
        print(f"{what}: {r['median']:.2f} ({r['low']:.2f} to {r['high']:.2f})")
    if options.write:
        origin = contest.origin({"JAX_PLATFORMS": "cpu"})
        settings = {"batch": options.batch, "batches": options.batches, "side": SIDE}
        settings |= {"repeats": options.repeats, "load_before": busy}
        settings |= {"pictures": sum(1 for _ in (options.data / "train").glob("*/*"))}
        origin["command"] = origin["command"].replace(str(options.data), options.data.name)
        if options.tensorflow:
            origin["command"] = origin["command"].replace(options.tensorflow, "PYTHON")
        record = {"question": QUESTION, "toy": options.toy, **origin, "settings": settings}
        record |= {"pictures_per_s_and_core": spreads, "pictures_per_processor_s": processors}
        record |= {"ratios": ratios}  # of processor time
        words = [*(["toy"] if options.toy else []), contest.machine(origin["device"])]
        contest.write("input", " ".join(words), record)
    return None


if __name__ == "__main__":
    main()
