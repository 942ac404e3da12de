"""Pictures of episodes, masks, score maps and training curves: the same colours for the same things in every notebook.

Way 1 is crimson, way 2 blue, and so on (`MASK_COLOURS`); void is light grey; scores run from dark to bright
(`SCORE_MAP`). Functions named `show_...` return a matplotlib figure. In a notebook end the cell with `plt.show()`.
"""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import torch.nn.functional as F
from jaxtyping import Float, Int
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize, to_rgb
from matplotlib.figure import Figure
from torch import Tensor

from fsslib.data import names, toyworld
from fsslib.episodes import VOID, Episode
from fsslib.training.fit import History

MASK_COLOURS = ("#e4134f", "#1769e0", "#e88b00", "#00907d", "#8442d6")
"""Colour of way 1, 2, ...; the sixth way has the first colour again. Dark enough for text on white."""

STREET_COLOURS = {
    "road": "#8b6f9c",
    "pavement": "#e08ad0",
    "building": "#6f6f78",
    "fence": "#c79a78",
    "pole": "#f4f1ea",
    "sign": "#f2c318",
    "tree": "#5f9440",
    "sky": "#6fb1dc",
    "person": "#e4134f",
    "pedestrian": "#e4134f",
    "rider": "#8b1a1a",
    "bicyclist": "#8b1a1a",
    "car": "#1f3fb5",
}
"""Colours of the classes of streets, close to those that the field is used to."""

VOID_COLOUR = "#e9e6df"
INK = "#2b2b33"
SCORE_MAP = "magma"
DPI = 96

Limits = tuple[float, float]
"""The scores at the dark and at the bright end."""

COSINES: Limits = (-1.0, 1.0)


def class_name(class_id: int) -> str:
    """The name of a class by its global id, "class 999" for one that fsslib has no name for."""
    return {**names.CLASS_NAMES, **toyworld.CLASS_NAMES}.get(class_id, f"class {class_id}")


def colour_of(label: int) -> tuple[float, float, float]:
    """The colour of a label of a mask: 1 is the first way, 255 is void. Background (0) has no colour: ValueError."""
    if label == VOID:
        return to_rgb(VOID_COLOUR)
    if label < 1:
        raise ValueError(f"Labels with a colour are the ways 1, 2, ... and {VOID} (void); found {label}.")
    return to_rgb(MASK_COLOURS[(label - 1) % len(MASK_COLOURS)])


def overlay(
    image: Float[Tensor, "3 H W"], mask: Int[Tensor, "H W"], *, strength: float = 0.5
) -> Float[np.ndarray, "H W 3"]:
    """The image with every labelled pixel tinted in its label's colour; background (0) loses most of its own."""
    picture, labels = _pixels(image), mask.cpu().numpy()
    picture[labels == 0] = (0.3 * picture + 0.7 * picture.mean(-1, keepdims=True))[labels == 0]
    for label in np.unique(labels[labels > 0]):
        here, share = labels == label, 0.85 if label == VOID else strength
        picture[here] = (1 - share) * picture[here] + share * np.array(colour_of(int(label)))
    return picture


def heat_overlay(
    image: Float[Tensor, "3 H W"], scores: Float[Tensor, "h w"], *, limits: Limits = COSINES, strength: float = 0.75
) -> Float[np.ndarray, "H W 3"]:
    """The image in grey under a score map, which may be coarser than the image: each of its cells stays visible."""
    grey = _pixels(image).mean(-1, keepdims=True)
    fine = F.interpolate(scores.detach().float()[None, None], image.shape[-2:], mode="nearest")[0, 0]
    heat = plt.get_cmap(SCORE_MAP)(Normalize(*limits)(fine.cpu().numpy()))[..., :3]
    return (1 - strength) * grey + strength * heat


