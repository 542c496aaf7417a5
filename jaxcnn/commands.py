"""What `launch.py` does with anything but experiments: data sets, files of weights, finished runs,
tables. jax, numpy and matplotlib are imported inside the commands, as there.
"""

import sys
from pathlib import Path
from typing import Annotated, Any, Literal

from rich.console import Console
from tyro.conf import Positional, UseAppendAction, arg

from jaxcnn.config import InputError

DataDir = Annotated[Path | None, arg(metavar="DIR", help="TFDS's folder; else TFDS_DATA_DIR.")]

RunFolder = Annotated[
    Positional[Path],
    arg(metavar="RUN", help="Folder of a finished run, as runs/EXPERIMENT/ARM/SEED."),
]
Checkpoint = Annotated[
    str,
    arg(
        metavar="last|best|STEP",
        help="Which one: of the run's last step, the best, or a kept step.",
    ),
]
Kind = Annotated[
    Positional[Literal["layers", "architectures", "published", "errata", "claims"]],
    arg(help="What the table is of."),
]
Format = Literal["terminal", "markdown", "csv", "latex"]

NAMED = 10  # unreadable pictures that are told by name

console = Console(highlight=False)


def setting(text: str) -> tuple[str, str]:
    """'PATH=VALUE' -> both."""
    path, equals, value = text.partition("=")
    if not equals:
        raise InputError(f"--set: {text!r} is not PATH=VALUE.")
    return path.strip(), value.strip()


def prepare(
    name: Annotated[
        Positional[str], arg(metavar="NAME", help="A TFDS builder, e.g. cifar10; or a folder.")
    ],
    archives: Annotated[
        Path | None, arg(metavar="DIR", help="Take the archives from here, not the network.")
    ] = None,
    data_dir: DataDir = None,
    to: Annotated[
        Path | None,
        arg(
            metavar="DIR", help="Of a folder: write its pictures there, as shards; or a .npz file."
        ),
    ] = None,
    form: Annotated[
        Literal["jpeg", "pixels"],
        arg(help="Of the shards: JPEGs, or the middle squares decoded (larger, faster)."),
    ] = "jpeg",
    side: Annotated[int, arg(help="Of the shards: the shorter side, in pixels.")] = 256,
    shard_size: Annotated[int, arg(help="Pictures in a shard.")] = 1024,
    workers: Annotated[int | None, arg(help="Processes; else as many as cores.")] = None,
) -> None:
    """Download a TFDS data set for `data.name`, or take it from local archives: needs the extra
    `prep`. Or make shards, which are read fast, of a folder train/CLASS/*, val/CLASS/*; or an array
    file, for pictures that fit in memory.

    The same command goes on where it was stopped, and makes damaged shards again.

    Example: python launch.py prepare cifar10
    Example: python launch.py prepare ILSVRC2012 --to imagenet-256
    """
    if to is not None and archives is not None:
        raise InputError("--archives: has no use beside --to, which makes shards of a folder.")
    if to is None:
        if (form, side, shard_size, workers) != ("jpeg", 256, 1024, None):
            raise InputError("--form, --side, --shard-size, --workers: of shards; name their --to.")
        from jaxcnn.data import photos
        from jaxcnn.data import prepare as preparation

        if photos.is_folder(Path(name)):
            raise InputError(f"--to: {name!r} is a folder; where are its shards to be written?")
        preparation.prepare(name, data_dir, archives, console.print)
        return
    from jaxcnn.console import counted

    if to.suffix == ".npz":
        if (form, shard_size, workers) != ("jpeg", 1024, None):
            raise InputError(
                "--form, --shard-size, --workers: of shards; --to names an array file."
            )
        from jaxcnn.data import arrays

        with counted(console, "preparing", "pictures") as progress:
            told = arrays.prepare(Path(name), to, side=side, progress=progress)
        for split, (count, unreadable) in told.items():
            console.print(
                f"{to}: {split}, {count:,} pictures; {len(unreadable)} could not be read"
                + "".join(f"\n  {who}: {why}" for who, why in list(unreadable.items())[:NAMED]),
                soft_wrap=True,
            )
        return
    from jaxcnn.data import shards

    with counted(console, "preparing", "pictures") as progress:
        index = shards.prepare(
            Path(name),
            to,
            side=side,
            form=form,
            shard_size=shard_size,
            workers=workers,
            progress=progress,
        )
    for split, entry in index["splits"].items():
        console.print(
            f"{to}: {split}, {entry['pictures']:,} pictures in {len(entry['shards']):,} shards;"
            f" {entry['unreadable']:,} could not be read"
            + (" (index.json names them)" if entry["unreadable"] else ""),
            soft_wrap=True,
        )


