"""Writes benchmarks/README.md from the records.

python benchmarks/readme.py
"""

import json
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
HEAD = """# Benchmarks

One file a question of speed; a peer in the same run, in turn; medians. `records/` has what was
measured and where; this page is made from it by `python benchmarks/readme.py`.
"""


def render() -> str:
    parts = [HEAD]
    records = [json.loads(p.read_text()) for p in sorted(HERE.glob("records/cpu_step-*.json"))]
    for machine in dict.fromkeys(_machine(r) for r in records):
        ours = [r for r in records if _machine(r) == machine]
        parts.append(_steps(machine, ours))
    return "\n".join(parts)


def _machine(record: dict[str, Any]) -> str:
    device = record["device"]
    return f"{device['cpu']}, {device['cores']} cores"


def _steps(machine: str, records: list[dict[str, Any]]) -> str:
    """A row a net and task: ours, the fastest PyTorch, their ratio with its middle half."""
    lines = [
        f"\n## A step on a CPU ({machine})\n",
        "`python benchmarks/cpu_step.py --net NET --write`. Evaluation is of 250 pictures.\n",
        "| net | batch | task | ours, ms | fastest PyTorch, ms | ours / PyTorch (middle half) |",
        "|---|---|---|---|---|---|",
    ]
    for record in records:
        net, batch = record["settings"]["net"], record["settings"]["batch"]
        for task in ("train", "evaluate"):
            milliseconds, ratios = record[task]["ms_per_run_step"], record[task]["ratios"]
            peer = next(k for k in ratios if k.startswith("ours / ")).removeprefix("ours / ")
            r = ratios[f"ours / {peer}"]
            size = batch if task == "train" else 250
            lines.append(
                f"| `{net}` | {size} | {task} | {milliseconds['ours']:.1f} |"
                f" {milliseconds[peer]:.1f} ({peer.removeprefix('PyTorch, ')}) |"
                f" {r['median']:.2f} ({r['low']:.2f} to {r['high']:.2f}) |"
            )
    versions = records[0]["versions"]
    torch = records[0]["facts"]["PyTorch, threads: 1"]["torch"]
    commits = ", ".join(sorted({f"`{r['commit'][:10]}`" for r in records}))
    lines.append(f"\njax {versions['jax']}, PyTorch {torch}; commit {commits}.\n")
    return "\n".join(lines)


if __name__ == "__main__":
    (HERE / "README.md").write_text(render(), encoding="utf-8")
