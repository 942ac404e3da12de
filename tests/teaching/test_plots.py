"""What the figures of all notebooks and of single lessons show: pixels, panels and their order, outlines, texts."""

import subprocess
import sys

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.collections import QuadMesh
from matplotlib.colors import to_hex, to_rgb
from matplotlib.contour import QuadContourSet

import fsslib as fss
from fsslib.data.sets import LAYOUTS
from fsslib.data.toyworld import CLASS_NAMES, base_classes, fold_classes, streets
from fsslib.episodes import VOID
from fsslib.reproduction.statistics import student_interval
from fsslib.teaching import lesson, plots
from fsslib.training.fit import History

matplotlib.use("Agg")

STREETS, SEEDED = streets.CLASS_NAMES, torch.Generator().manual_seed(0)
PASSES = [([0, 1, 2, 3], torch.tensor([0.1, 0.5, 0.9, 2.0])), ([1, 2, 3], torch.tensor([0.2, 0.7, 1.0]))]
same = np.testing.assert_allclose


@pytest.fixture(autouse=True)
def _closed_figures():
    yield
    plt.close("all")


def axes_of(figure):
    """Laid out and rendered, so that a warning of any stage is raised; colour bars are left out."""
    figure.canvas.draw()
    return [ax for ax in figure.axes if not any(isinstance(c, QuadMesh) for c in ax.collections)]


def pictures(figure):
    return [ax.get_images()[0].get_array() for ax in axes_of(figure) if ax.get_images()]


def titles(figure):
    return [ax.get_title() for ax in axes_of(figure)]


def outlines(ax):
    """How many closed lines are drawn over a picture."""
    sets = [c for c in ax.get_children() if isinstance(c, QuadContourSet)]
    return sum(len([p for p in c.get_paths() if len(p.vertices)]) for c in sets)


def texts(ax, kind="texts"):
    return [text.get_text() for text in (ax.texts if kind == "texts" else ax.get_yticklabels())]


def points(ax):
    return [tuple(found.get_offsets()[:, 0].tolist()) for found in ax.collections]


@pytest.fixture(scope="module")
def world():
    return fss.ToyWorld(size=32, distractors=base_classes(0))


@pytest.fixture(scope="module")
def two_way(world):
    """Episode 0 holds both ways, episode 1 the first only, the others none."""
    queries = ["c1001+c1002-000000", "c1001-000001", *(f"none-00000{n}" for n in range(2, 6))]
    ways = tuple(tuple(f"c{c}-{shot:06d}" for shot in range(7, 10)) for c in (1001, 1002))
    return world.episode([fss.EpisodeRow(query, (1001, 1002), ways) for query in queries])


@pytest.fixture(scope="module")
def one_way(world):
    return world.episode(world.sample(fold_classes(0), 2, seed="plots"))


def test_overlay_tints_labels_fades_the_rest_and_leaves_the_image_alone():
    image, mask = torch.rand(3, 4, 4, generator=SEEDED), torch.zeros(4, 4, dtype=torch.int64)
    before, pixels = image.clone(), image.permute(1, 2, 0).double().numpy()
    mask[0, 0], mask[1, 1], mask[2, 2] = 1, 2, VOID
    picture = plots.overlay(image, mask, strength=0.4)
    for place, label, share in ((0, 1, 0.4), (1, 2, 0.4), (2, VOID, 0.85)):
        same(picture[place, place], (1 - share) * pixels[place, place] + share * np.array(plots.colour_of(label)))
    same(picture[3, 3].mean(), pixels[3, 3].mean())
    same(np.ptp(picture[3, 3]), 0.3 * np.ptp(pixels[3, 3]))
    assert torch.equal(image, before)


