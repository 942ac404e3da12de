"""What every method must do, asked of all of them: forward, backward, odd sizes, ways and shots, saving, precision.

About 20 s.
"""

import copy
import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from fsslib.blocks.similarity import merge_ways
from fsslib.data import open_task
from fsslib.data.toyworld import ToyWorld
from fsslib.episodes import VOID
from fsslib.methods import METHODS, build_method, method_class
from fsslib.methods.base import Method, Prediction, TrainingDiverged
from fsslib.reproduction.config import ConfigError, parse
from fsslib.training.evaluate import evaluate
from fsslib.training.fit import fit
from fsslib.training.recipe import Recipe
from tests.methods.contract import (
    ALL_METHODS,
    BINARY,
    DEVICE,
    EPISODIC,
    SPLIT,
    by_heart,
    images_of,
    only,
    optimizers_of,
    random_batch,
    random_episode,
    small_method,
    with_masks,
    without_labels,
)

OWN = "tests.methods.contract:OnlyForward"
CLOSE = {"rtol": 1e-4, "atol": 1e-4}


@pytest.fixture(params=ALL_METHODS)
def name(request):
    return request.param


@pytest.fixture(params=EPISODIC)
def episodic(request):
    return request.param


@pytest.fixture(params=SPLIT)
def split(request):
    return request.param


@pytest.fixture(params=BINARY)
def binary(request):
    return request.param


# Answers


@pytest.mark.parametrize(("ways", "shots"), [(1, 1), (1, 3), (2, 1), (3, 2)])
def test_forward_and_predict_shapes(episodic, ways, shots):
    method, episode = small_method(episodic).eval(), random_episode(ways=ways, shots=shots)
    logits = method(episode)
    assert logits.shape == (2, 1 + ways, 32, 32)
    assert torch.isfinite(logits).all()
    prediction = method.predict(episode)
    assert isinstance(prediction, Prediction)
    assert prediction.labels.shape == (2, 32, 32)
    assert prediction.presence.shape == (2, ways)
    assert set(prediction.labels.unique().tolist()) <= set(range(ways + 1))


@pytest.mark.parametrize(("height", "width"), [(33, 47), (16, 50), (65, 64)])
def test_odd_sizes(name, height, width):
    method = small_method(name).eval()
    assert method(random_batch(name, height=height, width=width)).shape[-2:] == (height, width)


def test_prediction_never_looks_at_the_answer(name):
    method, batch = small_method(name).eval(), random_batch(name)
    told, untold = method.predict(batch), method.predict(without_labels(batch))
    assert torch.equal(told.labels, untold.labels)
    assert torch.equal(told.presence, untold.presence)


def test_batches_do_not_mix_in_eval_mode(name):
    method, batch = small_method(name).eval(), random_batch(name, batch=3)
    whole = method.predict(batch).scores
    single = torch.cat([method.predict(batch[i : i + 1]).scores for i in range(3)])
    torch.testing.assert_close(whole, single, **CLOSE)


@torch.no_grad()
def test_the_order_of_ways_and_shots_and_a_shot_shown_twice_change_nothing(episodic):
    method, episode = small_method(episodic).eval(), random_episode(ways=2, shots=3)
    answer = method(episode)
    torch.testing.assert_close(method(only(episode, ways=[1, 0]))[:, [0, 2, 1]], answer, **CLOSE)
    torch.testing.assert_close(method(only(episode, shots=[2, 0, 1])), answer, **CLOSE)
    torch.testing.assert_close(method(only(episode, shots=[1, 1])), method(only(episode, shots=[1])), **CLOSE)


@torch.no_grad()
def test_encode_and_decode_equal_forward(split):
    method, episode = small_method(split).eval(), random_episode(ways=2, shots=2)
    flat = method.encode(episode.support_images.flatten(0, 2), episode.support_masks.flatten(0, 2))
    support = {k: v.unflatten(0, (2, 2, 2)) for k, v in flat.items()}
    decoded = method.decode(support, method.encode(episode.query_images))
    torch.testing.assert_close(decoded, method(episode), **CLOSE)


