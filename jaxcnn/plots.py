"""Figures: learning curves with confidence bands, the score of each tried learning rate, the
effects of all experiments, the accuracy of architectures against what they cost, what grows with
what, and what a layer makes of a picture.

Matplotlib's Figure objects, no pyplot and no global state; the same numbers give the same bytes.
"""

import io
import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator
from matplotlib.transforms import Bbox

from jaxcnn.stats import Curve, Depth

# Okabe and Ito's colours, told apart by colour-blind eyes; with a line style each, also in grey.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f7f7f")
STYLES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (8, 2)), (0, (1, 1)))
INK, FAINT = "#1f2329", "#c9ccd1"
# What the page puts in their place, so that a figure follows its light and dark.
IN_PAGE = {INK: "currentColor", FAINT: "var(--rule)", "#ffffff": "none"} | {
    colour: f"var(--arm{i})" for i, colour in enumerate(COLOURS)
}

_RC: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9.5,
    "axes.edgecolor": FAINT,
    "axes.facecolor": "none",
    "axes.labelcolor": INK,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.titlecolor": INK,
    "axes.titlepad": 10,
    "grid.color": FAINT,
    "grid.linewidth": 0.5,
    "text.color": INK,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "svg.hashsalt": "jaxcnn",
    "svg.fonttype": "none",
}


def learning_curves(
    panels: Mapping[str, Mapping[str, Curve]], targets: Mapping[str, Sequence[float]], metric: str
) -> Figure:
    """A panel per split: arm -> `metric` against the step, a line of means and a 95 % band.

    `targets`: by panel, the levels that a `steps_to` measure waits for, as dotted lines.
    """
    with matplotlib.rc_context(_RC):
        figure = Figure(figsize=(9.2, 3.7), layout="constrained")
        axes = figure.subplots(
            1, len(panels), sharey=True, squeeze=False, gridspec_kw={"wspace": 0.08}
        )[0]
        for ax, (title, curves) in zip(axes, panels.items(), strict=True):
            for i, (arm, curve) in enumerate(curves.items()):
                style = _style(i)
                ax.plot(curve.steps, curve.mean, label=arm, linewidth=1.6, **style)
                if curve.n > 1:
                    ax.fill_between(
                        curve.steps, curve.low, curve.high, color=style["color"], alpha=0.18, lw=0
                    )
            for target in targets.get(title, ()):
                ax.axhline(target, color=INK, linewidth=0.9, linestyle=(0, (1, 2)))
                ax.annotate(
                    _number(target, metric),
                    (0, target),
                    xycoords=("axes fraction", "data"),
                    xytext=(4, -3),
                    textcoords="offset points",
                    va="top",  # below the line, at the left: falling curves leave that corner free
                    fontsize=8.5,
                )
            ax.set(title=title, xlabel="step")
            ax.margins(x=0)
            ax.xaxis.set_major_locator(MaxNLocator(5, integer=True))
            ax.grid(axis="y")
        axes[0].set_ylabel(metric)
        shown = [y for curves in panels.values() for c in curves.values() for y in c.mean]
        shown += [target for title in panels for target in targets.get(title, ())]
        for ax in axes:
            _scale(ax, shown, metric)
        _legend(figure, axes[0])
    return figure


def by_depth(panels: Mapping[str, Mapping[str, Depth]], y: str, probe: str) -> Figure:
    """A panel per point of the curve: arm -> a probe's number in each layer, the first layer at the
    left, a line of means and a 95 % band; sizes of gradients on a logarithmic axis.
    """
    with matplotlib.rc_context(_RC):
        figure = Figure(figsize=(9.2, 3.7), layout="constrained")
        axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
        metric = "error" if probe == "active_share" else probe
        for ax, (title, depths) in zip(axes, panels.items(), strict=True):
            for i, (arm, depth) in enumerate(depths.items()):
                x = range(1, len(depth.layers) + 1)
                style = _style(i)
                ax.plot(x, depth.mean, label=arm, marker="o", markersize=3.5, lw=1.6, **style)
                if depth.n > 1:
                    ax.fill_between(
                        x, depth.low, depth.high, color=style["color"], alpha=0.18, lw=0
                    )
            ax.set(title=title, xlabel="layer")
            names = {depth.layers for depth in depths.values()}
            if len(names) == 1 and len(layers := names.pop()) <= 12:
                ax.set_xticks(range(1, len(layers) + 1), layers, fontsize=8)
            else:
                ax.xaxis.set_major_locator(MaxNLocator(10, integer=True))
            ax.grid(axis="y")
        axes[0].set_ylabel(y)
        shown = [v for depths in panels.values() for d in depths.values() for v in d.mean]
        for ax in axes:
            if probe == "gradient_norm":
                ax.set_yscale("log")
            else:
                _scale(ax, shown, metric)
        _legend(figure, axes[0])
    return figure


