"""What the benchmarks conclude from a trace and from answers, on small ones made by hand; and that
their page is made from their records.
"""

import importlib.metadata
import json
import re
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

import contest  # noqa: E402
import cpu_sweep  # noqa: E402
import gpu_sweep  # noqa: E402
import gpu_time_to  # noqa: E402
import gpu_train  # noqa: E402
import readme  # noqa: E402
import scaling  # noqa: E402
import traces  # noqa: E402
from traces import Event  # noqa: E402


def loop(steps: int, between: float) -> list[Event]:
    """A shuffle; then each step: two kernels of 3, 1 apart; 2 later the condition of 2, one time
    more.
    """
    events, now = [Event("sort", 0, 50)], 60.0

    def run(name: str, length: float, gap: float) -> None:
        nonlocal now
        events.append(Event(name, now, now + length))
        now += length + gap

    run("compare", 2, between)
    for _ in range(steps):
        run("conv_fprop", 3, 1)
        run("loop_add_fusion_3", 3, 2)
        run("compare", 2, between)
    return events


@pytest.mark.parametrize("between", [0.0, 4.0])
def test_idle_tells_gaps_between_steps_from_those_inside(between: float) -> None:
    found = traces.idle(loop(10, between), 10)
    span = 10 * (3 + 1 + 3 + 2 + 2) + 9 * between
    assert found is not None
    assert found["between_steps"] == round(9 * (2 + between) / span, 4)
    assert found["all"] == round((10 * (1 + 2) + 9 * between) / span, 4)
    assert found["kernels_per_step"] == 3


def test_idle_of_a_trace_without_the_steps() -> None:
    assert traces.idle([], 10) is None
    assert traces.idle([Event("sort", 0, 50)], 10) is None


def test_overlapping_streams_are_busy_once() -> None:
    events = [Event("a", 0, 10), Event("b", 2, 6), Event("a", 12, 20), Event("b", 12, 22)]
    found = traces.idle(events, 2)
    assert found is not None
    assert found["all"] == found["between_steps"] == round(2 / 22, 4)


def test_kernels_go_to_what_they_came_from() -> None:
    compiled = """
      %loop_add_fusion.3 = bf16[8]{0} fusion(%a), metadata={op_name="jit(f)/conv1_bn/add" x=1}
      %input_transpose_fusion = bf16[8]{0} fusion(%a), metadata={op_name="jit(f)/conv1_bn/x"}
      ROOT %loop_convert_fusion = f32[8]{0} fusion(%b), metadata={op_name="jit(f)/fc/convert"}
    """
    layers = traces.layers(compiled)
    expected = {
        "loop_add_fusion_3": "BatchNorm",
        "loop_convert_fusion": traces.ELEMENTWISE,
        "sm90_xmma_dgrad_implicit_gemm_bf16": "convolution",
        "nvjet_hsh_128x256": "matrix products",
        "void cudnn::ops::nchwToNhwcKernel": "copies",
        "input_transpose_fusion": "copies",
        "MemcpyD2D": "copies",
    }
    assert {name: traces.kind(name, layers) for name in expected} == expected
    events = [Event("loop_add_fusion_3", 0, 3), Event("MemcpyD2D", 3, 4)]
    found = traces.shares(events, layers)
    assert found is not None
    assert (found["BatchNorm"], found["copies"], sum(found.values())) == (0.75, 0.25, 1)
    assert traces.longest(events, layers)[0]["from"] == "jit(f)/conv1_bn/add"


def test_seconds_to_a_target_that_the_mean_misses_are_none() -> None:
    seeds = [{"seconds": 9.0, "accuracy": 0.95}, {"seconds": 2.0, "accuracy": 0.92}]
    assert gpu_time_to.summary(seeds, 0.94)["seconds_to_target"] is None
    assert gpu_time_to.summary(seeds, 0.93)["seconds_to_target"] == 2.0


def test_what_stands_side_by_side_fits_in_memory() -> None:
    teams: list[Any] = [SimpleNamespace(bytes=n, room=100) for n in (60, 30, 20, 200, 10)]
    groups = gpu_sweep.that_fit(teams)
    assert [[team.bytes for team in group] for group in groups] == [[60, 30], [20], [200], [10]]