def evaluate(
    model: Annotated[
        Positional[str],
        arg(metavar="MODEL|RUN", help="E.g. resnet50_v1.5; a finished run's folder."),
    ],
    weights: Annotated[
        Path | None,
        arg(metavar="FILE", help="Of MODEL: .pth, .safetensors, .npz or Keras's .h5."),
    ] = None,
    data: Annotated[
        Path | None,
        arg(metavar="DIR", help="val/CLASS/*.JPEG, or shards of `prepare`; else RUN's own."),
    ] = None,
    crops: Annotated[
        Literal[1, 10, "dense"],
        arg(help="The centre; corners, centre and their mirror images; all of the picture."),
    ] = 1,
    batch_size: Annotated[int, arg(help="Pictures at once.")] = 64,
    limit: Annotated[int | None, arg(help="Only so many pictures, drawn by seed 0.")] = None,
    synsets: Annotated[
        Path | None,
        arg(metavar="FILE", help="All classes of the model, one a line: DIR has some of them."),
    ] = None,
    split: Annotated[
        Literal["validation", "test", "train"] | None,
        arg(help="Else validation; of RUN's own test."),
    ] = None,
    resize: Annotated[
        tuple[int, ...],
        arg(metavar="N...", help="The shorter side before cropping; of several, the mean."),
    ] = (),
    kind: Annotated[
        Literal["torchvision", "caffe"] | None,
        arg(name="input", help="What the net takes; else caffe for Keras's nets, torchvision."),
    ] = None,
    wordnet: Annotated[bool, arg(help="Errors at each level of WordNet, too.")] = False,
    workers: Annotated[int, arg(help="Processes that decode; 0: threads of this one.")] = 0,
    trust: Annotated[
        bool, arg(help="The file's net is the model, whatever its tensors' names say.")
    ] = False,
    out: Annotated[Path | None, arg(metavar="FILE", help="Write it as JSON, too.")] = None,
    checkpoint: Checkpoint = "last",
    data_dir: DataDir = None,
) -> None:
    """Top-1 and top-5 error of given weights, on a folder of pictures or on shards, or of a
    finished run, on its own, with 95 % intervals (Wilson's), beside what is published.

    Example: python launch.py evaluate resnet50_v1.5 --weights resnet50.pth --data ILSVRC2012
    Example: python launch.py evaluate runs/imagenet/resnet50/seed0-1f2e3d4c5b --crops 10
    """
    folder = Path(model) if (Path(model) / "run.json").is_file() else None
    if folder is not None and (weights or synsets or kind or trust):
        raise InputError("--weights, --synsets, --input, --trust: RUN has its own; of MODEL.")
    if folder is None and checkpoint != "last":
        raise InputError(f"--checkpoint: {checkpoint!r} is of a RUN; {model!r} is none.")
    if folder is None and (weights is None or data is None):
        missing = "--weights" if weights is None else "--data"
        raise InputError(
            f"{missing}: none; needed where {model!r} is no folder of a run (with run.json)."
        )
    from jaxcnn import backend, jobs, listing, records
    from jaxcnn import evaluate as evaluation
    from jaxcnn import wordnet as tree
    from jaxcnn.console import counted
    from jaxcnn.data import photos

    backend.set_up()
    if folder is None:
        assert weights is not None and data is not None
        resize = resize or (jobs.RESIZE,)
        source = photos.open_split(data, split or "validation", max(resize))
        named = None if synsets is None else jobs.read_synsets(synsets)
        of = {"synsets": named, "how": crops, "sides": resize, "kind": kind, "trust": trust}
        job = jobs.of_weights(model, weights, source, **of)
    else:
        of = {"data": data, "split": split, "how": crops, "sides": resize, "data_dir": data_dir}
        job = jobs.of_run(folder, checkpoint=checkpoint, **of)
    levels = tree.levels(job.net.classes) if wordnet else None
    with counted(console, job.net.name, "pictures") as progress:
        result = evaluation.judge(
            job,
            how=crops,
            sides=resize,
            levels=levels,
            batch_size=batch_size,
            limit=limit,
            workers=workers,
            progress=progress,
        )
    if result.unreadable:
        names = [f"{name}: {why}" for name, why in sorted(result.unreadable.items())]
        more = f"\n  and {len(names) - NAMED} more" if len(names) > NAMED else ""
        console.print(
            f"[yellow]note:[/] {len(names)} pictures could not be read and are left out:\n  "
            + "\n  ".join(names[:NAMED])
            + more,
            soft_wrap=True,
        )
    if result.pictures == 0:
        raise InputError(f"--data: none of the pictures of {split} in {str(data)!r} can be read.")
    compared = folder is None or (len(job.net.classes) == 1000 and split != "train")
    title = None if folder is None else f"{folder}, step {job.step:,}"
    listing.show(evaluation.table(job.net.name, result, crops, resize, title, compared), console)
    if levels is not None:
        listing.show(evaluation.level_table(result, levels), console)
    speed = result.pictures / result.seconds
    console.print(f"{result.pictures:,} pictures, {speed:,.1f} pictures/s", soft_wrap=True)
    if out is not None:
        written = {"command": records.command(), "model": model, "weights": weights, "data": data}
        written = {name: None if v is None else str(v) for name, v in written.items()}
        written |= {"split": split, "fingerprint": job.source.fingerprint, "crops": crops}
        written |= {"resize": list(resize), "limit": limit, "step": job.step} | result.as_json()
        records.write_json(out, written)
        console.print(f"Written: {out}", soft_wrap=True)


