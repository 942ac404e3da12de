"""SG-One: its equation, its first weights, K shots, what the release does wrong. 2 s. All else: test_contract.py."""

import pytest
import torch
import torch.nn.functional as F

from fsslib.blocks.pooling import masked_average_pooling
from fsslib.blocks.similarity import cosine_similarity_map, merge_ways
from fsslib.episodes import Episode
from fsslib.methods.sg_one import SGOne
from tests.methods.contract import only, random_episode, small_method, without_memory


def tiny(**options) -> SGOne:
    return small_method("sg_one", **options).eval()


def exit_map(method: SGOne, episode: Episode) -> torch.Tensor:
    """What the last convolution gives, before it is brought to the size of the image."""
    seen = []
    hook = method.exit.register_forward_hook(lambda module, inputs, output: seen.append(output))
    method(episode)
    hook.remove()
    return seen[0]


@pytest.mark.parametrize("backbone", ["resnet18", "resnet50"])
def test_stages_of_different_grids_meet_on_the_last_one(backbone):
    options = {"backbone_stages": "layer1,layer2,layer3", "width": 16, "guidance_channels": 32}
    method = without_memory("sg_one", backbone=backbone, **options)
    assert method.backbone.strides == (4, 8, 8)
    assert exit_map(method, random_episode(height=33, width=64).to("meta")).shape == (2, 2, 5, 8)


def test_layers_begin_with_xaviers_uniform_draw():
    method = tiny(width=128, guidance_channels=256)
    for layer in (method.guidance, method.side3, method.side4, method.side5, method.fuse):
        fans = (layer.in_channels + layer.out_channels) * layer.weight[0, 0].numel()
        assert layer.weight.abs().max() <= (6 / fans) ** 0.5
        assert layer.weight.std().item() == pytest.approx((2 / fans) ** 0.5, rel=0.05)
        assert not layer.bias.any()


@torch.no_grad()
def test_forward_is_the_equation():
    """Pool, compare, multiply, decide; written out once more for one way and one shot."""
    method, episode = tiny(), random_episode(height=48, width=40)
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


# Shots


@torch.no_grad()
def test_mean_of_shots_pools_them_to_one_prototype():
    method, episode = tiny(), random_episode(shots=3)
    support, query = method.encode_both(episode)
    merged = method.decode({"prototype": support["prototype"].mean(2, keepdim=True)}, query)
    torch.testing.assert_close(method(episode), merged, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_union_of_shots_is_the_union_of_their_predictions():
    method, episode = tiny(shots="union"), random_episode(ways=2, shots=4)
    logits = method(only(episode, ways=[0], shots=[0]))
    method.exit.bias[0] += (logits[:, 1] - logits[:, 0]).median()  # untrained, it may give one answer everywhere
    one = only(episode, ways=[0])
    single = torch.stack([method.predict(only(one, shots=[k])).labels for k in range(4)])
    assert 0 < single.float().mean() < 1
    assert not torch.equal(single[0], single[1])
    assert torch.equal(method.predict(one).labels, single.amax(0))
    apart = torch.stack([method(only(episode, ways=[way])) for way in range(2)], 1)
    torch.testing.assert_close(method(episode), merge_ways(apart.softmax(2)).log(), rtol=1e-4, atol=1e-4)
    assert torch.equal(tiny()(only(one, shots=[0])), tiny(shots="union")(only(one, shots=[0])))


# Void, and the released code's bugs, off


@torch.no_grad()
def test_logits_sit_on_the_features_and_the_legacy_border_is_bias_alone():
    episode, sound, legacy = random_episode(), tiny(), tiny(legacy_exit_pad=True)
    legacy.load_state_dict(sound.state_dict())
    for method in (sound, legacy):
        method.exit.bias.copy_(torch.tensor([0.7, -0.3]))
    inside, padded = exit_map(sound, episode), exit_map(legacy, episode)
    assert inside.shape == (2, 2, 8, 8)
    assert padded.shape == (2, 2, 10, 10)
    torch.testing.assert_close(padded[:, :, 1:-1, 1:-1], inside)
    border = torch.ones(10, 10, dtype=torch.bool)
    border[1:-1, 1:-1] = False
    torch.testing.assert_close(padded[:, :, border], legacy.exit.bias.detach()[None, :, None].expand(2, 2, 36))


@torch.no_grad()
def test_corners_are_aligned_in_2017_where_features_are_pooled_and_where_logits_are_brought_up():
    """Each of the two on its own changes the answer."""
    episode, sound, legacy = random_episode(shots=2), tiny(), tiny(legacy_align_corners=True)
    images, masks = episode.support_images.flatten(0, 2), episode.support_masks.flatten(0, 2)
    guided = legacy.guidance(legacy.backbone(images)[-1])
    prototype = masked_average_pooling(guided, masks, align_corners=True)
    torch.testing.assert_close(legacy.encode(images, masks)["prototype"], prototype)
    assert not torch.allclose(sound.encode(images, masks)["prototype"], prototype)
    support, query = {"prototype": prototype.unflatten(0, (2, 1, 2))}, legacy.encode(episode.query_images)
    torch.testing.assert_close(legacy(episode), legacy.decode(support, query), rtol=1e-4, atol=1e-5)
    coarse = exit_map(legacy, episode)
    torch.testing.assert_close(legacy(episode), F.interpolate(coarse, 32, mode="bilinear", align_corners=True))
    assert not torch.allclose(sound.decode(support, query), legacy.decode(support, query))