def test_a_contestant_that_fails_is_reported_and_goes_on(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        f"import os, sys, time; sys.path.insert(0, {str(BENCHMARKS)!r}); import contest\n"
        "contest.serve({'half': lambda x: [print('noise'), x / 2][1],"
        " 'hang': lambda: time.sleep(60), 'die': lambda: os._exit(3)})\n"
    )
    with contest.Worker("a", str(script), [], {}) as worker:
        assert worker.ask("half", x=3) == 1.5
        with pytest.raises(contest.Failed, match="a: TypeError"):
            worker.ask("half", x="3")
        assert worker.ask("half", 30, x=5) == 2.5
        with pytest.raises(contest.Failed, match=r"no answer in 0\.1 s|no answer in 0 s"):
            worker.ask("hang", 0.1)
        assert worker.process.poll() is not None
    with contest.Worker("b", str(script), [], {}) as worker:
        with pytest.raises(contest.Failed, match="b: ended with 3"):
            worker.ask("die", 30)


def test_a_toys_gpu_columns_are_empty() -> None:
    columns = contest.emptied({"lenet5": {"seconds": {"median": 1.0}, "runs": [1, 2]}})
    assert json.loads(json.dumps(columns)) == {
        "lenet5": {"seconds": {"median": None}, "runs": None}
    }


def test_the_page_and_its_figures_are_made_from_the_records() -> None:
    """After a new record: python benchmarks/readme.py"""
    page, figures = readme.render()
    assert (BENCHMARKS / "README.md").read_text(encoding="utf-8") == page
    assert {p.name for p in BENCHMARKS.glob("*.svg")} == figures.keys()
    matplotlib = f"matplotlib=={importlib.metadata.version('matplotlib')}"
    if matplotlib in (BENCHMARKS.parent / "constraints.txt").read_text().split():
        for name, svg in figures.items():
            kept = (BENCHMARKS / name).read_text(encoding="utf-8")
            assert in_order(kept) == in_order(svg)


def in_order(svg: str) -> str:
    """Matplotlib names what clips by the last bits of its coordinates, which a CPU may round
    otherwise; here by its place.
    """
    names: dict[str, str] = {}
    return re.sub(r"p[0-9a-f]{10}\b", lambda m: names.setdefault(m[0], f"p{len(names)}"), svg)


ORIGIN = {
    "commit": "0123456789abcdef",
    "convolutions": "XLA",
    "versions": {"jax": "1.2.3"},
    "device": {"platform": "cpu", "cpu": "A CPU", "cores": 2, "kind": "cpu"},
}


def written(folder: Path, stem: str, **record: Any) -> None:
    contents = {**ORIGIN, "question": "How?", **record}
    (folder / f"{stem}-{len(list(folder.iterdir()))}.json").write_text(json.dumps(contents))


def test_a_scaling_record_becomes_a_section_with_a_figure(tmp_path: Path) -> None:
    page, figures = readme.render(tmp_path)
    assert "Scaling" not in page and not figures

    def measured(at: int, point: scaling.Point) -> dict[str, Any]:
        if point.net == "resnet56":
            return {"at": at, "failed": "ours: ended with -9"}
        found = {"at": at, "compile_s": 3.0, "program_mb": 9.5, "resident_mb": None, "data_mb": 1.5}
        times = {"ms_per_step": {"median": 1.0 * at}, "order_ms": {"median": 0.5}}
        return {**found, **(times if point.timed else {})}

    points = {
        panel: {net: [measured(at, p) for at, p in by.items()] for net, by in series.items()}
        for panel, series in scaling.PANELS.items()
    }
    settings = {"usual": scaling.Point()._asdict()}
    written(tmp_path, "scaling", points=points, settings=settings, toy=True)
    assert readme.render(tmp_path) == (page, {})  # a toy is no record
    written(tmp_path, "scaling", points=points, settings=settings, toy=False)
    page, figures = readme.render(tmp_path)
    assert "## Scaling (A CPU, 2 cores)" in page and "](scaling.svg)" in page
    assert "Convolutions: XLA." in page
    assert "resnet at depth 56: ours: ended with -9" in page
    (svg,) = figures.values()
    for words in ("runs side by side", "batch", "depth", "examples", "compiling, s", "program, MB"):
        assert f">{words}</text>" in svg
    assert ">resident, MB</text>" not in svg
    assert ">resnet20</text>" in svg and ">110</text>" in svg and ">60,000</text>" in svg
    assert readme.render(tmp_path)[1] == figures


