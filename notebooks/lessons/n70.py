"""Notebook 70: who learns from which phase, how long an image stays, Hinton's distillation, the rarest third; its
figures of streets, of the selection, of softened answers and of the rungs of a ladder."""

import itertools
import math
from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator
from torch import Tensor

import fsslib as fss
from fsslib.teaching.exercises import Exercise, among
from fsslib.teaching.plots import DPI, INK, MASK_COLOURS, SCORE_MAP, STREET_COLOURS, draw_image, label_picture, plain

NETWORKS = ("segmenter", "pixel_discriminator", "image_discriminator")


def phases():
    choices = ("source", "target", "discriminators"), ("none", "patch", "pixel"), (False, True)
    for phase, adversary, select in itertools.product(*choices):
        yield f"phase {phase!r}, adversary {adversary!r}, select={select}", phase, adversary, select


@Exercise(phases, "is right for all 18 cases", "easy", 10, seen=among(*NETWORKS))
def learners(phase, adversary, select):
    """(phase, adversary, select) -> the names of the networks that get a gradient"""
    judging = phase == "discriminators"
    learn = (not judging, judging and adversary == "pixel", judging and (select or adversary == "patch"))
    right = {name for name, learns in zip(NETWORKS, learn) if learns}

    def wrong(asked, *places):
        return right ^ {NETWORKS[place] for place in places} if phase == asked else right

    return {
        "right": right,
        "the source has no adversary: the segmenter learns from its labels, nobody else.": wrong("source", 0, 1, 2),
        "discriminators hold still while the target is told to look like the source.": wrong("target", 0, 1, 2),
        "predictions are detached here.": wrong("discriminators", 0),
        "the pixel discriminator is trained when it is the adversary, and only then.": wrong("discriminators", 1),
        "the image discriminator is asked by the selection or by the patch adversary.": wrong("discriminators", 2),
    }


def patches():
    # Patches that differ widely: their two means are far apart.
    p_source = torch.rand(400, 6, generator=torch.Generator().manual_seed(0)).clamp(0.01, 0.99)
    for first in (0.2, 0.4, 0.8):
        yield f"a first threshold of {first}", p_source, first


@Exercise(patches, "agrees with the library for 400 images at 3 thresholds", "medium", 10)
def dropped_after(p, first):
    """(p_source [images, patches], first threshold) -> after which pass each image goes [images], counted from 1"""
    score = -p.log().mean(1)
    stays = torch.stack([fss.select_sources(score, first * k) for k in range(1, 1 + math.ceil(score.max() / first))])
    return {
        "right": 1 + stays.sum(0),
        "passes are counted from 1; this is the last one that an image survives.": stays.sum(0),
        "passes are whole numbers: round up.": score / first,
        "this is the arithmetic mean; the score is a mean of logarithms.": (-p.mean(1).log() / first).ceil(),
        "the score is a mean over the patches, not a sum.": (p.shape[1] * score / first).ceil(),
        "P(source) is given; here it is taken for P(target).": (-(1 - p).log().mean(1) / first).ceil(),
        "the surest patch decides here; take the mean over all.": (-p.amax(1).log() / first).ceil(),
        "the least sure patch decides here; take the mean over all.": (-p.amin(1).log() / first).ceil(),
        "the threshold grows by the first one with every pass; here it stays.": 1 + 0 * score,
    }


def answers():
    generator = torch.Generator().manual_seed(0)
    for shape, scale, temperature in (((2, 3, 4, 5), 3, 2.0), ((1, 11, 3, 2), 150, 1.5), ((3, 5, 1, 1), 3, 4.0)):
        logits = scale * torch.randn(2, *shape, generator=generator)
        yield f"logits {shape}, about {scale}, temperature {temperature}", *logits, temperature


