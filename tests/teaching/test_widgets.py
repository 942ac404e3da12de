"""The widgets' callbacks, driven as a reader's hand would, without a browser."""

import io

import matplotlib
import matplotlib.pyplot as plt
import pytest
import torch
from PIL import Image

from fsslib.blocks.adversarial import class_balance_map
from fsslib.blocks.memory import MetaMemory, feature_statistics
from fsslib.blocks.similarity import cosine_similarity_map
from fsslib.data.toyworld import CLASS_NAMES, DOMAINS, ToyWorld, base_classes, fold_classes
from fsslib.data.toyworld.streets import CLASS_NAMES as STREET_CLASSES
from fsslib.data.toyworld.streets import Streets
from fsslib.episodes import VOID, EpisodeRow, LabelledImages
from fsslib.methods.base import Prediction
from fsslib.teaching.widgets import class_ladder, class_weights, episode_explorer, style_mixer

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


def mixer_over(images):
    """A memory of four random styles under images, which are features of three channels."""
    memory = MetaMemory(3, items=4)
    memory.store(*torch.rand(2, 4, 3, generator=torch.Generator().manual_seed(0)))
    return style_mixer({"first": images[:1], "second": images[1:]}, memory), memory


@pytest.fixture
def two_images():
    return ToyWorld(size=32).images(["c1001-000001", "c1001-000002"])[0]


def test_the_mixer_shows_the_mix_that_its_controls_name(two_images):
    mixer, memory = mixer_over(two_images)
    assert mixer.scene.options == ("first", "second")
    assert mixer.item.max == 3
    for scene, item, alpha in (("first", 2, 0.25), ("second", 0, 0.0)):
        mixer.scene.value, mixer.item.value, mixer.alpha.value = scene, item, alpha
        features = two_images[:1] if scene == "first" else two_images[1:]
        expected = memory.enhance(features, torch.tensor([[item, item]]), alpha)
        torch.testing.assert_close(mixer.mixed, expected)
        assert not mixer.mixed.requires_grad
    torch.testing.assert_close(feature_statistics(mixer.mixed)[0], memory.mean[:1].detach())
    mixer.alpha.value = 1.0
    assert torch.equal(mixer.mixed, two_images[1:])


@pytest.mark.parametrize(("control", "value"), [("scene", "second"), ("item", 3), ("alpha", 0.9)])
def test_each_control_of_the_mixer_redraws(two_images, control, value):
    mixer, _ = mixer_over(two_images)
    before = mixer.picture.value
    getattr(mixer, control).value = value
    assert mixer.picture.value != before


def test_the_mixer_names_what_the_memory_would_select(two_images):
    mixer, memory = mixer_over(two_images)
    for name, features in (("first", two_images[:1]), ("second", two_images[1:])):
        mixer.scene.value = name
        highest, lowest = (int(memory.select(*feature_statistics(features), r)[0, 0]) for r in ("highest", "lowest"))
        assert mixer.message.value == f"Most like this scene: item {highest}; least: item {lowest}."
        assert highest != lowest


def test_the_mixer_draws_what_it_is_given_to_see_with(two_images):
    memory = mixer_over(two_images)[1]
    asked = []
    mixer = style_mixer({"one": two_images[:1]}, memory, lambda features: asked.append(features) or features.sqrt())
    assert asked[0].shape == (3, 3, 32, 32)
    assert torch.equal(asked[0][:1], two_images[:1])
    width, height = size_of(mixer)
    assert width > 2 * height
    assert repr(mixer) == "Style mixer: run this cell in Jupyter to use it."
    assert plt.get_fignums() == []


def test_the_mixer_refuses_an_empty_memory(two_images):
    with pytest.raises(ValueError, match="memory is empty: store"):
        style_mixer({"one": two_images[:1]}, MetaMemory(3, items=4))


