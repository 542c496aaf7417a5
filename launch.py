#!/usr/bin/env python3
"""jaxcnn: convolutional networks in JAX, and every claim about them put on trial.

Examples:
  python launch.py list                                    what there is to run
  python launch.py show relu_vs_sigmoid --preset quick     what would run, resolved
  python launch.py run relu_vs_sigmoid --preset quick      train, table, plots, verdict
  python launch.py run my_experiment.py --seeds 0..9       a file of your own, ten seeds
  python launch.py run relu_vs_sigmoid --arms relu tanh --set train.epochs=3
  python launch.py report relu_vs_sigmoid --preset quick   the report again, from the records
  python launch.py run --all --preset quick                every experiment, one after the other
  python launch.py run relu_vs_sigmoid --on slurm --gpus 1 a task an arm, in Slurm's queue
  python launch.py run relu_vs_sigmoid --hosts 2           each run on two processes
  python launch.py status relu_vs_sigmoid                  how far its runs and tasks are
  python launch.py cancel relu_vs_sigmoid                  its tasks leave the queue
  python launch.py collect --all --preset quick            their records in small files, to commit
  python launch.py report --from results                   all reports again, from those files
  python launch.py prepare cifar10                         fetch a TFDS data set
  python launch.py prepare ILSVRC2012 --to imagenet-256    shards of a folder of pictures
  python launch.py evaluate vgg16 --weights vgg16.pth --data imagenet-256
  python launch.py evaluate RUN --crops 10                 a finished run, by ten crops
  python launch.py table layers lenet5                     every layer: parameters, MACs, field
  python launch.py plot architectures                      accuracy against operations
  python launch.py export RUN --to onnx                    a trained model for other programs
  python launch.py predict RUN picture.png                 what it says of a picture
  python launch.py faces RUN                               how well it tells people apart
  python launch.py features RUN --layer conv2              what a layer makes of the data set
"""

import contextlib
import errno
import functools
import os
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro
from rich.console import Console
from tyro.conf import FlagCreatePairsOff, OmitArgPrefixes, Positional, UseAppendAction, arg

from jaxcnn import experiment
from jaxcnn.config import Absent, InputError, get
from jaxcnn.experiment import Experiment
from jaxcnn.slurm import Resources

if TYPE_CHECKING:
    from jaxcnn.findings import Table

# jax, numpy and matplotlib are imported inside the commands: `--help` and `list` need none of them.

Names = Annotated[
    Positional[tuple[str, ...]],
    arg(metavar="NAME...", help="Experiments by name, or paths of files that define EXPERIMENT."),
]
All = Annotated[bool, arg(name="all", help="Every experiment of experiments/, in place of NAME.")]
Preset = Annotated[str, arg(help="quick, default or paper; `show` lists an experiment's presets.")]
Arms = Annotated[tuple[str, ...], arg(metavar="ARM...", help="Only these arms.")]
Seeds = Annotated[str, arg(metavar="0..9|0,1,5", help="In place of the experiment's own seeds.")]
Settings = Annotated[
    UseAppendAction[tuple[str, ...]],
    arg(name="set", metavar="PATH=VALUE", help="Change a field of every run, e.g. optim.lr=0.02."),
]
Out = Annotated[Path, arg(metavar="DIR", help="Folder of the records.")]
DataDir = Annotated[Path | None, arg(metavar="DIR", help="TFDS's folder; else TFDS_DATA_DIR.")]

Kind = Annotated[
    Positional[Literal["layers", "architectures", "published", "errata", "claims"]],
    arg(help="What the table is of."),
]
Format = Literal["terminal", "markdown", "csv", "latex"]

UNASKED = Resources()
NAMED = 10  # unreadable pictures that are told by name

console = Console(highlight=False)


def list_experiments() -> None:
    """The experiments, a line each."""
    for name in experiment.available():
        exp = experiment.load(name)
        console.print(
            f"[bold]{name}[/]  {exp.claim}  [dim]({', '.join(exp.arms)}; {exp.source})[/]"
        )


def show(
    names: Names,
    preset: Preset = "default",
    arms: Arms = (),
    seeds: Seeds = "",
    settings: Settings = (),
    data_dir: DataDir = None,
) -> None:
    """An experiment as it will run: base run, arms, grid, predictions, presets, and what is set of
    XLA, jax and the allocator.

    Example: python launch.py show relu_vs_sigmoid --preset quick
    """
    from jaxcnn import backend
    from jaxcnn import show as view

    backend.set_up()
    for exp in _select(names, preset, arms, seeds, settings, data_dir):
        view.show(exp, preset, data_dir, console)