def test_classes_have_names_and_colours_that_differ_and_repeat_after_the_last():
    ways = [plots.colour_of(n) for n in range(1, 6)]
    assert len({*ways, plots.colour_of(VOID)}) == 6
    assert plots.colour_of(6) == ways[0]
    with pytest.raises(ValueError, match="found 0"):
        plots.colour_of(0)
    assert [plots.class_name(c) for c in (1001, 12, 999)] == [CLASS_NAMES[1001], "dog", "class 999"]
    assert {*STREETS.values(), *LAYOUTS["camvid"].classes.values()} <= plots.STREET_COLOURS.keys()
    with pytest.raises(KeyError):
        plots.label_picture(torch.zeros(2, 2, dtype=torch.int64), {0: "canal"})


def test_heat_overlay_keeps_coarse_cells_and_its_limits():
    picture = plots.heat_overlay(torch.zeros(3, 4, 4), torch.tensor([[-1.0, 1.0], [0.0, 7.0]]), strength=1.0)
    same(picture[[0, 1, 3, 3], [0, 3, 0, 3]], plt.get_cmap(plots.SCORE_MAP)([0.0, 1.0, 0.5, 1.0])[:, :3])
    assert picture.shape == (4, 4, 3)
    assert not np.allclose(picture, plots.heat_overlay(torch.ones(3, 4, 4), torch.tensor([[-1.0]]), strength=0.5))


def test_an_episode_has_a_panel_for_every_support_and_one_each_for_query_truth_prediction_scores(one_way):
    figure = plots.show_episode(one_way, 1, prediction=one_way.query_labels, scores=torch.zeros(2, 4, 4))
    axes, image, labels = axes_of(figure), one_way.query_images[1], one_way.query_labels[1]
    assert titles(figure)[1:] == ["query", "truth", "prediction", "score map"]
    assert axes[0].get_title(loc="left") == f"support: {CLASS_NAMES[int(one_way.class_ids[1, 0])]}"
    support, query, truth, *_ = pictures(figure)
    same(query, image.permute(1, 2, 0), atol=1e-6)
    same(truth, plots.overlay(image, labels))
    same(support, plots.overlay(one_way.support_images[1, 0, 0], one_way.support_masks[1, 0, 0]))
    assert [outlines(ax) > 0 for ax in axes] == [True, False, True, True, True]


def test_several_ways_have_their_own_colours_and_absent_ones_are_named(two_way):
    figure = plots.show_episode(two_way, 1)
    assert titles(figure)[-1] == "truth (way 2 absent)"
    frames = [ax.spines["left"].get_edgecolor()[:3] for ax in axes_of(figure)]
    assert frames[:6] == [plots.colour_of(1)] * 3 + [plots.colour_of(2)] * 3
    assert len(frames) == 8
    same(pictures(figure)[3], plots.overlay(two_way.support_images[1, 1, 0], 2 * two_way.support_masks[1, 1, 0]))


def test_an_empty_query_and_void_draw_without_a_warning(one_way):
    labels, masks = one_way.query_labels.clone(), one_way.support_masks.clone()
    labels[0], masks[0], labels[1, :3] = 0, VOID, VOID
    episode = type(one_way)(one_way.support_images, masks, one_way.query_images, labels, one_way.class_ids)
    empty = plots.show_episode(episode, 0, prediction=labels)
    assert titles(empty)[2] == "truth (nothing there)"
    assert [outlines(ax) for ax in axes_of(empty)] == [0, 0, 0, 0]
    assert outlines(axes_of(plots.show_episode(episode, 1))[2]) == 1


