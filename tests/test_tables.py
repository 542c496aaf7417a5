"""Tables of architectures and of the notes' errata, and the figure, as their user sees them."""

import csv
import io
import itertools
import json
import re
from collections.abc import Callable
from pathlib import Path

import matplotlib
import pytest
from rich.console import Console

from jaxcnn import errata, listing, models, page, plots, published, recomputed, tables
from jaxcnn.listing import Column, Listing

Launch = Callable[..., tuple[int, str, str]]

LENET5 = (
    ("C1", "conv 5x5", "28x28x6", "156", "4704", "117600", "5", "1", "0.5"),
    ("S2", "avg pool 2x2/2", "14x14x6", "0", "0", "0", "6", "2", "1"),
    ("C3", "conv 5x5", "10x10x16", "2416", "1600", "240000", "14", "2", "5"),
    ("S4", "avg pool 2x2/2", "5x5x16", "0", "0", "0", "16", "4", "6"),
    ("C5", "fully connected", "120", "48120", "120", "48000", "32", "", "14"),
    ("F6", "fully connected", "84", "10164", "84", "10080", "32", "", "14"),
    ("output", "fully connected", "10", "850", "10", "840", "32", "", "14"),
    ("total", "", "", "61706", "6518", "416520", "", "", ""),
)


def read(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_help_answers(command: Launch) -> None:
    for name in ("table", "plot"):
        code, out, _ = command(name, "--help")
        assert code == 0 and f"Example: python launch.py {name}" in out


def test_layers_line_by_line(command: Launch) -> None:
    code, out, err = command("table", "layers", "lenet5", "--format", "csv")
    assert (code, err) == (0, "")
    assert tuple(tuple(row.values()) for row in read(out)) == LENET5
    code, out, _ = command("table", "layers", "lenet5")
    assert code == 0
    for name, _, _, parameters, _, macs, *_ in LENET5:
        line = next(line for line in out.split("\n") if line.startswith(name))
        assert {f"{int(parameters):,}", f"{int(macs):,}"} <= set(line.split())
    assert "Fully-connected layers have 59,134 parameters (95.8 %)" in out


def test_layers_in_every_notation(command: Launch, tmp_path: Path) -> None:
    code, out, _ = command("table", "layers", "lenet5", "lenet1", "--out", tmp_path)
    names = {f"layers_{n}.{end}" for n in ("lenet5", "lenet1") for end in ("md", "csv", "tex")}
    assert code == 0 and {p.name for p in tmp_path.iterdir()} == names
    assert out.count("Written: ") == 6
    tex = (tmp_path / "layers_lenet5.tex").read_text()
    assert r"C3 & conv 5x5 & 10x10x16 & 2,416 &" in tex and r"\end{tabular}" in tex
    text = (tmp_path / "layers_lenet5.md").read_text()
    assert "| C5 | fully connected | 120 | 48,120 |" in text
    for form, end in listing.FORMATS.items():
        code, out, _ = command("table", "layers", "lenet5", "--format", form)
        assert code == 0 and out == (tmp_path / f"layers_lenet5.{end}").read_text()


def test_one_format_alone_is_written(command: Launch, tmp_path: Path) -> None:
    code, _, _ = command("table", "layers", "lenet5", "--format", "csv", "--out", tmp_path)
    assert code == 0 and [p.name for p in tmp_path.iterdir()] == ["layers_lenet5.csv"]


def test_knobs_classes_and_sizes_reach_the_table(command: Launch) -> None:
    options = ("--set", "model.pool=max", "--classes", "26", "--size", "32", "--format", "csv")
    code, out, _ = command("table", "layers", "lenet5", *options)
    rows = {row["layer"]: row for row in read(out)}
    assert code == 0 and rows["S2"]["kind"] == "max pool 2x2/2"
    assert rows["C1"]["output"] == "32x32x6" and rows["output"]["parameters"] == str(85 * 26)


def test_a_narrow_terminal_loses_no_number() -> None:
    table = tables.layers(models.create_model("resnet20"), (32, 32, 3), "resnet20")
    out = io.StringIO()
    listing.show(table, Console(file=out, width=40))
    line = next(line for line in out.getvalue().split("\n") if line.startswith("conv3_1/conv1 "))
    assert line.split()[1:] == ["conv", "3x3/2", "16x16x32", "4,608", "8,192", "1,179,648"] + [
        *("17", "2", "0.5")
    ]


def test_a_partly_connected_layer_is_explained(command: Launch) -> None:
    _, out, _ = command("table", "layers", "lenet5_1998", "--format", "markdown")
    assert "C3 is partly connected: 150,000 of its 240,000 MACs have a weight" in out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["layers"], "MODEL: none"),
        (["layers", "lenet"], "Did you mean lenet5"),
        (["architectures", "vgg"], "Did you mean vgg"),
        (["errata", "lenet5"], "MODEL: 'lenet5' has no place"),
        (["errata", "--size", "3"], "errata has no use for them"),
        (["layers", "lenet5", "--set", "optim.lr=1"], "'optim.lr' is no knob of a model"),
        (["layers", "lenet5", "--set", "model.pool=mean"], "one of 'paper', 'max', 'avg'"),
        (["layers", "lenet5", "--set", "model.groups=2"], "lenet5 has no such knob"),
        (["layers", "lenet5", "--size", "0"], "--size: 0 is not allowed"),
        (["layers", "lenet5", "--size", "4"], "C3: its 5x5 window is larger than the 2x2 map"),
    ],
    ids=lambda v: " ".join(v) if isinstance(v, list) else "",
)
def test_bad_input_is_one_line_and_code_2(arguments: list[str], said: str, command: Launch) -> None:
    code, _, err = command("table", *arguments)
    assert code == 2 and err.count("\n") == 1, err
    assert said in err and err.startswith("error: ")