def run(
    names: Names = (),
    every: All = False,
    preset: Preset = "default",
    arms: Arms = (),
    seeds: Seeds = "",
    settings: Settings = (),
    out: Out = Path("runs"),
    data_dir: DataDir = None,
    checkpoint_every: Annotated[float, arg(help="Seconds between checkpoints.")] = 30.0,
    tensorboard: Annotated[
        bool, arg(help="Write TensorBoard event files beside the records.")
    ] = False,
    at_once: Annotated[
        int | None, arg(help="Runs side by side; else as many as cores, or as fit in memory.")
    ] = None,
    on: Annotated[
        Literal["here", "slurm"], arg(help="slurm: submit a task an arm, and return at once.")
    ] = "here",
    resources: Resources = UNASKED,
    hosts: Annotated[
        str | None,
        arg(
            metavar="N|auto",
            help="As N processes that share each batch, on this machine's CPU, or where"
            " JAX_COORDINATOR_ADDRESS and JAX_PROCESS_ID say; auto: as Slurm, MPI or a TPU pod"
            " started them.",
        ),
    ] = None,
) -> int:
    """Train what is missing, then print and write the report.

    Ctrl-C saves, and the same command goes on. More seeds train only what is new. Of several
    experiments one that fails is reported at the end, by exit code 1 too, and the others go on;
    with --all one whose data are the user's own and not on this machine is passed over.
    With --on slurm each task is this command with one arm, and the rest of the options is sbatch's.
    With --hosts a process that dies ends all within a minute, and the same command goes on.

    Example: python launch.py run relu_vs_sigmoid --preset quick --seeds 0..9
    """
    if at_once is not None and at_once < 1:
        raise InputError(f"--at-once: {at_once} is not allowed; it must be at least 1.")
    if hosts is not None:
        if on == "slurm":
            raise InputError("--hosts: has no use beside --on slurm; there it is --nodes.")
        code = _together(hosts, data_dir)
        if code is not None:
            return code
    if on == "slurm":
        names = _names(names, every)
        exps = _asked(names, preset, arms, seeds, settings)
        common = ["--preset", preset, "--out", str(out)]  # to status and report, too
        common += ["--seeds", seeds] if seeds else []
        common += [word for setting in settings for word in ("--set", setting)]
        common += ["--data-dir", str(data_dir)] if data_dir else []
        own = [*common, "--checkpoint-every", str(checkpoint_every)]
        own += ["--tensorboard"] if tensorboard else []
        own += ["--at-once", str(at_once)] if at_once else []
        own += ["--hosts", "auto"] if resources.nodes is not None else []
        who = ["--all"] if every else list(names)
        words = [*who, *(["--arms", *arms] if arms else []), *common]
        asked = dict(zip(names, exps, strict=True))
        return _submit(asked, own, resources, out, data_dir, who, words)
    if resources != UNASKED:
        raise InputError("--partition, --gpus, --time and the like are of --on slurm.")
    selected = _select(_names(names, every), preset, arms, seeds, settings, data_dir)
    from jaxcnn import backend, records, sweep, train
    from jaxcnn import hosts as company
    from jaxcnn import tensorboard as board
    from jaxcnn.console import Display, stop_on_signals

    backend.set_up()
    records.check_writable(out)
    if tensorboard:
        board.check()
    failed: dict[str, BaseException] = {}
    tables: dict[str, Table] = {}  # of those that went well

    def fails(exp: Experiment, error: Exception) -> None:
        if every and isinstance(error, Absent):
            console.print(f"[yellow]note:[/] {exp.name} is passed over: {error}", soft_wrap=True)
            return
        if len(selected) == 1 or not company.alone():  # the others may be in the midst of it
            raise error
        failed[exp.name] = error
        console.print(f"[bold red]failed:[/] {exp.name}; the others go on")

    possible: dict[str, Experiment] = {}  # with the arms that are for this launch's devices
    work: dict[str, tuple[int, int]] = {}  # run-steps left, and in all
    datasets = {}
    with console.status("reading the data, tracing the programs"):
        for exp in selected:
            try:
                own = possible[exp.name] = sweep.here(exp)
                datasets = train.load_data(sweep.all_runs(own), data_dir)
                train.check(sweep.all_runs(own), datasets)
                work[exp.name] = sweep.work(own, out, datasets)
            except Exception as error:
                fails(exp, error)
    planned = [exp for exp in selected if exp.name in work]
    ahead, total = (sum(column) for column in zip(*work.values(), strict=True)) if work else (0, 0)
    options: dict[str, Any] = {"preset": preset, "checkpoint_seconds": checkpoint_every}
    options |= {"at_once": at_once}
    with stop_on_signals() as stop, Display(console, "", total - ahead, total) as display:
        stopped = company.heeding(stop)
        for i, exp in enumerate(planned):
            of = f" ({i + 1} of {len(planned)})" if len(planned) > 1 else ""
            display.begin(exp.name + of, total - ahead)
            ahead -= work[exp.name][0]
            own = possible[exp.name]
            if left_out := [arm for arm in exp.arms if arm not in own.arms]:
                console.print(
                    f"[yellow]note:[/] {exp.name}: left to a launch on another device"
                    f" (train.device): {', '.join(left_out)}",
                    soft_wrap=True,
                )
            try:
                if len(planned) > 1:  # not all are kept: together they may not fit
                    datasets = train.load_data(sweep.all_runs(own), data_dir)
                for tick in sweep.run(own, out, datasets, stop=stopped, **options):
                    display.tick(*tick)
                if tensorboard:
                    board.write(exp, out)
                tables[exp.name] = _report(exp, preset, settings, arms, out)
            except train.Interrupted:
                again = records.command()
                console.print(f"Stopped; all is saved. To go on:\n  {again}", soft_wrap=True)
                return 128 + (stop.signal or 0)
            except Exception as error:
                fails(exp, error)
    if len(selected) > 1:
        _overview(tables, preset, settings, arms, out)
    return _told(failed)


