"""The widgets' callbacks, driven as a reader's hand would, without a browser."""

import io

import matplotlib
import matplotlib.pyplot as plt
import pytest
import torch
from PIL import Image

import fsslib as fss
from fsslib.data.toyworld import CLASS_NAMES, DOMAINS, base_classes, fold_classes
from fsslib.data.toyworld.streets import CLASS_NAMES as STREET_CLASSES
from fsslib.episodes import LabelledImages
from fsslib.methods.base import Prediction
from fsslib.teaching import lesson
from fsslib.teaching.widgets import Explorer

matplotlib.use("Agg")


@pytest.fixture(autouse=True)
def _no_figure_is_left_open():
    yield
    assert plt.get_fignums() == []


def width_of(explorer):
    """The picture's width, in heights."""
    width, height = Image.open(io.BytesIO(explorer.picture.value)).size
    return width / height


def move(explorer, **values) -> bool:
    """Set controls; whether that changed the picture."""
    before = explorer.picture.value
    for name, value in values.items():
        explorer.controls[name].value = value
    return explorer.picture.value != before


def test_an_explorer_draws_once_for_each_change_and_keeps_its_picture_without_a_figure():
    drawn = []

    def draw(number):
        drawn.append(number)
        return f"at {number}", plt.figure(figsize=(1, number)) if number < 3 else None

    explorer = Explorer("Numbers", draw, {"number": (0, 5)}, number=1)
    assert move(explorer, number=2)
    assert not move(explorer, number=2)
    assert (drawn, width_of(explorer)) == ([1, 2], 0.5)
    assert not move(explorer, number=4)
    assert (explorer.message.value, repr(explorer)) == ("at 4", "Numbers: run this cell in Jupyter to use it.")
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


def test_it_offers_what_there_is_and_shows_the_episode_that_its_controls_name(explorer, walked):
    assert [value for _, value in explorer.controls["fold"].options] == [0, 1, 2, 3, 4]
    assert explorer.controls["class_id"].options == tuple((CLASS_NAMES[c], c) for c in fold_classes(0))
    assert explorer.controls["domain"].options == tuple(DOMAINS)
    row = fss.EpisodeRow("c1001-000003", (1001,), (("c1001-000001",),))
    expected = fss.ToyWorld(size=32, distractors=base_classes(0)).episode([row])
    assert move(explorer, query=3)
    assert torch.equal(walked[1][-1].query_images, expected.query_images)
    assert torch.equal(walked[1][-1].support_masks, expected.support_masks)
    assert width_of(explorer) > 2


@pytest.mark.parametrize("moved", [{"class_id": 1003}, {"support": 7}, {"query": 7}, {"domain": "sketch"}, {"fold": 4}])
def test_each_control_redraws_once(explorer, walked, moved):
    before, count = walked[1][-1], len(walked[1])
    assert move(explorer, **moved)
    assert len(walked[1]) == count + 1
    shown = walked[1][-1]
    if "domain" in moved:  # the same question in another look
        assert shown.domain == "sketch"
        assert torch.equal(shown.query_labels, before.query_labels)
        assert not torch.equal(shown.query_images, before.query_images)
    if "fold" in moved:  # its classes, and the first of them
        assert [value for _, value in explorer.controls["class_id"].options] == list(fold_classes(4))
        assert shown.class_ids.tolist() == [[fold_classes(4)[0]]]


def test_the_query_as_its_own_support_is_refused_in_words_and_moving_on_helps(explorer):
    assert not move(explorer, query=1)
    assert "Move one" in explorer.message.value
    assert move(explorer, query=5)
    assert "covers" in explorer.message.value


def test_a_prediction_and_a_score_map_get_a_panel_each(explorer):
    def similarity(episode):
        return fss.cosine_similarity_map(episode.query_images, episode.support_images[:, 0, 0].mean((2, 3)))

    plain, scored = (lesson(0).episode_explorer(similarity=one, size=32) for one in (None, similarity))
    assert min(width_of(explorer), width_of(scored)) > 1.2 * width_of(plain)
    assert "IoU of the prediction in this one picture: 1.000" in explorer.message.value
    assert "IoU" not in plain.message.value
    assert repr(plain) == "Episode explorer: run this cell in Jupyter to use it."