def tuning(scores: Mapping[str, Mapping[float, float]], x: str, y: str, metric: str) -> Figure:
    """Arm -> value tried -> mean score, x logarithmic; an infinite score is a cross at the top."""
    with matplotlib.rc_context(_RC):
        figure = Figure(figsize=(5.6, 3.4), layout="constrained")
        ax = figure.subplots()
        for i, (arm, tried) in enumerate(scores.items()):
            style = _style(i)
            kept = {v: s for v, s in sorted(tried.items()) if math.isfinite(s)}
            ax.plot([*kept], [*kept.values()], label=arm, marker="o", markersize=4, **style)
            if kept:
                best = min(kept, key=lambda v: kept[v])
                ax.plot([best], [kept[best]], "o", ms=9, mfc="none", mec=style["color"])
            lost = [v for v, s in tried.items() if not math.isfinite(s)]
            top = [1.0] * len(lost)
            over = {"transform": ax.get_xaxis_transform(), "clip_on": False}
            ax.plot(lost, top, "x", color=style["color"], ms=7, **over)
        ax.set(xscale="log", xlabel=x, ylabel=y)
        values = sorted({v for tried in scores.values() for v in tried})
        ax.set_xticks(values, [f"{v:g}" for v in values])
        ax.xaxis.set_minor_locator(NullLocator())
        ax.grid(axis="y")
        _scale(ax, [s for t in scores.values() for s in t.values() if math.isfinite(s)], metric)
        _legend(figure, ax)
    return figure


Points = Mapping[float, float]  # x -> y


def scaling(panels: Mapping[str, Mapping[str, Mapping[str, Points]]]) -> Figure:
    """A column for each x, of a panel for each y: series -> points, both axes logarithmic.

    Every number is above 0.
    """
    rows = max(len(column) for column in panels.values())
    with matplotlib.rc_context(_RC):
        figure = Figure(figsize=(2.9 * len(panels), 2.7 * rows), layout="constrained")
        axes = figure.subplots(rows, len(panels), squeeze=False)
        for column, (x, by) in zip(axes.T, panels.items(), strict=True):
            for ax in column[len(by) :]:
                ax.set_axis_off()
            for ax, (y, series) in zip(column, by.items(), strict=False):
                for i, (name, points) in enumerate(series.items()):
                    ax.plot([*points], [*points.values()], "o", ms=4, label=name, **_style(i))
                ax.set(xlabel=x, title=y, xscale="log", yscale="log")
                ticks = sorted({at for points in series.values() for at in points})
                ax.set_xticks(ticks, [f"{at:,g}" for at in ticks])
                ax.tick_params("x", rotation=45)
                ax.xaxis.set_minor_locator(NullLocator())
                values = [v for points in series.values() for v in points.values()]
                # room for a decade, so that what is flat looks flat
                ax.set_ylim(min(values) / 3, max(values) * 3)
                ax.yaxis.set_major_locator(LogLocator(subs=(1, 3)))
                ax.yaxis.set_minor_locator(NullLocator())
                ax.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:,g}"))
                ax.grid()
                ax.legend(frameon=False, fontsize=8)
    return figure


Effect = tuple[str, float, float, float, str]  # prediction, d, low, high, verdict
VERDICTS = {  # colour, marker, and what fills it
    "supported": (COLOURS[2], "o", COLOURS[2]),
    "refuted": (COLOURS[1], "s", COLOURS[1]),
    "undecided": (COLOURS[6], "D", "#ffffff"),
}
LIMIT = 30.0  # of the axis; what lies beyond is drawn at its end