def status(
    names: Names = (),
    every: All = False,
    preset: Preset = "default",
    arms: Arms = (),
    seeds: Seeds = "",
    settings: Settings = (),
    out: Out = Path("runs"),
    data_dir: DataDir = None,
    verbose: Annotated[bool, arg(help="A line a run, not a line an arm.")] = False,
) -> None:
    """How far an experiment is: its runs, from the records, and its tasks in Slurm's queue.

    With --all, of every experiment that has either.

    Example: python launch.py status relu_vs_sigmoid --preset quick
    """
    chosen = _select(_names(names, every), preset, arms, seeds, settings, data_dir)
    from jaxcnn import listing
    from jaxcnn import status as standing

    listing.show(standing.table(chosen, out, preset, verbose=verbose), console)


def cancel(names: Names = (), every: All = False, out: Out = Path("runs")) -> None:
    """Take an experiment's tasks out of Slurm's queue. Those that run save first, what is saved
    stays, and the same run command goes on.

    Example: python launch.py cancel relu_vs_sigmoid
    """
    from jaxcnn import slurm

    mine = {exp.name for exp in _asked(_names(names, every), "default", (), "", ())}
    ended = [job for job in slurm.jobs(out) if job.active and job.experiment in mine]
    if not ended:
        raise InputError(f"cancel: no task of {', '.join(sorted(mine))} is in the queue of {out}.")
    slurm.cancel(ended)
    for job in ended:
        console.print(f"cancelled: {job.id}, {job.experiment} {job.arm}", soft_wrap=True)


def report(
    names: Names = (),
    every: All = False,
    preset: Preset = "default",
    arms: Arms = (),
    seeds: Seeds = "",
    settings: Settings = (),
    out: Out = Path("runs"),
    source: Annotated[
        Path | None,
        arg(name="from", metavar="DIR", help="In place of runs: the files of `collect`."),
    ] = None,
    data_dir: DataDir = None,
) -> None:
    """Print and write the report of what the records hold, finished or not.

    With --all, of every experiment that has records, and an overview of them. With --from, the
    reports of all files of `collect` in DIR, whatever their presets, an overview of all claims in
    OUT/DIR/index.html, and DIR/README.md.

    Example: python launch.py report relu_vs_sigmoid --preset quick
    """
    if source is not None:
        if names or every or arms or seeds or settings:
            raise InputError("--from: takes all files of DIR; NAME and other options have no use.")
        from jaxcnn import overview

        page, readme = overview.rebuild(source, out / source.name)
        console.print(f"All reports: {page}\nAll claims: {readme}", soft_wrap=True)
        return
    tables = {}
    for exp in _select(_names(names, every), preset, arms, seeds, settings, data_dir):
        with _passed_over(every):
            tables[exp.name] = _report(exp, preset, settings, arms, out)
    if every or len(tables) > 1:
        _overview(tables, preset, settings, arms, out)