@torch.no_grad()
def test_an_empty_support_mask_gives_a_defined_answer_that_no_support_changes(episodic):
    method, empty = small_method(episodic).eval(), with_masks(random_episode(), 1, 0)
    assert torch.isfinite(method(empty)).all()
    if episodic in BINARY:
        assert torch.equal(method(empty), method(replace(empty, support_images=1 - empty.support_images)))


@torch.no_grad()
def test_void_in_the_support_is_neither_object_nor_background(episodic):
    """Where it has both prototypes it is in neither; else only the object counts."""
    method, episode = small_method(episodic).eval(), random_episode()
    masks = episode.support_masks.clone()
    masks[..., 2:8, :] = VOID  # wide enough for the grid to see it, and some of the object
    void, one, none = (replace(episode, support_masks=masks.where(masks != VOID, v)) for v in (VOID, 1, 0))
    assert not torch.allclose(method(void), method(one))
    if episodic in BINARY:
        assert torch.equal(method(void), method(none))
    elif episodic in SPLIT:
        assert not torch.allclose(method(void), method(none))


@torch.no_grad()
def test_several_ways_are_asked_one_by_one_and_merged(binary):
    method, episode = small_method(binary).eval(), random_episode(ways=3, shots=2)
    episode.support_masks[:, 0] = 0
    for layer in method.modules():
        if isinstance(layer, torch.nn.Conv2d) and layer.out_channels == 2:
            layer.weight.mul_(100)  # untrained, all ways would get one answer, and any rule would do
    apart = torch.stack([method(only(episode, ways=[way])) for way in range(3)], 1).softmax(2)
    expected = merge_ways(apart).log()
    assert (expected - merge_ways(apart, rule="geometric").log()).abs().max() > 2e-3
    torch.testing.assert_close(method(episode), expected, **CLOSE)


# Learning


@pytest.mark.parametrize("batch", [1, 3])
def test_losses_are_named_scalars_with_gradients(episodic, batch):
    method = small_method(episodic).train()
    losses = method.losses(random_episode(batch=batch))
    assert losses
    assert all(value.ndim == 0 and torch.isfinite(value) for value in losses.values())
    sum(losses.values()).backward()
    without = [n for n, p in method.named_parameters() if p.requires_grad and p.grad is None]
    assert without == []


@torch.no_grad()
def test_the_loss_is_two_class_cross_entropy_per_way_and_void_is_in_none(binary):
    """Pixel by pixel, of what forward answers for each way alone."""
    method, episode = small_method(binary).eval(), random_episode(ways=2)
    terms = []
    for way in (1, 2):
        probability = method(only(episode, ways=[way - 1])).double().softmax(1)
        for b, y, x in (episode.query_labels != VOID).nonzero().tolist():
            terms.append(-probability[b, int(episode.query_labels[b, y, x] == way), y, x].log())
    assert len(terms) == 2 * 2 * 31 * 32
    assert method.losses(episode)["segmentation"].item() == pytest.approx(torch.stack(terms).mean().item(), rel=1e-5)


def test_every_trainable_parameter_is_in_exactly_one_group(name):
    method = small_method(name)
    grouped = [id(p) for groups in method.parameter_groups().values() for g in groups for p in g["params"]]
    assert sorted(grouped) == sorted(id(p) for p in method.parameters() if p.requires_grad)


def test_a_training_step_moves_parameters_and_what_is_saved_gives_equal_logits(name, tmp_path):
    method, batch = small_method(name).train(), random_batch(name, batch=4)
    before = copy.deepcopy(method.state_dict())
    values = method.training_step(batch, optimizers_of(method, 0.1))
    method.after_step()
    assert values
    assert all(isinstance(v, float) for v in values.values())
    assert any(not torch.equal(p, before[n]) for n, p in method.named_parameters())
    torch.save(method.state_dict(), tmp_path / "m.pt")
    fresh = build_method(name).to(DEVICE)
    fresh.load_state_dict(torch.load(tmp_path / "m.pt", weights_only=True))
    assert torch.equal(method.eval()(batch), fresh.eval()(batch))


