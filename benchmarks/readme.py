"""Writes benchmarks/README.md, and the figures that it shows, from the records.

python benchmarks/readme.py
"""

import json
import statistics
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

HEAD = """# Benchmarks

One file a question of speed; a peer in the same run, in turn; medians. `records/` has what was
measured and where; this page is made from it by `python benchmarks/readme.py`.
"""
GPU = ("gpu_train", "gpu_sweep", "gpu_time_to")
Record = dict[str, Any]


def render(records: Path = HERE / "records") -> tuple[str, dict[str, str]]:
    """The page, and its figures: name -> SVG. Records of toys are left out."""
    parts = [HEAD]
    steps = _read(records, "cpu_step")
    for machine in dict.fromkeys(map(_machine, steps)):
        parts.append(_steps(machine, [r for r in steps if _machine(r) == machine]))
    parts += map(_sweep, _read(records, "cpu_sweep"))
    parts += map(_startup, _read(records, "startup"))
    parts += map(_exports, _read(records, "export_speed"))
    parts += map(_input, _read(records, "input"))
    figures = {}
    for i, record in enumerate(_read(records, "scaling")):
        name = f"scaling-{i + 1}.svg" if i else "scaling.svg"
        parts.append(_scaling(record, name))
        figures[name] = figure(record["points"])
    parts.append(_gpu({stem: _read(records, stem) for stem in GPU}))
    return "\n".join(parts), figures


def _read(folder: Path, stem: str) -> list[Record]:
    found = [json.loads(p.read_text()) for p in sorted(folder.glob(f"{stem}-*.json"))]
    return [record for record in found if not record.get("toy")]


def _machine(record: Record) -> str:
    device = record["device"]
    cpu = f"{device['cpu']}, {device['cores']} cores"
    return cpu if device["platform"] == "cpu" else device["kind"]


def _made_with(record: Record) -> str:
    return f"jax {record['versions']['jax']}; commit `{(record['commit'] or 'unknown')[:10]}`."


