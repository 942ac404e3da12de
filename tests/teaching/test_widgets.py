"""The explorer's callbacks, driven as a reader's hand would, without a browser."""

import io

import matplotlib
import matplotlib.pyplot as plt
import pytest
import torch
from PIL import Image

from fsslib.blocks.similarity import cosine_similarity_map
from fsslib.data.toyworld import CLASS_NAMES, DOMAINS, ToyWorld, base_classes, fold_classes
from fsslib.episodes import EpisodeRow
from fsslib.methods.base import Prediction
from fsslib.teaching.widgets import episode_explorer

matplotlib.use("Agg")


def size_of(explorer):
    return Image.open(io.BytesIO(explorer.picture.value)).size


@pytest.fixture(scope="module")
def explorer():
    return episode_explorer(size=32)


@pytest.fixture(autouse=True)
def _as_it_began(explorer):
    """Every test starts from fold 0 and its first class, in photo."""
    explorer.fold.value, explorer.domain.value = 0, "photo"
    explorer.class_id.value, explorer.support.value, explorer.query.value = 1001, 1, 2


def test_it_offers_the_folds_their_classes_and_all_domains(explorer):
    assert [value for _, value in explorer.fold.options] == [0, 1, 2, 3, 4]
    assert explorer.class_id.options == tuple((CLASS_NAMES[c], c) for c in fold_classes(0))
    assert explorer.domain.options == tuple(DOMAINS)


def test_it_shows_the_episode_that_its_controls_name(explorer):
    row = EpisodeRow("c1001-000002", (1001,), (("c1001-000001",),))
    expected = ToyWorld(size=32, distractors=base_classes(0)).episode([row])
    assert torch.equal(explorer.episode.query_images, expected.query_images)
    assert torch.equal(explorer.episode.support_masks, expected.support_masks)
    width, height = size_of(explorer)
    assert width > 2 * height


@pytest.mark.parametrize(
    ("control", "value"), [("class_id", 1003), ("support", 7), ("query", 7), ("domain", "sketch"), ("fold", 2)]
)
def test_each_control_redraws(explorer, control, value):
    before, episode = explorer.picture.value, explorer.episode
    getattr(explorer, control).value = value
    assert explorer.picture.value != before
    assert explorer.episode is not episode


def test_another_domain_poses_the_same_question(explorer):
    photo = explorer.episode
    explorer.domain.value = "night"
    assert explorer.episode.domain == "night"
    assert torch.equal(explorer.episode.query_labels, photo.query_labels)
    assert not torch.equal(explorer.episode.query_images, photo.query_images)


def test_another_fold_brings_its_classes_and_shows_the_first(explorer):
    explorer.fold.value = 4
    assert [value for _, value in explorer.class_id.options] == list(fold_classes(4))
    assert explorer.episode.class_ids.tolist() == [[fold_classes(4)[0]]]


def test_the_query_as_its_own_support_is_refused_in_words_and_moving_on_helps(explorer):
    before = explorer.picture.value
    explorer.query.value = explorer.support.value
    assert "Move one" in explorer.message.value
    assert explorer.picture.value == before
    explorer.query.value = 5
    assert "covers" in explorer.message.value
    assert explorer.picture.value != before


def test_a_prediction_and_a_score_map_get_a_panel_each(explorer):
    def truth(episode):
        return Prediction(episode.query_labels, episode.presence)

    def similarity(episode):
        return cosine_similarity_map(episode.query_images, episode.support_images[:, 0, 0].mean((2, 3)))

    with_both = episode_explorer(truth, similarity=similarity, size=32)
    assert size_of(with_both)[0] > 1.3 * size_of(explorer)[0]
    assert "IoU of the prediction in this one picture: 1.000" in with_both.message.value
    assert "IoU" not in explorer.message.value


def test_what_a_reader_sees_without_a_kernel_and_no_figure_is_left_open(explorer):
    assert repr(explorer) == "Episode explorer: run this cell in Jupyter to use it."
    assert plt.get_fignums() == []
