"""`Experiment`: a claim, a base run, the few lines that differ between its arms, and what it
predicts.

Pure data. From it follow the grid of runs, their folders and, by the validation split alone, the
setting at which each arm is compared.
"""

import copy
import dataclasses
import importlib.util
import itertools
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from jaxcnn import config
from jaxcnn.checks import check
from jaxcnn.config import InputError, Run

# What the numbers of a probe are called.
PROBED = {
    "gradient_norm": "RMS gradient",
    "active_share": "share of units that take part in an update",
    "update_variance": "relative variance of the update",
}
POINTS = {"first": "before", "last": "after"}  # the curve's, in words
EXPERIMENTS = Path(__file__).resolve().parent.parent / "experiments"


@dataclass(frozen=True)
class Measure:
    """One number per run.

    `final`: the last point of the curve; `mean`: the mean over the curve's points, a measure of
    speed that is defined for every run; `steps_to`: the first step at which the error is at most
    `target`, linear between points, and the whole budget for a run that never gets there; `gap`:
    test minus training error; `step_time`: seconds of a training step, the mean over the curve's
    points but the first, which holds what is done once; `size`: bytes of the parameters at the end,
    four each or, of a compressed run, those of a .packed file (weights/packed.py); `probe`: what
    `probe` recorded of the training step (probes.py) at the `at` point of the curve, in its first
    or last layer, as the mean over all layers, or as the ratio of the first to the last. `error5`
    is the top-5 error, of more than 10 classes; `eer` the equal error rate of verification, of the
    test split of `data.unseen`, whose error is that of rank-1 identification (faces.py).
    """

    kind: Literal["final", "mean", "steps_to", "gap", "step_time", "size", "probe"]
    split: Literal["train", "validation", "test"]
    metric: Literal["error", "loss", "error5", "eer"] = "error"
    target: float | None = None
    probe: str | None = None  # of config.PROBES
    layer: Literal["first", "last", "mean", "ratio"] = "mean"
    at: Literal["first", "last"] = "last"

    def __post_init__(self) -> None:
        if (self.kind == "probe") != (self.probe is not None):
            raise InputError(
                f"Measure.probe: {self.probe!r}; 'probe' needs one, no other kind takes one."
            )
        if self.probe is not None and self.probe not in config.PROBES:
            raise InputError(
                f"Measure.probe: {self.probe!r} is not one of"
                f" {', '.join(map(repr, config.PROBES))}."
            )
        if self.probe is not None and self.split != "train":
            raise InputError(
                f"Measure.split: {self.split!r}; probes look at the training step, so 'train'."
            )
        if (self.kind == "steps_to") != (self.target is not None):
            raise InputError(
                f"Measure.target: {self.target!r}; 'steps_to' needs one, no other kind takes one."
            )
        if self.metric == "eer" and (self.kind, self.split) != ("final", "test"):
            raise InputError(
                f"Measure.metric: 'eer' is of people whom the net has not seen: 'final' and 'test',"
                f" not {self.kind!r} and {self.split!r}."
            )
        if self.split == "test" and self.kind not in ("final", "gap", "size"):
            raise InputError(
                f"Measure.split: 'test' is touched once, at the last step; {self.kind!r} needs"
                " 'train' or 'validation'."
            )

    @property
    def percent(self) -> bool:
        """Whether it is a share, read in percent and compared in points."""
        if self.probe is not None:
            return self.probe == "active_share" and self.layer != "ratio"
        return self.kind not in ("steps_to", "step_time", "size") and self.metric != "loss"

    @property
    def ratio(self) -> bool:
        """Whether arms are compared by the ratio of its values, not by their difference."""
        ratios = self.kind in ("steps_to", "step_time", "size") or self.layer == "ratio"
        return ratios or self.probe == "gradient_norm"

    def __str__(self) -> str:
        if self.probe is not None:
            what = PROBED[self.probe]
            where = {"mean": "mean over layers", "ratio": "first over last layer"}
            layer = where.get(self.layer, f"{self.layer} layer")
            return f"{what} ({layer}, {POINTS[self.at]} training)"
        split = {"train": "training"}.get(self.split, self.split)
        target = self.target or 0.0
        level = f"{target:g}" if self.metric == "loss" else f"{100 * target:g} %"
        words = {"error5": "top-5 error", "eer": "equal error rate"}
        metric = words.get(self.metric, self.metric)
        return {
            "final": f"{split} {metric}",
            "mean": f"mean {split} {metric} over training",
            "steps_to": f"steps to {level} {split} {metric}",
            "gap": f"generalisation gap (test - training {metric})",
            "step_time": "time a training step",
            "size": "bytes of parameters",
        }[self.kind]