def test_images_on_a_grid_have_titles_masks_or_scores_and_refuse_titles_that_fit_nothing(two_way, one_way):
    images, labels = two_way.query_images, two_way.query_labels
    figure = plots.show_images(images[:5], columns=3, titles="abc", row_titles="xy")
    assert titles(figure) == ["a", "b", "c", "", "", ""]
    assert [ax.get_ylabel() for ax in figure.axes] == ["x", "", "", "y", "", ""]
    assert len(pictures(figure)) == 5
    each = plots.show_images(images[:4], columns=2, titles="abcd", masks=labels[:4])
    assert titles(each) == ["a", "b", "c", "d"]
    same(pictures(each)[3], plots.overlay(images[3], labels[3]))
    scores, limits = torch.rand(2, 4, 4), (0.0, 1.0)
    hot = plots.show_images(one_way.query_images, scores=scores, masks=one_way.query_labels, limits=limits)
    same(pictures(hot)[0], plots.heat_overlay(one_way.query_images[0], scores[0], limits=limits))
    assert (len(hot.axes), hot.axes[-1].get_ylim()) == (3, limits)
    with pytest.raises(ValueError, match="2 titles for 6 images in 3 columns"):
        plots.show_images(images, columns=3, titles="ab")
    with pytest.raises(ValueError, match="3 row titles for 2 rows"):
        plots.show_images(images, columns=3, row_titles="abc")


def test_history_draws_values_their_running_mean_and_the_phases_and_refuses_what_was_not_logged():
    rows = [{"step": n, "phase": int(n >= 6), "loss": float(n), **({"extra": 1.0} if n > 7 else {})} for n in range(10)]
    history = History(rows)
    [ax] = axes_of(plots.show_history(history, smooth=3))
    faint, mean, extra, _, border = ax.get_lines()
    for line, values in ((faint, range(10)), (mean, [0, 0.5, 1, 2, 3, 4, 5, 6, 7, 8])):
        same(line.get_ydata(), values)
    same(extra.get_xdata(), [8, 9])
    same(border.get_xdata(), [6, 6])
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["loss", "extra"]
    assert len(plots.show_history(history, ["extra"]).axes[0].get_lines()) == 3
    with pytest.raises(ValueError, match=r"Never logged: los; logged are loss"):
        plots.show_history(history, ["los"])
    with pytest.raises(ValueError, match="empty"):
        plots.show_history(History())


def test_importing_fsslib_brings_in_no_plotting_and_no_torch():
    code = "import sys, fsslib; print(sorted({'matplotlib', 'torch', 'ipywidgets'} & set(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert run.stdout == "[]\n"


def test_streets_draw_images_labels_and_pictures_as_they_are():
    image, labels = torch.rand(3, 8, 16), torch.randint(0, 11, (8, 16))
    picture, show = np.random.default_rng(0).random((16, 16, 3)), lesson(70).show_streets
    figure = show([[image, labels], [picture]], STREETS, titles=("a", "b"), row_titles=("street", "toy"))
    expected = image.permute(1, 2, 0), plots.label_picture(labels, STREETS), picture
    for drawn, wanted in zip(pictures(figure), expected, strict=True):
        same(drawn, wanted, atol=1e-6)
    assert [ax.axison for ax in figure.axes] == [True, True, True, False]
    assert [(ax.get_title(), ax.get_ylabel()) for ax in figure.axes[:3]] == [("a", "street"), ("b", ""), ("", "toy")]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == list(STREETS.values())
    assert not show([[labels]], STREETS, legend=False).legends


def test_scores_left_of_the_threshold_are_grey_and_an_image_fades_when_it_is_dropped():
    [ax, *_] = axes_of(lesson(70).show_scores(PASSES))
    same(np.concatenate(points(ax)), [0.1, 0.5, 0.9, 2.0, 0.2, 0.7, 1.0], rtol=1e-6)
    same([line.get_xdata()[0] for line in ax.lines], [0.4, 0.8, np.log(2)])
    assert [len(group) for group in points(ax)] == [1, 3, 2, 1]
    assert [to_hex(p.get_facecolor()[0]) for p in ax.collections] == [lesson(70).GREY, lesson(70).ORANGE] * 2
    figure = lesson(70).show_kept(torch.rand(3, 3, 8, 16, generator=SEEDED), [0, 2, 3], PASSES)
    coloured = np.ptp(np.array(pictures(figure)).reshape(3, 3, 8, 16, 3), axis=-1).max((2, 3)) > 0
    assert coloured.tolist() == [[True, True, True], [False, True, True], [False, False, True]]
    assert [texts(ax) for ax in figure.axes[3:]] == [["0.10"], ["0.90"], ["2.00"], [], ["0.70"], ["1.00"]]
    assert [ax.get_ylabel() for ax in figure.axes[::3]] == ["at first\nall", "pass 1\n3 left", "pass 2\n1 left"]


