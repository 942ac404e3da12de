"""What the figures show: pixels of the overlays, number and order of panels, outlines where masks are."""

import subprocess
import sys

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.collections import QuadMesh
from matplotlib.contour import QuadContourSet

from fsslib.data import camvid
from fsslib.data.toyworld import CLASS_NAMES, ToyWorld, base_classes, fold_classes, streets
from fsslib.episodes import VOID, EpisodeRow
from fsslib.teaching import plots
from fsslib.training.fit import History

matplotlib.use("Agg")


@pytest.fixture(autouse=True)
def _closed_figures():
    yield
    plt.close("all")


def images_of(axes):
    return [ax.get_images()[0].get_array() for ax in axes if ax.get_images()]


def panels(figure):
    """The axes that hold a picture, in drawing order: colour bars are left out."""
    return [ax for ax in figure.axes if ax.get_images() and not any(isinstance(c, QuadMesh) for c in ax.collections)]


def outlines(ax):
    """How many closed lines are drawn over a picture."""
    sets = [c for c in ax.get_children() if isinstance(c, QuadContourSet)]
    return sum(len([p for p in c.get_paths() if len(p.vertices)]) for c in sets)


def drawn(figure):
    """Laid out and rendered, so that a warning of any stage is raised."""
    figure.canvas.draw()
    return figure


@pytest.fixture(scope="module")
def world():
    return ToyWorld(size=32, distractors=base_classes(0))


@pytest.fixture(scope="module")
def two_way(world):
    """Episode 0 holds both ways, episode 1 the first only, the others none."""
    queries = ["c1001+c1002-000000", "c1001-000001", *(f"none-00000{n}" for n in range(2, 6))]
    ways = tuple(tuple(f"c{c}-{shot:06d}" for shot in range(7, 10)) for c in (1001, 1002))
    return world.episode([EpisodeRow(query, (1001, 1002), ways) for query in queries])


@pytest.fixture(scope="module")
def one_way(world):
    return world.episode(world.sample(fold_classes(0), 2, seed="plots"))


def test_overlay_tints_labels_fades_the_rest_and_leaves_the_image_alone():
    image = torch.rand(3, 4, 4, generator=torch.Generator().manual_seed(0))
    before, mask = image.clone(), torch.zeros(4, 4, dtype=torch.int64)
    mask[0, 0], mask[1, 1], mask[2, 2] = 1, 2, VOID
    picture = plots.overlay(image, mask, strength=0.4)
    pixels = image.permute(1, 2, 0).double().numpy()
    np.testing.assert_allclose(picture[0, 0], 0.6 * pixels[0, 0] + 0.4 * np.array(plots.colour_of(1)))
    np.testing.assert_allclose(picture[1, 1], 0.6 * pixels[1, 1] + 0.4 * np.array(plots.colour_of(2)))
    np.testing.assert_allclose(picture[2, 2], 0.15 * pixels[2, 2] + 0.85 * np.array(plots.colour_of(VOID)))
    np.testing.assert_allclose(picture[3, 3].mean(), pixels[3, 3].mean())
    assert np.ptp(picture[3, 3]) == pytest.approx(0.3 * np.ptp(pixels[3, 3]))
    assert torch.equal(image, before)


def test_colours_differ_repeat_after_the_last_and_background_has_none():
    ways = [plots.colour_of(n) for n in range(1, 6)]
    assert len({*ways, plots.colour_of(VOID)}) == 6
    assert plots.colour_of(6) == ways[0]
    with pytest.raises(ValueError, match="found 0"):
        plots.colour_of(0)


def test_heat_overlay_keeps_coarse_cells_and_its_limits():
    picture = plots.heat_overlay(torch.zeros(3, 4, 4), torch.tensor([[-1.0, 1.0], [0.0, 7.0]]), strength=1.0)
    colours = plt.get_cmap(plots.SCORE_MAP)([0.0, 1.0, 0.5])[:, :3]
    assert picture.shape == (4, 4, 3)
    for (row, column), colour in (
        ((0, 0), colours[0]),
        ((1, 3), colours[1]),
        ((3, 0), colours[2]),
        ((3, 3), colours[1]),
    ):
        np.testing.assert_allclose(picture[row, column], colour)
    assert not np.allclose(picture, plots.heat_overlay(torch.ones(3, 4, 4), torch.tensor([[-1.0]]), strength=0.5))


def test_names_of_classes_of_all_data_sets():
    assert plots.class_name(1001) == CLASS_NAMES[1001]
    assert plots.class_name(12) == "dog"
    assert plots.class_name(999) == "class 999"


def test_an_episode_has_a_panel_for_every_support_and_one_each_for_query_truth_prediction_scores(one_way):
    figure = drawn(plots.show_episode(one_way, 1, prediction=one_way.query_labels, scores=torch.zeros(2, 4, 4)))
    axes = panels(figure)
    assert [ax.get_title() for ax in axes[1:]] == ["query", "truth", "prediction", "score map"]
    name = CLASS_NAMES[int(one_way.class_ids[1, 0])]
    assert axes[0].get_title(loc="left") == f"support: {name}"
    support, query, truth, *_ = images_of(axes)
    np.testing.assert_allclose(query, one_way.query_images[1].permute(1, 2, 0), atol=1e-6)
    np.testing.assert_allclose(truth, plots.overlay(one_way.query_images[1], one_way.query_labels[1]))
    np.testing.assert_allclose(support, plots.overlay(one_way.support_images[1, 0, 0], one_way.support_masks[1, 0, 0]))
    assert outlines(axes[1]) == 0
    assert all(outlines(ax) >= 1 for ax in (axes[0], *axes[2:]))