def effects(experiments: Mapping[str, Sequence[Effect]]) -> Figure:
    """A forest: experiment -> its predictions, a line each with a point at d and its interval; to
    the right of 0 is what was predicted. The axis is linear up to 1, logarithmic beyond. What was
    predicted stands above its line, so that a phone shows both.
    """
    place = 0.0
    with matplotlib.rc_context(_RC):
        figure = Figure(layout="constrained")
        ax = figure.subplots()

        def write(text: str, weight: str) -> None:
            beside = {"transform": ax.get_yaxis_transform(), "va": "center", "fontsize": 8}
            ax.text(0, place, text, weight=weight, **beside)

        for name, shown in experiments.items():
            write(name, "bold")
            for label, d, low, high, verdict in shown:
                for line in textwrap.wrap(label, 78):
                    place += 0.85
                    write(line, "normal")
                place += 0.65
                colour, marker, fill = VERDICTS[verdict]
                ends = [min(max(x, -LIMIT), LIMIT) for x in (low, high, d)]
                ax.plot(ends[:2], [place] * 2, color=colour, linewidth=1.4)
                look: Any = {"ms": 5.5, "mfc": fill, "mec": colour}
                ax.plot(ends[2], place, marker, clip_on=False, **look)
            place += 1.4
        figure.set_size_inches(5.2, 1.1 + 0.22 * place)
        ax.axvline(0, color=INK, linewidth=0.8, zorder=1)
        ax.set(yticks=[], ylim=(place - 0.6, -0.9), xlim=(-LIMIT, LIMIT))
        ax.set_xscale("symlog", linthresh=1, linscale=0.8)
        ticks = (-30, -10, -3, -1, 0, 1, 3, 10, 30)
        ax.set_xticks(ticks, [f"{x:g}".replace("-", "\N{MINUS SIGN}") for x in ticks])
        ax.xaxis.set_minor_locator(NullLocator())
        ax.spines["left"].set_visible(False)
        ax.grid(axis="x")
        ax.set_axisbelow(True)
        ax.set_xlabel(
            "against the prediction   \N{LEFTWARDS ARROW}   d   \N{RIGHTWARDS ARROW}   as predicted"
        )
        marks: Any = {"ls": "", "ms": 5.5}
        legend = [
            Line2D([], [], color=c, marker=m, mfc=fill, label=word, **marks)
            for word, (c, m, fill) in VERDICTS.items()
        ]
        where: Any = "outside upper left"
        figure.legend(handles=legend, loc=where, ncols=3, frameon=False)
    return figure


Net = tuple[str, float, float, int]  # label, 10^9 operations, accuracy in percent, parameters


def architectures(families: Mapping[str, Sequence[Net]], caption: str) -> Figure:
    """Accuracy against operations, a bubble a net, its area in proportion to the parameters."""
    with matplotlib.rc_context(_RC):
        figure = Figure(figsize=(9.2, 6.2), layout="constrained")
        ax = figure.subplots()
        for i, (family, nets) in enumerate(families.items()):
            _, x, y, parameters = zip(*nets, strict=True)
            look = {"color": COLOURS[i], "alpha": 0.45, "linewidth": 0}
            ax.scatter(x, y, [_area(n) for n in parameters], label=family, **look)
            ax.scatter(x, y, 6, color=INK, zorder=3)
        nets = [net for nets in families.values() for net in nets]
        ax.set(xlabel="operations for one picture (10$^9$; 2 a multiply-add)")
        ax.set_ylabel("top-1 accuracy, one central crop")
        ax.set_xlim(0, 1.08 * max(net[1] for net in nets))
        low, high = min(net[2] for net in nets), max(net[2] for net in nets)
        ax.set_ylim(low - 0.15 * (high - low), high + 0.1 * (high - low))
        ax.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:g} %"))
        ax.grid()
        ax.set_axisbelow(True)
        _bubble_legends(figure, ax, len(families))
        figure.supxlabel(caption, x=0.01, ha="left", fontsize=8)
        figure.draw_without_rendering()
        _place_labels(ax, nets)
    return figure


MOST_MAPS = 64  # of a layer, in a figure