def test_architectures(command: Launch) -> None:
    names = ("alexnet", "googlenet", "resnet5?", "lenet5")
    code, out, _ = command("table", "architectures", *names, "--format", "csv")
    rows = {row["model"]: row for row in read(out)}
    assert code == 0 and [*rows] == ["lenet5", "alexnet", "googlenet", "resnet50", "resnet56"]
    got = rows["alexnet"]
    assert (got["parameters"], got["macs"], got["depth"]) == ("60965224", "724406816", "8")
    assert (got["receptive_field"], got["neurons"]) == ("195", "659272")
    assert (got["top1"], got["top5"]) == ("40.7", "18.2")
    assert got["protocol"] == "ILSVRC-2012 validation, one net, 10 crops"
    assert got["source"] == "Krizhevsky et al. 2012, Table 2"
    assert rows["googlenet"]["parameters"] == "6998552" and rows["googlenet"]["top1"] == ""
    assert rows["resnet56"]["top1"] == "6.97" and rows["lenet5"]["source"] == ""


def test_measured_throughput_gets_its_column(tmp_path: Path) -> None:
    assert tables.measured(tmp_path) == {}
    assert tables.architectures(("lenet5",), {}).columns[-1].key == "source"
    for cpu, milliseconds in (("slow", 40.0), ("fast", 10.0)):
        record = {
            "settings": {"net": "lenet5", "batch": 128},
            "device": {"cpu": cpu, "cores": 2},
            "train": {"ms_per_run_step": {"ours": milliseconds, "PyTorch": 1.0}},
        }
        (tmp_path / f"cpu_step-lenet5-{cpu}.json").write_text(json.dumps(record))
    found = tables.measured(tmp_path)
    assert found == {"lenet5": (12_800.0, "fast, 2 cores")}
    table = tables.architectures(("lenet5", "lenet1"), found)
    assert [row[-1] for row in table.sheet.rows] == ["12,800", "-"]
    assert "measured here: fast, 2 cores." in table.note


def test_the_records_of_this_repository_are_in_the_table(command: Launch) -> None:
    folder = Path(__file__).resolve().parent.parent / "benchmarks" / "records"
    _, out, _ = command("table", "architectures", "lenet5", "--format", "csv")
    (row,) = read(out)
    measured = tables.measured(folder)
    assert float(row.get("throughput", 0)) == measured.get("lenet5", (0,))[0]


def test_published_results_are_sound(command: Launch) -> None:
    for r in published.RESULTS:
        assert r.model is None or r.model in models.MODELS, r
        assert r.top1 is not None or r.top5 is not None, r
        assert all(e is None or 0 < e < 100 for e in (r.top1, r.top5)), r
        assert r.top1 is None or r.top5 is None or r.top5 < r.top1, r
        assert r.source and r.data, r
    assert len(set(published.RESULTS)) == len(published.RESULTS)
    table3 = [r for r in published.RESULTS if r.source == f"{published.VGG}, Table 3"]
    assert len(table3) == 12 and min(table3, key=lambda r: r.top1 or 99).top5 == 8.0
    assert [r.top1 for r in published.RESULTS if r.model == "resnet50_v1.5"] == [
        *(23.87, 19.142, 23.45)
    ]
    code, out, _ = command("table", "published", "--format", "csv")
    assert code == 0 and len(read(out)) == len(published.RESULTS)