def test_gpu_records_take_the_place_of_their_commands(tmp_path: Path) -> None:
    page, _ = readme.render(tmp_path)
    assert all(f"python benchmarks/{stem}.py --write" in page for stem in readme.GPU)
    card = {"device": {"platform": "gpu", "kind": "A GPU", "cpu": "A CPU", "cores": 2}}
    summary = gpu_time_to.summary([{"seconds": 2.0, "accuracy": 0.992}], 0.99)
    tasks = {"mnist": gpu_time_to.columns(summary), "cifar10": gpu_time_to.columns({})}
    settings = {"targets": {"mnist": 0.99, "cifar10": 0.94}}
    seeds = {"mnist": {"seeds": [1, 2]}, "cifar10": {"seeds": []}}
    written(tmp_path, "gpu_time_to", **card, gpu=tasks, settings=settings, measured=seeds)
    steps = {"ms_per_step_of_all": {"median": 2.0}}
    by_runs = {1: {"vmap": steps, "scan": "out of memory"}, 4: {"vmap": steps}}
    strategies = {"strategies": {"lenet5": gpu_sweep.decided(by_runs)}}
    strategies |= {"idle": gpu_sweep.shares("no")}
    measured = {"side_by_side": {"lenet5": by_runs}}
    written(tmp_path, "gpu_sweep", **card, gpu=strategies, measured=measured)
    speed: dict[str, Any] = {"images_per_s": {"ours": {"median": 7000.0}}}
    speed |= {"profile": {"time": {"copies": 0.25, "pooling": 0.75}}}
    for net in ("vgg16", "alexnet"):  # asked for one at a time
        gpu = {net: gpu_train.columns(net, speed, {})}
        written(tmp_path, "gpu_train", **card, gpu=gpu, measured={net: {}})
    page, _ = readme.render(tmp_path)
    assert "No record yet" not in page
    assert "| mnist | 99.0% | 2.00 | 99.20%, n = 2 | 2.00 |  |" in page
    assert "| cifar10 | 94.0% |  | , n = 0 | not reached |  |" in page
    assert "| 1 | 2 | out of memory | vmap |\n| 4 | 2 | not measured | vmap |" in page
    assert "4 runs over 1: 1.0 times" in page and "A GPU; jax 1.2.3" in page
    assert "| `vgg16` | 7,000 |  |  |  |  |  |  |\n| `alexnet` | 7,000 |" in page
    assert "| net | copies | pooling |\n|---|---|---|\n| `vgg16` | 25% | 75% |" in page


def test_a_start_up_record_becomes_a_table(tmp_path: Path) -> None:
    settings = {"goals": {"list": 0.5}, "experiment": "mine --seeds 0"}
    seconds = {"python": [0.05, 0.04], "list": [0.3, 0.45, 0.4]}
    written(tmp_path, "startup", seconds=seconds, settings=settings)
    page, _ = readme.render(tmp_path)
    assert "launch.py run mine --seeds 0" in page
    assert "| python | 2 | 0.04 | 0.04 |  |\n| list | 3 | 0.40 | 0.30 | 0.5 |" in page


def test_a_sweeps_record_becomes_a_table(tmp_path: Path) -> None:
    seconds = {"ours, first launch": [20.0, 30.0], "PyTorch, a process a core": [40.0, 50.0]}
    ratios = {"ours, first launch / PyTorch, a process a core": 0.556}
    settings = cpu_sweep.Size()._asdict()
    written(tmp_path, "cpu_sweep", seconds=seconds, ratios=ratios, settings=settings)
    page, _ = readme.render(tmp_path)
    assert "16 seeds of LeNet-5, 1 epochs each" in page
    assert "| ours, first launch | 25.0 | 20.0 |" in page and "a core: 0.56." in page