@Exercise(
    answers, "is right for 3 shapes and temperatures, and leaves the teacher alone", "medium", 15, gradients=(0, 1)
)
def soft_distillation(student, teacher, t):
    """(student [B, C, H, W], teacher [B, C, H, W], temperature) -> Hinton's loss, one number"""
    softened, logs = (teacher / t).softmax(1), (student / t).log_softmax(1)
    still, naive = softened.detach(), (student / t).softmax(1).log()
    sharp, entropy = (teacher.detach() * t).softmax(1), t * t * torch.special.entr(still).mean()

    def loss(weights=still, logs=logs, factor=t * t):
        return -factor * (weights * logs).mean()

    return {
        "right": loss(),
        "the student has no temperature: it is on the teacher alone.": loss(logs=student.log_softmax(1)),
        "the teacher has no temperature: it is on the student alone.": loss(teacher.detach().softmax(1)),
        "the factor is missing, the square of the temperature.": loss(factor=1),
        "the temperature multiplies here; divide the logits by it.": loss(sharp, (student * t).log_softmax(1)),
        "this is the sum over the classes; take their mean, too.": student.shape[1] * loss(),
        "the places are exchanged: the teacher's softmax weighs the student's log.": loss(logs.exp(), still.log()),
        "the entropy of the teacher is taken off: this is the divergence, of another value.": loss() - entropy,
        "the sign: a cross-entropy is positive.": -loss(),
        "the logarithm of a softmax that is 0 is minus infinity: take log_softmax.": loss(logs=naive),
        "the teacher gets a gradient. Detach its logits.": loss(softened),
    }


def tables():
    generator = torch.Generator().manual_seed(0)
    for count, missing in ((11, False), (12, True), (7, False)):
        names = [f"class {n}" for n in range(count)]
        shares, ious = (dict(zip(names, torch.rand(count, generator=generator).tolist())) for _ in range(2))
        if missing:
            ious[min(shares, key=shares.get)] = None
        yield f"{count} classes", dict(reversed(ious.items())), shares


