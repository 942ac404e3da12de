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
from fsslib.teaching import lesson
from fsslib.teaching.widgets import Explorer

matplotlib.use("Agg")


@pytest.fixture(autouse=True)
def _no_figure_is_left_open():
    yield
    assert plt.get_fignums() == []


def size_of(explorer):
    return Image.open(io.BytesIO(explorer.picture.value)).size


def move(explorer, **values):
    for name, value in values.items():
        explorer.controls[name].value = value


def test_an_explorer_draws_once_for_each_change_and_keeps_its_picture_without_a_figure():
    drawn = []

    def draw(number):
        drawn.append(number)
        return f"at {number}", plt.figure(figsize=(1, number)) if number < 3 else None

    explorer = Explorer("Numbers", draw, {"number": (0, 5)}, number=1)
    move(explorer, number=2)
    tall = explorer.picture.value
    move(explorer, number=2)
    assert drawn == [1, 2]
    assert size_of(explorer)[1] == 2 * size_of(explorer)[0]
    move(explorer, number=4)
    assert explorer.message.value == "at 4"
    assert explorer.picture.value == tall
    assert repr(explorer) == "Numbers: run this cell in Jupyter to use it."
    slider = explorer.controls["number"]
    assert (slider.description, slider.min, slider.max, slider.continuous_update) == ("number", 0, 5, False)


@pytest.fixture(scope="module")
def walked():
    """An explorer of the toy world, and the episodes it has shown."""
    shown = []

    def truth(episode):
        shown.append(episode)
        return Prediction(episode.query_labels, episode.presence)

    return lesson(0).episode_explorer(truth, size=32), shown


@pytest.fixture
def explorer(walked):
    """Every test starts from fold 0 and its first class, in photo."""
    move(walked[0], fold=0, domain="photo", class_id=1001, support=1, query=2)
    return walked[0]


def test_it_offers_the_folds_their_classes_and_all_domains(explorer):
    assert [value for _, value in explorer.controls["fold"].options] == [0, 1, 2, 3, 4]
    assert explorer.controls["class_id"].options == tuple((CLASS_NAMES[c], c) for c in fold_classes(0))
    assert explorer.controls["domain"].options == tuple(DOMAINS)


def test_it_shows_the_episode_that_its_controls_name(explorer, walked):
    row = EpisodeRow("c1001-000003", (1001,), (("c1001-000001",),))
    expected = ToyWorld(size=32, distractors=base_classes(0)).episode([row])
    move(explorer, query=3)
    assert torch.equal(walked[1][-1].query_images, expected.query_images)
    assert torch.equal(walked[1][-1].support_masks, expected.support_masks)
    width, height = size_of(explorer)
    assert width > 2 * height


@pytest.mark.parametrize(
    ("control", "value"), [("class_id", 1003), ("support", 7), ("query", 7), ("domain", "sketch"), ("fold", 2)]
)
def test_each_control_redraws_once(explorer, walked, control, value):
    before, count = explorer.picture.value, len(walked[1])
    move(explorer, **{control: value})
    assert explorer.picture.value != before
    assert len(walked[1]) == count + 1


def test_another_domain_poses_the_same_question(explorer, walked):
    photo = walked[1][-1]
    move(explorer, domain="night")
    night = walked[1][-1]
    assert night.domain == "night"
    assert torch.equal(night.query_labels, photo.query_labels)
    assert not torch.equal(night.query_images, photo.query_images)


def test_another_fold_brings_its_classes_and_shows_the_first(explorer, walked):
    move(explorer, fold=4)
    assert [value for _, value in explorer.controls["class_id"].options] == list(fold_classes(4))
    assert walked[1][-1].class_ids.tolist() == [[fold_classes(4)[0]]]


def test_the_query_as_its_own_support_is_refused_in_words_and_moving_on_helps(explorer):
    before = explorer.picture.value
    move(explorer, query=1)
    assert "Move one" in explorer.message.value
    assert explorer.picture.value == before
    move(explorer, query=5)
    assert "covers" in explorer.message.value
    assert explorer.picture.value != before


def test_a_prediction_and_a_score_map_get_a_panel_each(explorer):
    def similarity(episode):
        return cosine_similarity_map(episode.query_images, episode.support_images[:, 0, 0].mean((2, 3)))

    plain, scored = (lesson(0).episode_explorer(similarity=one, size=32) for one in (None, similarity))
    assert size_of(explorer)[0] > 1.2 * size_of(plain)[0]
    assert size_of(scored)[0] > 1.2 * size_of(plain)[0]
    assert "IoU of the prediction in this one picture: 1.000" in explorer.message.value
    assert "IoU" not in plain.message.value
    assert repr(plain) == "Episode explorer: run this cell in Jupyter to use it."


@pytest.fixture
def mixer():
    """A memory of four random styles under images, which are features of three channels; what was seen of them."""
    images, memory, seen = ToyWorld(size=32).images(["c1001-000001", "c1001-000002"])[0], MetaMemory(3, items=4), []
    memory.store(*torch.rand(2, 4, 3, generator=torch.Generator().manual_seed(0)))
    scenes = {"first": images[:1], "second": images[1:]}
    return lesson(30).style_mixer(scenes, memory, lambda f: seen.append(f) or f.clamp(0, 1)), scenes, memory, seen