@dataclass(frozen=True)
class Prediction:
    """`arm` has less (or greater, or within `margin` the same) `measure` than `than`, paired by
    seed; and the published size, if any.

    `margin` is in the measure's unit, errors as shares: 0.002 is 0.2 points; a factor above 1 for
    what is compared by ratio. `factor`, for that alone, is how many times less or greater it must
    at least be.
    """

    measure: Measure
    arm: str
    than: str
    direction: Literal["less", "greater", "same"] = "less"
    published: str = ""  # the figure, with its protocol where that differs from ours
    source: str = ""  # paper, section, table or figure
    margin: float | None = None  # of "same", and of nothing else
    factor: float = 1.0

    def __post_init__(self) -> None:
        if (self.direction == "same") != (self.margin is not None):
            raise InputError(
                f"Prediction.margin: {self.margin!r}; 'same' needs one, no other direction takes"
                " one."
            )
        least = 1.0 if self.measure.ratio else 0.0
        if self.margin is not None and not self.margin > least:
            raise InputError(
                f"Prediction.margin: {self.margin!r} is not allowed; it must be above {least:g}."
            )

        if not self.factor >= 1.0 or (
            self.factor > 1.0 and (self.direction == "same" or not self.measure.ratio)
        ):
            raise InputError(
                f"Prediction.factor: {self.factor!r} is not allowed; it is at least 1, and above 1"
                " only for 'less' or 'greater' of what is compared by ratio."
            )

    @property
    def within(self) -> str:
        """The margin in words; '' where there is none."""
        if self.margin is None:
            return ""
        if self.measure.ratio:
            return f"a factor of {self.margin:g}"
        return f"{100 * self.margin:g} points" if self.measure.percent else f"{self.margin:g}"

    def __str__(self) -> str:
        if self.direction == "same":
            return f"{self.arm} has the same {self.measure} as {self.than}, within {self.within}"
        less = "fewer" if self.measure.kind in ("steps_to", "size") else "less"
        word = {"less": less, "greater": "more"}[self.direction]
        by = f", by a factor of {self.factor:g} or more" if self.factor > 1.0 else ""
        return f"{self.arm} has {word} {self.measure} than {self.than}{by}"


@dataclass(frozen=True)
class Experiment:
    """A claim on trial. `presets` are overrides of this very object: `{"base.train.epochs": 2.0,
    "seeds": (0, 1)}`.
    """

    claim: str
    source: str
    base: Run
    arms: Mapping[str, Mapping[str, Any]]
    predictions: tuple[Prediction, ...]
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    # dotted path -> grid, the same for each arm whose model it concerns
    tune: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    tune_seeds: tuple[int, ...] = (0, 1, 2)
    tune_by: Measure = Measure("final", "validation")
    timed: bool = False  # it is about speed: each run is alone, and the test split is left alone
    resplit: bool = False  # each seed has its own split of the data: data.split_seed is the seed
    caveat: str = ""  # why a verdict may differ from the source's; told beside those that do
    presets: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    name: str = ""  # the file's name

    def __post_init__(self) -> None:
        """Every arm and prediction is checked when the file is imported; its presets by `load`."""
        object.__setattr__(self, "seeds", tuple(self.seeds))
        object.__setattr__(self, "tune_seeds", tuple(self.tune_seeds))
        if not self.arms:
            raise InputError("arms: none; an experiment needs at least one.")
        if not self.seeds:
            raise InputError("seeds: none; an experiment needs at least one.")
        for p in self.predictions:
            for arm in (p.arm, p.than):
                if arm not in self.arms:
                    raise InputError(f"predictions: {_no_arm(arm, self.arms)}")
                if p.measure.probe is None:
                    continue
                probes = config.override(self.base, self.arms[arm]).train.probes
                if p.measure.probe not in probes:
                    raise InputError(
                        f"predictions: {p.measure.probe!r} is not recorded by {arm}; add it to"
                        f" base.train.probes, which is {probes}."
                    )
        if self.tune and (self.tune_by.split != "validation" or not self.tune_seeds):
            raise InputError(
                "tune_by: settings are chosen on 'validation', over at least one of tune_seeds."
            )
        if self.tune and self.base.data.validation_examples == 0:
            raise InputError(
                "base.data.validation_examples: 0; tuning chooses on validation and needs some."
            )
        for settings in grid(self).values():
            for run in settings.values():
                check(run)

    def measures(self) -> tuple[Measure, ...]:
        """What the table shows: the predictions' measures, in order, and always the test error, or
        the test loss where nothing is classified; but of a `timed` experiment the former alone.
        """
        named = [p.measure for p in self.predictions]
        if self.timed:
            return tuple(dict.fromkeys(named))
        rebuilds = self.base.train.objective == "reconstruction"
        return tuple(
            dict.fromkeys([*named, Measure("final", "test", "loss" if rebuilds else "error")])
        )