@pytest.fixture
def weights():
    """Two streets, and as the difficulty of a pixel the number of its class."""
    source = Streets("game", size=32)
    batch = source.images(source.ids[:2])
    difficulty = torch.where(batch.labels == VOID, 0, batch.labels).float()
    return class_weights(batch, difficulty, STREET_CLASSES), batch


def test_the_weights_of_a_class_are_those_of_its_scene(weights):
    widget, batch = weights
    assert widget.class_name.options == tuple(STREET_CLASSES.values())
    assert widget.scene.max == 1
    for scene, number in ((0, 0), (1, 2), (1, 7)):
        widget.scene.value, widget.class_name.value = scene, STREET_CLASSES[number]
        labels = batch.labels[scene]
        marked, valid = labels == number, labels != VOID
        share, balance = marked.sum() / valid.sum(), class_balance_map(labels[None], 11)[0][marked]
        others = labels[valid & ~marked].float().mean()
        assert torch.all(balance == balance[0])
        torch.testing.assert_close(balance[0], 1 - share)
        assert widget.message.value == (
            f"{STREET_CLASSES[number]}: {100 * share:.2f} % of the labelled pixels, B = {balance[0]:.3f}; "
            f"S = {number:.2f} on average, {others:.2f} on all others."
        )


@pytest.mark.parametrize(("control", "value"), [("scene", 1), ("class_name", "building")])
def test_each_control_of_the_weights_redraws(weights, control, value):
    widget, _ = weights
    before = widget.picture.value
    getattr(widget, control).value = value
    assert widget.picture.value != before
    width, height = size_of(widget)
    assert width > 4 * height
    assert plt.get_fignums() == []


def test_a_class_that_is_absent_or_alone_is_said_so():
    batch = LabelledImages(torch.rand(1, 3, 4, 8), torch.full((1, 4, 8), 2))
    widget = class_weights(batch, torch.ones(1, 4, 8), {0: "road", 1: "pavement", 2: "building"})
    assert widget.message.value == "There is no road in this scene."
    widget.class_name.value = "building"
    assert widget.message.value == "building: 100.00 % of the labelled pixels, B = 0.000; S = 1.00 on average."
    assert repr(widget) == "Class weights: run this cell in Jupyter to use it."


def test_the_weights_need_a_number_for_each_pixel():
    batch = LabelledImages(torch.rand(1, 3, 4, 8), torch.zeros(1, 4, 8, dtype=torch.int64))
    with pytest.raises(ValueError, match="one number is needed for each pixel"):
        class_weights(batch, torch.ones(1, 2, 4), {0: "road"})


SHARES, BALANCE = {"road": 0.3, "sign": 0.004}, {"road": 0.7, "sign": 0.996}
RUNGS = {"road": {"joint": [80.0, 90.0], "whole": []}, "sign": {"joint": [10.0], "whole": [20.0, 30.0]}}


def test_the_ladder_begins_with_the_rarest_class_and_says_its_numbers():
    widget = class_ladder(SHARES, BALANCE, RUNGS)
    assert widget.class_name.options == ("sign", "road")
    assert widget.message.value == ("sign: 0.40 % of the pixels, B = 0.996 on average. IoU: joint 10.0, whole 25.0.")
    before = widget.picture.value
    widget.class_name.value = "road"
    assert widget.message.value == "road: 30.00 % of the pixels, B = 0.700 on average. IoU: joint 85.0."
    assert widget.picture.value != before
    width, height = size_of(widget)
    assert width > 2 * height
    assert repr(widget) == "Class ladder: run this cell in Jupyter to use it."
    assert plt.get_fignums() == []


def test_the_ladder_says_what_was_not_run():
    widget = class_ladder(SHARES, BALANCE, {name: {"joint": []} for name in SHARES})
    assert widget.message.value.endswith("IoU: not run yet.")


def test_the_ladder_refuses_classes_that_are_not_in_all():
    with pytest.raises(ValueError, match=r"these are not in all: \['sign'\]"):
        class_ladder(SHARES, {"road": 0.7}, RUNGS)