def native() -> None:
    """Compile convolutions by oneDNN for this CPU: faster than XLA's for all but the smallest nets.

    Optional; needs g++ and oneDNN (the extra `native`; Debian, Ubuntu: apt install libdnnl-dev).
    What is launched later uses them; JAXCNN_NATIVE=0 turns them off.
    """
    from jaxcnn import backend

    console.print(f"Written: {backend.build_native()}", soft_wrap=True)


def table(
    kind: Kind,
    names: Annotated[
        Positional[tuple[str, ...]],
        arg(metavar="MODEL...", help="For layers and architectures; the latter take wildcards."),
    ] = (),
    settings: Annotated[
        UseAppendAction[tuple[str, ...]],
        arg(name="set", metavar="PATH=VALUE", help="layers: change a knob, e.g. model.pool=max."),
    ] = (),
    classes: Annotated[int | None, arg(help="layers: how many.")] = None,
    size: Annotated[int | None, arg(help="layers: pixels on a side, not the paper's.")] = None,
    format: Annotated[
        Format | None, arg(help="In place of terminal, or of all three files.")
    ] = None,
    out: Annotated[
        Path | None, arg(metavar="DIR", help="Write Markdown, CSV and LaTeX there.")
    ] = None,
) -> None:
    """What can be calculated, without training: layers of a model, architectures side by side with
    published errors, all published errors, the notes' errata, the claims that it decides.

    Example: python launch.py table layers vgg16 --format markdown
    """
    if kind != "layers" and (settings or classes is not None or size is not None):
        raise InputError(f"--set, --classes, --size: {kind} has no use for them; layers has.")
    if kind in ("published", "errata", "claims") and names:
        raise InputError(f"MODEL: {' '.join(names)!r} has no place in the table of {kind}.")
    if kind == "layers" and not names:
        raise InputError("MODEL: none. Say which, e.g. python launch.py table layers lenet5.")
    from jaxcnn import listing, overview, tables

    if kind == "layers":
        changes = dict(setting(s) for s in settings)
        made = [tables.layers(*tables.named(n, changes, classes, size), n) for n in names]
    else:
        make = {"published": tables.results, "errata": tables.corrections}
        make["claims"] = overview.claims
        with console.status("tracing the programs"):
            if kind == "architectures":
                records = Path(__file__).resolve().parent.parent / "benchmarks" / "records"
                made = [tables.architectures(names, tables.measured(records))]
            else:
                made = [make[kind]()]
    for each in made:
        if out is not None:
            forms = listing.FORMATS if format in (None, "terminal") else (format,)
            for path in listing.write(each, out, tuple(forms)):
                console.print(f"Written: {path}", soft_wrap=True)
        elif format in (None, "terminal"):
            listing.show(each, console)
        else:
            sys.stdout.write(listing.render(each, format))