def test_several_ways_have_their_own_colours_and_absent_ones_are_named(two_way):
    row = 1
    figure = drawn(plots.show_episode(two_way, row))
    axes = panels(figure)
    assert len(axes) == 2 * 3 + 2
    assert axes[-1].get_title() == "truth (way 2 absent)"
    frames = [ax.spines["left"].get_edgecolor()[:3] for ax in axes[:6]]
    assert frames == [plots.colour_of(1)] * 3 + [plots.colour_of(2)] * 3
    second = plots.overlay(two_way.support_images[row, 1, 0], 2 * two_way.support_masks[row, 1, 0])
    np.testing.assert_allclose(images_of(axes)[3], second)


def test_an_empty_query_and_void_draw_without_a_warning(one_way):
    labels, masks = one_way.query_labels.clone(), one_way.support_masks.clone()
    labels[0], masks[0] = 0, VOID
    labels[1, :3] = VOID
    episode = type(one_way)(one_way.support_images, masks, one_way.query_images, labels, one_way.class_ids)
    empty = drawn(plots.show_episode(episode, 0, prediction=labels))
    assert panels(empty)[2].get_title() == "truth (nothing there)"
    assert [outlines(ax) for ax in panels(empty)] == [0, 0, 0, 0]
    assert outlines(panels(drawn(plots.show_episode(episode, 1)))[2]) == 1


def test_images_on_a_grid_with_titles_per_column_and_rows(two_way):
    figure = drawn(plots.show_images(two_way.query_images[:5], columns=3, titles="abc", row_titles="xy"))
    assert [ax.get_title() for ax in figure.axes] == ["a", "b", "c", "", "", ""]
    assert [ax.get_ylabel() for ax in figure.axes] == ["x", "", "", "y", "", ""]
    assert len(panels(figure)) == 5
    each = plots.show_images(two_way.query_images[:4], columns=2, titles="abcd", masks=two_way.query_labels[:4])
    assert [ax.get_title() for ax in each.axes] == ["a", "b", "c", "d"]
    np.testing.assert_allclose(images_of(each.axes)[3], plots.overlay(two_way.query_images[3], two_way.query_labels[3]))


def test_images_under_scores_have_one_colour_bar_with_the_limits(one_way):
    scores = torch.rand(2, 4, 4)
    figure = plots.show_images(one_way.query_images, scores=scores, masks=one_way.query_labels, limits=(0.0, 1.0))
    drawn(figure)
    assert len(figure.axes) == 3
    assert figure.axes[-1].get_ylim() == (0.0, 1.0)
    np.testing.assert_allclose(
        images_of(figure.axes)[0], plots.heat_overlay(one_way.query_images[0], scores[0], limits=(0.0, 1.0))
    )


def test_titles_that_fit_nothing_are_refused(two_way):
    with pytest.raises(ValueError, match="2 titles for 6 images in 3 columns"):
        plots.show_images(two_way.query_images, columns=3, titles="ab")
    with pytest.raises(ValueError, match="3 row titles for 2 rows"):
        plots.show_images(two_way.query_images, columns=3, row_titles="abc")


def test_history_draws_values_their_running_mean_and_the_phases():
    rows = [{"step": n, "phase": int(n >= 6), "loss": float(n), **({"extra": 1.0} if n > 7 else {})} for n in range(10)]
    history = History()
    history.rows += rows
    ax = drawn(plots.show_history(history, smooth=3)).axes[0]
    faint, mean, extra, _, border = ax.get_lines()
    np.testing.assert_allclose(faint.get_ydata(), range(10))
    np.testing.assert_allclose(mean.get_ydata(), [0, 0.5, 1, 2, 3, 4, 5, 6, 7, 8])
    np.testing.assert_allclose(extra.get_xdata(), [8, 9])
    assert list(border.get_xdata()) == [6, 6]
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["loss", "extra"]
    assert len(plots.show_history(history, ["extra"]).axes[0].get_lines()) == 3


def test_history_without_the_asked_values_is_refused():
    with pytest.raises(ValueError, match=r"Never logged: los; logged are loss"):
        plots.show_history(History([{"step": 0.0, "phase": 0.0, "loss": 1.0}]), ["los"])
    with pytest.raises(ValueError, match="empty"):
        plots.show_history(History())


def test_importing_fsslib_brings_in_no_plotting_and_no_torch():
    code = "import sys, fsslib; print(sorted({'matplotlib', 'torch', 'ipywidgets'} & set(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert run.stdout == "[]\n"


def test_every_class_of_streets_has_a_colour():
    names = {*streets.CLASS_NAMES.values(), *camvid.CLASS_NAMES.values()}
    assert names <= plots.STREET_COLOURS.keys()
    with pytest.raises(KeyError):
        plots.label_picture(torch.zeros(2, 2, dtype=torch.int64), {0: "canal"})
