"""SG-One: its equation, first weights, the union of shots. 2 s. All else: test_parity.py, test_contract.py."""

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
