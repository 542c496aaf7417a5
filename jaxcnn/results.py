"""Compact records, for committing: one file an experiment and preset, from which its report is made
again, to the byte, without the runs' folders.

    results.collect(Launch("relu_vs_sigmoid", "quick"), Path("runs"), Path("results"))
    stored = results.read(Path("results/relu_vs_sigmoid.quick.json"))
    findings.collect(stored.launch.experiment(), stored.reader())

A file holds exactly what the report reads: the runs of the grid and those at the chosen settings,
each with its result, its test numbers and its whole curve, to the last digit, so that every measure
is computed from it as from the folders. Left out are `batch`, the errors on the training batches,
and the checkpoints. What runs share stands once: configs in `settings`, commit, versions, hardware,
data and command in `environments`. Curves are columns; a number that never changes is written once.
Beyond `LARGE` bytes a file is compressed.
"""

import gzip
import itertools
import json
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from jaxcnn import experiment, findings, records
from jaxcnn.config import InputError, Run, get
from jaxcnn.experiment import Experiment
from jaxcnn.findings import Read
from jaxcnn.records import Record

LARGE = 1_000_000
OF_SETTING = ("arm", "config", "steps", "parameters")
OF_RUN = ("digest", "started")
_FOLDERS = re.compile(r"(?<![\w.~/-])(?:~|\.\.?)?/(?:[^\s/'\",=:]+/)*")  # all but the last name


@dataclass(frozen=True)
class Launch:
    """What `launch.py` was asked for; `arms`, `seeds` and `settings` as in `experiment.select`."""

    name: str
    preset: str = "default"
    arms: tuple[str, ...] = ()
    seeds: tuple[int, ...] = ()
    settings: tuple[tuple[str, str], ...] = ()

    def experiment(self) -> Experiment:
        """Raises `InputError` where the experiment has changed so that it cannot be asked this."""
        exp = experiment.load(self.name)
        return experiment.select(exp, self.preset, self.arms, self.seeds, dict(self.settings))

    @property
    def command(self) -> str:
        words = ["python", "launch.py", "run", self.name, "--preset", self.preset]
        words += ["--arms", *self.arms] if self.arms else []
        words += ["--seeds", ",".join(map(str, self.seeds))] if self.seeds else []
        for path, value in self.settings:
            words += ["--set", f"{path}={value}"]
        return shlex.join(words)


@dataclass(frozen=True)
class Stored:
    """A file as read; `runs` by arm and by the name that a run's folder had."""

    path: Path
    launch: Launch
    runs: Mapping[tuple[str, str], Record]

    def reader(self) -> Read:
        """For `findings.collect`; a run of which the file has nothing is absent."""
        exp = self.launch.experiment()
        return lambda arm, run: self.runs.get((arm, _name(exp, arm, run)))


def collect(launch: Launch, root: Path, folder: Path) -> Path:
    """Write `folder`/NAME.PRESET.json from the records under `root`.

    Raises `InputError` where nothing is finished, for an experiment that is not in `experiments/`,
    and where the data's name is a path of this machine: another one could not read the file.
    """
    if launch.name not in experiment.available():
        raise InputError(f"NAME: {launch.name!r} is not in experiments/; only those are collected.")
    exp, used = launch.experiment(), dict[tuple[str, Run], Record]()
    found = findings.in_folder(exp, root)

    def read(arm: str, run: Run) -> Record | None:
        record = found(arm, run)
        if record is not None:
            used[arm, run] = record
        return record

    findings.collect(exp, read)
    content = _text(exp, launch, used).encode()
    path = folder / f"{launch.name}.{launch.preset}.json"
    packed = path.with_name(path.name + ".gz")
    if len(content) > LARGE:
        content, path, packed = gzip.compress(content, mtime=0), packed, path
    packed.unlink(missing_ok=True)
    return records.write(path, content)


def read(path: Path) -> Stored:
    """Raises `InputError` for what is no such file."""
    try:
        content = path.read_bytes()
        text = gzip.decompress(content) if path.suffix == ".gz" else content
        whole = json.loads(text)
        asked = whole["launch"]
        launch = Launch(
            asked["name"],
            asked["preset"],
            tuple(asked["arms"]),
            tuple(asked["seeds"]),
            tuple((field, value) for field, value in asked["settings"]),
        )
        runs = dict(_records(path, whole))
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file.") from error
    except (ValueError, KeyError, TypeError, EOFError, gzip.BadGzipFile) as error:
        raise InputError(
            f"{path}: not a file of `launch.py collect`, or a damaged one ({error})."
        ) from error
    return Stored(path, launch, runs)


