"""What one lesson alone shows: figures of streets and ladders, answers of what was trained; that lessons are found."""

import sys

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgb

import fsslib as fss
from fsslib.data.toyworld.streets import CLASS_NAMES
from fsslib.reproduction.statistics import student_interval
from fsslib.teaching import lesson, plots
from fsslib.teaching.plots import MASK_COLOURS, label_picture

matplotlib.use("Agg")

street_plots = lesson(70)
PASSES = [([0, 1, 2, 3], torch.tensor([0.1, 0.5, 0.9, 2.0])), ([1, 2, 3], torch.tensor([0.2, 0.7, 1.0]))]


@pytest.fixture(autouse=True)
def _closed_figures():
    yield
    plt.close("all")


def texts(ax):
    return [text.get_text() for text in ax.texts]


def test_streets_draw_images_labels_and_pictures_as_they_are():
    image, labels = torch.rand(3, 8, 16), torch.randint(0, 11, (8, 16))
    picture = np.random.default_rng(0).random((16, 16, 3))
    rows = [[image, labels], [picture]]
    figure = street_plots.show_streets(rows, CLASS_NAMES, titles=("a", "b"), row_titles=("street", "toy"))
    first, second, third, empty = figure.axes
    np.testing.assert_allclose(first.get_images()[0].get_array(), image.permute(1, 2, 0), atol=1e-6)
    np.testing.assert_allclose(second.get_images()[0].get_array(), label_picture(labels, CLASS_NAMES))
    np.testing.assert_allclose(third.get_images()[0].get_array(), picture)
    assert not empty.axison
    assert (first.get_title(), second.get_title(), first.get_ylabel(), third.get_ylabel()) == (
        "a",
        "b",
        "street",
        "toy",
    )
    assert [text.get_text() for text in figure.legends[0].get_texts()] == list(CLASS_NAMES.values())
    assert not street_plots.show_streets([[labels]], CLASS_NAMES, legend=False).legends


def test_scores_left_of_the_threshold_are_grey():
    ax = street_plots.show_scores(PASSES).axes[0]
    groups = [points.get_offsets()[:, 0].tolist() for points in ax.collections]
    expected = [[0.1], [0.5, 0.9, 2.0], [0.2, 0.7], [1.0]]
    assert all(np.allclose(found, wanted) for found, wanted in zip(groups, expected, strict=True))
    assert [line.get_xdata()[0] for line in ax.lines] == pytest.approx([0.4, 0.8, np.log(2)])
    colours = [matplotlib.colors.to_hex(points.get_facecolor()[0]) for points in ax.collections]
    assert colours == [street_plots.GREY, street_plots.ORANGE] * 2


def test_an_image_fades_when_it_is_dropped():
    images = torch.rand(3, 3, 8, 16, generator=torch.Generator().manual_seed(0))
    figure = street_plots.show_kept(images, [0, 2, 3], PASSES)
    shown = np.array([ax.get_images()[0].get_array() for ax in figure.axes]).reshape(3, 3, 8, 16, 3)
    coloured = np.ptp(shown, axis=-1).max((2, 3)) > 0
    assert coloured.tolist() == [[True, True, True], [False, True, True], [False, False, True]]
    assert [texts(ax) for ax in figure.axes[3:]] == [["0.10"], ["0.90"], ["2.00"], [], ["0.70"], ["1.00"]]
    assert [figure.axes[row * 3].get_ylabel() for row in range(3)] == [
        "at first\nall",
        "pass 1\n3 left",
        "pass 2\n1 left",
    ]


def test_softened_answers_are_less_sure():
    logits = torch.randn(11, 6, 12, generator=torch.Generator().manual_seed(0))
    figure = street_plots.show_softened(logits, (2, 3), CLASS_NAMES)
    maps = [ax.get_images()[0].get_array() for ax in figure.axes[0:6:2]]
    np.testing.assert_allclose(maps[1], (logits / 2).softmax(0).amax(0), rtol=1e-5)
    assert maps[0].mean() > maps[1].mean() > maps[2].mean()
    heights = [bar.get_height() for bar in figure.axes[1].patches]
    np.testing.assert_allclose(heights, logits[:, 2, 3].softmax(0), rtol=1e-5)


