"""Pictures of streets and of what an adaptation makes of them: label maps, the selection of source images, softened
answers, the rungs of a ladder. As in `plots`, functions named `show_...` return a matplotlib figure.
"""

from collections.abc import Mapping, Sequence
from itertools import zip_longest

import matplotlib.pyplot as plt
import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from fsslib.reproduction.statistics import Interval
from fsslib.teaching.plots import DPI, INK, MASK_COLOURS, SCORE_MAP, STREET_COLOURS, draw_image, label_picture

GREY = "#8a8a94"
RED, BLUE, ORANGE = MASK_COLOURS[:3]
TONES = (GREY, INK, BLUE, ORANGE, RED)

Passes = Sequence[tuple[Sequence[int], Tensor]]
"""After each pass over the source: the positions of the images that were left, and their scores."""


def show_streets(
    rows: Sequence[Sequence[Tensor | np.ndarray]],
    class_names: Mapping[int, str],
    *,
    titles: Sequence[str] = (),
    row_titles: Sequence[str] = (),
    legend: bool = True,
    width: float = 9.2,
) -> Figure:
    """A grid of images [3, H, W], label maps [H, W] and pictures [H, W, 3] that are drawn as they are.

    `legend` names the colours of the classes below. Rows may differ in the shape of their images; a row that is shorter
    than the others leaves its last places empty.
    """
    columns = max(map(len, rows))
    shapes = [np.shape(row[0])[-3:-1] if isinstance(row[0], np.ndarray) else row[0].shape[-2:] for row in rows]
    heights = [height / wide for height, wide in shapes]
    size = (width, (width - 0.4) / columns * sum(heights) + 0.1 * len(rows) + 0.2 * bool(titles) + 0.3 * legend)
    options = {"height_ratios": heights, "squeeze": False, "layout": "constrained"}
    figure, axes = plt.subplots(len(rows), columns, figsize=size, dpi=DPI, **options)
    for line, row in zip(axes, rows):
        for ax, picture in zip_longest(line, row):
            if picture is None:
                ax.set_axis_off()
            elif isinstance(picture, np.ndarray):
                _bare(ax).imshow(picture, interpolation="nearest")
            elif picture.ndim == 3:
                draw_image(ax, picture)
            else:
                _bare(ax).imshow(label_picture(picture, class_names), interpolation="nearest")
    for ax, title in zip(axes[0], titles):
        ax.set_title(title, fontsize=9, color=INK)
    for ax, title in zip(axes[:, 0], row_titles):
        ax.set_ylabel(title, fontsize=8.5, color=INK)
    if legend:
        patches = [Patch(fc=STREET_COLOURS[name], ec=GREY, lw=0.4, label=name) for name in class_names.values()]
        style = {"fontsize": 8, "frameon": False, "handlelength": 1, "columnspacing": 1}
        figure.legend(handles=patches, loc="outside lower center", ncols=len(patches), **style)
    return figure


def show_scores(passes: Passes, *, first: float = 0.4) -> Figure:
    """The scores of the source images, a row for each pass: points right of the pass's threshold stay.

    Above, what a score says as a probability of "source"; dotted, indifference.
    """
    figure, ax = plt.subplots(figsize=(8.6, 0.85 + 0.55 * len(passes)), dpi=DPI, layout="constrained")
    for row, (_, scores) in enumerate(passes):
        delta, scores = first * (row + 1), scores.cpu().numpy()
        height = -row + 0.3 * (np.random.default_rng(row).random(len(scores)) - 0.5)
        for chosen, colour in ((scores <= delta, GREY), (scores > delta, ORANGE)):
            ax.scatter(scores[chosen], height[chosen], s=15, color=colour, alpha=0.8, linewidths=0)
        ax.plot([delta, delta], [-row - 0.35, -row + 0.35], color=RED, lw=2)
    ax.axvline(np.log(2), color=INK, lw=0.8, ls=":", zorder=0)
    ax.set_yticks([-row for row in range(len(passes))], [f"after pass {row + 1}" for row in range(len(passes))])
    ax.set_xlabel("score: surely source on the left, like the target on the right", fontsize=9, color=INK)
    ax.set_xlim(-0.05, max(first * len(passes), *(float(scores.max()) for _, scores in passes)) + 0.1)
    above = ax.secondary_xaxis("top")
    shown = [p for p in (0.9, 0.7, 0.5, 0.3, 0.2, 0.1, 0.05, 0.02, 0.01) if -np.log(p) < ax.get_xlim()[1]]
    above.set_xticks([-np.log(p) for p in shown], [f"{p:g}" for p in shown], fontsize=8)
    above.set_xlabel('P("source"), geometric mean over patches', fontsize=9, color=INK)
    _airy(ax, grid=False)
    return figure