def test_errata(command: Launch) -> None:
    code, out, _ = command("table", "errata", "--format", "csv")
    rows = {int(row["number"]): row for row in read(out)}
    assert code == 0 and [*rows] == [*range(1, 31)]
    assert all(r["notes"] and r["source_says"] and r["source"] for r in rows.values())
    for number, said in {
        1: "two: 5x5, 18:25; three: 7x7, 27:49, 81 % more",
        3: "60,965,224 parameters",
        8: "256 levels",
        10: "60,000 (S2 12, C3 1,516, S4 32); the notes' form 61,706",
        14: "2 masks in our AlexNet's training program, of 8 layers",
        18: "33^2 x 2 = 2,178",
        21: "6,998,552; 8.7 times fewer than AlexNet",
        22: "worth 3.4 and 0.9 points",
        24: "6,379,728 parameters; ResNet-50's: 0",
        25: "LeNet-5 96 %, AlexNet 96 %, VGG-16 89 %, GoogLeNet 15 %, ResNet-50 8 %",
        26: "21 times, by 4,224 against 1,376 kernels: 3.1 times",
        27: "28 with p = 2, 24 without",
        28: "+0.60 and +1.50 points; plain-34 and ResNet-34 (A) have the same parameters",
    }.items():
        assert said in rows[number]["computed"], number
    masks = r"outputs scaled 0\.00; own W and b scaled 0\.00 ReLU, 0\.\d+ tanh, 1\.\d+ sigmoid"
    assert re.search(masks, rows[15]["computed"])
    assert {e.number for e in errata.ERRATA if e.computed is None} == {
        *(2, 4, 5, 6, 7, 9, 11, 12, 13, 16, 17, 19, 20, 23, 29, 30)
    }
    assert recomputed.share("vgg16", "parameters", "fully connected") == pytest.approx(
        123_642_856 / 138_357_544
    )


def test_long_tables_run_over_pages_in_latex() -> None:
    columns = (Column("a", "a", "l"), Column("b", "b", "p"))
    short, long = (
        Listing("x", "x", columns, tuple({"a": 1, "b": "text"} for _ in range(n))) for n in (3, 11)
    )
    assert r"\begin{tabular}{lp{0.85\linewidth}}" in page.latex(short.sheet)
    assert r"\begin{longtable}{lp{0.85\linewidth}}" in page.latex(long.sheet)
    assert r"\endhead" in page.latex(long.sheet)


# The figure ------------------------------------------------------------------------------------


def test_points_of_the_figure() -> None:
    """One crop for all; operations are twice the MACs."""
    nets = {net[0]: net[1:] for nets in tables.points().values() for net in nets}
    assert nets["VGG-16"] == pytest.approx((30.94, 71.592, 138_357_544), rel=1e-3)
    assert nets["ResNet-50"] == pytest.approx((8.178, 76.13, 25_557_032), rel=1e-3)
    assert nets["AlexNet"][1] == 57.1 and nets["GoogLeNet"][1:] == (68.7, 6_998_552)
    assert nets["GoogLeNet, BN"][1:] == (69.778, 6_624_904)


def test_plot_writes_png_and_svg(command: Launch, tmp_path: Path) -> None:
    code, out, err = command("plot", "architectures", "--out", tmp_path)
    assert (code, err) == (0, "") and out.count("Written: ") == 2
    assert (tmp_path / "architectures.png").read_bytes().startswith(b"\x89PNG")
    svg = (tmp_path / "architectures.svg").read_text()
    for said in ("ResNet-152", "VGG-19, BN", "140 M", "torchvision", "bvlc", "Canziani"):
        assert said in svg, said


def test_labels_of_the_figure_do_not_overlap() -> None:
    crowd = [
        (f"net number {i}", 10 + 0.3 * (i % 3), 70 + 0.4 * i, 10**7 * (i + 1)) for i in range(6)
    ]
    figure = plots.architectures({"a": crowd[:3], "b": crowd[3:]}, "caption")
    figure.draw_without_rendering()
    ax = figure.axes[0]
    texts = [t for t in ax.texts if t.get_text().startswith("net")]
    boxes = [matplotlib.text.Text.get_window_extent(t) for t in texts]
    assert len(boxes) == 6
    for one, other in itertools.combinations(boxes, 2):
        assert not one.overlaps(other)
    frame = ax.get_window_extent()
    assert all(frame.x0 <= b.x0 and b.x1 <= frame.x1 for b in boxes)