def test_the_mixer_shows_the_mix_that_its_controls_name(mixer):
    widget, scenes, memory, seen = mixer
    assert widget.controls["scene"].options == ("first", "second")
    assert widget.controls["item"].max == 3
    for scene, item, alpha in (("first", 2, 0.25), ("second", 0, 0.0)):
        move(widget, scene=scene, item=item, alpha=alpha)
        own, mixed, other = seen[-1]
        expected = [memory.enhance(scenes[scene], torch.tensor([[item, item]]), share)[0] for share in (alpha, 0.0)]
        torch.testing.assert_close(torch.stack([mixed, other]), torch.stack(expected))
        assert torch.equal(own, scenes[scene][0])
    assert not seen[-1].requires_grad
    torch.testing.assert_close(feature_statistics(other[None])[0], memory.mean[:1].detach())
    width, height = size_of(widget)
    assert width > 2 * height
    assert repr(widget) == "Style mixer: run this cell in Jupyter to use it."


@pytest.mark.parametrize(("control", "value"), [("scene", "second"), ("item", 3), ("alpha", 0.9)])
def test_each_control_of_the_mixer_redraws(mixer, control, value):
    before = mixer[0].picture.value
    move(mixer[0], **{control: value})
    assert mixer[0].picture.value != before


def test_the_mixer_names_what_the_memory_would_select(mixer):
    widget, scenes, memory, _ = mixer
    for name, features in scenes.items():
        move(widget, scene=name)
        highest, lowest = (int(memory.select(*feature_statistics(features), r)[0, 0]) for r in ("highest", "lowest"))
        assert widget.message.value == f"Most like this scene: item {highest}; least: item {lowest}."
        assert highest != lowest


def test_the_mixer_refuses_an_empty_memory():
    with pytest.raises(ValueError, match="memory is empty: store"):
        lesson(30).style_mixer({"one": torch.rand(1, 3, 8, 8)}, MetaMemory(3, items=4))


@pytest.fixture
def weights():
    """Two streets, and as the difficulty of a pixel the number of its class."""
    source = Streets("game", size=32)
    batch = source.images(source.ids[:2])
    difficulty = torch.where(batch.labels == VOID, 0, batch.labels).float()
    return lesson(60).class_weights(batch, difficulty, STREET_CLASSES), batch


def test_the_weights_of_a_class_are_those_of_its_scene(weights):
    widget, batch = weights
    assert widget.controls["class_name"].options == tuple(STREET_CLASSES.values())
    assert widget.controls["scene"].max == 1
    for scene, number in ((0, 0), (1, 2), (1, 7)):
        before = widget.picture.value
        move(widget, scene=scene, class_name=STREET_CLASSES[number])
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
        assert (widget.picture.value != before) == (number > 0)
    width, height = size_of(widget)
    assert width > 4 * height


def test_a_class_that_is_absent_or_alone_is_said_so():
    batch = LabelledImages(torch.rand(1, 3, 4, 8), torch.full((1, 4, 8), 2))
    widget = lesson(60).class_weights(batch, torch.ones(1, 4, 8), {0: "road", 1: "pavement", 2: "building"})
    assert widget.message.value == "There is no road in this scene."
    move(widget, class_name="building")
    assert widget.message.value == "building: 100.00 % of the labelled pixels, B = 0.000; S = 1.00 on average."
    assert repr(widget) == "Class weights: run this cell in Jupyter to use it."
    with pytest.raises(ValueError, match="one number is needed for each pixel"):
        lesson(60).class_weights(batch, torch.ones(1, 2, 4), {0: "road"})


def test_the_ladder_begins_with_the_rarest_class_and_says_its_numbers_and_what_was_not_run():
    shares, balance = {"road": 0.3, "sign": 0.004}, {"road": 0.7, "sign": 0.996}
    rungs = {"road": {"joint": [80.0, 90.0], "whole": []}, "sign": {"joint": [10.0], "whole": [20.0, 30.0]}}
    widget = lesson(70).class_ladder(shares, balance, rungs)
    assert widget.controls["class_name"].options == ("sign", "road")
    assert widget.message.value == "sign: 0.40 % of the pixels, B = 0.996 on average. IoU: joint 10.0, whole 25.0."
    before = widget.picture.value
    move(widget, class_name="road")
    assert widget.message.value == "road: 30.00 % of the pixels, B = 0.700 on average. IoU: joint 85.0."
    assert widget.picture.value != before
    width, height = size_of(widget)
    assert width > 2 * height
    assert repr(widget) == "Class ladder: run this cell in Jupyter to use it."
    nothing = lesson(70).class_ladder(shares, balance, {name: {"joint": []} for name in shares})
    assert nothing.message.value.endswith("IoU: not run yet.")
    with pytest.raises(ValueError, match=r"these are not in all: \['sign'\]"):
        lesson(70).class_ladder(shares, {"road": 0.7}, rungs)
