"""SG-One: the paper's network by its numbers, K shots, N ways, what the released code does wrong, and that it learns.

That encode and decode equal forward, that batches do not mix, and whatever else every method must do is in
test_contract.py.
"""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from fsslib.blocks.pooling import masked_average_pooling
from fsslib.blocks.similarity import cosine_similarity_map, merge_ways
from fsslib.data.toyworld import ToyWorld
from fsslib.episodes import VOID, Episode
from fsslib.methods import build_method
from fsslib.methods.sg_one import SGOne
from fsslib.training.recipe import Recipe
from tests.methods.contract import random_episode


def tiny(**options) -> SGOne:
    torch.manual_seed(0)
    return build_method("sg_one", backbone="tiny", **options).eval()


def exit_map(method: SGOne, episode: Episode) -> torch.Tensor:
    """What the last convolution gives, before it is brought to the size of the image."""
    seen = []
    hook = method.exit.register_forward_hook(lambda module, inputs, output: seen.append(output))
    method(episode)
    hook.remove()
    return seen[0]


# The paper's network


@pytest.fixture(scope="module")
def vgg() -> SGOne:
    return build_method("sg_one", backbone="vgg16")


def test_the_network_on_vgg16_is_the_papers(vgg):
    """18,992,194 parameters, part by part as the released code makes them (the papers print 19.0 million)."""
    counts = {name: sum(p.numel() for p in part.parameters()) for name, part in vgg.named_children()}
    assert counts == {
        "backbone": 14_714_688,
        "guidance": 2_359_808,
        "side3": 295_040,
        "side4": 737_408,
        "side5": 737_408,
        "fuse": 147_584,
        "exit": 258,
    }
    assert sum(p.numel() for p in vgg.parameters() if p.requires_grad) == 18_992_194
    for layer in (vgg.guidance, vgg.side3, vgg.side4, vgg.side5, vgg.fuse, vgg.exit):
        fan_in, fan_out = (n * layer.weight[0, 0].numel() for n in (layer.in_channels, layer.out_channels))
        assert layer.weight.abs().max() <= (6 / (fan_in + fan_out)) ** 0.5  # Xavier's uniform draw
        assert layer.weight.std().item() == pytest.approx((2 / (fan_in + fan_out)) ** 0.5, rel=0.2)
        assert not layer.bias.any()


def test_the_learning_rates_of_the_release(vgg):
    """Guidance ten times the rate, biases twice, the guidance bias twenty times; every parameter in one group."""
    optimizer = Recipe.load("sg_one_paper").optimizers_of(0, vgg)["segmenter"]
    groups = {group["name"]: group for group in optimizer.param_groups}
    rates = {name: group["lr"] for name, group in groups.items()}
    expected = {"weights": 1e-5, "biases": 2e-5, "guidance_weights": 1e-4, "guidance_biases": 2e-4}
    assert rates == pytest.approx(expected)
    assert {(group["momentum"], group["weight_decay"]) for group in groups.values()} == {(0.99, 5e-4)}
    assert groups["guidance_weights"]["params"] == [vgg.guidance.weight]
    assert groups["guidance_biases"]["params"] == [vgg.guidance.bias]
    assert len(groups["weights"]["params"]) == len(groups["biases"]["params"]) == 13 + 5
    assert sum(p.numel() for group in groups.values() for p in group["params"]) == 18_992_194


@pytest.mark.parametrize(("legacy", "grid"), [(False, (47, 63)), (True, (49, 65))])
def test_grids_at_500_by_375(legacy, grid):
    """The released exit pads, so its map is two cells larger. On the meta device: shapes without VGG16's cost."""
    method = build_method("sg_one", backbone="vgg16", legacy_exit_pad=legacy).to("meta")
    episode = random_episode(batch=1, height=375, width=500).to("meta")
    grids = [tuple(stage.shape[1:]) for stage in method.backbone(episode.query_images)]
    assert grids == [(256, 47, 63), (512, 47, 63), (512, 47, 63)]
    assert exit_map(method, episode).shape == (1, 2, *grid)
    assert method(episode).shape == (1, 2, 375, 500)


@pytest.mark.parametrize("backbone", ["resnet18", "resnet50"])
def test_stages_of_different_grids_meet_on_the_last_one(backbone):
    options = {"backbone_stages": "layer1,layer2,layer3", "width": 16, "guidance_channels": 32}
    method = build_method("sg_one", backbone=backbone, **options).to("meta")
    assert method.backbone.strides == (4, 8, 8)
    assert exit_map(method, random_episode(height=33, width=64).to("meta")).shape == (2, 2, 5, 8)


def test_a_backbone_of_two_stages_and_unknown_rules_are_refused():
    with pytest.raises(ValueError, match=r"three stages.*stage3.*stage4"):
        build_method("sg_one", backbone_stages="stage3,stage4")
    with pytest.raises(ValueError, match='"mean" or "union"; found \'vote\''):
        build_method("sg_one", shots="vote")


# The equation


