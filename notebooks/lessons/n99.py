"""Notebook 99: claims as intervals, scores as bars, two rows class by class, home against away, losses of runs.

Functions named `show_...` return a matplotlib figure. All numbers are points of mIoU or IoU in percent.
"""

from collections.abc import Mapping, Sequence
from itertools import cycle, groupby
from statistics import mode

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.transforms import blended_transform_factory
from scipy import stats

from fsslib.reproduction.claims import Judgement
from fsslib.reproduction.statistics import MARGIN, Interval
from fsslib.teaching.plots import DPI, INK, MASK_COLOURS

GREY = "#8a8a94"
COLOUR_OF = {
    "holds": "#00806f",
    "does not hold": "#e4134f",
    "no effect": "#2f6fd6",
    "inconclusive": "#5b6876",
    "not testable here": GREY,
    "not run": GREY,
}
MARKER_OF = {"toy world": "D", "small real data": "o", "full data": "s"}


def show_forest(judged: Sequence[Judgement], *, width: float = 9.0) -> Figure:
    """A line for each column of each test that was run: its pairs, their mean, its interval, and what the paper says.

    A diamond is the toy world, a circle small real data, a square full data; the colour is the verdict. A hollow
    triangle is the paper's own step for the same comparison, measured on other data.
    """
    lines = [line for line in judged if line.interval]
    tests = len({(line.claim.id, line.test.compared, line.test.plan) for line in lines})
    size = (width, 0.21 * len(lines) + 0.26 * tests + 0.32 * len({line.claim.id for line in lines}) + 0.95)
    figure, ax = plt.subplots(figsize=size, dpi=DPI, layout="constrained")
    at_left = {"bbox": {"fc": "white", "ec": "none", "pad": 1}, "in_layout": False}
    at_left["transform"] = blended_transform_factory(figure.transFigure, ax.transData)
    height, ticks, names = 0.0, [], []
    for _, group in groupby(lines, lambda line: line.claim.id):
        group = list(group)
        claim = group[0].claim
        ax.text(0.01, height, claim.claim, fontsize=9.5, weight="bold", color=INK, va="center", **at_left)
        for _, test in groupby(group, lambda line: (line.test.compared, line.test.plan)):
            test = list(test)
            height -= 1.15
            told = f"{test[0].test.compared} ({test[0].test.world}: {test[0].test.plan})"
            ax.text(0.03, height, told, fontsize=8.5, color=GREY, va="center", **at_left)
            if claim.steps_alike and test[0] is group[0]:
                ax.scatter(claim.difference, height, marker="v", s=46, fc="none", ec=INK, lw=1.3)
            for line in test:
                height -= 1
                colour, pairs = COLOUR_OF[line.word], list(line.gaps.values())
                ax.scatter(pairs, [height + 0.3] * len(pairs), s=8, color=colour, alpha=0.4, linewidths=0)
                if line.interval.low is not None:
                    ax.plot([line.interval.low, line.interval.high], [height] * 2, color=colour, lw=2.4)
                ax.scatter(line.interval.mean, height, s=34, marker=MARKER_OF[line.test.world], color=colour, zorder=3)
                ticks.append(height)
                names.append(f"{line.column}, n = {line.interval.n}")
        height -= 1.5
    ax.axvline(0, color=INK, lw=0.8, zorder=0)
    ax.axvspan(-MARGIN, MARGIN, color=COLOUR_OF["no effect"], alpha=0.1, lw=0, zorder=0)
    ax.set_yticks(ticks, names)
    ax.set_ylim(height + 0.9, 0.7)
    ax.set_xlabel("points of mIoU ahead", fontsize=9, color=INK)
    _airy(ax)
    words, worlds = {line.word for line in lines}, {line.test.world for line in lines}
    handles = [Line2D([], [], color=COLOUR_OF[word], lw=2.4, label=word) for word in COLOUR_OF if word in words]
    handles += [Line2D([], [], color=GREY, ls="", marker=MARKER_OF[w], label=w) for w in MARKER_OF if w in worlds]
    if any(line.claim.steps_alike for line in lines):
        handles.append(Line2D([], [], ls="", marker="v", mfc="none", mec=INK, label="the paper, on other data"))
    figure.legend(handles=handles, loc="outside lower center", ncols=3, fontsize=8.5, frameon=False)
    return figure


