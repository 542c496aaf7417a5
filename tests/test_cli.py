"""The command line as its user sees it: what it prints, exit codes, one clear error each."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import launch
from jaxcnn import config, memory

Launch = Callable[..., tuple[int, str, str]]
REPOSITORY = Path(__file__).resolve().parent.parent
TINY = ("--set", "train.steps=4", "--set", "train.eval_every=2", "--set", "optim.lr=0.1")


def test_help_answers_everywhere(command: Launch) -> None:
    for arguments in ((), ("--help",)):
        code, out, _ = command(*arguments)
        assert code == 0 and "python launch.py run relu_vs_sigmoid --preset quick" in out
    commands = ("list", "show", "run", "report", "collect", "prepare", "evaluate", "table", "plot")
    for name in (*commands, "status", "cancel", "export", "predict", "features", "landmarks"):
        code, out, _ = command(name, "--help")
        assert code == 0 and "usage: launch.py" in out
        assert name == "list" or "Example: python launch.py" in out


def test_list_names_every_experiment_and_its_claim(command: Launch) -> None:
    code, out, _ = command("list")
    assert code == 0
    assert "relu_vs_sigmoid  ReLU networks train faster than sigmoid or tanh networks" in out


def test_show_resolves_what_will_run(command: Launch) -> None:
    code, out, _ = command("show", "relu_vs_sigmoid", "--preset", "quick", "--seeds", "0..9")
    assert code == 0
    for said in (
        r"model\.activation +relu +tanh +sigmoid",
        r"model\.initializer +glorot_uniform \(paper\)",
        r"optim\.lr +tuned: 0\.01, 0\.03, 0\.1, 0\.3",
        r"parameters +61,706 +61,706 +61,706",
        r"steps +300",
        r"seeds 0\.\.9: 30 runs",
        r"predicts: relu has fewer steps to 5 % training error than tanh",
        r"preset quick: train\.steps=300",
        r"compiled programs are kept in .*jax",
        r"CPU devices: 8",
        r"allocator: (M_TRIM_THRESHOLD=\d+|the user.s own|as the C library)",
    ):
        assert re.search(said, out), (said, out)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["run", "relu_vs_sigmod"], "Did you mean relu_vs_sigmoid"),
        (["run", "nowhere/mine.py"], "nowhere/mine.py: no such file"),
        (["run", "relu_vs_sigmoid", "--preset", "quik"], "Did you mean quick"),
        (["run", "relu_vs_sigmoid", "--arms", "rely"], "'rely' is no arm. Did you mean relu"),
        (["run", "relu_vs_sigmoid", "--seeds", "5..1"], "--seeds: '5..1' names no seeds"),
        (["run", "relu_vs_sigmoid", "--seeds", "a"], "--seeds: 'a' is not of the form 0..9"),
        (["run", "relu_vs_sigmoid", "--set", "optim.lr"], "'optim.lr' is not PATH=VALUE"),
        (["run", "relu_vs_sigmoid", "--set", "optim.lrr=1"], "Did you mean optim.lr"),
        (["run", "relu_vs_sigmoid", "--set", "optim.lr=fast"], "'fast' is not a number"),
        (["run", "relu_vs_sigmoid", "--set", "model.pool=mean"], "one of 'paper', 'max', 'avg'"),
        (["run", "relu_vs_sigmoid", "--set", "model.activation=relu"], "pick one by --arms"),
        (["run", "relu_vs_sigmoid", "--set", "model.name=lenet"], "Did you mean lenet5"),
        (["run", "relu_vs_sigmoid", "--set", "model.groups=3"], "lenet5 has no such knob"),
        (
            ["run", "relu_vs_sigmoid", "--set", "model.pool_window=30"],
            "model.pool_window: 30 is larger than the 28x28 map before S2",
        ),
        (
            ["run", "relu_vs_sigmoid", "--set", "train.batch_size=70000"],
            "train.batch_size: 70000 is larger than the 58000 training examples",
        ),
        (
            ["run", "relu_vs_sigmoid", "--set", "data.train_examples=59000"],
            "data.train_examples: 59000 is larger than the 58000",
        ),
        (
            ["run", "relu_vs_sigmoid", "--set", "data.name=cifar11"],
            "Did you mean cifar10",
        ),
        (
            ["run", "relu_vs_sigmoid", "--set", "data.name=cifar10", "--data-dir", "nowhere"],
            "python launch.py prepare cifar10",
        ),
        (["run", "relu_vs_sigmoid", "--set", "data.name=gone.npz"], "gone.npz"),
        (["report", "relu_vs_sigmoid"], "Run: python launch.py run relu_vs_sigmoid"),
        (["run", "relu_vs_sigmoid", "--at-once", "0"], "--at-once: 0 is not allowed"),
        (["prepare", "cifar11"], "Did you mean cifar10"),
    ],
    ids=lambda v: " ".join(v[1:]) if isinstance(v, list) else "",
)
def test_bad_input_is_one_line_and_code_2(
    arguments: list[str], said: str, command: Launch, tmp_path: Path
) -> None:
    out_option = ["--out", str(tmp_path / "runs")] if arguments[0] in ("run", "report") else []
    code, _, err = command(*arguments, *out_option)
    assert code == 2
    assert said in err and err.startswith("error: ") and "Traceback" not in err
    assert err.count("\n") == 1
    assert not list(tmp_path.rglob("run.json"))


def test_an_unknown_option_is_code_2(command: Launch) -> None:
    code, _, err = command("run", "relu_vs_sigmoid", "--sedes", "3")
    assert code == 2 and "--seeds" in err


@pytest.mark.skipif(os.geteuid() == 0 and not Path("/proc").exists(), reason="needs /proc as root")
def test_an_unwritable_folder_is_named_before_any_work(command: Launch) -> None:
    code, _, err = command("run", "relu_vs_sigmoid", "--out", "/proc/runs")
    assert code == 2
    assert err.startswith("error: --out: /proc/runs cannot be written to")


def test_debug_shows_the_traceback(command: Launch) -> None:
    with pytest.raises(Exception, match="no such experiment"):
        command("run", "nothing", "--debug")


def test_run_writes_everything_and_report_makes_it_again(command: Launch, tmp_path: Path) -> None:
    common = ["relu_vs_sigmoid", "--preset", "quick", "--seeds", "0,1", "--out", str(tmp_path)]
    code, out, err = command("run", *common, *TINY, "--tensorboard", "--arms", "relu", "tanh")
    assert (code, err) == (0, "")
    assert "ReLU networks train faster" in out and "undecided" in out
    assert "100 %" in out or "4 of" in out or "run-steps" in out  # progress where there is no tty
    (reports,) = (tmp_path / "relu_vs_sigmoid" / "reports").iterdir()
    names = {"index.html", "report.md", "table.csv", "table.tex", "curves.png", "curves.svg"}
    assert names <= {p.name for p in reports.iterdir()}
    assert len(list(tmp_path.glob("relu_vs_sigmoid/tensorboard/*/*/events.*"))) == 4
    info = json.loads(next(tmp_path.glob("*/relu/*/run.json")).read_text())
    assert info["config"]["model"]["activation"] == "relu"
    assert info["parameters"] == 61_706 and info["steps"] == 4 and info["arm"] == "relu"
    assert {"commit", "dirty", "versions", "device", "command", "data"} <= info.keys()
    assert {"compiler_options", "cpu_devices", "allocator"} <= info.keys()
    told = Path("/proc/cpuinfo")
    if told.is_file() and "avx2" in told.read_text().split():
        assert info["device"]["cpu"].endswith((", AVX2", ", AVX-512"))

    before = (reports / "table.csv").read_bytes()
    (reports / "table.csv").unlink()
    code, out, _ = command("report", *common, *TINY, "--arms", "relu", "tanh")
    assert code == 0 and (reports / "table.csv").read_bytes() == before


def test_an_error_ends_the_program_though_a_thread_goes_on(environment: dict) -> None:
    """As a checkpoint's does at times that cannot be written."""
    program = """if True:
        import runpy, sys, threading
        threading.Thread(target=threading.Event().wait).start()
        sys.argv = ["launch.py", "run", "nothing"]
        runpy.run_path("launch.py", run_name="__main__")
    """
    ended = subprocess.run(
        [sys.executable, "-c", program],
        cwd=REPOSITORY,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ended.returncode == 2 and ended.stderr.startswith("error: nothing: no such experiment")


@pytest.mark.slow
def test_a_full_disk_is_code_1_and_loses_nothing(tmp_path: Path, environment: dict) -> None:
    """A real file system of 3 MB, where this machine lets us mount one."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(disk)]
    try:
        mounted = subprocess.run(mount, capture_output=True, timeout=10).returncode == 0
    except OSError:
        mounted = False
    if not mounted:
        pytest.skip("needs the right to mount a small tmpfs")
    run = [sys.executable, "launch.py", "run", "relu_vs_sigmoid", "--preset", "quick", *TINY]
    run += ["--arms", "relu", "--seeds", "0..7", "--out", str(disk / "runs")]
    try:
        full = subprocess.run(
            run, cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=300
        )
        assert full.returncode == 1, full.stdout + full.stderr
        assert "Traceback" not in full.stderr
        assert "Nothing recorded is lost" in full.stderr
        done = len(list(disk.glob("runs/*/*/*/result.json")))
        subprocess.run(["mount", "-o", "remount,size=100m", str(disk)], check=True)
        again = subprocess.run(run, cwd=REPOSITORY, env=environment, capture_output=True, text=True)
        assert again.returncode == 0, again.stderr
        assert len(list(disk.glob("runs/*/*/*/result.json"))) == 8 > done
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=False)


def test_memory_that_runs_out_is_one_line_that_says_what_needs_less(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """jax's own error, for an array of 64 TiB, and numpy's."""
    plain = config.override(config.Run(), {"train.batch_size": 64})
    resnet = config.override(plain, {"model.name": "resnet20"})
    with pytest.raises(memory.OutOfMemory) as caught, memory.explained("arm seed0", plain):
        jax.block_until_ready(jnp.zeros(1 << 44) + 1)
    assert launch._explain(caught.value) == 1
    said = capsys.readouterr().err
    assert said.startswith("error: arm seed0: the device's memory is too small: asked for")
    assert "65536 GiB" in said.replace("6.554e+04", "65536") and said.count("\n") == 1
    fixes = "train.batch_size=auto or a number below 64, or --set train.accumulate=2, the batch in"
    assert f"--set {fixes} parts, or --at-once 1." in said
    assert "model.remat" not in said and "Nothing recorded is lost" in said
    with pytest.raises(memory.OutOfMemory, match=r"or --set model\.remat=true\."):
        with memory.explained("arm seed0", resnet):
            np.zeros((1 << 20, 1 << 30))
    with pytest.raises(ZeroDivisionError), memory.explained("arm seed0", plain):
        _ = 1 / 0


def test_a_net_larger_than_the_memory_is_said_before_any_work(
    command: Launch, tmp_path: Path
) -> None:
    """4 TiB of weights, for which XLA would wait for ever, whatever --at-once says."""
    huge = ["run", "relu_vs_sigmoid", "--preset", "quick", *TINY, "--arms", "relu", "--seeds", "0"]
    huge += ["--set", "model.name=mlp", "--set", "model.pool=paper", "--out", str(tmp_path)]
    huge += ["--set", "model.widths=1048576,1048576"]
    for more in ((), ("--at-once", "1")):
        code, _, err = command(*huge, *more)
        assert code == 1 and err.count("\n") == 1, err
        assert err.startswith("error: relu seed0-") and "--set train.batch_size=auto" in err
    assert not list(tmp_path.rglob("run.json"))


TWO = """from jaxcnn.config import Data, Model, Run, Train
from jaxcnn.experiment import Experiment, Measure, Prediction

EXPERIMENT = Experiment(
    claim="NAME",
    source="here",
    base=Run(
        model=Model(name="mlp", widths=(4,)),
        data=Data(name="NAME", train_examples=200, validation_examples=100),
        train=Train(batch_size=50, steps=2, eval_every=2, eval_train_examples=100),
    ),
    arms={"slow": {"optim.lr": 0.01}, "fast": {"optim.lr": 0.1}},
    predictions=(Prediction(Measure("final", "test"), "fast", than="slow"),),
    seeds=(0, 1),
)
"""


@pytest.mark.slow
def test_all_experiments_go_on_past_one_that_fails(
    command: Launch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for file, name in (("broken", "gone.npz"), ("mine", "mnist"), ("yours", "mnist")):
        (tmp_path / f"{file}.py").write_text(TWO.replace("NAME", name))
    monkeypatch.setattr(launch.experiment, "EXPERIMENTS", tmp_path)
    out = tmp_path / "runs"
    code, said, err = command("run", "--all", "--out", out)
    assert code == 1 and err.count("error: ") == 1 and "gone.npz" in err
    assert "failed: broken; the others go on" in said and "yours (2 of 2): 8 of 16" in said
    assert len([*out.glob("*/*/*/test.json")]) == 8
    page = (out / "overview/default/index.html").read_text()
    for name in ("mine", "yours"):
        assert f"../../{name}/reports/default/index.html" in page
    (tmp_path / "broken.py").unlink()
    code, said, err = command("run", "--all", "--out", out)  # nothing is left to train
    assert (code, err) == (0, "") and "mine (1 of 2): 16 of 16 run-steps done" in said
    code, _, err = command("run", "mine", "--all", "--out", out)
    assert code == 2 and "--all: has no use beside NAME" in err


@pytest.mark.slow
def test_auto_is_the_same_for_run_report_and_collect(
    command: Launch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.py").write_text(TWO.replace("NAME", "mnist"))
    monkeypatch.setattr(launch.experiment, "EXPERIMENTS", tmp_path)
    auto = ["mine", "--set", "train.batch_size=auto", "--set", "train.precision=auto"]
    auto += ["--seeds", "0", "--out", tmp_path / "runs"]
    code, out, err = command("run", *auto)
    assert (code, err) == (0, "")
    chosen = "mine: train.batch_size=auto is 128: the largest power of two among 200"
    assert chosen in out and "train.precision=auto is float32" in out
    [info, _] = [json.loads(p.read_text()) for p in tmp_path.rglob("run.json")]
    assert info["config"]["train"]["batch_size"] == 128
    assert info["config"]["train"]["precision"] == "float32"
    code, out, err = command("report", *auto)
    assert (code, err) == (0, "") and "2 of 2 runs" in out
    code, out, err = command("collect", *auto, "--to", tmp_path / "results")
    assert (code, err) == (0, "") and "Written" in out
    [file] = (tmp_path / "results").iterdir()
    assert "auto" not in file.read_text().replace("=auto", "")  # but for the commands