def test_forward_is_the_equation():
    """Pool, compare, multiply, decide; written out once more for one way and one shot."""
    method, episode = tiny(), random_episode(height=48, width=40)
    with torch.no_grad():
        first, second, third = method.backbone(episode.query_images)
        support = method.guidance(method.backbone(episode.support_images[:, 0, 0])[-1])
        prototype = masked_average_pooling(support, episode.support_masks[:, 0, 0])
        similarity = cosine_similarity_map(method.guidance(third), prototype)
        side = method.side3(first).relu()
        side = method.side4(torch.cat([side, second], 1)).relu()
        side = method.side5(torch.cat([side, third], 1))
        logits = method.exit(method.fuse(side * similarity[:, None]).relu())
        expected = F.interpolate(logits, (48, 40), mode="bilinear", align_corners=False)
        torch.testing.assert_close(method(episode), expected, rtol=1e-4, atol=1e-5)


def test_without_similarity_every_place_gets_the_same_answer():
    """Nothing but biases passes where the map is zero: the guide alone says where to look."""
    method, episode = tiny(), random_episode()
    with torch.no_grad():
        method.fuse.bias.normal_()
        empty = replace(episode, support_masks=torch.zeros_like(episode.support_masks))
        answers = exit_map(method, empty)[:, :, 1:-1, 1:-1]
        torch.testing.assert_close(answers, answers[:1, :, :1, :1].expand_as(answers))
        asked = exit_map(method, episode)[:, :, 1:-1, 1:-1]
        assert asked.flatten(2).std(2).min() > 1e-4


# Shots and ways


def test_mean_of_shots_pools_them_to_one_prototype():
    """The mean of the shots' prototypes asks the question; the same shot twice is one shot."""
    method, episode = tiny(), random_episode(shots=3)
    with torch.no_grad():
        flat = method.encode(episode.support_images.flatten(0, 2), episode.support_masks.flatten(0, 2))
        prototypes = flat["prototype"].unflatten(0, (2, 1, 3))
        query = method.encode(episode.query_images)
        merged = method.decode({"prototype": prototypes.mean(2, keepdim=True)}, query)
        torch.testing.assert_close(method(episode), merged, rtol=1e-4, atol=1e-5)
        once = _with_shots(episode, slice(0, 1))
        twice = _with_shots(episode, [0, 0])
        torch.testing.assert_close(method(twice), method(once), rtol=1e-4, atol=1e-5)


def test_union_of_shots_is_the_union_of_their_predictions():
    method, episode = tiny(shots="union"), random_episode(shots=4)
    _make_undecided(method, _with_shots(episode, slice(0, 1)))
    single = torch.stack([method.predict(_with_shots(episode, slice(k, k + 1))).labels for k in range(4)])
    assert 0 < single.float().mean() < 1
    assert not torch.equal(single[0], single[1])
    assert torch.equal(method.predict(episode).labels, single.amax(0))


def test_one_shot_is_the_same_under_both_rules():
    episode = random_episode()
    assert torch.equal(tiny(shots="mean")(episode), tiny(shots="union")(episode))


@pytest.mark.parametrize("shots", ["mean", "union"])
def test_several_ways_are_asked_one_by_one_and_merged(shots):
    method, episode = tiny(shots=shots), random_episode(ways=3, shots=2)
    with torch.no_grad():
        apart = torch.stack([method(_only_way(episode, way)) for way in range(3)], 1)
        torch.testing.assert_close(method.answers(*method.encode_both(episode)), apart, rtol=1e-4, atol=1e-4)
        expected = merge_ways(apart.softmax(2)).log()
        torch.testing.assert_close(method(episode), expected, rtol=1e-4, atol=1e-4)


def test_the_order_of_ways_is_a_matter_of_numbering():
    method, episode = tiny(), random_episode(ways=2)
    swapped = replace(
        episode, support_images=episode.support_images.flip(1), support_masks=episode.support_masks.flip(1)
    )
    with torch.no_grad():
        torch.testing.assert_close(method(swapped)[:, [0, 2, 1]], method(episode), rtol=1e-4, atol=1e-4)


def _with_shots(episode: Episode, shots) -> Episode:
    return replace(
        episode, support_images=episode.support_images[:, :, shots], support_masks=episode.support_masks[:, :, shots]
    )


def _only_way(episode: Episode, way: int) -> Episode:
    """One of the ways, as an episode with one."""
    pick = slice(way, way + 1)
    return replace(
        episode,
        support_images=episode.support_images[:, pick],
        support_masks=episode.support_masks[:, pick],
        class_ids=episode.class_ids[:, pick],
    )


def _make_undecided(method: SGOne, episode: Episode) -> None:
    """Shift a bias so that half of the pixels are foreground: an untrained network may give one answer everywhere."""
    with torch.no_grad():
        logits = method(episode)
        method.exit.bias[0] += (logits[:, 1] - logits[:, 0]).median()


# The loss