def test_the_mixer_shows_the_mix_that_its_controls_name_and_what_the_memory_would_select():
    """A memory of four random styles under images, which are features of three channels."""
    images, memory, seen = fss.ToyWorld(size=32).images(["c1001-000001", "c1001-000002"])[0], fss.MetaMemory(3, 4), []
    memory.store(*torch.rand(2, 4, 3, generator=torch.Generator().manual_seed(0)))
    scenes = {"first": images[:1], "second": images[1:]}
    widget = lesson(30).style_mixer(scenes, memory, lambda f: seen.append(f) or f.clamp(0, 1))
    assert (widget.controls["scene"].options, widget.controls["item"].max) == (("first", "second"), 3)
    for moved in ({"scene": "second"}, {"item": 3}, {"alpha": 0.9}, {"scene": "first", "item": 2, "alpha": 0.25}):
        assert move(widget, **moved)
        scene, item, alpha = (widget.controls[name].value for name in ("scene", "item", "alpha"))
        index, features = torch.tensor([[item, item]]), scenes[scene]
        expected = [features, *(memory.enhance(features, index, share) for share in (alpha, 0.0))]
        torch.testing.assert_close(seen[-1], torch.cat(expected))
        choices = (memory.select(*fss.feature_statistics(features), rule)[0, 0] for rule in ("highest", "lowest"))
        assert widget.message.value == "Most like this scene: item {}; least: item {}.".format(*map(int, choices))
    assert not seen[-1].requires_grad
    assert width_of(widget) > 2
    assert repr(widget) == "Style mixer: run this cell in Jupyter to use it."
    with pytest.raises(ValueError, match="memory is empty: store"):
        lesson(30).style_mixer(scenes, fss.MetaMemory(3, 4))


def test_the_weights_of_a_class_are_those_of_its_scene_absent_or_alone():
    source = fss.Streets("game", size=32)
    batch = source.images(source.ids[:2])
    difficulty = batch.labels.where(batch.labels != fss.VOID, 0).float()  # of each pixel the number of its class
    widget = lesson(60).class_weights(batch, difficulty, STREET_CLASSES)
    assert widget.controls["class_name"].options == tuple(STREET_CLASSES.values())
    assert widget.controls["scene"].max == 1
    for scene, number in ((1, 2), (1, 7), (0, 0)):
        assert move(widget, scene=scene, class_name=STREET_CLASSES[number])
        labels = batch.labels[scene]
        marked, valid = labels == number, labels != fss.VOID
        share, others = marked.sum() / valid.sum(), labels[valid & ~marked].float().mean()
        assert widget.message.value == (
            f"{STREET_CLASSES[number]}: {100 * share:.2f} % of the labelled pixels, B = {1 - share:.3f}; "
            f"S = {number:.2f} on average, {others:.2f} on all others."
        )
    assert width_of(widget) > 4
    assert repr(widget) == "Class weights: run this cell in Jupyter to use it."

    alone = LabelledImages(torch.rand(1, 3, 4, 8), torch.full((1, 4, 8), 2))
    widget = lesson(60).class_weights(alone, torch.ones(1, 4, 8), {0: "road", 1: "pavement", 2: "building"})
    assert widget.message.value == "There is no road in this scene."
    move(widget, class_name="building")
    assert widget.message.value == "building: 100.00 % of the labelled pixels, B = 0.000; S = 1.00 on average."
    with pytest.raises(ValueError, match="one number is needed for each pixel"):
        lesson(60).class_weights(alone, torch.ones(1, 2, 4), {0: "road"})


def test_the_ladder_begins_with_the_rarest_class_and_says_its_numbers_and_what_was_not_run():
    shares, balance = {"road": 0.3, "sign": 0.004}, {"road": 0.7, "sign": 0.996}
    rungs = {"road": {"joint": [80.0, 90.0], "whole": []}, "sign": {"joint": [10.0], "whole": [20.0, 30.0]}}
    widget = lesson(70).class_ladder(shares, balance, rungs)
    assert widget.controls["class_name"].options == ("sign", "road")
    assert widget.message.value == "sign: 0.40 % of the pixels, B = 0.996 on average. IoU: joint 10.0, whole 25.0."
    assert move(widget, class_name="road")
    assert widget.message.value == "road: 30.00 % of the pixels, B = 0.700 on average. IoU: joint 85.0."
    assert width_of(widget) > 2
    assert repr(widget) == "Class ladder: run this cell in Jupyter to use it."
    nothing = lesson(70).class_ladder(shares, balance, {name: {"joint": []} for name in shares})
    assert nothing.message.value.endswith("IoU: not run yet.")
    with pytest.raises(ValueError, match=r"these are not in all: \['sign'\]"):
        lesson(70).class_ladder(shares, {"road": 0.7}, rungs)