def _steps(machine: str, records: list[Record]) -> str:
    """A row a net and task: ours, the fastest PyTorch, their ratio with its middle half."""
    lines = [
        f"\n## A step on a CPU ({machine})\n",
        "`python benchmarks/cpu_step.py --net NET --write`. Evaluation is of 250 pictures. Times in"
        " ms; ratios are ours / PyTorch, with their middle half; oneDNN's convolutions are those of"
        " `python launch.py native`.\n",
        "| net | batch | task | fastest PyTorch | ours | ratio | ours, oneDNN | ratio |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for record in records:
        net, batch = record["settings"]["net"], record["settings"]["batch"]
        for task in ("train", "evaluate"):
            milliseconds, ratios = record[task]["ms_per_run_step"], record[task]["ratios"]
            peer = next(k for k in ratios if k.startswith("ours / ")).removeprefix("ours / ")
            size = batch if task == "train" else 250
            who = peer.removeprefix("PyTorch, ")
            cells = [f"`{net}`", str(size), task, f"{milliseconds[peer]:.1f} ({who})"]
            for own in ("ours", "ours, oneDNN"):
                if own in milliseconds:
                    r = ratios[f"{own} / {peer}"]
                    within = f"{r['low']:.2f} to {r['high']:.2f}"
                    cells += [f"{milliseconds[own]:.1f}", f"{r['median']:.2f} ({within})"]
                else:
                    cells += ["", ""]
            lines.append(f"| {' | '.join(cells)} |")
    versions = records[0]["versions"]
    torch = records[0]["facts"]["PyTorch, threads: 1"]["torch"]
    commits = ", ".join(sorted({f"`{r['commit'][:10]}`" for r in records}))
    made_with = f"jax {versions['jax']}, PyTorch {torch}, {records[0]['convolutions']}"
    lines.append(f"\n{made_with}; commit {commits}.\n")
    return "\n".join(lines)


def _sweep(record: Record) -> str:
    """Whole processes: the median of each contestant, and the ratios to the fastest PyTorch."""
    settings = record["settings"]
    lines = [
        f"\n## A whole sweep on a CPU ({_machine(record)})\n",
        f"`python benchmarks/cpu_sweep.py --write`: {settings['seeds']} seeds of LeNet-5,"
        f" {settings['epochs']:g} epochs each, from the start of the process to its exit.\n",
        "| contestant | seconds, median | fastest |",
        "|---|---|---|",
    ]
    for who, seconds in record["seconds"].items():
        lines.append(f"| {who} | {statistics.median(seconds):.1f} | {min(seconds):.1f} |")
    ratios = "; ".join(f"{what}: {value:.2f}" for what, value in record["ratios"].items())
    return "\n".join([*lines, f"\n{ratios}. {_made_with(record)}\n"])


def _startup(record: Record) -> str:
    """Processes until they answer, and beside them the goals."""
    settings = record["settings"]
    lines = [
        f"\n## Start-up ({_machine(record)})\n",
        "`python benchmarks/startup.py --write`: to the end of a command's process, and of"
        f" `launch.py run {settings['experiment']}` to the first point of the curve behind step 0."
        " A later launch finds the programs compiled.\n",
        "| what | n | seconds, median | fastest | goal, under |",
        "|---|---|---|---|---|",
    ]
    for who, seconds in record["seconds"].items():
        goal = _number(settings["goals"].get(who), "g")
        times = f"{statistics.median(seconds):.2f} | {min(seconds):.2f}"
        lines.append(f"| {who} | {len(seconds)} | {times} | {goal} |")
    return "\n".join([*lines, f"\n{_made_with(record)}\n"])


def _exports(record: Record) -> str:
    """A row a net: a picture by onnxruntime, and by each compilation of the C."""
    own = [*next(iter(record["nets"].values()))["ratios"]]
    names = [ratio.partition(" / ")[0] for ratio in own]
    lines = [
        f"\n## An exported net ({_machine(record)})\n",
        "`python benchmarks/export_speed.py --write`: one picture a call, one thread; ms, and"
        " ratios to onnxruntime with their middle half.\n",
        f"| net | onnxruntime | {' | '.join(f'{name} | ratio' for name in names)} |",
        "|---" * (2 + 2 * len(own)) + "|",
    ]
    for net, row in record["nets"].items():
        times = row["ms_per_picture"]
        cells = [f"`{net}`", f"{times['onnxruntime']:.3g}"]
        for name, ratio in zip(names, own, strict=True):
            r = row["ratios"][ratio]
            within = f"{r['low']:.2f} to {r['high']:.2f}"
            cells += [f"{times[name]:.3g}", f"{r['median']:.2f} ({within})"]
        lines.append(f"| {' | '.join(cells)} |")
    settings = record["settings"]
    used = f"onnxruntime {settings['onnxruntime']}, gcc {settings['gcc']}"
    return "\n".join([*lines, f"\n{used}; {_made_with(record)}\n"])


def _input(record: Record) -> str:
    """A row a reader of pictures: its speed, and the ratios to PyTorch's and tf.data's."""
    settings, ratios = record["settings"], record["ratios"]
    peers = list(dict.fromkeys(what.rpartition(" / ")[2] for what in ratios))
    alone = (
        " simplejpeg alone decodes, and does nothing else: whole pictures, as ours do, or to an"
        " eighth of their size, little more than their Huffman codes."
        if "simplejpeg alone" in record["pictures_per_s_and_core"]
        else ""
    )
    lines = [
        f"\n## Reading pictures ({_machine(record)})\n",
        f"`python benchmarks/input.py DIR --write`: batches of {settings['batch']} squares of"
        f" {settings['side']} pixels out of {settings['pictures']:,} JPEGs, shuffled, with all"
        " cores at work; median, with the middle half. The ratios are of processor time, which"
        " depends less on what else the machine did: its load before was"
        f" {settings['load_before']:.1f}.{alone}\n",
        "| reader | pictures/s a core | pictures a processor second |"
        f" {' | '.join(f'of {peer}' for peer in peers)} |",
        f"|---|---|---|{'---|' * len(peers)}",
    ]
    for who, s in record["pictures_per_s_and_core"].items():
        own = [ratios.get(f"{who} / {peer}") for peer in peers]
        cells = [who, _within(s, ",.0f"), _within(record["pictures_per_processor_s"][who], ",.0f")]
        cells += [_within(r, ".2f") if r else "" for r in own]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, f"\n{_made_with(record)}\n"])