def show_words(lines: Sequence[Judgement]) -> Figure:
    """Each comparison as a point: the mean difference, the half-width of its 95 % interval; and where a word begins.

    Regions are drawn for the number of units that most comparisons have; beyond 2 points the axis is logarithmic.
    """
    usual = mode(line.interval.n for line in lines)
    one_sided, two_sided = (stats.t.ppf(q, usual - 1) for q in (0.95, 0.975))
    figure, ax = plt.subplots(figsize=(8.4, 3.8), dpi=DPI, layout="constrained")
    far = 1.1 * max(abs(line.interval.mean) for line in lines)
    high = 1.1 * max(line.interval.mean - line.interval.low for line in lines)
    heights = np.linspace(0, high, 200)
    roof = np.clip(MARGIN - heights * one_sided / two_sided, 0, None)
    ax.fill_betweenx(heights, -roof, roof, color=COLOUR_OF["no effect"], alpha=0.14, lw=0)
    for side, word in ((1, "holds"), (-1, "does not hold")):
        ax.fill_betweenx(heights, side * heights, side * far, color=COLOUR_OF[word], alpha=0.08, lw=0, zorder=0)
    ax.set_xscale("symlog", linthresh=2)
    steps = [step for step in (1, 2, 5, 10, 20, 50) if step < far]
    ax.set_xticks(
        [*(-step for step in steps[::-1]), 0, *steps], [*(f"-{s}" for s in steps[::-1]), "0", *map(str, steps)]
    )
    for (word, world), group in groupby(sorted(lines, key=_word_and_world), _word_and_world):
        group = list(group)
        marker = "x" if word == "not testable here" else MARKER_OF[world]
        half = [line.interval.mean - line.interval.low for line in group]
        ax.scatter([x.interval.mean for x in group], half, s=26, marker=marker, color=COLOUR_OF[word], lw=1.2, zorder=3)
    ax.set(xlim=(-far, far), ylim=(0, high))
    ax.set_xlabel("mean difference, points of mIoU", fontsize=9, color=INK)
    ax.set_ylabel("half-width of the 95 % interval", fontsize=9, color=INK)
    words = {line.word for line in lines}
    handles = [
        Line2D([], [], color=COLOUR_OF[word], ls="", marker="o", label=word) for word in COLOUR_OF if word in words
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=5, fontsize=8.5, frameon=False)
    _airy(ax)
    return figure


def _word_and_world(line: Judgement) -> tuple[str, str]:
    return line.word, line.test.world


def show_bars(scores: Mapping[str, Mapping[str, Interval | None]], *, ylabel: str = "mIoU, %") -> Figure:
    """Groups of bars with their intervals: `scores[row][column]`, a panel for each column, None where nothing was run.

    Without an interval (fewer than five runs) a bar is pale.
    """
    columns = list(dict.fromkeys(column for row in scores.values() for column in row))
    options = {"figsize": (max(2.2 + 1.75 * len(columns), 6), 0.29 * len(scores) + 0.75), "layout": "constrained"}
    figure, axes = plt.subplots(1, len(columns), dpi=DPI, sharey=True, squeeze=False, **options)
    for ax, column in zip(axes[0], columns):
        for row, values in enumerate(scores.values()):
            if (interval := values.get(column)) is None:
                ax.text(1, -row, "–", color=GREY, va="center")
                continue
            pale = 0.2 if interval.low is None else 0.55
            ax.barh(-row, interval.mean, height=0.68, color=MASK_COLOURS[1], alpha=pale)
            if interval.low is not None:
                ax.plot([interval.low, interval.high], [-row] * 2, color=INK, lw=1.4)
        ax.set_title(column, fontsize=9.5, color=INK)
        ax.set_xlim(left=0)
        _airy(ax)
    axes[0, 0].set_yticks([-row for row in range(len(scores))], list(scores))
    figure.supxlabel(ylabel, fontsize=9, color=INK)
    return figure


