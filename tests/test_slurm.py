"""Slurm: what is said before anything is submitted, and real tasks on a cluster of one node."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import one_node
import pytest

from jaxcnn import experiment, records, slurm, status, submit, sweep
from jaxcnn.config import InputError
from jaxcnn.slurm import Resources

Launch = Callable[..., tuple[int, str, str]]
REPOSITORY = Path(__file__).resolve().parent.parent
SOURCE = """
from jaxcnn.config import Data, Model, Optim, Run, Train
from jaxcnn.experiment import Experiment, Measure, Prediction

EXPERIMENT = Experiment(
    claim="More momentum has less error",
    source="a test",
    base=Run(
        model=Model(name="MODEL"),
        data=Data(train_examples=1000, validation_examples=200, shift=2),
        train=Train(batch_size=32, steps=STEPS, eval_every=EVERY, eval_train_examples=100),
    ),
    arms={"small": {"optim.momentum": 0.5}, "large": {}},
    tune=TUNE,
    tune_seeds=(0,),
    seeds=(0, 1),
    predictions=(Prediction(Measure("final", "test"), "large", than="small"),),
)
"""
# Two settings of seed 0, then one of them at seed 1 as well: three runs an arm. And one that lasts.
QUICK = {"MODEL": "mlp", "STEPS": "4", "EVERY": "2", "TUNE": '{"optim.lr": (0.05, 0.1)}'}
LONG = {"MODEL": "lenet5", "STEPS": "3000", "EVERY": "30", "TUNE": "{}"}


def written(folder: Path, values: dict[str, str]) -> Path:
    text = SOURCE
    for name, value in values.items():
        text = text.replace(name, value)
    path = folder / "mine.py"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--time", "soon"], "--time: 'soon' is not [DAYS-]HH:MM:SS or minutes"),
        (["--time", "00:00:00"], "above 0"),
        (["--gpus", "0"], "--gpus: 0 is not allowed; it must be at least 1"),
        (["--nodes", "0"], "--nodes: 0 is not allowed"),
        (["--array-parallelism", "0"], "--array-parallelism: 0 is not allowed"),
        (["--slurm", "array=0-9"], "--slurm: 'array=0-9' is not KEY=VALUE"),
    ],
)
def test_what_sbatch_would_not_take_is_said_before(
    options: list[str], said: str, command: Launch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sbatch").touch(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    code, _, err = command("run", "relu_vs_sigmoid", "--on", "slurm", *options)
    assert code == 2 and said in err and err.count("\n") == 1
    code, _, err = command("run", "relu_vs_sigmoid", *options)
    assert code == 2 and "are of --on slurm" in err


def test_what_is_absent_is_named(
    command: Launch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = ("run", "relu_vs_sigmoid", "--on", "slurm", "--out", tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    code, _, err = command(*asked)
    assert code == 2 and "there is no sbatch on the PATH" in err
    monkeypatch.setitem(sys.modules, "submitit", None)
    code, _, err = command(*asked)
    assert code == 2 and "pip install -c constraints.txt -e '.[slurm]'" in err
    code, _, err = command("cancel", "relu_vs_sigmoid", "--out", tmp_path)
    assert code == 2 and "no task of relu_vs_sigmoid is in the queue" in err


def test_resources_reach_sbatch() -> None:
    asked = Resources("gpu", 2, None, 8, "32G", "1-12:00:30", 4, ("account=vision", "exclusive"))
    made = slurm.parameters(asked)
    assert made["time"] == 36 * 60 + 1 and slurm.parameters(Resources(time="90"))["time"] == 90
    assert (made["partition"], made["gpus_per_node"], made["mem"]) == ("gpu", 2, "32G")
    assert (made["cpus_per_task"], made["array_parallelism"]) == (8, 4)
    others = made["additional_parameters"]
    assert others == {"requeue": True, "account": "vision", "exclusive": True}
    assert "nodes" not in made and "ntasks_per_node" not in made
    made = slurm.parameters(Resources(nodes=4, gpus=8))
    assert (made["nodes"], made["ntasks_per_node"]) == (4, 8)  # a process a GPU
    assert slurm.parameters(Resources(nodes=4))["ntasks_per_node"] == 1
    made = slurm.parameters(Resources(nodes=4, slurm=("ntasks-per-node=2",)))
    assert "ntasks_per_node" not in made


@pytest.mark.slow
def test_a_task_is_an_arm_and_a_finished_arm_is_none(command: Launch, tmp_path: Path) -> None:
    """The words of a task are those that the command line takes."""
    file, out = written(tmp_path, QUICK), tmp_path / "runs"
    exp = experiment.load(str(file))
    assert submit.left(exp, out, None, "cpu") == ["small", "large"]
    code, _, err = command("run", file, "--arms", "large", "--out", out)
    assert (code, err) == (0, "")
    assert submit.left(exp, out, None, "cpu") == ["small"]
    untested = next(out.glob("mine/large/*/test.json"))
    untested.unlink()
    assert submit.left(exp, out, None, "cpu") == ["small", "large"]
    auto = experiment.select(exp, settings={"train.batch_size": "auto"})
    assert submit.left(auto, out, None, "cpu") == ["small", "large"]
    on_gpu = experiment.select(exp, settings={"train.device": "gpu"})
    with pytest.raises(InputError, match="every arm asks for gpu"):
        submit.left(on_gpu, out, None, "cpu")
    too_large = experiment.select(exp, settings={"train.batch_size": "2000"})
    with pytest.raises(InputError, match="2000 is larger than the 1000 training examples"):
        submit.left(too_large, out, None, "cpu")

    status_of = ("status", file, "--out", out)
    code, said, err = command(*status_of)
    assert (code, err) == (0, "")
    assert re.search(r"small +3 +0 +0 +0 +3 +0", said), said
    assert re.search(r"large +3 +3 +0 +0 +0 +0", said), said
    one = experiment.only(exp, ["small"])
    [first, second] = sweep.tuning_jobs(one, out)
    for folder in (first, second):
        records.write_json(folder / "run.json", {"steps": 4})
    with records.lock(first):
        assert status.state(first, queued=False) == "running"
        code, said, _ = command(*status_of)
        assert re.search(r"small +3 +0 +0 +1 +1 +1", said), said
        assert status.state(second, queued=True) == "pending"
    records.write_json(second / "result.json", {"status": "diverged", "step": 2})
    code, said, _ = command(*status_of, "--verbose")
    assert re.search(rf"small +{first.name} +stopped +0 +4", said), said
    assert re.search(rf"small +{second.name} +diverged +0 +4", said), said
    assert re.search(r"large +seed1-\w+ +done +4 +4 +\d+\.\d\d%", said), said


# On a real cluster ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cluster(environment: dict[str, str]) -> Iterator[dict[str, str]]:
    if reason := one_node.missing():
        pytest.skip(reason)
    own = {k: v for k, v in environment.items() if k != "JAX_NUM_CPU_DEVICES"}
    with one_node.cluster() as more:
        yield {**own, **more}


@pytest.fixture
def typed(
    cluster: dict[str, str], command: Launch, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., str]:
    """What `launch.py WORDS...` prints, in this process: what only asks needs none of its own."""
    monkeypatch.setenv("SLURM_CONF", cluster["SLURM_CONF"])

    def run(*words: object) -> str:
        code, out, err = command(*words)
        assert (code, err) == (0, "")
        return out

    return run


# For a job that is in the queue again: Slurm would hold it back for two minutes. Not at once, for
# slurmd ends a job that begins in the second in which it ended its processes.
SOON = "StartTime=now+3"


def shell(cluster: dict[str, str], *words: object) -> str:
    done = subprocess.run(
        list(map(str, words)), cwd=REPOSITORY, env=cluster, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def wait(found: Callable[[], Any], what: str, log: Path, seconds: float = 120) -> Any:
    """What `found` returns once that is true."""
    end = time.monotonic() + seconds
    while not (result := found()):
        words = "\n".join(p.read_text() for p in log.glob("*_log.out")) if log.is_dir() else ""
        assert time.monotonic() < end, f"no {what}\n{words}"
        time.sleep(0.1)
    return result


def outcome(root: Path) -> dict[str, Any]:
    """All that runs leave but for clocks."""
    found = {}
    for info in sorted(root.glob("mine/*/*/run.json")):
        record = records.read(info.parent)
        assert record is not None and record.result is not None
        for row in (*record.rows, record.result):
            row.pop("seconds")
            row.pop("step_seconds", None)
        name = f"{info.parent.parent.name}/{info.parent.name}"
        found[name] = (record.rows, record.result, record.test)
    return found


@pytest.mark.slow
def test_an_array_leaves_what_a_local_run_leaves(
    cluster: dict[str, str], typed: Callable[..., str], tmp_path: Path
) -> None:
    file, out = written(tmp_path, {**QUICK, "STEPS": "300", "EVERY": "100"}), tmp_path / "there"
    launch = (sys.executable, "launch.py")
    asked = (*launch, "run", file, "--out", out, "--on", "slurm", "--cpus", 1, "--memory", "200M")
    asked = (*asked, "--keep", 1, "--keep-best")
    said = shell(cluster, *asked, "--array-parallelism", 2, "--slurm", "hold")
    found = re.search(r"submitted: (\d+)_0, mine small; .*\nsubmitted: \1_1, mine large", said)
    assert found, said
    again = shell(cluster, *asked)
    assert f"small is in the queue as {found[1]}_0" in again and "submitted" not in again
    shell(cluster, "scontrol", "release", found[1])
    shell(cluster, *launch, "run", file, "--out", tmp_path / "here")

    def ended() -> bool:
        asked = ("squeue", "--noheader", "--states=all", "-j", found[1], "-o", "%T")
        states = shell(cluster, *asked).split()
        assert set(states) <= {"PENDING", "RUNNING", "COMPLETING", "COMPLETED"}
        return set(states) == {"COMPLETED"}

    wait(ended, "end", out / "slurm")
    assert outcome(out) == outcome(tmp_path / "here") and len(outcome(out)) == 6
    info = json.loads(next(out.glob("mine/large/*/run.json")).read_text())
    kept = {p.parent.name for p in out.glob("mine/*/*/*/[0-9]*")}
    assert kept == {"checkpoints", "best"} and len(list(out.glob("mine/*/*/checkpoints/*"))) == 6
    assert info["cpu_devices"] == 1 and "run" in info["command"] and "--arms" in info["command"]
    state = typed("status", file, "--out", out)
    assert re.search(r"small +3 +3 +0 +0 +0 +0 +\d+_0 completed", state), state
    assert re.search(r"large +3 +3 +0 +0 +0 +0 +\d+_1 completed", state), state
    assert "nothing to do here for small, large" in shell(cluster, *asked)
    assert "6 of 6 runs" in typed("report", file, "--out", out)
    refused = subprocess.run(
        [*map(str, asked), "--seeds", "7", "--partition", "nowhere"],
        **{"cwd": REPOSITORY, "env": cluster, "capture_output": True, "text": True},
    )
    assert refused.returncode == 1 and refused.stderr.startswith("error: sbatch refuses: ")
    assert "Invalid partition name" in refused.stderr and refused.stderr.count("\n") == 1


@pytest.mark.slow
def test_a_task_is_preempted_warned_cancelled_killed_and_ends_as_undisturbed(
    cluster: dict[str, str], typed: Callable[..., str], tmp_path: Path
) -> None:
    file, out = written(tmp_path, LONG), tmp_path / "there"
    common = (file, "--arms", "small", "--seeds", 0)
    launch = (sys.executable, "launch.py")
    shell(cluster, *launch, "run", *common, "--out", tmp_path / "here")
    run = (*launch, "run", *common, "--out", out, "--on", "slurm", "--checkpoint-every", 1)

    def steps() -> list[int]:
        files = list(out.glob("mine/*/*/metrics.jsonl"))
        lines = files[0].read_text().splitlines() if files else []
        return [json.loads(line)["step"] for line in lines if line.endswith("}")]

    def submitted() -> str:
        found = re.search(r"submitted: (\d+), mine small", shell(cluster, *run))
        assert found
        return found[1]

    def goes_on() -> None:
        before = len(steps())
        wait(lambda: len(steps()) > before + 3, "new points", out / "slurm")

    def state() -> str:
        return typed("status", *common, "--out", out)

    def becomes(job: str, word: str, seconds: float = 120) -> None:
        asked = ("squeue", "--noheader", "--states=all", "-j", job, "-o", "%T")
        wait(lambda: shell(cluster, *asked).strip() == word, word, out / "slurm", seconds)

    job = submitted()
    goes_on()
    assert re.search(rf"small +1 +0 +0 +1 +0 +0 +{job} running", state())

    block = ("sbatch", "--partition=urgent", "--exclusive", "--output=/dev/null", "--parsable")
    urgent = shell(cluster, *block, "--wrap", "sleep 600").strip()
    becomes(job, "PENDING")
    becomes(urgent, "RUNNING")
    assert re.search(rf"small +1 +0 +0 +0 +1 +0 +{job} pending \(\w+\)", state())
    shell(cluster, "scancel", urgent)
    shell(cluster, "scontrol", "update", f"JobId={job}", SOON)
    goes_on()

    shell(cluster, "scancel", "--signal=USR2", job)  # as Slurm does ahead of the time limit
    becomes(job, "PENDING")
    shell(cluster, "scontrol", "update", f"JobId={job}", SOON)
    goes_on()

    said = typed("cancel", file, "--out", out)
    assert f"cancelled: {job}, mine small" in said
    becomes(job, "CANCELLED")
    assert re.search(rf"small +1 +0 +0 +0 +0 +1 +{job} cancelled", state())
    assert (out / "slurm" / f"{job}_0_log.out").read_text().count("all is saved") == 3
    job = submitted()
    goes_on()
    assert steps() == sorted(set(steps()))  # each time it went on where it was

    for process in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = process.read_bytes().split(b"\0")
        except OSError:
            continue
        ours = b"submitit.core._submit" in words and str(out / "slurm").encode() in words
        if ours and b"python" in words[0]:  # not srun, which has the same words
            os.kill(int(process.parent.name), signal.SIGKILL)
    becomes(job, "FAILED")
    assert re.search(rf"small +1 +0 +0 +0 +0 +1 +{job} failed; \S*{job}_0_log\.out", state())
    job = submitted()
    becomes(job, "COMPLETED", 180)
    assert re.search(rf"small +1 +1 +0 +0 +0 +0 +{job} completed", state())
    assert outcome(out) == outcome(tmp_path / "here") and len(outcome(out)) == 1


@pytest.mark.slow
def test_two_processes_of_a_task_are_one_launch(cluster: dict[str, str], tmp_path: Path) -> None:
    """They find each other by what srun tells them, stop and go on together."""
    file, out = written(tmp_path, {**LONG, "STEPS": "600", "EVERY": "25"}), tmp_path / "there"
    launch = (sys.executable, "launch.py")
    run = (*launch, "run", file, "--arms", "small", "--seeds", 0, "--out", out, "--on", "slurm")
    more = ("--nodes", 1, "--slurm", "ntasks-per-node=2", "--cpus", 1, "--checkpoint-every", 1)
    found = re.search(r"submitted: (\d+), mine small", shell(cluster, *run, *more))
    assert found

    def steps() -> list[int]:
        lines = [p.read_text().splitlines() for p in out.glob("mine/*/*/metrics.jsonl")]
        return [json.loads(line)["step"] for line in sum(lines, []) if line.endswith("}")]

    def is_(word: str) -> Callable[[], bool]:
        asked = ("squeue", "--noheader", "--states=all", "-j", found[1], "-o", "%T")
        return lambda: shell(cluster, *asked).strip() == word

    wait(lambda: len(steps()) > 2, "points", out / "slurm", 120)
    shell(cluster, "scancel", "--signal=USR2", found[1])  # as Slurm does ahead of the time limit
    wait(is_("PENDING"), "requeue", out / "slurm")
    shell(cluster, "scontrol", "update", f"JobId={found[1]}", SOON)
    wait(is_("COMPLETED"), "end", out / "slurm", 180)
    said = (out / "slurm" / f"{found[1]}_0_log.out").read_text()
    assert said.count("2 processes, 2 devices (1 each)") == 2 and said.count("all is saved") == 1
    assert steps() == list(range(0, 601, 25))