def test_paired_differences_have_points_a_diamond_and_a_bar_from_five_pairs_on():
    pairs = {"many": dict(enumerate([1.0, 2.0, 3.0, 4.0, 5.0])), "few": {0: 1.0, 1: 3.0}}
    compared = {name: {"mIoU": (student_interval([*gaps.values()]), gaps, "")} for name, gaps in pairs.items()}
    figure = lesson(70).show_paired(compared | {"none": {}}, measures=("mIoU", "rare"), highlighted=["many"])
    left, right = axes_of(figure)
    assert points(left) == [(1, 2, 3, 4, 5), (3,), (1, 3), (2,)]
    assert to_hex(left.collections[1].get_facecolor()[0]) == plots.MASK_COLOURS[0]
    assert len(left.lines) == 2  # one interval, and the line at zero
    assert (texts(left), texts(right)) == (["not run yet"], ["not run yet"] * 3)
    assert texts(left, "y") == ["many (n = 5)", "few (n = 2)", "none (n = 0)"]


def test_classes_are_in_the_order_of_their_shares_and_rungs_are_means_with_their_runs():
    shares, balance = {"road": 0.3, "sign": 0.01}, {"road": 0.7, "sign": 0.99}
    rungs = {"joint": [10.0, 20.0], "whole": []}
    axes = axes_of(lesson(70).show_classes(shares, balance, dict.fromkeys(shares, rungs)))
    assert texts(axes[0], "y") == ["sign", "road"]
    assert [points(ax)[0] for ax in axes] == [(1, 30), (0.99, 0.7), (15, 15)]
    assert (points(axes[2])[1], texts(axes[2])) == ((), [])
    nothing = lesson(70).show_classes(shares, balance, {name: {"joint": []} for name in shares})
    assert texts(nothing.axes[2]) == ["not run yet"]
    [ax] = axes_of(lesson(70).show_rungs(rungs, title="IoU"))
    assert [bar.get_width() for bar in ax.patches] == [15.0]
    assert (texts(ax), ax.get_title(loc="left")) == (["not run yet"], "IoU")


def test_answers_are_shown_with_support_and_truth_or_in_the_colours_of_the_classes():
    task = fss.open_task("toy", fold=0, targets=("night",), size=32)
    figure = lesson(90).show_answers(fss.build_method("prototype"), task.exams(4), count=2)
    assert [ax.get_ylabel() for ax in figure.axes if ax.get_ylabel()] == ["photo", "night"]
    assert titles(figure) == [*["support", "truth", "prediction"] * 2, *[""] * 6]
    episode = next(task.exams(4)["night"].batches(2))
    same(pictures(figure)[10], plots.overlay(episode.query_images[1], episode.query_labels[1]))

    task = fss.open_task("streets", source="game", targets=("meadow",), size=32)
    method, exam = fss.build_method("pixda", **task.method_options).train(), task.exams(3)["game"]
    image, truth, answer = pictures(lesson(90).show_answers(method, {"game": exam}, count=1))
    assert method.training
    batch = next(exam.batches(1))
    same(image, batch.images[0].movedim(0, 2))
    same(truth, plots.label_picture(batch.labels[0], STREETS))
    assert np.allclose(truth[(batch.labels[0] == VOID).numpy()], to_rgb(plots.VOID_COLOUR))
    assert answer.shape == (32, 64, 3)