def files(folder: Path) -> list[Path]:
    """The compact records in a folder, by name."""
    return sorted([*folder.glob("*.*.json"), *folder.glob("*.*.json.gz")])


def _text(exp: Experiment, launch: Launch, used: Mapping[tuple[str, Run], Record]) -> str:
    """JSON, a line a run: differences between versions can be read. Keys keep their order: that of
    a probe's layers is the net's.
    """
    seeds = sorted({*exp.tune_seeds, *exp.seeds})
    labels = {
        (arm, own): label
        for arm, settings in experiment.grid(exp).items()
        for label, run in settings.items()
        for own in experiment.seeded(exp, run, seeds)
    }
    settings: list[Any] = []
    environments: list[Any] = []
    runs = []

    for (arm, run), label in labels.items():
        if (record := used.get((arm, run))) is None:
            continue
        for path in ("data.name", "start.data", "start.weights"):
            name = get(run, path)
            if name is not None and Path(name).is_absolute():
                raise InputError(
                    f"{path}: {name!r} is a path of this machine, which no committed record may"
                    " hold."
                )
        info = dict(record.info)
        config = {k: v for k, v in info["config"].items() if k != "seed"}
        setting = {k: info.pop(k) for k in OF_SETTING if k in info} | {"config": config}
        setting["setting"] = label
        own = {k: info.pop(k) for k in OF_RUN if k in info}
        own |= {"seed": run.seed, "result": record.result, "test": record.test}
        own["name"] = _name(exp, arm, run)
        own["setting"] = _index(settings, setting)
        own["environment"] = _index(environments, _without_folders(info))
        runs.append(own | {"curve": [*_columns(record.rows)]})
    parts: dict[str, Any] = {"environments": environments, "launch": asdict(launch)}
    parts |= {"runs": runs, "settings": settings}
    return "{\n" + ",\n".join(f'"{k}": {_lines(v)}' for k, v in parts.items()) + "\n}\n"


def _lines(value: Any) -> str:
    def dump(value: Any) -> str:
        return json.dumps(value, separators=(",", ":"), allow_nan=False)

    return "[\n" + ",\n".join(map(dump, value)) + "\n]" if isinstance(value, list) else dump(value)


def _records(path: Path, whole: Mapping[str, Any]) -> Iterator[tuple[tuple[str, str], Record]]:
    for run in whole["runs"]:
        setting, environment = whole["settings"][run["setting"]], whole["environments"]
        info = environment[run["environment"]] | {k: run[k] for k in OF_RUN if k in run}
        info |= {k: setting[k] for k in OF_SETTING if k in setting}
        info["config"] = setting["config"] | {"seed": run["seed"]}
        rows = [row for block in run["curve"] for row in _rows(block)]
        record = Record(path, info, rows, run["result"], run["test"])
        yield (setting["arm"], run["name"]), record


def _index(pool: list[Any], value: Any) -> int:
    if value not in pool:
        pool.append(value)
    return pool.index(value)


def _name(exp: Experiment, arm: str, run: Run) -> str:
    return experiment.folder(Path(), exp, arm, run).name


def _columns(rows: Sequence[Mapping[str, Any]]) -> Iterator[Any]:
    """Neighbouring rows of equal keys -> one row whose numbers are columns."""
    kept = [{k: v for k, v in row.items() if k != "batch"} for row in rows]
    for _, block in itertools.groupby(kept, _keys):
        together = [*block]
        yield _fold(together) | {"step": [row["step"] for row in together]}


def _keys(value: Any) -> Any:
    if not isinstance(value, Mapping):
        return None
    return [(k, _keys(value[k])) for k in sorted(value)]


def _fold(values: Sequence[Any]) -> Any:
    if isinstance(values[0], Mapping):
        return {k: _fold([value[k] for value in values]) for k in values[0]}
    alone = not isinstance(values[0], list) and all(value == values[0] for value in values)
    return values[0] if alone else [*values]


def _rows(block: Mapping[str, Any]) -> list[dict[str, Any]]:
    def at(value: Any, i: int) -> Any:
        if isinstance(value, Mapping):
            return {k: at(v, i) for k, v in value.items()}
        return value[i] if isinstance(value, list) else value

    return [at(block, i) for i in range(len(block["step"]))]


def _without_folders(value: Any) -> Any:
    """Of each path in a command or flag, only its last name: the rest is one machine's."""
    if isinstance(value, Mapping):
        return {k: _without_folders(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_without_folders(v) for v in value]
    return _FOLDERS.sub("", value) if isinstance(value, str) else value
