"""Compact records: the report is the same from them as from the folders, and the same anywhere."""

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from test_report import EXPERIMENT, at_best, write_all, write_run

from jaxcnn import experiment, findings, overview, report, results
from jaxcnn.config import InputError
from jaxcnn.results import Launch

Command = Callable[..., tuple[int, str, str]]
NAME = EXPERIMENT.name


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The experiment of test_report in a file, and its records."""
    (tmp_path / "experiments").mkdir()
    monkeypatch.setattr(experiment, "EXPERIMENTS", tmp_path / "experiments")
    text = "from test_report import EXPERIMENT\n"
    (tmp_path / "experiments" / f"{NAME}.py").write_text(text)
    write_all(tmp_path / "runs", command=f"launch.py run {NAME} --out {tmp_path}/runs")
    lost = at_best("relu", 3)
    write_run(tmp_path / "runs", EXPERIMENT, "relu", lost, status="diverged", test=False)
    return tmp_path


def tree(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_the_table_is_the_same_as_from_the_folders(root: Path) -> None:
    path = results.collect(Launch(NAME), root / "runs", root / "results")
    assert path.name == f"{NAME}.default.json"
    stored = results.read(path)
    ours = findings.collect(stored.launch.experiment(), stored.reader(), "again")
    theirs = findings.collect(EXPERIMENT, root / "runs", "again")
    assert str(root) in str(theirs.commands) and str(root) not in str(ours.commands)
    same = {"commands": (), "name": ""}
    assert repr(dataclasses.replace(ours, **same)) == repr(dataclasses.replace(theirs, **same))


def test_seeds_may_have_splits_of_their_own(root: Path) -> None:
    own = dataclasses.replace(EXPERIMENT, resplit=True)
    text = "import dataclasses\nfrom test_report import EXPERIMENT as E\n"
    text += "EXPERIMENT = dataclasses.replace(E, resplit=True)\n"
    (root / "experiments" / f"{NAME}.py").write_text(text)
    for arm, settings in experiment.grid(own).items():
        for run in settings.values():
            for seeded in experiment.seeded(own, run, own.seeds):
                write_run(root / "resplit", own, arm, seeded)
    stored = results.read(results.collect(Launch(NAME), root / "resplit", root / "results"))
    found = findings.collect(stored.launch.experiment(), stored.reader())
    splits = {run.info["config"]["data"]["split_seed"] for run in stored.runs.values()}
    assert found.finished == found.expected == len(stored.runs) and splits == {*own.seeds}


def test_a_file_holds_no_path_of_this_machine_and_its_bytes_are_stable(root: Path) -> None:
    path = results.collect(Launch(NAME), root / "runs", root / "results")
    text = path.read_text()
    assert results._lines({"conv2": 1, "conv1": 2}) == '{"conv2":1,"conv1":2}'
    assert str(root) not in text and "--out runs" in text
    again = results.collect(Launch(NAME), root / "runs", root / "again")
    assert path.read_bytes() == again.read_bytes()
    whole = json.loads(text)
    assert len(whole["runs"]) == 27 and len(whole["environments"]) == 2  # two commands
    assert text.count("\n") < 60  # a line a run
    with pytest.raises(InputError, match="not in experiments/"):
        results.collect(Launch("x/mine.py"), root / "runs", root)


@pytest.mark.slow
def test_everything_is_made_again_from_the_files_alone(command: Command, root: Path) -> None:
    code, out, _ = command("collect", "--all", "--out", root / "runs", "--to", root / "results")
    assert code == 0 and f"{NAME}.default.json" in out
    code, _, err = command("report", "--from", root / "results", "--out", root / "here")
    assert (code, err) == (0, "")
    shutil.move(root / "runs", root / "gone")
    (root / "elsewhere").mkdir()
    shutil.copytree(root / "results", root / "elsewhere" / "results")
    (root / "elsewhere/results/README.md").unlink()
    code, _, _ = command(
        "report", "--from", root / "elsewhere/results", "--out", root / "elsewhere/pages"
    )
    assert code == 0
    assert tree(root / "here/results") == tree(root / "elsewhere/pages/results")
    assert tree(root / "results") == tree(root / "elsewhere/results")
    assert f"results/{NAME}.default/index.html" in "\n".join(map(str, (root / "here").rglob("*")))
    readme = (root / "results/README.md").read_text()
    [row] = [line for line in readme.splitlines() if line.startswith("| ReLU & friends")]
    cells = [cell.strip() for cell in row.strip("|").split(" | ")]
    assert len(cells) == 9 and cells[1] == "Notes, section 1"
    assert cells[3].split("<br>") == ["6 times fewer (K. 2012)", "-", "-", "-"]
    assert cells[7].split("<br>") == ["undecided"] * 4  # a run of relu diverged
    assert cells[8] == f"`python launch.py run {NAME} --preset default`"
    assert "| GoogLeNet has 5 million parameters |" in readme and str(root) not in readme


@pytest.mark.slow
def test_large_files_are_compressed(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = results.collect(Launch(NAME), root / "runs", root / "results")
    whole = results.read(plain).runs
    monkeypatch.setattr(results, "LARGE", 1000)
    packed = results.collect(Launch(NAME), root / "runs", root / "results")
    assert packed.name == f"{NAME}.default.json.gz" and results.files(root / "results") == [packed]
    read = results.read(packed).runs
    assert {k: r.rows for k, r in read.items()} == {k: r.rows for k, r in whole.items()}


def test_rows_come_back_whatever_their_keys() -> None:
    rows = [
        {"step": 0, "train": {"error": 0.5, "count": 9}, "batch": {"error": 1.0}},
        {"step": 2, "train": {"error": None, "count": 9}, "nonfinite": True},
        {"step": 4, "train": {"error": 0.25, "count": 9}, "probe": {"z": 1.0, "a": [1, 2]}},
        {"step": 5, "train": {"error": 0.25, "count": 9}, "probe": {"z": 2.0, "a": [1, 3]}},
    ]
    blocks = json.loads(json.dumps([*results._columns(rows)]))
    assert len(blocks) == 3 and blocks[2]["train"] == {"error": 0.25, "count": 9}
    assert [*blocks[2]["probe"]] == ["z", "a"]  # layers in the net's order
    back = [row for block in blocks for row in results._rows(block)]
    assert back == [{k: v for k, v in row.items() if k != "batch"} for row in rows]


def test_a_file_of_another_experiment_or_none_is_an_error(command: Command, root: Path) -> None:
    path = results.collect(Launch(NAME), root / "runs", root / "results")
    changed = "import dataclasses\nfrom jaxcnn.config import override\n"
    changed += "from test_report import EXPERIMENT as E\n"
    changed += "EXPERIMENT = dataclasses.replace(E, base=override(E.base, {'train.steps': 7}))\n"
    (root / "experiments" / f"{NAME}.py").write_text(changed)
    code, _, err = command("report", "--from", root / "results", "--out", root / "here")
    assert code == 2 and f"no records of {NAME}" in err and "collect it again" in err
    path.write_text("{}")
    code, _, err = command("report", "--from", root / "results", "--out", root / "here")
    assert code == 2 and "not a file of `launch.py collect`" in err and err.count("\n") == 1


@pytest.mark.slow  # calculates every claim that a calculation decides
def test_the_results_of_this_repository_are_those_of_their_files() -> None:
    folder = Path(__file__).resolve().parent.parent / "results"
    entries = overview.entries(folder)
    assert (folder / "README.md").read_text() == overview.readme(entries), (
        "run python launch.py report --from results"
    )
    assert all(report.markdown(entry.table) for entry in entries)