def show_kept(
    images: Float[Tensor, "images 3 H W"], positions: Sequence[int], passes: Passes, *, first: float = 0.4
) -> Figure:
    """Source images over the passes, a column each: one that was dropped fades; the number is its score.

    `positions` say which images these are; the first row shows all of them.
    """
    rows, columns = len(passes) + 1, len(images)
    size = (9.4, 0.72 * rows)
    figure, axes = plt.subplots(rows, columns, figsize=size, dpi=DPI, layout="constrained", squeeze=False)
    for row, line in enumerate(axes):
        score_of = {} if row == 0 else dict(zip(passes[row - 1][0], passes[row - 1][1].tolist()))
        left = sum(score > first * row for score in score_of.values())
        line[0].set_ylabel("at first\nall" if row == 0 else f"pass {row}\n{left} left", fontsize=8.5, color=INK)
        for ax, image, position in zip(line, images, positions):
            kept = row == 0 or score_of.get(position, -1.0) > first * row
            draw_image(ax, image if kept else 0.25 * image.mean(0, keepdim=True).expand(3, -1, -1) + 0.7)
            if position in score_of:
                paper = {"fc": "white", "ec": "none", "pad": 0.8, "alpha": 0.85}
                place = {"ha": "right", "va": "bottom", "transform": ax.transAxes, "fontsize": 8, "bbox": paper}
                ax.text(0.98, 0.05, f"{score_of[position]:.2f}", color=RED if kept else GREY, **place)
    return figure


def show_softened(
    logits: Float[Tensor, "C H W"],
    place: tuple[int, int],
    class_names: Mapping[int, str],
    *,
    temperatures: Sequence[float] = (1, 2, 4),
) -> Figure:
    """How sure an answer is at several temperatures: the largest probability of each pixel, all of them at one place.

    `place` is a row and a column, circled in the maps.
    """
    figure = plt.figure(figsize=(9.4, 3.4), dpi=DPI, layout="constrained")
    grid = figure.add_gridspec(2, len(temperatures))
    logits, maps = logits.detach().cpu(), []
    at_place = logits[:, place[0], place[1]]
    colours = [STREET_COLOURS[name] for name in class_names.values()]
    for column, temperature in enumerate(temperatures):
        ax = figure.add_subplot(grid[0, column])
        surest = (logits / temperature).softmax(0).amax(0).numpy()
        drawn = _bare(ax).imshow(surest, cmap=SCORE_MAP, vmin=0, vmax=1, interpolation="nearest")
        ax.scatter(place[1], place[0], s=46, fc="none", ec="white", lw=1.4)
        ax.set_title(f"temperature {temperature:g}: the largest probability", fontsize=9, color=INK)
        bars = figure.add_subplot(grid[1, column])
        bars.bar(range(len(colours)), (at_place / temperature).softmax(0).numpy(), color=colours, ec=GREY, lw=0.4)
        names = {"rotation": 60, "ha": "right", "rotation_mode": "anchor"}
        bars.set_xticks(range(len(colours)), list(class_names.values()), **names)
        bars.set_ylim(0, 1.05 * float((at_place / min(temperatures)).softmax(0).max()))
        bars.tick_params(labelsize=7.5)
        bars.spines[["top", "right"]].set_visible(False)
        maps.append(ax)
    figure.colorbar(drawn, ax=maps, fraction=0.02, pad=0.01).outline.set_visible(False)
    return figure


def show_paired(
    compared: Mapping[str, Mapping[str, tuple[Interval, Mapping[int, float], str]]],
    *,
    measures: Sequence[str],
    highlighted: Sequence[str] = (),
) -> Figure:
    """Paired differences, a row for each comparison and a panel for each measure: pairs, their mean, its interval.

    `compared[name][measure]` is the interval, the difference of each unit, and the verdict, which is not drawn. The
    highlighted comparisons are crimson. One that lacks a measure was not run yet, and says so.
    """
    size = (9.2, 0.31 * len(compared) + 0.7)
    figure, axes = plt.subplots(1, len(measures), figsize=size, dpi=DPI, layout="constrained", sharey=True)
    for ax, measure in zip(np.atleast_1d(axes), measures):
        for row, (name, found) in enumerate(compared.items()):
            if measure not in found:
                paper = {"fc": "white", "ec": "none", "pad": 1.5}
                ax.text(0, -row, "not run yet", fontsize=7.5, color=GREY, ha="center", va="center", bbox=paper)
                continue
            colour = RED if name in highlighted else BLUE
            interval, gaps, _ = found[measure]
            ax.scatter(list(gaps.values()), [-row + 0.26] * len(gaps), s=13, color=colour, alpha=0.5, linewidths=0)
            if interval.low is not None:
                ax.plot([interval.low, interval.high], [-row] * 2, color=colour, lw=2.2, solid_capstyle="round")
            ax.scatter(interval.mean, -row, s=42, marker="D", color=colour, zorder=3)
        ax.axvline(0, color=INK, lw=0.8, zorder=0)
        ax.set_title(f"{measure}, points", fontsize=9.5, color=INK)
        low, high = ax.dataLim.intervalx if any(measure in found for found in compared.values()) else (0, 0)
        ax.set_xlim(min(low, -1) - 0.5, max(high, 1) + 0.5)
        ax.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        _airy(ax)
    counts = [max((interval.n for interval, _, _ in found.values()), default=0) for found in compared.values()]
    names = [f"{name} (n = {n})" for name, n in zip(compared, counts)]
    np.atleast_1d(axes)[0].set_yticks([-row for row in range(len(names))], names, fontsize=8.5)
    np.atleast_1d(axes)[0].set_ylim(0.5 - len(names), 0.75)
    return figure