def tuned(experiment: Experiment, arm: str) -> dict[str, tuple[Any, ...]]:
    """What of `tune` concerns the arm's model: a learning rate means nothing to a fit."""
    model = config.override(experiment.base, experiment.arms[arm]).model.name
    return {path: grid for path, grid in experiment.tune.items() if config.concerns(path, model)}


def seeded(experiment: Experiment, run: Run, seeds: Iterable[int]) -> list[Run]:
    """The run at each of the seeds."""
    names = ("seed", "data.split_seed") if experiment.resplit else ("seed",)
    return [config.override(run, dict.fromkeys(names, seed)) for seed in seeds]


def grid(experiment: Experiment) -> dict[str, dict[str, Run]]:
    """arm -> setting -> run (seed 0). A setting reads 'optim.lr=0.03'; an untuned arm has the one
    setting ''.
    """
    out: dict[str, dict[str, Run]] = {}
    for arm, changes in experiment.arms.items():
        out[arm] = {}
        base = config.override(experiment.base, changes)
        own = tuned(experiment, arm)
        for values in itertools.product(*own.values()):
            setting = dict(zip(own, values, strict=True))
            label = ", ".join(f"{path}={value}" for path, value in setting.items())
            out[arm][label] = config.override(base, setting)
    return out


def automatic(experiment: Experiment) -> set[str]:
    """The paths that are 'auto' in some of the runs (auto.py has the values)."""
    runs = [run for settings in grid(experiment).values() for run in settings.values()]
    return {p for p in config.AUTOMATIC if any(config.get(run, p) == "auto" for run in runs)}


def choose(
    experiment: Experiment, score: Callable[[str, Run], float | None]
) -> dict[str, str] | None:
    """arm -> its setting with the lowest mean score over `tune_seeds`; None while a score is
    missing.

    `score(arm, run)` is `tune_by` of a finished run: infinite for a diverged one, None for an
    absent one.
    """
    chosen: dict[str, str] = {}
    for arm, settings in grid(experiment).items():
        means: dict[str, float] = {}
        for label, run in settings.items():
            if len(settings) == 1:
                means[label] = 0.0
                continue
            scores = [score(arm, r) for r in seeded(experiment, run, experiment.tune_seeds)]
            if any(s is None for s in scores):
                return None
            means[label] = sum(s for s in scores if s is not None) / len(scores)
        chosen[arm] = min(means, key=lambda k: means[k])
    return chosen


def folder(root: Path, experiment: Experiment, arm: str, run: Run) -> Path:
    """Where a run keeps its records: root/experiment/arm/seed-digest; other settings get other
    digests.
    """
    return root / experiment.name / arm / f"seed{run.seed}-{config.digest(run)}"


def source_folder(root: Path, run: Run) -> Path:
    """Where a run that others start from keeps its records: the same for all experiments."""
    return root / "sources" / run.model.name / f"seed{run.seed}-{config.digest(run)}"


def with_preset(experiment: Experiment, preset: str) -> Experiment:
    """The experiment under a preset; 'default' is the experiment as written unless it names one."""
    if preset not in experiment.presets:
        if preset == "default":
            return experiment
        choices = dict.fromkeys([*experiment.presets, "default"])
        raise InputError(
            f"--preset: {preset!r} is no preset of {experiment.name}."
            f"{config.suggest(preset, choices)} The presets: {', '.join(choices)}."
        )
    return change(experiment, experiment.presets[preset])


def presets_of(experiment: Experiment) -> dict[str, Mapping[str, Any]]:
    """name -> changes, 'default' first."""
    return {"default": {}, **experiment.presets}