def test_nan_is_refused_before_any_weight_moves(name):
    method, batch = small_method(name).train(), random_batch(name, batch=2)
    field = "images" if images_of(batch) is getattr(batch, "images", None) else "query_images"
    broken = replace(batch, **{field: torch.full_like(images_of(batch), float("nan"))})
    before = copy.deepcopy(dict(method.named_parameters()))
    with pytest.raises(TrainingDiverged, match="nan"):
        method.training_step(broken, optimizers_of(method, 0.1))
    assert all(torch.equal(p, before[n]) for n, p in method.named_parameters())


@pytest.mark.parametrize(
    ("name", "episodes", "rate", "steps"),
    [
        ("hsnet", 1, 0.003, 80),  # at 0.01 it leaps now and then, at steps that depend on the processor
        ("panet", 2, 0.001, 60),
        ("pfenet", 1, None, 120),
        ("prototype", 2, 0.001, 60),
        ("rtd", 2, 0.001, 60),
        ("sg_one", 2, None, 40),
    ],
)
def test_episodes_are_learnt_by_heart(name, episodes, rate, steps):
    """On random features: half the loss of knowing the object's share alone, each loss halved, most of it found."""
    source, method = ToyWorld(device=DEVICE), small_method(name)
    episode = source.episode(source.sample((1001, 1008)[:episodes], episodes, seed="by-heart"))
    recipe = Recipe.load(name) if rate is None else Recipe.load(name).with_changes(learning_rate=rate)
    frozen = {k: v.clone() for k, v in method.backbone.state_dict().items() if name in ("hsnet", "pfenet")}
    losses, found = by_heart(method, episode, recipe, steps)
    share = (episode.query_labels == 1).float().mean()
    assert losses["segmentation"][1] < 0.5 * torch.distributions.Bernoulli(share).entropy()
    assert all(last < max(first / 2, 0.01) for first, last in losses.values())
    assert found > 0.5
    assert all(torch.equal(method.backbone.state_dict()[k], v) for k, v in frozen.items())


# Number formats and devices


def test_bfloat16_stays_near_float32(name):
    method, batch = small_method(name).eval(), random_batch(name)
    full = method.predict(batch).scores.softmax(1)
    method.compute_dtype = torch.bfloat16
    low = method.predict(batch).scores
    assert low.dtype == torch.float32
    assert (low.softmax(1) - full).abs().mean() < 0.05


def test_no_tensor_is_left_on_the_wrong_device(name):
    """Shapes alone, on the meta device: a hidden move to the CPU would fail here."""
    method, batch = small_method(name).eval().to("meta"), random_batch(name).to("meta")
    assert method(batch).device.type == "meta"


# A method of your own


def test_a_method_without_parts_says_so_when_they_are_asked_for():
    method, episode = build_method(OWN), random_episode()
    with pytest.raises(NotImplementedError, match="OnlyForward does not split into encode and decode"):
        method.encode(episode.query_images)
    with pytest.raises(NotImplementedError, match="does not split"):
        Method()(episode)


def test_a_method_with_forward_alone_trains_goes_on_and_is_evaluated(tmp_path):
    """By the recipe of the prototypes, which is that of methods that have none."""
    recipe, task = Recipe.load(OWN).with_changes(steps=4), open_task("toy", targets=["night"], size=32)
    streams, classes = task.streams(batch_size=2), task.train_classes

    def train():
        torch.manual_seed(0)
        method = build_method(OWN, sharpness=5.0)
        saved = {"checkpoint": tmp_path / "last.pt", "progress": False}
        return method, fit(method, recipe, streams, classes=classes, **saved)

    method, history = train()
    assert len(history.series("segmentation")) == 4
    assert method.sharpness.item() != 5.0
    again, _ = train()
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in method.state_dict().items())
    assert evaluate(method, task.exams(4)["night"]).compute().episodes == 4