def test_the_loss_is_two_class_cross_entropy_per_way_and_void_is_in_none():
    method, episode = tiny(), random_episode(ways=2)
    with torch.no_grad():
        probability = method.answers(*method.encode_both(episode)).double().softmax(2)
        terms = []
        for way in (1, 2):
            for b, y, x in (episode.query_labels != VOID).nonzero().tolist():
                terms.append(-probability[b, way - 1, int(episode.query_labels[b, y, x] == way), y, x].log())
        assert len(terms) == 2 * 2 * 31 * 32
        assert method.losses(episode)["segmentation"].item() == pytest.approx(
            torch.stack(terms).mean().item(), rel=1e-5
        )


def test_void_pixels_of_the_query_pull_at_nothing():
    """The gradient with respect to the logits is zero there, and the loss is the mean over what is left."""
    method, episode = tiny(), random_episode()
    labels = episode.query_labels.clone()
    labels[:, 10:20] = VOID
    logits = method.answers(*method.encode_both(episode)).detach().requires_grad_()
    method.answers = lambda support, query: logits
    method.losses(replace(episode, query_labels=labels))["segmentation"].backward()
    pulled = logits.grad.abs().sum((1, 2)) > 0
    assert torch.equal(pulled, labels != VOID)


# The released code's bugs, off


def test_logits_sit_on_the_features_and_the_legacy_border_is_bias_alone():
    episode = random_episode()
    sound, legacy = tiny(), tiny(legacy_exit_pad=True)
    legacy.load_state_dict(sound.state_dict())
    with torch.no_grad():
        for method in (sound, legacy):
            method.exit.bias.copy_(torch.tensor([0.7, -0.3]))
        inside, padded = exit_map(sound, episode), exit_map(legacy, episode)
    assert inside.shape == (2, 2, 8, 8)
    assert padded.shape == (2, 2, 10, 10)
    torch.testing.assert_close(padded[:, :, 1:-1, 1:-1], inside)
    border = torch.ones(10, 10, dtype=torch.bool)
    border[1:-1, 1:-1] = False
    torch.testing.assert_close(padded[:, :, border], legacy.exit.bias.detach()[None, :, None].expand(2, 2, 36))


def test_corners_are_aligned_in_2017_where_features_are_pooled_and_where_logits_are_brought_up():
    """Each of the two on its own changes the answer; forward, encode and decode agree (test_contract.py's way)."""
    episode, sound, legacy = random_episode(shots=2), tiny(), tiny(legacy_align_corners=True)
    with torch.no_grad():
        images, masks = episode.support_images.flatten(0, 2), episode.support_masks.flatten(0, 2)
        guided = legacy.guidance(legacy.backbone(images)[-1])
        prototype = masked_average_pooling(guided, masks, align_corners=True)
        torch.testing.assert_close(legacy.encode(images, masks)["prototype"], prototype)
        assert not torch.allclose(sound.encode(images, masks)["prototype"], prototype)
        support = {"prototype": prototype.unflatten(0, (2, 1, 2))}
        query = legacy.encode(episode.query_images)
        torch.testing.assert_close(legacy(episode), legacy.decode(support, query), rtol=1e-4, atol=1e-5)
        coarse = exit_map(legacy, episode)
        torch.testing.assert_close(legacy(episode), F.interpolate(coarse, 32, mode="bilinear", align_corners=True))
        assert not torch.allclose(sound.decode(support, query), legacy.decode(support, query))


def test_the_size_of_a_mask_counts_for_its_own_image_only():
    method, episode = tiny(), random_episode(batch=2)
    masks = episode.support_masks[:, 0, 0].clone()
    masks[1] = 1
    images = episode.support_images[:, 0, 0]
    with torch.no_grad():
        together = method.encode(images, masks)["prototype"]
        alone = torch.cat([method.encode(images[i : i + 1], masks[i : i + 1])["prototype"] for i in range(2)])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)


def test_void_in_the_support_is_not_foreground():
    method, episode = tiny(), random_episode()
    with torch.no_grad():
        marked = replace(episode, support_masks=torch.where(episode.support_masks == VOID, 1, episode.support_masks))
        cleared = replace(episode, support_masks=torch.where(episode.support_masks == VOID, 0, episode.support_masks))
        assert torch.equal(method(episode), method(cleared))
        assert not torch.allclose(method(episode), method(marked))


# Learning


def test_one_episode_is_learnt_by_heart():
    """Below a fifth of the loss of not knowing (0.69) in 40 steps, and most of the object found; about two seconds."""
    source = ToyWorld()
    episode = source.episode(source.sample((1001, 1008), 2, seed="by-heart"))
    method = tiny()
    recipe = Recipe.load("sg_one")
    optimizers = recipe.optimizers_of(0, method)
    method.train()
    losses = [method.training_step(episode, optimizers)["segmentation"] for _ in range(40)]
    assert losses[0] > 0.3
    assert losses[-1] < 0.14
    predicted, truth = method.predict(episode).labels == 1, episode.query_labels == 1
    assert (predicted & truth).sum() / (predicted | truth).sum() > 0.8
