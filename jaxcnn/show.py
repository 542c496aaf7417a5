"""An experiment as it will run, for `launch.py show`."""

import dataclasses
from pathlib import Path

from rich.console import Console
from rich.table import Table

from jaxcnn import backend, config, experiment, models, train, transfer
from jaxcnn.experiment import Experiment
from jaxcnn.models import KNOBS

NO_KNOB = "-"


def show(exp: Experiment, preset: str, data_dir: Path | None, console: Console) -> None:
    """Print the claim, the base run with each arm's differences, the grid, the predictions, the
    presets.

    'paper' is shown as what the architecture makes of it. Raises `InputError` as `launch.py run`
    would.
    """
    grid = experiment.grid(exp)
    bases = {arm: next(iter(settings.values())) for arm, settings in grid.items()}
    runs = list(bases.values())
    every = transfer.with_sources(runs)
    datasets = train.load_data(every, data_dir)
    train.check(every, datasets)

    console.print(f"[bold]{exp.name}[/]  {exp.claim}\n[dim]{exp.source}; preset {preset}[/]\n")
    fields = Table("field", *bases, box=None, header_style="bold", pad_edge=False)
    same = ["[dim]=[/]"] * (len(bases) - 1)
    resolved = {arm: _resolved(run) for arm, run in bases.items()}
    for path in config.paths(exp.base):
        if path == "seed":
            continue
        values = [values[path] for values in resolved.values()]
        if set(values) == {NO_KNOB}:
            continue
        if path in exp.tune:
            grid_text = ", ".join(
                f"{v:g}" if isinstance(v, float) else str(v) for v in exp.tune[path]
            )
            own = [path in experiment.tuned(exp, arm) for arm in bases]
            text = f"tuned: {grid_text}"
            texts = [text, *same] if all(own) else [text if has else NO_KNOB for has in own]
            fields.add_row(path, *texts)
        elif len(set(values)) == 1:
            fields.add_row(f"[dim]{path}[/]", values[0], *same)
        else:
            fields.add_row(path, *(f"[bold]{v}[/]" for v in values))
    parameters, steps = {}, {}
    for arm, run in bases.items():
        problem = train.problem_of(run, datasets[run.data])
        parameters[arm], steps[arm] = train.parameters(run, problem), problem.steps
    fields.add_section()
    sizes = ("known once fitted" if n is None else f"{n:,}" for n in parameters.values())
    fields.add_row("parameters", *sizes)
    fields.add_row("steps", *(f"{n:,}" for n in steps.values()))
    console.print(fields)

    count = len(exp.arms) * len(exp.seeds)
    console.print(f"\nseeds {_span(exp.seeds)}: {count} runs at the chosen settings")
    if exp.tune:
        tuned = sum(len(s) for s in grid.values() if len(s) > 1) * len(exp.tune_seeds)
        console.print(
            f"tuning seeds {_span(exp.tune_seeds)}: {tuned} runs;"
            f" chosen by the {exp.tune_by}, mean over seeds"
        )
    _show_settings(console)
    for prediction in exp.predictions:
        beside = f"  [dim]published: {prediction.published} ({prediction.source})[/]"
        console.print(f"predicts: {prediction}{beside if prediction.published else ''}")
    for name, changes in experiment.presets_of(exp).items():
        text = ", ".join(f"{path.removeprefix('base.')}={value}" for path, value in changes.items())
        console.print(f"preset [bold]{name}[/]: {text or 'as written'}")


def _show_settings(console: Console) -> None:
    """Of XLA, jax and the C library, as `launch.py run` would set them."""
    settings = backend.settings()
    for option, value in settings["compiler_options"].items():
        console.print(f"compiled with {option}={value}", soft_wrap=True)
    console.print(f"compiled programs are kept in {backend.kept_programs()}", soft_wrap=True)
    console.print(f"convolutions on a CPU: {settings['convolutions']}")
    console.print(f"CPU devices: {settings['cpu_devices'] or 'as XLA_FLAGS has it'}")
    allocator = settings["allocator"] or "as the C library has it"
    if isinstance(allocator, dict):
        allocator = ", ".join(f"{name}={value}" for name, value in allocator.items())
    console.print(f"allocator: {allocator}", soft_wrap=True)


def _resolved(run: config.Run) -> dict[str, str]:
    """path -> value, with the architecture's own value in place of 'paper' and '-' where it has
    none.
    """
    fitted = run.model.name in config.CLASSICAL
    if fitted:
        from jaxcnn import classical  # scikit-learn, a second: only who fits pays

        own = classical.knobs(run.model)
    else:
        module = models.from_config(run.model, classes=10)
        own = {f.name: getattr(module, f.name, None) for f in dataclasses.fields(module)}
    out = {}
    for path in config.paths(run):
        value = config.get(run, path)
        group, _, name = path.rpartition(".")
        if group == "model" and name in KNOBS and value == "paper":
            value = f"{own[name]} (paper)" if name in own else NO_KNOB
        freezes = name in ("freeze", "thaw") and run.start.freeze
        off = group == "start" and not run.start.on and not freezes
        if off or not config.concerns(path, run.model.name):
            value = NO_KNOB
        out[path] = str(value)
    return out


def _span(seeds: tuple[int, ...]) -> str:
    whole = seeds == tuple(range(seeds[0], seeds[-1] + 1))
    return f"{seeds[0]}..{seeds[-1]}" if whole and len(seeds) > 1 else ",".join(map(str, seeds))