def collect(
    names: Names = (),
    every: All = False,
    preset: Preset = "default",
    arms: Arms = (),
    seeds: Seeds = "",
    settings: Settings = (),
    out: Out = Path("runs"),
    to: Annotated[Path, arg(metavar="DIR", help="Folder of the files.")] = Path("results"),
    data_dir: DataDir = None,
) -> None:
    """Write a small file an experiment, for committing, from which its report can be made again.

    With --all, of every experiment that has finished runs. Then: python launch.py report --from DIR

    Example: python launch.py collect relu_vs_sigmoid --preset quick --to results
    """
    names = _names(names, every)
    chosen = _select(names, preset, arms, seeds, settings, data_dir)
    from jaxcnn import results

    for exp, as_asked in zip(chosen, _asked(names, preset, arms, seeds, settings), strict=True):
        # What 'auto' came to is written: where the report is made again is another machine.
        values = {path: str(get(exp.base, path)) for path in experiment.automatic(as_asked)}
        changes = tuple({**dict(_setting(s) for s in settings), **values}.items())
        asked = results.Launch(exp.name, preset, arms, tuple(_seeds(seeds)), changes)
        with _passed_over(every):
            path = results.collect(asked, out, to)
            console.print(f"Written: {path} ({path.stat().st_size / 1000:.0f} kB)", soft_wrap=True)


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
        arg(help="Of the shards: whole pictures, or the middle square decoded (larger, faster)."),
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
        job = jobs.of_run(folder, **of)
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
    listing.show(evaluation.table(job.net.name, result, crops, resize, folder, compared), console)
    if levels is not None:
        listing.show(evaluation.level_table(result, levels), console)
    speed = result.pictures / result.seconds
    console.print(f"{result.pictures:,} pictures, {speed:,.1f} pictures/s", soft_wrap=True)
    if out is not None:
        written = {"command": records.command(), "model": model, "weights": weights, "data": data}
        written = {name: None if v is None else str(v) for name, v in written.items()}
        written |= {"split": split, "fingerprint": job.source.fingerprint, "crops": crops}
        written |= {"resize": list(resize), "limit": limit} | result.as_json()
        records.write_json(out, written)
        console.print(f"Written: {out}", soft_wrap=True)


