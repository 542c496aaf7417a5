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
import gc
import os
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union

import tyro
from rich.console import Console
from tyro.conf import (
    FlagCreatePairsOff,
    OmitArgPrefixes,
    Positional,
    Suppress,
    UseAppendAction,
    arg,
    subcommand,
)

from jaxcnn import commands, experiment
from jaxcnn.commands import DataDir, console, setting
from jaxcnn.config import Absent, InputError, get
from jaxcnn.experiment import Experiment
from jaxcnn.slurm import Resources

if TYPE_CHECKING:
    from jaxcnn.findings import Table

# Here is what is done with experiments; the other commands are in jaxcnn/commands.py. jax, numpy
# and matplotlib are imported inside of them: `--help` and `list` need none.

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

UNASKED = Resources()


def list_experiments() -> None:
    """The experiments, a line each."""
    for name in experiment.available():
        exp = experiment.load(name, presets=False)
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
    keep: Annotated[int, arg(metavar="N", help="Of each run, the newest N checkpoints.")] = 2,
    keep_best: Annotated[
        bool, arg(help="And that of the least validation error, for --checkpoint best.")
    ] = False,
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
    if keep < 1:
        raise InputError(f"--keep: {keep} is not allowed; it must be at least 1.")
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
        own = [*common, "--checkpoint-every", str(checkpoint_every), "--keep", str(keep)]
        own += ["--keep-best"] if keep_best else []
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
    gc.disable()  # imports leave no garbage; to look for it takes a tenth of the way to a step
    from jaxcnn import backend, records, sweep, train
    from jaxcnn import hosts as company
    from jaxcnn import tensorboard as board
    from jaxcnn.checkpoint import Saving
    from jaxcnn.console import Display, stop_on_signals

    gc.freeze()
    gc.enable()
    backend.set_up()
    records.check_writable(out)
    company.check_shared(out)
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
                train.check(sweep.all_runs(own), datasets, best=keep_best)
                work[exp.name] = sweep.work(own, out, datasets)
            except Exception as error:
                fails(exp, error)
    planned = [exp for exp in selected if exp.name in work]
    ahead, total = (sum(column) for column in zip(*work.values(), strict=True)) if work else (0, 0)
    options: dict[str, Any] = {"preset": preset, "at_once": at_once}
    options |= {"saving": Saving(checkpoint_every, keep, keep_best)}
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
        changes = tuple({**dict(setting(s) for s in settings), **values}.items())
        asked = results.Launch(exp.name, preset, arms, tuple(_seeds(seeds)), changes)
        with _passed_over(every):
            path = results.collect(asked, out, to)
            console.print(f"Written: {path} ({path.stat().st_size / 1000:.0f} kB)", soft_wrap=True)


COMMANDS = {
    "list": list_experiments,
    "show": show,
    "run": run,
    "status": status,
    "cancel": cancel,
    "report": report,
    "collect": collect,
    "prepare": commands.prepare,
    "evaluate": commands.evaluate,
    "native": commands.native,
    "table": commands.table,
    "plot": commands.plot,
    "export": commands.export,
    "predict": commands.predict,
    "features": commands.features,
    "landmarks": commands.landmarks,
    "faces": commands.faces,
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
    # tyro.extras.subcommand_cli_from_dict in half the time: without the hidden `object`, of which
    # all things are, tyro imports typeguard, and without the help it parses a source of its own.
    commands = [Annotated[object, subcommand(n, constructor=f)] for n, f in COMMANDS.items()]
    union = Union[(Annotated[object, Suppress], *commands)]  # noqa: UP007
    asked: Any = Annotated[union, arg(help="More of each: launch.py COMMAND --help.")]
    return tyro.cli(
        asked,
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
    changes = dict(setting(s) for s in settings)
    return [
        experiment.select(experiment.load(n), preset, arms, _seeds(seeds), changes) for n in names
    ]


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