def change(experiment: Experiment, changes: Mapping[str, Any]) -> Experiment:
    """`override` for experiments: 'seeds', 'tune_seeds', 'tune.<path>', 'base.<path>' for the runs,
    and 'arms' for those that stay, all predictions about others being dropped.
    """
    base, tune, own, arms = experiment.base, dict(experiment.tune), {}, tuple(experiment.arms)
    for path, value in changes.items():
        head, _, rest = path.partition(".")
        if head == "base" and rest:
            base = config.override(base, {rest: value})
        elif head == "tune" and rest in tune:
            tune[rest] = tuple(value)
        elif path in ("seeds", "tune_seeds"):
            own[path] = tuple(value)
        elif path == "arms":
            arms = tuple(value)
        else:
            choices = [
                "arms",
                "seeds",
                "tune_seeds",
                *(f"tune.{p}" for p in tune),
                *(f"base.{p}" for p in config.paths(base)),
            ]
            raise InputError(
                f"{path}: no such field of an experiment.{config.suggest(path, choices)}"
            )
    return only(dataclasses.replace(experiment, base=base, tune=tune, **own), arms, "arms")


def only(experiment: Experiment, arms: Sequence[str], asked: str = "arms") -> Experiment:
    """The experiment with these arms alone, and its predictions about them."""
    if tuple(arms) == tuple(experiment.arms):
        return experiment
    for arm in arms:
        if arm not in experiment.arms:
            raise InputError(f"{asked}: {_no_arm(arm, experiment.arms)}")
    kept = {arm: experiment.arms[arm] for arm in experiment.arms if arm in arms}
    told = tuple(p for p in experiment.predictions if p.arm in kept and p.than in kept)
    presets = {
        name: {path: value for path, value in changes.items() if path != "arms"}
        for name, changes in experiment.presets.items()
    }
    return dataclasses.replace(experiment, arms=kept, predictions=told, presets=presets)


def select(
    experiment: Experiment,
    preset: str = "default",
    arms: Sequence[str] = (),
    seeds: Sequence[int] = (),
    settings: Mapping[str, Any] | None = None,
) -> Experiment:
    """What one launch asks for: a preset, some of the arms (none named: all), other seeds, other
    settings.

    A setting of a tuned path takes the grid's place; one that an arm itself sets is an error.
    """
    experiment = with_preset(experiment, preset)
    for path, value in (settings or {}).items():
        users = [arm for arm, changes in experiment.arms.items() if path in changes]
        if users:
            raise InputError(
                f"--set {path}: the arms {', '.join(users)} set it themselves; pick one by --arms."
            )
        base = config.override(experiment.base, {path: value})
        tune = {p: grid for p, grid in experiment.tune.items() if p != path}
        experiment = dataclasses.replace(experiment, base=base, tune=tune, presets={})
    if arms:
        experiment = only(experiment, arms, "--arms")
    if seeds:
        experiment = dataclasses.replace(experiment, seeds=tuple(seeds))
    return experiment


def available() -> list[str]:
    """The names of the experiments that come with the repository."""
    return sorted(p.stem for p in EXPERIMENTS.glob("*.py") if not p.stem.startswith("_"))


def check_presets(experiment: Experiment) -> None:
    """Raise `InputError` unless all of them could run, whichever of them will."""
    bare = dataclasses.replace(experiment, presets={})
    for changes in experiment.presets.values():
        change(bare, changes)


def load(name: str, *, presets: bool = True) -> Experiment:
    """An experiment by name, or by the path of a Python file that defines `EXPERIMENT`.

    `presets` are checked, too, but where the experiment is only named: most of the work.
    """
    path = Path(name) if name.endswith(".py") else EXPERIMENTS / f"{name}.py"
    if not path.is_file():
        if name.endswith(".py"):
            raise InputError(f"{name}: no such file.")
        raise InputError(
            f"{name}: no such experiment.{config.suggest(name, available())} The experiments:"
            f" {', '.join(available())}; or the path of a Python file that defines EXPERIMENT."
        )
    spec = importlib.util.spec_from_file_location(f"experiments.{path.stem}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(
        0, str(path.resolve().parent)
    )  # so that a user's file can import its neighbours
    try:
        spec.loader.exec_module(module)
        found = getattr(module, "EXPERIMENT", None)
        if not isinstance(found, Experiment):
            raise InputError("defines no EXPERIMENT = Experiment(...).")
        if presets:
            check_presets(found)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    finally:
        sys.path.pop(0)
    for tuning in found.tune:
        if not any(tuning in tuned(found, arm) for arm in found.arms):
            raise InputError(f"{path}: tune: {tuning} concerns no arm's model.")
    named = copy.copy(found)  # `replace` would check once more what was checked when it was made
    object.__setattr__(named, "name", path.stem)
    return named


def _no_arm(arm: str, arms: Mapping[str, Any]) -> str:
    return f"{arm!r} is no arm.{config.suggest(arm, arms)} The arms: {', '.join(arms)}."