def plot(
    kind: Annotated[Positional[Literal["architectures"]], arg(help="What is drawn.")],
    out: Annotated[Path, arg(metavar="DIR", help="Folder of the figure.")] = Path("runs/figures"),
) -> None:
    """A figure, as PNG and SVG: accuracy against operations, parameters as bubbles.

    Example: python launch.py plot architectures --out figures
    """
    from jaxcnn import plots, records, tables

    with console.status("tracing the programs"):
        figure = plots.architectures(tables.points(), tables.CAPTION)
    for name, content in (("png", plots.png(figure)), ("svg", plots.svg(figure))):
        path = records.write(out / f"{kind}.{name}", content)
        console.print(f"Written: {path}", soft_wrap=True)


def export(
    folder: RunFolder,
    to: Annotated[
        Literal["safetensors", "packed", "stablehlo", "onnx", "c"],
        arg(help="Weights alone, twice; a program for jax; one for ONNX runtimes; C99 source."),
    ],
    out: Annotated[Path | None, arg(metavar="DIR", help="Else RUN/export.")] = None,
    checkpoint: Checkpoint = "last",
    data_dir: DataDir = None,
) -> None:
    """Write a trained model for other programs, and its model card.

    All but weights alone take pixels from 0 to 255, float32 [B, H, W, C], and give logits.

    Example: python launch.py export runs/relu_vs_sigmoid/relu/seed0-1f2e3d4c5b --to onnx
    """
    from jaxcnn import backend, records
    from jaxcnn import export as exports

    backend.set_up()
    if out is not None:
        records.check_writable(out)
    with console.status("reading the run"):
        paths = exports.export(folder, to, out, data_dir, checkpoint)
    for path in paths:
        size = f"{path.stat().st_size / 1000:.0f} kB"
        console.print(f"Written: {path} ({size})", soft_wrap=True)