def _within(spread: Record, form: str) -> str:
    return f"{spread['median']:{form}} ({spread['low']:{form}} to {spread['high']:{form}})"


def _scaling(record: Record, name: str) -> str:
    usual = record["settings"]["usual"]
    failed = [
        f"{net} at {panel} {point['at']:,}: {point['failed']}"
        for panel, series in record["points"].items()
        for net, points in series.items()
        for point in points
        if "failed" in point
    ]
    return "\n".join(
        [
            f"\n## Scaling ({_machine(record)})\n",
            "`python benchmarks/scaling.py --write`: how time and memory grow with the runs side by"
            " side, the batch,\nthe depth and the size of the data set. Where nothing else is said:"
            f" LeNet-5, {usual['runs']} run, batch {usual['batch']}; ResNets\nof batch 64 along the"
            " depth. Program: XLA's arguments and temporaries. Resident:\nthe most that the"
            " process held, compiling included.\n",
            f"![time and memory against runs, batch, depth and data]({name})\n",
            *(f"Failed: {words}\n" for words in failed),
            f"{_made_with(record)} Convolutions: {record['convolutions']}.\n",
        ]
    )


# panel -> what stands under its axis, and what grows: title -> the record's name for it
FIGURE = {
    "runs": ("runs side by side", {"step of all runs, ms": "ms_per_step"}),
    "batch": ("batch", {"step, ms": "ms_per_step"}),
    "depth": ("depth", {"step, ms": "ms_per_step", "compiling, s": "compile_s"}),
    "data": ("examples", {"step, ms": "ms_per_step", "epoch's order, ms": "order_ms"}),
}
MEMORY = {
    "runs": {"program, MB": "program_mb", "resident, MB": "resident_mb"},
    "batch": {"program, MB": "program_mb", "resident, MB": "resident_mb"},
    "depth": {"program, MB": "program_mb"},
    "data": {"data, MB": "data_mb"},
}


def figure(points: Record) -> str:
    """SVG: the same record gives the same bytes."""
    from jaxcnn import plots

    panels: dict[str, Any] = {}
    for panel, (x, times) in FIGURE.items():
        panels[x] = {}
        for title, name in {**times, **MEMORY[panel]}.items():
            series = {
                net: {p["at"]: _middle(p[name]) for p in found if p.get(name)}
                for net, found in points[panel].items()
            }
            measured = {net: values for net, values in series.items() if values}
            if measured:  # a system may not say what is resident
                panels[x][title] = measured
    return plots.svg(plots.scaling(panels))


def _middle(value: Any) -> float:
    return value["median"] if isinstance(value, dict) else value


def _gpu(records: dict[str, list[Record]]) -> str:
    """What was measured on GPUs; for what was not, the command that measures it."""
    tables = {"gpu_train": _gpu_train, "gpu_sweep": _gpu_sweep, "gpu_time_to": _gpu_time_to}
    lines = ["\n## GPU\n"]
    missing = [stem for stem in GPU if not records[stem]]
    if missing:
        lines.append("No record yet; on a machine with an NVIDIA GPU, each in ten minutes:\n")
        lines.append("```bash")
        lines += [f"python benchmarks/{stem}.py --write" for stem in missing]
        lines.append("```\n")
    for stem in GPU:
        lines += [f"### {record['question']}\n" for record in records[stem][:1]]
        for record in _together(records[stem]):
            lines += tables[stem](record)
            lines += ["", record["note"]] if record.get("note") else []
            lines.append(f"\n{_machine(record)}; {_made_with(record)}\n")
    return "\n".join(lines)