def show_images(
    images: Float[Tensor, "B 3 H W"],
    *,
    masks: Int[Tensor, "B H W"] | None = None,
    scores: Float[Tensor, "B h w"] | None = None,
    limits: Limits = COSINES,
    titles: Sequence[str] = (),
    row_titles: Sequence[str] = (),
    columns: int | None = None,
    side: float = 1.5,
) -> Figure:
    """Images on a grid, row by row, optionally under their masks or score maps.

    With scores the masks become outlines, and a colour bar shows `limits`. `titles` has one text per image, or one per
    column; `row_titles` one per row: ValueError for other numbers. `side` is the width of an image in inches.
    """
    count, columns = len(images), min(len(images), columns or len(images))
    rows = -(-count // columns)
    if len(titles) not in (0, columns, count):
        raise ValueError(f"{len(titles)} titles for {count} images in {columns} columns: one each, or one a column.")
    if len(row_titles) not in (0, rows):
        raise ValueError(f"{len(row_titles)} row titles for {rows} rows.")
    lines = 1 + max((title.count("\n") for title in titles), default=-1)
    heading = 0.17 * lines * (rows if len(titles) == count else 1)
    size = (side * columns + 0.3, side * rows + heading + 0.1)
    figure, axes = plt.subplots(rows, columns, figsize=size, dpi=DPI, layout="compressed", squeeze=False)
    for place, ax in enumerate(axes.flat):
        if place >= count:
            ax.set_axis_off()
            continue
        mask = None if masks is None else masks[place]
        if scores is None:
            draw_image(ax, images[place], mask)
        else:
            plain(ax).imshow(heat_overlay(images[place], scores[place], limits=limits), interpolation="nearest")
            outline(ax, mask, "white")
        if place < len(titles):
            ax.set_title(titles[place], fontsize=9, color=INK, pad=4)
        if row_titles and place % columns == 0:
            ax.set_ylabel(row_titles[place // columns], fontsize=9, color=INK)
    if scores is not None:
        colour_bar(figure, list(axes.flat), limits)
    return figure


def label_picture(labels: Int[Tensor, "H W"], class_names: Mapping[int, str]) -> Float[np.ndarray, "H W 3"]:
    """A label map of streets in the colours of its classes; void is light grey. KeyError for a class without one."""
    table = np.tile(np.array(to_rgb(VOID_COLOUR)), (VOID + 1, 1))
    for number, name in class_names.items():
        table[number] = to_rgb(STREET_COLOURS[name])
    return table[labels.cpu().numpy()]


def show_episode(
    episode: Episode,
    row: int = 0,
    *,
    prediction: Int[Tensor, "B H W"] | None = None,
    scores: Float[Tensor, "B h w"] | None = None,
    limits: Limits = COSINES,
    side: float = 1.75,
) -> Figure:
    """Episode number `row` of a batch: its supports under their masks, the query, the truth, and what answers it.

    One row of supports a way, framed in the way's colour, one column a shot. `prediction` are label maps of the whole
    batch, drawn with the truth as a dotted line; `scores` are maps such as cosine similarities.
    """
    ways, shots = episode.ways, episode.shots
    panels = 2 + (prediction is not None) + (scores is not None)
    wide = min(ways, 2)
    widths = [*[1] * shots, 0.12, *[wide] * panels]
    figure = plt.figure(figsize=(side * sum(widths) + 0.3, side * ways + 0.3), dpi=DPI, layout="compressed")
    grid = figure.add_gridspec(ways, len(widths), width_ratios=widths)

    for way in range(ways):
        colour = colour_of(way + 1)
        for shot in range(shots):
            ax = figure.add_subplot(grid[way, shot])
            mask = episode.support_masks[row, way, shot]
            draw_image(ax, episode.support_images[row, way, shot], mask.where(mask != 1, way + 1))
            _frame(ax, colour)
            if shot == 0:
                name = class_name(int(episode.class_ids[row, way]))
                ax.set_title(f"support: {name}", fontsize=9, color=colour, pad=4, loc="left")

    query, truth = episode.query_images[row], episode.query_labels[row]
    absent = [str(way + 1) for way in range(ways) if not episode.presence[row, way]]
    note = "" if not absent else " (nothing there)" if ways == 1 else f" (way {', '.join(absent)} absent)"
    right = iter(figure.add_subplot(grid[:, shots + 1 + panel]) for panel in range(panels))
    draw_image(next(right), query).set_title("query", fontsize=9, color=INK, pad=4)
    draw_image(next(right), query, truth).set_title(f"truth{note}", fontsize=9, color=INK, pad=4)
    if prediction is not None:
        ax = draw_image(next(right), query, prediction[row])
        outline(ax, truth.where(truth != VOID, 0), "white", style=":")
        ax.set_title("prediction", fontsize=9, color=INK, pad=4)
    if scores is not None:
        ax = plain(next(right))
        ax.imshow(heat_overlay(query, scores[row], limits=limits), interpolation="nearest")
        outline(ax, truth.where(truth != VOID, 0), "white", style=":")
        ax.set_title("score map", fontsize=9, color=INK, pad=4)
        colour_bar(figure, [ax], limits)
    return figure


def show_history(history: History, names: Sequence[str] = (), *, smooth: int = 25) -> Figure:
    """What training logged, against the step: every value faintly, its mean over the last `smooth` steps in full.

    `names` chooses values, by default all that were logged. Dotted lines part the phases. Raises ValueError for a name
    that was never logged, and for an empty history.
    """
    logged = dict.fromkeys(name for row in history.rows for name in row if name not in ("step", "phase"))
    if unknown := [name for name in names if name not in logged]:
        raise ValueError(f"Never logged: {', '.join(unknown)}; logged are {', '.join(logged) or 'none'}.")
    if not logged:
        raise ValueError("The history is empty: nothing was trained yet.")
    figure, ax = plt.subplots(figsize=(6.4, 2.6), dpi=DPI, layout="constrained")
    for number, name in enumerate(names or logged):
        rows = [row for row in history.rows if name in row]
        steps, values = [row["step"] for row in rows], np.array([row[name] for row in rows])
        colour = colour_of(number + 1)
        ax.plot(steps, values, color=colour, alpha=0.22, linewidth=0.8)
        total = np.concatenate([np.zeros(smooth), np.cumsum(values)])
        mean = (total[smooth:] - total[:-smooth]) / np.minimum(np.arange(len(values)) + 1, smooth)
        ax.plot(steps, mean, color=colour, linewidth=1.8, label=name)
    for before, after in zip(history.rows, history.rows[1:]):
        if before["phase"] != after["phase"]:
            ax.axvline(after["step"], color=INK, linestyle=":", linewidth=1)
    ax.set_xlabel("step", color=INK)
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(axis="y", alpha=0.25)
    ax.legend(frameon=False, fontsize=9)
    return figure


def draw_image(ax: Axes, image: Float[Tensor, "3 H W"], mask: Int[Tensor, "H W"] | None = None) -> Axes:
    """One image on given axes, without ticks; a mask tints it and is outlined."""
    plain(ax).imshow(_pixels(image) if mask is None else overlay(image, mask), interpolation="nearest")
    outline(ax, mask)
    return ax


def _pixels(image: Float[Tensor, "3 H W"]) -> Float[np.ndarray, "H W 3"]:
    """A copy, so that drawing cannot change the image."""
    return image.detach().permute(1, 2, 0).cpu().numpy().astype(np.float64).clip(0, 1)


def plain(ax: Axes) -> Axes:
    """Axes for a picture: no ticks, a thin frame."""
    ax.set(xticks=[], yticks=[])
    _frame(ax, INK, 0.6)
    return ax


def _frame(ax: Axes, colour: str | tuple[float, float, float], width: float = 2.2) -> None:
    for spine in ax.spines.values():
        spine.set(color=colour, linewidth=width)


def outline(ax: Axes, mask: Int[Tensor, "H W"] | None, colour: str | None = None, style: str = "-") -> None:
    """The borders of the ways in a mask, in their own colours unless one is given."""
    if mask is None:
        return
    # One background pixel around the map closes the outline of what is cut by the border.
    labels = np.pad(mask.cpu().numpy(), 1)
    x, y = np.arange(-1, labels.shape[1] - 1), np.arange(-1, labels.shape[0] - 1)
    for label in np.unique(labels[(labels > 0) & (labels != VOID)]):
        edge = colour or colour_of(int(label))
        ax.contour(x, y, labels == label, levels=[0.5], colors=[edge], linewidths=1.4, linestyles=style)
    ax.set_xlim(-0.5, labels.shape[1] - 2.5)
    ax.set_ylim(labels.shape[0] - 2.5, -0.5)


def colour_bar(figure: Figure, axes: list[Axes], limits: Limits) -> None:
    """A colour bar of scores beside these axes."""
    bar = figure.colorbar(ScalarMappable(Normalize(*limits), SCORE_MAP), ax=axes, fraction=0.05, pad=0.02)
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=8, colors=INK)