def predict(
    folder: RunFolder,
    images: Annotated[
        Positional[tuple[Path, ...]],
        arg(metavar="IMAGE...", help="PNG, JPEG, ... of the size of the run's data set."),
    ],
    top: Annotated[int, arg(help="How many classes of each.")] = 5,
    show: Annotated[
        str, arg(metavar="LAYER", help="Draw its filters and feature maps into RUN/predict/.")
    ] = "",
    checkpoint: Checkpoint = "last",
    data_dir: DataDir = None,
) -> None:
    """What a trained model says of pictures: the likeliest classes and their probabilities; or
    where a face's points are, drawn into RUN/predict/ and as a table of x, y in pixels.

    With --show also what a layer makes of each: a PNG file.

    Example: python launch.py predict runs/relu_vs_sigmoid/relu/seed0-1f2e3d4c5b digit.png --top 3
    """
    if not images:
        raise InputError("IMAGE: none. Name one picture or more.")
    if top < 1:
        raise InputError(f"--top: {top} is not allowed; it must be at least 1.")
    from jaxcnn import backend, trained

    backend.set_up()
    with console.status("reading the run"):
        source = trained.load(folder, data_dir, checkpoint)
        points = source.run.train.objective == "landmarks"
        drawn = trained.shown(source, show, images) if show else []
        faces = trained.face_points(source, images) if points else []
        found = [] if points else trained.probabilities(source, images)
    _draw_points(folder, faces, images)
    for path, shares in zip(images, found, strict=not points):
        best = sorted(range(len(shares)), key=lambda k: -shares[k])[:top]
        words = [f"{source.data.classes[k]} {100 * shares[k]:.1f} %" for k in best]
        console.print(f"{path}: {', '.join(words)}", markup=False, soft_wrap=True)
    for path, parts in zip(images, drawn, strict=False):
        from jaxcnn import plots, records

        file = folder / "predict" / f"{path.stem}.{show.replace('/', '.')}.png"
        records.write(file, plots.png(plots.feature_maps(*parts)))
        console.print(f"Written: {file}", soft_wrap=True)


def landmarks(
    folder: RunFolder,
    split: Annotated[Literal["train", "validation", "test"], arg(help="Of the run's data.")] = (
        "test"
    ),
    out: Annotated[Path | None, arg(metavar="DIR", help="Else RUN/landmarks.")] = None,
    checkpoint: Checkpoint = "last",
    data_dir: DataDir = None,
) -> None:
    """How well a trained model finds the points of faces: normalised mean error, failures, the
    curve of cumulative errors, and pictures with what was found on them.

    Example: python launch.py landmarks runs/facial_landmarks/vgg/seed0-1f2e3d4c5b
    """
    import numpy as np

    from jaxcnn import backend, plots, records, stats, trained

    backend.set_up()
    out = folder / "landmarks" if out is None else out
    records.check_writable(out)
    with console.status("reading the run"):
        found = trained.judged(trained.load(folder, data_dir, checkpoint), split)
    mean, low, high = stats.interval(found.errors)
    console.print(
        f"{split}, {len(found.errors):,} faces: normalised mean error {100 * mean:.2f} % (95 %"
        f" interval {100 * low:.2f} to {100 * high:.2f}, of the pictures), median"
        f" {100 * np.median(found.errors):.2f} %"
    )
    thresholds = (0.08, 0.1)
    for threshold in thresholds:
        share = 100 * (found.errors > threshold).mean()
        console.print(f"failures, above {100 * threshold:g} %: {share:.2f} %")
    # From the best to the worst, so that the figure hides no failures.
    order = np.argsort(found.errors)[np.linspace(0, len(found.errors) - 1, 12).astype(int)]
    titles = [f"{100 * found.errors[i]:.1f} %" for i in order]
    drawn = plots.faces(found.images[order], found.found[order], found.points[order], titles)
    curve = plots.cumulative_errors(found.errors, thresholds)
    for name, figure in (("faces", drawn), ("cumulative_errors", curve)):
        path = records.write(out / f"{split}.{name}.png", plots.png(figure))
        console.print(f"Written: {path}", soft_wrap=True)