def test_paired_differences_have_points_a_diamond_and_a_bar_from_five_pairs_on():
    gaps = dict(enumerate([1.0, 2.0, 3.0, 4.0, 5.0]))
    few = {0: 1.0, 1: 3.0}
    compared = {
        "many": {"mIoU": (student_interval(list(gaps.values())), gaps, "inconclusive")},
        "few": {"mIoU": (student_interval(list(few.values())), few, "inconclusive")},
        "none": {},
    }
    figure = street_plots.show_paired(compared, measures=("mIoU", "rare"), highlighted=["many"])
    left, right = figure.axes
    assert [tuple(points.get_offsets()[:, 0]) for points in left.collections] == [(1, 2, 3, 4, 5), (3,), (1, 3), (2,)]
    assert matplotlib.colors.to_hex(left.collections[1].get_facecolor()[0]) == MASK_COLOURS[0]
    assert len(left.lines) == 2  # one interval, and the line at zero
    assert texts(left) == ["not run yet"]
    assert texts(right) == ["not run yet"] * 3
    assert [label.get_text() for label in left.get_yticklabels()] == ["many (n = 5)", "few (n = 2)", "none (n = 0)"]


def test_classes_are_in_the_order_of_their_shares_and_rungs_without_runs_have_no_dots():
    shares, balance = {"road": 0.3, "sign": 0.01}, {"road": 0.7, "sign": 0.99}
    ladder = {name: {"joint": [10.0, 20.0], "whole": []} for name in shares}
    left, middle, right = street_plots.show_classes(shares, balance, ladder).axes
    assert [label.get_text() for label in left.get_yticklabels()] == ["sign", "road"]
    np.testing.assert_allclose(left.collections[0].get_offsets(), [[1, 0], [30, 1]])
    np.testing.assert_allclose(middle.collections[0].get_offsets(), [[0.99, 0], [0.7, 1]])
    np.testing.assert_allclose(right.collections[0].get_offsets(), [[15, 0], [15, 1]])
    assert len(right.collections[1].get_offsets()) == 0
    assert texts(right) == []
    nothing = {name: {"joint": []} for name in shares}
    assert texts(street_plots.show_classes(shares, balance, nothing).axes[2]) == ["not run yet"]


def test_rungs_are_bars_of_means_with_their_runs():
    ax = street_plots.show_rungs({"joint": [10.0, 20.0], "whole": []}, title="IoU").axes[0]
    assert [bar.get_width() for bar in ax.patches] == [15.0]
    assert texts(ax) == ["not run yet"]
    assert ax.get_title(loc="left") == "IoU"


def pictures(figure):
    return [ax.get_images()[0].get_array() for ax in figure.axes]


def test_answers_to_episodes_are_shown_with_support_and_truth():
    task = fss.open_task("toy", fold=0, targets=("night",), size=32)
    figure = lesson(90).show_answers(fss.build_method("prototype"), task.exams(4), count=2)
    assert len(pictures(figure)) == 12
    assert [ax.get_ylabel() for ax in figure.axes if ax.get_ylabel()] == ["photo", "night"]
    assert [ax.get_title() for ax in figure.axes][:6] == ["support", "truth", "prediction"] * 2
    episode = next(task.exams(4)["night"].batches(2))
    np.testing.assert_allclose(pictures(figure)[10], plots.overlay(episode.query_images[1], episode.query_labels[1]))


def test_answers_on_streets_are_in_the_colours_of_the_classes():
    task = fss.open_task("streets", source="game", targets=("meadow",), size=32)
    method = fss.build_method("pixda", **task.method_options).train()
    exam = task.exams(3)["game"]
    figure = lesson(90).show_answers(method, {"game": exam}, count=1)
    assert method.training
    image, truth, answer = pictures(figure)
    batch = next(exam.batches(1))
    np.testing.assert_allclose(image, batch.images[0].movedim(0, 2))
    np.testing.assert_allclose(truth, label_picture(batch.labels[0], CLASS_NAMES))
    assert np.allclose(truth[(batch.labels[0] == fss.VOID).numpy()], to_rgb(plots.VOID_COLOUR))
    assert answer.shape == (32, 64, 3)


def test_a_lesson_is_found_by_its_place_whatever_else_has_its_name(tmp_path, monkeypatch):
    for name in ("n10.py", "lessons.py"):
        (tmp_path / name).write_text("raise ImportError('the wrong one')", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    lesson.cache_clear()
    assert lesson(10).vote.difficulty == "medium"
    assert lesson(10) is lesson(10)
    assert not [name for name in sys.modules if name.startswith(("n10", "lessons", "fsslib_lesson"))]
    with pytest.raises(ValueError, match="Notebook 11 has nothing of its own; there are 0, 10"):
        lesson(11)