def test_a_run_takes_a_method_of_your_own_and_its_hash_names_it_as_given():
    config = parse({"method": OWN, "method_options": {"sharpness": "3"}})
    assert (config.method, config.method_options) == (OWN, {"sharpness": 3})
    assert config.run_id.startswith("toy-tests.methods.contract.OnlyForward-tiny-fold0")
    assert len({config.sha256, parse({"method": OWN}).sha256, parse({}).sha256}) == 3
    with pytest.raises(ConfigError, match="streets needs a domain adaptation method, found 'tests"):
        parse({"method": OWN, "data": "streets"})


# Names


def test_names_and_what_they_take_are_known_without_torch():
    code = "import sys; from fsslib.methods import *; print(list(filter(adapts, METHODS)), 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['pixda'] False"
    assert [name for name in METHODS if method_class(name).adapts] == ["pixda"]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("nowhere.at_all:Net", "'nowhere.at_all:Net' cannot be imported: No module named 'nowhere'.* on PYTHONPATH"),
        (".contract:Net", "cannot be imported"),
        (":Net", "there are prototype, sg_one, .*One of your own is named package.module:Class"),
        ("tests.methods.contract:", "there are prototype"),
        ("tests.methods.contract:Net", "tests.methods.contract has no method 'Net', found None; derive a class"),
        ("tests.methods.contract:Recipe", "has no method 'Recipe', found <class 'fsslib.training.recipe.Recipe'>"),
        ("tests.methods.contract:small_method", "has no method 'small_method', found <function"),
    ],
)
def test_a_name_that_leads_to_no_method_says_why(name, said):
    with pytest.raises(ValueError, match=said):
        build_method(name)
    with pytest.raises(ConfigError, match=f"method: .*{said}"):
        parse({"method": name})


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("sgone", {}, "prototype, sg_one"),
        ("sg_one", {"widht": 3}, "no option widht; it has width"),
        ("prototype", {"padding": 3}, "no option padding"),
        ("prototype", {"stages": "first"}, 'stages is "last" or "all"; found \'first\''),
        ("sg_one", {"backbone_stages": "stage3,stage4"}, "three stages.*stage3.*stage4"),
        ("sg_one", {"shots": "vote"}, '"mean" or "union"; found \'vote\''),
        ("pfenet", {"backbone_stages": "stage3,stage4"}, "three stages of one stride"),
        ("pfenet", {"backbone_stages": "stage1,stage3,stage4"}, r"one stride; .*\(2, 4, 4\)"),
        (
            "pfenet",
            {"backbone": "resnet18", "legacy_backbone": True},
            "resnet50 or resnet101 without weights.*found resnet18",
        ),
        ("rtd", {"source": "low"}, "source is one of none, lowest, random, mix; found 'low'"),
        ("rtd", {"target": "lowest"}, "target is one of none, highest, random; found 'lowest'"),
        ("rtd", {"positive": "self"}, "positive is one of twin, query; found 'self'"),
        ("rtd", {"alpha": 2}, "alpha is the share of the own style, 0 to 1; found 2"),
        ("rtd", {"memory_after": "stage5"}, "no stage 'stage5' here; it has stage1, stage2, stage3, stage4"),
        ("pixda", {"adversary": "pixels"}, "adversary is one of none, patch, pixel; found 'pixels'"),
        ("pixda", {"caffe_layout": True}, "resnet101 at stride 8; found tiny at 4. Take backbone='resnet101'"),
    ],
)
def test_unknown_options_say_what_there_is(name, options, said):
    with pytest.raises(ValueError, match=said):
        build_method(name, **options)