def faces(
    folder: RunFolder,
    layer: Annotated[
        str, arg(help="Whose features are the embedding; else what the last sees.")
    ] = "",
    split: Annotated[Literal["train", "validation", "test"], arg(help="Of the run's data.")] = (
        "test"
    ),
    gallery: Annotated[int, arg(help="Pictures of each person that are enrolled.")] = 1,
    pairs: Annotated[
        Path | None,
        arg(metavar="FILE", help="Folds of pairs as LFW's pairs.txt, in SPLIT's place."),
    ] = None,
    pictures: Annotated[
        Path | None, arg(metavar="DIR", help="Of --pairs: DIR/NAME/NAME_0001.jpg, ...")
    ] = None,
    zoom: Annotated[float, arg(help="Of --pairs: 2 takes the middle half of each picture.")] = 1.0,
    out: Annotated[Path | None, arg(metavar="DIR", help="Else RUN/faces.")] = None,
    checkpoint: Checkpoint = "last",
    data_dir: DataDir = None,
) -> None:
    """How well a trained model's embedding tells people apart: rank-1 and rank-5 identification,
    equal error rate, TAR at FAR, beside eigenfaces and pixels, with ROC and CMC curves.

    With data.unseen the test split is of people that the model was not trained on.

    Example: python launch.py faces runs/unseen_faces/margin/seed0-1f2e3d4c5b
    """
    if gallery < 1:
        raise InputError(f"--gallery: {gallery} is not allowed; it must be at least 1.")
    if (pairs is None) != (pictures is None) or (pairs is None and zoom != 1):
        raise InputError("--pairs: names pairs, --pictures their folder, --zoom is of both.")
    from jaxcnn import backend, listing, recognition, records, trained

    backend.set_up()
    out = folder / "faces" if out is None else out
    records.check_writable(out)
    with console.status("reading the run"):
        source = trained.load(folder, data_dir, checkpoint)
        if pairs is not None and pictures is not None:
            rows, curve = recognition.by_pairs(source, layer, pairs, pictures, zoom)
            paths = [recognition.write({pairs.stem: curve}, out, pairs.stem)]
        else:
            found = recognition.judged(source, layer, split, gallery)
            rows = recognition.table(source, split, gallery, found)
            paths = recognition.write_all(found, out, split)
    listing.show(rows, console)
    for path in paths:
        console.print(f"Written: {path}", soft_wrap=True)


def features(
    folder: RunFolder,
    layer: Annotated[str, arg(help="None: list the layers and their features' sizes.")] = "",
    split: Annotated[Literal["train", "validation", "test"], arg(help="Of the run's data.")] = (
        "train"
    ),
    to: Annotated[
        Path | None, arg(metavar="FILE.npz", help="Else RUN/features/LAYER.SPLIT.npz.")
    ] = None,
    checkpoint: Checkpoint = "last",
    data_dir: DataDir = None,
) -> None:
    """What a layer of a trained model makes of a data set, for other models: an .npz file with
    `features`, `labels` and `class_names`.

    The features of a layer are what the first layer behind it is given, so activation and pooling
    are in them.

    Example: python launch.py features runs/relu_vs_sigmoid/relu/seed0-1f2e3d4c5b --layer C3
    """
    from jaxcnn import backend, trained

    backend.set_up()
    with console.status("reading the run"):
        source = trained.load(folder, data_dir, checkpoint)
    if not layer:
        if to is not None:
            raise InputError("--to: of the features of a layer; name it by --layer.")
        for name, shape in trained.layers(source).items():
            console.print(f"{name}  {'x'.join(map(str, shape))}", markup=False)
        return
    path = to or folder / "features" / f"{layer.replace('/', '.')}.{split}.npz"
    found = trained.write_features(source, layer, split, path)
    size = "x".join(map(str, found.shape[1:]))
    console.print(f"Written: {path} ({len(found):,} pictures, {size})", soft_wrap=True)


def _draw_points(folder: Path, found: list[tuple[Any, Any]], images: tuple[Path, ...]) -> None:
    from jaxcnn import plots, records

    for file, (picture, points) in zip(images, found, strict=False):
        drawn = plots.png(plots.faces(picture[None], points[None]))
        lines = ["point,x,y", *(f"{i},{x:.2f},{y:.2f}" for i, (x, y) in enumerate(points))]
        for ending, content in (("png", drawn), ("csv", "\n".join(lines) + "\n")):
            path = records.write(folder / "predict" / f"{file.stem}.points.{ending}", content)
            console.print(f"Written: {path}", soft_wrap=True)