def _together(records: list[Record]) -> list[Record]:
    """Those of one commit and machine as one: a script may have been asked for a part at a time."""
    found: dict[tuple[str, str], Record] = {}
    for record in records:
        like = record["commit"], _machine(record)
        parts = found.get(like, {"gpu": {}, "measured": {}})
        found[like] = record | {k: parts[k] | record.get(k, {}) for k in ("gpu", "measured")}
    return list(found.values())


def _number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def _gpu_train(record: Record) -> list[str]:
    lines = [
        "| net | ours, images/s | torchvision compiled | eager | ours / compiled | ours / eager |"
        " of compute | of memory |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for net, row in record["gpu"].items():
        speeds = (
            row[f"{who}_images_per_s"]
            for who in ("ours", "torchvision_compiled", "torchvision_eager")
        )
        share = row["share_of_ceiling"]
        cells = [
            *(_number(speed, ",.0f") for speed in speeds),
            *(_number(row[f"ours_over_torchvision_{f}"], ".2f") for f in ("compiled", "eager")),
            *(_number(share[what], ".0%") for what in ("compute", "memory")),
        ]
        lines.append(f"| `{net}` | {' | '.join(cells)} |")
    spent = {net: row["time"] for net, row in record["gpu"].items() if row["time"]}
    if spent:
        kinds = list(next(iter(spent.values())))
        lines += ["", "Where the time of ours goes:", ""]
        lines += [f"| net | {' | '.join(kinds)} |", "|---" * (len(kinds) + 1) + "|"]
        for net, shares in spent.items():
            lines.append(f"| `{net}` | {' | '.join(f'{shares[kind]:.0%}' for kind in kinds)} |")
    return lines


def _gpu_sweep(record: Record) -> list[str]:
    lines, more = [], []
    for net, verdict in record["gpu"]["strategies"].items():
        by_runs = record["measured"]["side_by_side"][net]
        names = list(dict.fromkeys(name for cells in by_runs.values() for name in cells))
        lines += [f"`{net}`, ms a step of all runs:", ""]
        lines += ["| runs | " + " | ".join(names) + " | fastest |", "|---" * (len(names) + 2) + "|"]
        for runs in sorted(by_runs, key=int):
            cells = [by_runs[runs].get(name, "not measured") for name in names]
            words = [c if isinstance(c, str) else f"{_ms(c):.3g}" for c in cells]
            fastest = verdict["strategy"][runs] or "none ran"
            lines.append(f"| {runs} | {' | '.join(words)} | {fastest} |")
        more += [
            f"`{net}`: the time of {what}: {times:.1f} times."
            for what, times in verdict.items()
            if what != "strategy" and times is not None
        ]
    for name, share in record["gpu"]["idle"].items():
        if share is not None:
            found = record["measured"]["idle"][name]
            more.append(
                f"One LeNet-5, {name}: {found['us_per_step_without_profile']} us a step; in a"
                f" profile, which slows the host, idle between steps {share:.1%}, in all"
                f" {found['profile']['all']:.1%}."
            )
    return [*lines, "", *more]


def _ms(cell: Record) -> float:
    return cell["ms_per_step_of_all"]["median"]


def _gpu_time_to(record: Record) -> list[str]:
    lines = [
        "| task | target | seconds of the recipe | test pictures right, mean | reached in, s |"
        " compiling, s |",
        "|---|---|---|---|---|---|",
    ]
    for task, row in record["gpu"].items():
        reached = row["seconds_to_target"]
        cells = [
            f"{record['settings']['targets'][task]:.1%}",
            _number((row["seconds"] or {}).get("median"), ".2f"),
            f"{_number(row['accuracy_mean'], '.2%')}, n = {len(record['measured'][task]['seeds'])}",
            "not reached" if reached is None else f"{reached:.2f}",
            _number(row["compile_s"], ".1f"),
        ]
        lines.append(f"| {task} | {' | '.join(cells)} |")
    return lines


if __name__ == "__main__":
    page, figures = render()
    (HERE / "README.md").write_text(page, encoding="utf-8")
    for name, svg in figures.items():
        (HERE / name).write_text(svg, encoding="utf-8")