def show_classes_paired(panels: Mapping[str, Mapping[str, Mapping[str, float]]]) -> Figure:
    """Class by class, two rows of a table: `panels[title][row][class]`, the class that gains most on top.

    The first row of a panel is hollow, the second full; a line leads from one to the other, crimson where it falls.
    """
    tallest = max(len(next(iter(rows.values()))) for rows in panels.values())
    size = (4.6 * len(panels), 0.2 * tallest + 1.0)
    figure, axes = plt.subplots(1, len(panels), figsize=size, dpi=DPI, layout="constrained", squeeze=False)
    for ax, (title, rows) in zip(axes[0], panels.items()):
        (name, before), (other, after) = rows.items()
        order = sorted(before.keys() & after.keys(), key=lambda c: after[c] - before[c])
        for height, c in enumerate(order):
            colour = COLOUR_OF["holds"] if after[c] >= before[c] else COLOUR_OF["does not hold"]
            ax.plot([before[c], after[c]], [height] * 2, color=colour, lw=1.6, zorder=1)
            ax.scatter(before[c], height, s=24, fc="white", ec=colour, lw=1.3, zorder=2)
            ax.scatter(after[c], height, s=26, color=colour, zorder=3)
        ax.set_yticks(range(len(order)), order)
        ax.set_title(f"{title}: {name} (hollow), {other} (full)", fontsize=9, color=INK)
        ax.set_xlabel("IoU, %", fontsize=9, color=INK)
        ax.set_xlim(left=0)
        _airy(ax)
    return figure


def show_home_and_away(panels: Mapping[str, Mapping[str, tuple[Sequence[float], Sequence[float]]]]) -> Figure:
    """Source against target: `panels[title][row]` has the scores of the same runs at home and away.

    A point is a run, the large one the mean of its row; on the dotted line nothing would be lost abroad.
    """
    size = (4.1 * len(panels), 4.3)
    figure, axes = plt.subplots(1, len(panels), figsize=size, dpi=DPI, layout="constrained", squeeze=False)
    for ax, (title, rows) in zip(axes[0], panels.items()):
        for (name, (home, away)), colour in zip(rows.items(), cycle(MASK_COLOURS)):
            ax.scatter(home, away, s=12, color=colour, alpha=0.35, linewidths=0)
            ax.scatter(np.mean(home), np.mean(away), s=60, color=colour, ec="white", lw=0.8, label=name, zorder=3)
        low = min(*ax.dataLim.intervalx, *ax.dataLim.intervaly) - 2
        high = max(*ax.dataLim.intervalx, *ax.dataLim.intervaly) + 2
        ax.plot([low, high], [low, high], color=GREY, ls=":", lw=1, zorder=0)
        ax.set(xlim=(low, high), ylim=(low, high), aspect="equal")
        ax.set_title(title, fontsize=9.5, color=INK)
        ax.set_xlabel("at home, mIoU in %", fontsize=9, color=INK)
        ax.grid(axis="y", alpha=0.25)
        ax.legend(fontsize=7.5, frameon=False, loc="upper left", handletextpad=0.2)
        _airy(ax)
    axes[0, 0].set_ylabel("away, mIoU in %", fontsize=9, color=INK)
    return figure


def show_losses(curves: Mapping[str, Sequence[Sequence[float]]], *, smooth: int = 25) -> Figure:
    """The training losses of runs: `curves[row]` has one sequence a run, drawn as running means over `smooth` steps."""
    figure, ax = plt.subplots(figsize=(8.4, 3.2), dpi=DPI, layout="constrained")
    for (name, runs), colour in zip(curves.items(), cycle(MASK_COLOURS)):
        for number, values in enumerate(runs):
            wide = min(smooth, len(values))
            mean = np.convolve(values, np.ones(wide) / wide, mode="valid")
            steps = np.arange(wide, len(values) + 1)
            ax.plot(steps, mean, color=colour, lw=1.1, alpha=0.7, label=None if number else f"{name} ({len(runs)})")
    ax.set_xlabel("step", fontsize=9, color=INK)
    ax.set_ylabel("loss", fontsize=9, color=INK)
    ax.legend(fontsize=8, frameon=False)
    ax.grid(axis="y", alpha=0.25)
    _airy(ax)
    return figure


def _airy(ax) -> None:
    ax.grid(axis="x", alpha=0.25)
    ax.tick_params(left=False, labelsize=8)
    ax.spines[["top", "right", "left"]].set_visible(False)