def native() -> None:
    """Compile convolutions by oneDNN for this CPU: faster than XLA's for all but the smallest nets.

    Optional; needs g++ and oneDNN's headers (Debian, Ubuntu: apt install g++ libdnnl-dev). What is
    launched later uses them; JAXCNN_NATIVE=0 turns them off.
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
        changes = dict(_setting(s) for s in settings)
        made = [tables.layers(*tables.named(n, changes, classes, size), n) for n in names]
    else:
        make = {"published": tables.results, "errata": tables.corrections}
        make["claims"] = overview.claims
        with console.status("tracing the programs"):
            if kind == "architectures":
                records = Path(__file__).resolve().parent / "benchmarks" / "records"
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


RunFolder = Annotated[
    Positional[Path],
    arg(metavar="RUN", help="Folder of a finished run, as runs/EXPERIMENT/ARM/SEED."),
]


def export(
    folder: RunFolder,
    to: Annotated[
        Literal["safetensors", "packed", "stablehlo", "onnx", "c"],
        arg(help="Weights alone, twice; a program for jax; one for ONNX runtimes; C99 source."),
    ],
    out: Annotated[Path | None, arg(metavar="DIR", help="Else RUN/export.")] = None,
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
        paths = exports.export(folder, to, out, data_dir)
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
    data_dir: DataDir = None,
) -> None:
    """What a trained model says of pictures: the likeliest classes and their probabilities.

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
        source = trained.load(folder, data_dir)
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
        found = trained.judged(trained.load(folder, data_dir), split)
    mean, low, high = stats.interval(found.errors)
    console.print(
        f"{split}, {len(found.errors):,} faces: normalised mean error {100 * mean:.2f} % (95 %"
        f" interval {100 * low:.2f} to {100 * high:.2f}, of the pictures)"
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
        source = trained.load(folder, data_dir)
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
        source = trained.load(folder, data_dir)
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


COMMANDS = {
    "list": list_experiments,
    "show": show,
    "run": run,
    "status": status,
    "cancel": cancel,
    "report": report,
    "collect": collect,
    "prepare": prepare,
    "evaluate": evaluate,
    "native": native,
    "table": table,
    "plot": plot,
    "export": export,
    "predict": predict,
    "features": features,
    "landmarks": landmarks,
    "faces": faces,
}


def main() -> int:
    """Exit code 0, 1 for a failure at run time, 2 for input that cannot be run, 128 + signal when
    stopped.
    """
    args = sys.argv[1:]
    debug = "--debug" in args  # for every command, at any place
    args = [a for a in args if a != "--debug"] or ["--help"]
    try:
        return _call(args) or 0
    except (Exception, KeyboardInterrupt) as error:
        if debug:
            raise
        return _explain(error)
    finally:
        if "jaxcnn.hosts" in sys.modules:
            sys.modules["jaxcnn.hosts"].end()


def _call(args: list[str]) -> int | None:
    return tyro.extras.subcommand_cli_from_dict(
        COMMANDS,
        args=args,
        prog="launch.py",
        description=__doc__,
        config=(FlagCreatePairsOff, OmitArgPrefixes),
    )


def _explain(error: BaseException) -> int:
    complain = Console(stderr=True, highlight=False)
    if isinstance(error, KeyboardInterrupt):
        complain.print("Stopped at once; the same command goes on from what is on disk.")
        return 130
    text = str(error)
    if isinstance(error, OSError) and error.strerror:
        text = f"{error.strerror}: {error.filename}."
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            text += " Nothing recorded is lost: make room, and the same command goes on."
    elif "RESOURCE_EXHAUSTED" in text:  # of a run, memory.py says it better
        text = f"The device's memory is too small: {text.splitlines()[0]}"
    elif not isinstance(error, InputError | RuntimeError):  # nobody foresaw it
        text = f"{type(error).__name__}: {text} (--debug shows where)"
    complain.print("[bold red]error:[/] ", end="")
    complain.print(text, markup=False, soft_wrap=True)
    return 2 if isinstance(error, InputError) else 1


def _told(failed: dict[str, Any]) -> int:
    """The exit code, once each experiment's error is told."""
    for name, error in failed.items():
        console.print(f"[bold red]failed:[/] {name}", soft_wrap=True)
        _explain(error)
    return 1 if failed else 0


def _together(hosts: str, data_dir: Path | None) -> int | None:
    """Start the processes of a launch, or follow the one that leads it -> the exit code; None where
    this is the one that leads.
    """
    from jaxcnn import spawn

    processes = spawn.number(hosts)
    if processes is not None and not spawn.started():
        return spawn.local(processes)
    from jaxcnn import hosts as company

    if company.join(processes):
        console.print(company.topology(), soft_wrap=True)
        return None
    from jaxcnn import train

    company.follow(lambda run: train.load_data([run], data_dir)[run.data])
    return 0


def _submit(
    asked: dict[str, Experiment],
    options: list[str],
    resources: Resources,
    out: Path,
    data_dir: Path | None,
    who: list[str],
    words: list[str],
) -> int:
    """Submit, and say what to type next: `who` to cancel, `words` for status and report."""
    from jaxcnn import backend, submit
    from jaxcnn import tensorboard as board

    backend.set_up()
    if "--tensorboard" in options:
        board.check()
    say = functools.partial(console.print, soft_wrap=True)
    program = Path(__file__).resolve()
    with console.status("reading the data, tracing the programs"):
        made, failed = submit.submit(asked, options, resources, out, data_dir, program, say)
    for job in made:
        say(f"submitted: {job.id}, {job.experiment} {job.arm}; {job.log}", markup=False)
    if made:
        say(f"How far it is:  python launch.py status {shlex.join(words)}", markup=False)
        cancel = shlex.join([*who, "--out", str(out)])
        say(f"To end it:      python launch.py cancel {cancel}", markup=False)
    say(f"The report:     python launch.py report {shlex.join(words)}", markup=False)
    return _told(failed)


def _draw_points(folder: Path, found: list[tuple[Any, Any]], images: tuple[Path, ...]) -> None:
    from jaxcnn import plots, records

    for file, (picture, points) in zip(images, found, strict=False):
        path = folder / "predict" / f"{file.stem}.points.png"
        records.write(path, plots.png(plots.faces(picture[None], points[None])))
        console.print(f"Written: {path}", soft_wrap=True)


@contextlib.contextmanager
def _passed_over(every: bool) -> Iterator[None]:
    """With --all an experiment that has no records is told of, and no error."""
    try:
        yield
    except InputError as error:
        if not every:
            raise
        console.print(f"[yellow]note:[/] {error}", soft_wrap=True)


def _names(names: tuple[str, ...], every: bool) -> tuple[str, ...]:
    if every and names:
        raise InputError(f"--all: has no use beside NAME, and there is {' '.join(names)!r}.")
    return tuple(experiment.available()) if every else names


def _select(
    names: tuple[str, ...],
    preset: str,
    arms: tuple[str, ...],
    seeds: str,
    settings: tuple[str, ...],
    data_dir: Path | None,
) -> list[Experiment]:
    """The experiments as asked for, with a value in the place of every 'auto'."""
    selected = _asked(names, preset, arms, seeds, settings)
    if not any(map(experiment.automatic, selected)):
        return selected
    from jaxcnn import auto, backend

    backend.set_up()
    tell = functools.partial(console.print, soft_wrap=True)
    return [auto.resolve(exp, data_dir, tell) for exp in selected]


def _asked(
    names: tuple[str, ...],
    preset: str,
    arms: tuple[str, ...],
    seeds: str,
    settings: tuple[str, ...],
) -> list[Experiment]:
    if not names:
        raise InputError(f"NAME: none. The experiments: {', '.join(experiment.available())}.")
    changes = dict(_setting(s) for s in settings)
    return [
        experiment.select(experiment.load(n), preset, arms, _seeds(seeds), changes) for n in names
    ]


def _setting(text: str) -> tuple[str, str]:
    path, equals, value = text.partition("=")
    if not equals:
        raise InputError(f"--set: {text!r} is not PATH=VALUE.")
    return path.strip(), value.strip()


def _seeds(text: str) -> list[int]:
    """'0..4,7' -> [0, 1, 2, 3, 4, 7]."""
    seeds: list[int] = []
    for part in filter(None, text.split(",")):
        first, dots, last = part.partition("..")
        try:
            seeds += range(int(first), int(last if dots else first) + 1)
        except ValueError:
            raise InputError(f"--seeds: {text!r} is not of the form 0..9 or 0,1,5.") from None
    if text and (not seeds or min(seeds) < 0):
        raise InputError(f"--seeds: {text!r} names no seeds at or above 0.")
    return list(dict.fromkeys(seeds))


def _variant(preset: str, settings: tuple[str, ...], arms: tuple[str, ...]) -> str:
    return "_".join([preset, *arms, *settings]).replace("/", "-")


def _report(
    exp: Experiment, preset: str, settings: tuple[str, ...], arms: tuple[str, ...], out: Path
) -> "Table":
    from jaxcnn import findings, records, report

    table = findings.collect(exp, out, records.command())
    report.show(table, console)
    folder = out / exp.name / "reports" / _variant(preset, settings, arms)
    names = [path.name for path in report.write(table, folder)]
    console.print(f"Written to {folder}: {', '.join(names)}", soft_wrap=True)
    return table


def _overview(
    tables: dict[str, "Table"],
    preset: str,
    settings: tuple[str, ...],
    arms: tuple[str, ...],
    out: Path,
) -> None:
    from jaxcnn import overview

    variant = _variant(preset, settings, arms)
    entries = [
        overview.Entry(name, table, table.commands[0], f"../../{name}/reports/{variant}/index.html")
        for name, table in tables.items()
    ]
    path = overview.write(entries, out / "overview" / variant)
    console.print(f"All of them: {path}", soft_wrap=True)


if __name__ == "__main__":
    if "--debug" not in sys.argv:
        # After an error, what libraries' threads still try in vain is not the user's concern.
        sys.unraisablehook = lambda _: None
    code = main()
    if code:
        # All is written and told. On a full disk such a thread could hold the exit up for ever.
        with contextlib.suppress(OSError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)