def feature_maps(picture: np.ndarray, maps: np.ndarray, filters: np.ndarray | None) -> Figure:
    """A picture [H, W, C] uint8, what a layer makes of it [h, w, M] and, where the layer sees the
    pixels, its filters [kh, kw, C, M]; each map and filter from its own least value to its largest.
    """
    rows = {"the picture": [picture]}
    if filters is not None:
        rows["filters"] = [*np.moveaxis(filters, -1, 0)[:MOST_MAPS]]
    count = maps.shape[-1]
    some = f", {MOST_MAPS} of {count}" if count > MOST_MAPS else ""
    rows[f"maps of {maps.shape[0]}x{maps.shape[1]}{some}"] = [*np.moveaxis(maps, -1, 0)[:MOST_MAPS]]
    wide = 16 if count > 16 else max(count, 4)
    heights = [-(-len(tiles) // wide) for tiles in rows.values()]
    with matplotlib.rc_context(_RC):
        figure = Figure(figsize=(9.2, 0.62 * 16 / wide * (sum(heights) + len(rows))))
        figure.set_layout_engine("constrained")
        parts: Any = figure.subfigures(len(rows), 1, height_ratios=[h + 0.5 for h in heights])
        for part, height, (title, tiles) in zip(parts, heights, rows.items(), strict=True):
            part.suptitle(title, x=0.01, ha="left", fontweight="bold")
            axes = part.subplots(height, wide, squeeze=False).ravel()
            for ax in axes:
                ax.axis("off")
            for ax, tile in zip(axes, tiles, strict=False):
                low, high = float(tile.min()), float(tile.max())
                scaled = (tile - low) / (high - low or 1.0)
                ax.imshow(np.squeeze(scaled), cmap="gray", vmin=0, vmax=1)
    return figure


def faces(
    pictures: np.ndarray,
    found: np.ndarray,
    points: np.ndarray | None = None,
    titles: Sequence[str] = (),
) -> Figure:
    """Pictures [N, H, W, C] with the points that were found on each [N, P, 2] and, as rings, where
    they are.
    """
    wide = min(4, len(pictures))
    high = -(-len(pictures) // wide)
    with matplotlib.rc_context(_RC):
        figure = Figure(figsize=(2.3 * wide, 2.45 * high), layout="constrained")
        axes = figure.subplots(high, wide, squeeze=False).ravel()
        for ax in axes:
            ax.axis("off")
        for i, (picture, own) in enumerate(zip(pictures, found, strict=True)):
            axes[i].imshow(np.squeeze(picture), cmap="gray", vmin=0, vmax=255)
            if points is not None:
                ring = {"s": 14, "facecolors": "none", "edgecolors": COLOURS[2], "linewidths": 0.7}
                axes[i].scatter(*points[i].T, **ring, label="where they are")
            axes[i].scatter(*own.T, s=4, color=COLOURS[1], label="found")
            if i < len(titles):
                axes[i].set_title(titles[i], fontsize=8, pad=3)
        if points is not None:
            place: Any = "outside lower center"
            marks = axes[0].get_legend_handles_labels()
            figure.legend(*marks, loc=place, ncols=2, frameon=False)
    return figure


def cumulative_errors(errors: np.ndarray, thresholds: Sequence[float]) -> Figure:
    """The share of faces whose normalised mean error [N] is at most so large."""
    with matplotlib.rc_context(_RC):
        figure = Figure(figsize=(5.2, 3.7), layout="constrained")
        ax = figure.subplots()
        x = np.sort(errors)
        ax.step(100 * x, 100 * np.arange(1, len(x) + 1) / len(x), where="post", color=COLOURS[0])
        for threshold in thresholds:
            ax.axvline(100 * threshold, color=INK, linewidth=0.9, linestyle=(0, (1, 2)))
        ax.set_xlim(0, 15)
        ax.set_ylim(0, 100)
        ax.set_xlabel("normalised mean error, % of the distance of the eyes' outer corners")
        ax.set_ylabel("faces, %")
        ax.grid(True)
    return figure


def operating(lines: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> Figure:
    """Receiver operating characteristics: name -> the shares of false and of true pairs that are
    accepted, [T] each.
    """
    with matplotlib.rc_context(_RC):
        figure = Figure(figsize=(5.2, 3.7), layout="constrained")
        ax = figure.subplots()
        for (name, (false, true)), colour in zip(lines.items(), COLOURS, strict=False):
            ax.plot(100 * false, 100 * true, color=colour, label=name)
        ax.set_xscale("symlog", linthresh=0.1)
        ax.set_xlim(0, 100)
        ax.set_ylim(0, 101)
        ax.set_xlabel("pairs of two people that are accepted, %")
        ax.set_ylabel("pairs of one person\nthat are accepted, %")
        ax.grid(True)
        ax.legend(frameon=False, loc="lower right")
    return figure


def cumulative_matches(lines: Mapping[str, np.ndarray]) -> Figure:
    """Name -> the share of pictures whose person is among the first 1, 2, ... [people]."""
    with matplotlib.rc_context(_RC):
        figure = Figure(figsize=(5.2, 3.7), layout="constrained")
        ax = figure.subplots()
        for (name, shares), colour in zip(lines.items(), COLOURS, strict=False):
            shown = shares[:20]
            ax.plot(np.arange(1, len(shown) + 1), 100 * shown, "o-", ms=3, color=colour, label=name)
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        ax.set_xlabel("rank")
        ax.set_ylabel("the person is among\nthe first, %")
        ax.grid(True)
        ax.legend(frameon=False, loc="lower right")
    return figure


def _area(parameters: float) -> float:
    """Square points."""
    return parameters / 70_000


def _bubble_legends(figure: Figure, ax: Axes, families: int) -> None:
    """The colours above, the sizes in the corner that cheap and good nets leave free."""
    bubbles: Any = zip(*ax.get_legend_handles_labels(), strict=True)
    marks: Any = {"ls": "", "marker": "o", "ms": 8}
    plain = [Line2D([], [], color=b.get_facecolor()[0], label=name, **marks) for b, name in bubbles]
    place: Any = "outside upper left"
    figure.legend(handles=plain, loc=place, ncols=families, frameon=False)
    sizes = {5: 0.56, 25: 0.65, 65: 0.77, 140: 0.91}  # millions, and where along the axis
    look: Any = {"color": "none", "edgecolor": INK, "linewidth": 0.8, "transform": ax.transAxes}
    ax.scatter([*sizes.values()], [0.12] * len(sizes), [_area(n * 1e6) for n in sizes], **look)
    words: Any = {"ha": "center", "va": "center", "fontsize": 8.5, "transform": ax.transAxes}
    for millions, x in sizes.items():
        ax.text(x, 0.12 if millions > 50 else 0.06, f"{millions} M", **words)
    ax.text(sizes[5], 0.2, "parameters", **words)


def _place_labels(ax: Axes, nets: Sequence[Net]) -> None:
    """Each beside its point, at the nearest place where it covers no other label, no point and no
    frame; with a line to the point where that is not near.
    """
    figure: Any = ax.get_figure(root=True)
    scale = figure.dpi / 72  # pixels a point
    frame = ax.get_window_extent()
    places = {net[0]: ax.transData.transform(net[1:3]) for net in nets}
    taken = [Bbox.from_extents(*(xy - 3 * scale), *(xy + 3 * scale)) for xy in places.values()]
    tries = [(r, 2 * math.pi * i / 24) for r in range(10, 80, 4) for i in range(24)]
    for net in sorted(nets, key=lambda net: net[2]):
        place: Any = {
            "ha": "center",
            "va": "center",
            "fontsize": 8.5,
            "textcoords": "offset points",
        }
        text = ax.annotate(net[0], net[1:3], (0, 0), **place)
        box = text.get_window_extent().padded(1.5 * scale)
        text.remove()
        move, moved, radius = (0.0, 0.0), box, 0
        for radius, angle in tries:
            # along the text a label must be half its length further away
            reach = radius + abs(math.cos(angle)) * (box.width / scale / 2 - 6)
            move = reach * math.cos(angle), radius * math.sin(angle)
            moved = box.translated(move[0] * scale, move[1] * scale)
            inside = frame.x0 < moved.x0 and moved.x1 < frame.x1 and moved.y1 < frame.y1
            if inside and not moved.count_overlaps(taken):
                break
        taken.append(moved)
        if radius > 20:
            place["arrowprops"] = {"arrowstyle": "-", "color": INK, "linewidth": 0.5}
        ax.annotate(net[0], net[1:3], move, **place)


def svg(figure: Figure) -> str:
    """With text as text; no date and no library version in the bytes."""
    none = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    return _save(figure, format="svg", metadata=none).decode()


def png(figure: Figure) -> bytes:
    return _save(figure, format="png", dpi=160, metadata={"Software": None})


def _save(figure: Figure, **options: Any) -> bytes:
    out = io.BytesIO()
    with matplotlib.rc_context(_RC):
        figure.savefig(out, **options)
    return out.getvalue()


def _style(i: int) -> dict[str, Any]:
    return {"color": COLOURS[i % len(COLOURS)], "linestyle": STYLES[i % len(STYLES)]}


def _number(y: float, metric: str) -> str:
    return f"{100 * y:g} %" if metric in ("error", "error5") else f"{y:g}"


def _scale(ax: Axes, shown: Sequence[float], metric: str) -> None:
    """Fits what is `shown`, not the bands; logarithmic where that spans more than a factor 10."""
    positive = [y for y in shown if y > 0]
    if positive and max(positive) > 10 * min(positive):
        ax.set_yscale("log")
        ax.set_ylim(0.8 * min(positive), 1.3 * max(positive))
        ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        ax.yaxis.set_minor_locator(NullLocator())
    else:
        ax.set_ylim(0, 1.08 * max(positive, default=1.0))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda y, _: _number(y, metric)))


def _legend(figure: Figure, ax: Axes) -> None:
    lines, labels = ax.get_legend_handles_labels()
    if lines:
        inches = sum(0.65 + 0.08 * len(label) for label in labels)
        columns = math.ceil(len(labels) / math.ceil(inches / figure.get_figwidth()))
        place: Any = "outside upper left"
        figure.legend(lines, labels, loc=place, ncols=columns, frameon=False, handlelength=2.6)