def show_classes(
    shares: Mapping[str, float],
    balance: Mapping[str, float],
    ladder: Mapping[str, Mapping[str, Sequence[float]]],
) -> Figure:
    """Every class in a row, the most frequent on top: its share, its mean balance B, its IoU on each rung.

    Shares are from 0 to 1; `ladder[class][rung]` has the IoU of each run in per cent, of which the mean is drawn.
    """
    order = sorted(shares, key=shares.get)
    height, colours = range(len(order)), [STREET_COLOURS[name] for name in order]
    ratios = {"width_ratios": [1, 1, 1.9], "sharey": True, "layout": "constrained"}
    figure, axes = plt.subplots(1, 3, figsize=(9.2, 3.9), dpi=DPI, **ratios)
    for ax, values in zip(axes, ([100 * shares[name] for name in order], [balance[name] for name in order])):
        ax.scatter(values, height, s=75, color=colours, ec=GREY, lw=0.6, zorder=3)
    axes[0].set(xscale="log", xlim=(0.2, 50))
    axes[0].set_xticks([0.3, 1, 3, 10, 30], ["0.3", "1", "3", "10", "30"])
    axes[0].minorticks_off()
    axes[1].set_xlim(min(*balance.values(), 0.7) - 0.05, 1.03)
    drawn = 0
    for rung, tone in zip(next(iter(ladder.values())), TONES):
        means = [(sum(found) / len(found), row) for row, name in enumerate(order) if (found := ladder[name][rung])]
        axes[2].scatter(*(zip(*means) if means else ([], [])), s=32, color=tone, alpha=0.85, label=rung, linewidths=0)
        drawn += len(means)
    if not drawn:
        axes[2].text(0.5, 0.5, "not run yet", color=GREY, ha="center", transform=axes[2].transAxes)
    axes[2].set_xlim(0, 100)
    axes[0].set_yticks(height, order)
    for ax, title in zip(axes, ("share of the pixels, %", "B, mean over its pixels", "IoU, %, mean over runs")):
        ax.set_title(title, fontsize=9.5, color=INK)
        _airy(ax)
    labels = axes[2].get_legend_handles_labels()
    figure.legend(*labels, loc="outside lower center", ncols=5, fontsize=8.5, frameon=False, handletextpad=0.1)
    return figure


def show_rungs(rungs: Mapping[str, Sequence[float]], *, title: str = "") -> Figure:
    """The rungs of a ladder as bars from the top down: their mean over runs, and every run as a point.

    A rung without runs says so in place of a bar.
    """
    figure, ax = plt.subplots(figsize=(6.4, 0.42 * len(rungs) + 0.7), dpi=DPI, layout="constrained")
    for row, values in enumerate(rungs.values()):
        if not values:
            ax.text(0.01, -row, "not run yet", fontsize=8, color=GREY, va="center", transform=ax.get_yaxis_transform())
            continue
        ax.barh(-row, sum(values) / len(values), height=0.6, color=BLUE, alpha=0.35)
        ax.scatter(values, [-row] * len(values), s=14, color=BLUE, linewidths=0, zorder=3)
    ax.set_yticks([-row for row in range(len(rungs))], list(rungs))
    ax.set_ylim(0.5 - len(rungs), 0.5)
    ax.set_xlim(left=0)
    ax.set_title(title, fontsize=9.5, color=INK, loc="left")
    _airy(ax)
    return figure


def _bare(ax: Axes) -> Axes:
    ax.set(xticks=[], yticks=[])
    for spine in ax.spines.values():
        spine.set(color=INK, linewidth=0.6)
    return ax


def _airy(ax: Axes, *, grid: bool = True) -> None:
    if grid:
        ax.grid(axis="x", alpha=0.25)
    ax.tick_params(left=False, labelsize=8.5)
    ax.spines[["top", "right", "left"]].set_visible(False)
