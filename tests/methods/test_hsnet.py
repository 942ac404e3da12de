"""HSNet: its answers by the direct form, in pieces, the vote of its shots. 5 s. All else: test_contract.py."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from fsslib.blocks.backbones import build_backbone
from fsslib.blocks.correlation import feature_pyramid
from fsslib.blocks.pooling import merge_shots
from fsslib.blocks.similarity import merge_ways
from fsslib.methods import hsnet
from fsslib.methods.hsnet import HSNet, Learner
from tests.blocks import direct_correlation as direct
from tests.methods.contract import only, random_episode, small_method, without_memory


def test_levels_that_do_not_meet_are_refused():
    with pytest.raises(ValueError, match=r"grids of \(1, 1\) and \(2, 2\).*multiples of 32"):
        without_memory("hsnet", backbone="vgg16")(random_episode(height=264, width=264).to("meta"))
    for finer in (3, 16):
        with pytest.raises(ValueError, match=f"found {finer}"):
            Learner([(1, 1), (1, finer)], 32)


@torch.no_grad()
def test_the_answer_is_the_direct_forms():
    """The whole method against the released way of computing, on odd sizes, in a batch, with a level of each kind."""
    torch.manual_seed(0)
    method = HSNet(build_backbone("resnet18", stages=("layer1", "layer2"), output_stride=32), width=32).eval()
    episode = random_episode(height=41, width=56).to("cpu")
    masks = (episode.support_masks[:, 0, 0] == 1).float()[:, None]

    def unit(level, mask):
        masked = level * F.interpolate(mask, level.shape[-2:], mode="bilinear", align_corners=True)[:, None]
        return masked / (masked.norm(dim=2, keepdim=True) + 1e-5)

    query = [unit(level, torch.ones_like(masks)) for level in feature_pyramid(method.backbone, episode.query_images)]
    support = [unit(level, masks) for level in feature_pyramid(method.backbone, episode.support_images[:, 0, 0])]
    assert [level.shape[1] for level in query] == [2, 2]
    logits = direct.answer(method.learner, *([level.unbind(1) for level in levels] for levels in (query, support)))
    expected = F.interpolate(logits, (41, 56), mode="bilinear", align_corners=True)
    torch.testing.assert_close(method(episode), expected, rtol=1e-4, atol=1e-4)


def test_pairs_one_by_one_or_together_give_one_answer(monkeypatch):
    method, episode = small_method("hsnet").eval(), random_episode(batch=3, shots=2)
    with torch.no_grad():
        together = method(episode)
        monkeypatch.setattr(hsnet, "largest_piece", lambda device: 1)
        torch.testing.assert_close(method(episode), together, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(method(episode).detach(), together, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_shots_vote_each_on_its_own():
    """The release: votes over the largest number of votes in the image, an object from one half on."""
    torch.manual_seed(3)
    method, episode = small_method("hsnet").eval(), random_episode(batch=3, shots=5)
    episode = replace(episode, support_images=torch.rand_like(episode.support_images))
    answers = method.shot_answers(*method.encode_both(episode))
    method.learner.decoder[-1].bias[1] -= (answers[:, :, :, 1] - answers[:, :, :, 0]).median()  # half is object
    alone = [method.predict(only(episode, shots=[shot])).labels for shot in range(5)]
    found = method.predict(episode)
    votes = torch.stack(alone).sum(0).numpy()
    assert len(np.unique(votes)) > 2, "all shots agree: nothing is tested"
    expected = np.stack([image / max(image.max(), 1) >= 0.5 for image in votes])
    assert np.array_equal(found.labels.numpy(), expected)
    assert torch.equal(found.labels, merge_shots(torch.stack(alone, 1), rule="vote"))
    assert torch.equal(found.scores.argmax(1), found.labels)
    assert found.presence[:, 0].tolist() == expected.any((1, 2)).tolist()


@torch.no_grad()
def test_several_shots_are_averaged_in_logits_and_in_the_loss():
    method, episode = small_method("hsnet").eval(), random_episode(ways=2, shots=3)
    alone = [only(episode, shots=[shot]) for shot in range(3)]
    apart = [torch.stack([method(only(one, ways=[way])) for one in alone]).mean(0) for way in range(2)]
    expected = merge_ways(torch.stack(apart, 1).softmax(2)).log()
    torch.testing.assert_close(method(episode), expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(method.predict(episode).scores, expected, rtol=1e-4, atol=1e-4)
    losses = [method.losses(one)["segmentation"].item() for one in alone]
    assert method.losses(episode)["segmentation"].item() == pytest.approx(np.mean(losses), rel=1e-5)
    assert np.std(losses) > 0