@Exercise(tables, "is right for 11, 12 and 7 classes, with and without one that is never seen", "easy", 10)
def rare_mean(per_class, shares):
    """(per_class, shares, both by the classes' names) -> mean IoU of the rarest third, one number"""
    order, third = sorted(shares, key=shares.get), round(len(shares) / 3)
    seen = [name for name in order if per_class[name] is not None]

    def mean(names, empty=None, ious=per_class):
        found = [empty if ious[name] is None else ious[name] for name in names]
        found = [value for value in found if value is not None]
        return sum(found) / len(found)

    lowest, by_place = sorted(seen, key=per_class.get)[:third], dict(zip(shares, per_class.values()))
    return {
        "right": mean(order[:third]),
        "these are the most frequent classes.": mean(order[-third:]),
        "the third is chosen by the shares of the pixels, not by the IoU.": mean(lowest),
        "this is the mean over all classes.": mean(order),
        "a class without an IoU is not in the truth: leave it out of the mean, it is no 0.": mean(order[:third], 0.0),
        "a class without an IoU still counts as one of the rarest third; no other takes its place.": mean(seen[:third]),
        "a third of 11 is 4, rounded to a whole number.": mean(order[: len(order) // 3]),
        "a third of 7 is 2, rounded to a whole number.": mean(order[: -(-len(order) // 3)]),
        "the dictionaries are in different orders: pair them by the names.": mean(order[:third], ious=by_place),
    }


GREY = "#8a8a94"
RED, BLUE, ORANGE = MASK_COLOURS[:3]
TONES = (GREY, INK, BLUE, ORANGE, RED)

Passes = Sequence[tuple[Sequence[int], Tensor]]
"""After each pass over the source: the positions of the images that were left, and their scores."""

Numbers, Ladder = Mapping[str, float], Mapping[str, Mapping[str, Sequence[float]]]
"""Of each class; of each class and rung the IoU of each run, in per cent."""


def show_streets(rows, class_names, *, titles=(), row_titles=(), legend=True, width=9.2) -> Figure:
    """A grid of images [3, H, W], label maps [H, W] and arrays [H, W, 3] drawn as they are; rows may be short.

    `legend` names the colours of the classes below. The images of a row have one shape.
    """
    columns = max(map(len, rows))
    shapes = [np.shape(row[0])[-3:-1] if isinstance(row[0], np.ndarray) else row[0].shape[-2:] for row in rows]
    heights = [height / wide for height, wide in shapes]
    size = (width, (width - 0.4) / columns * sum(heights) + 0.1 * len(rows) + 0.2 * bool(titles) + 0.3 * legend)
    options = {"height_ratios": heights, "squeeze": False, "layout": "constrained"}
    figure, axes = plt.subplots(len(rows), columns, figsize=size, dpi=DPI, **options)
    for line, row in zip(axes, rows):
        for ax, picture in itertools.zip_longest(line, row):
            if picture is None:
                ax.set_axis_off()
            elif isinstance(picture, np.ndarray):
                plain(ax).imshow(picture, interpolation="nearest")
            elif picture.ndim == 3:
                draw_image(ax, picture)
            else:
                plain(ax).imshow(label_picture(picture, class_names), interpolation="nearest")
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
    """The scores of the source images, a row for each pass: what is right of the pass's threshold stays."""
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


def show_kept(images: Tensor, positions: Sequence[int], passes: Passes, *, first: float = 0.4) -> Figure:
    """Source images, at their positions, over the passes: one that was dropped fades; the number is its score."""
    shape, size = (len(passes) + 1, len(images)), (9.4, 0.72 * (len(passes) + 1))
    figure, axes = plt.subplots(*shape, figsize=size, dpi=DPI, layout="constrained", squeeze=False)
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


def show_softened(logits: Tensor, place: tuple[int, int], class_names, *, temperatures=(1, 2, 4)) -> Figure:
    """How sure an answer [C, H, W] is at several temperatures: each pixel's largest probability, all at one place."""
    figure = plt.figure(figsize=(9.4, 3.4), dpi=DPI, layout="constrained")
    grid = figure.add_gridspec(2, len(temperatures))
    logits, maps = logits.detach().cpu(), []
    at_place = logits[:, place[0], place[1]]
    colours = [STREET_COLOURS[name] for name in class_names.values()]
    for column, temperature in enumerate(temperatures):
        ax = figure.add_subplot(grid[0, column])
        surest = (logits / temperature).softmax(0).amax(0).numpy()
        drawn = plain(ax).imshow(surest, cmap=SCORE_MAP, vmin=0, vmax=1, interpolation="nearest")
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


def show_paired(compared, *, measures: Sequence[str], highlighted: Sequence[str] = ()) -> Figure:
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


def show_classes(shares: Numbers, balance: Numbers, ladder: Ladder) -> Figure:
    """Every class in a row, the most frequent on top: its share (0 to 1), mean balance B, mean IoU on each rung."""
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
    """The rungs of a ladder as bars: their mean over runs, and every run as a point; one without runs says so."""
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


def _airy(ax: Axes, *, grid: bool = True) -> None:
    if grid:
        ax.grid(axis="x", alpha=0.25)
    ax.tick_params(left=False, labelsize=8.5)
    ax.spines[["top", "right", "left"]].set_visible(False)


def class_ladder(shares: Numbers, balance: Numbers, ladder: Ladder):
    """A widget that picks a class and shows its share, its mean balance B, and its IoU on the rungs of a ladder.

    Shares are from 0 to 1; a rung that was not run has no IoU. Raises ValueError when the three do not know the same
    classes.
    """
    if not set(shares) == set(balance) == set(ladder):
        odd = sorted(set(shares) ^ set(balance) | set(shares) ^ set(ladder))
        raise ValueError(f"Shares, balance and ladder must know the same classes; these are not in all: {odd}.")

    def draw(class_name: str):
        rungs = ladder[class_name]
        means = [f"{rung} {sum(ious) / len(ious):.1f}" for rung, ious in rungs.items() if ious]
        words = (
            f"{class_name}: {100 * shares[class_name]:.2f} % of the pixels, B = {balance[class_name]:.3f} on average. "
        )
        words += f"IoU: {', '.join(means) or 'not run yet'}."
        return words, show_rungs(rungs, title=f"IoU of {class_name}, %")

    return fss.widgets.Explorer("Class ladder", draw, {"class_name": sorted(shares, key=shares.get)})
