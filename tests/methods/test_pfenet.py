"""PFENet: the prior by hand, the equation, the scales' loss, the frozen backbone. 5 s. All else: test_contract.py."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from fsslib.methods.base import way_labels
from fsslib.methods.pfenet import prior_mask
from tests.methods.contract import optimizers_of, random_episode, small_method


def sized(maps, size):
    return F.interpolate(maps, size, mode="bilinear", align_corners=True)


def prior_by_hand(query: np.ndarray, support: np.ndarray) -> np.ndarray:
    """One query [C, h, w] and one support: the most alike cell of each, stretched."""
    channels, height, width = query.shape
    most = np.empty((height, width))
    for y, x in np.ndindex(height, width):
        q = query[:, y, x]
        most[y, x] = max(
            q @ s / max(np.linalg.norm(q) * np.linalg.norm(s), 1e-12) for s in support.reshape(channels, -1).T
        )
    return (most - most.min()) / (most.max() - most.min() + 1e-7)


def test_golden_priors():
    """0.9, 0.901 and 0.902 become 0, a half and 1: a flat map is stretched. No object, no prior."""
    cosines = torch.tensor([0.9, 0.901, 0.902], dtype=torch.float64)
    query = torch.stack([cosines, (1 - cosines**2).sqrt()])[None, :, None].float()
    support = torch.zeros(1, 2, 2, 1, 3)
    support[0, 0, 0, 0, 1] = 4.0
    with torch.autocast("cpu", torch.bfloat16):
        prior = prior_mask(query, support)
    torch.testing.assert_close(prior[0, 0, 0], torch.tensor([0.0, 0.5, 1.0]), atol=2e-3, rtol=0)
    assert not prior[0, 1].any()


@torch.no_grad()
def test_forward_is_the_equation():
    """One way, two shots, written out once more with the network's own layers."""
    method, episode = small_method("pfenet").eval(), random_episode(shots=2, height=48, width=40)
    first, second, high = method.backbone(episode.query_images)
    query = method.query_reduction(torch.cat([second, first], 1))
    grid, prototypes, priors = query.shape[-2:], [], []
    for k in range(2):
        mask = sized((episode.support_masks[:, 0, k] == 1).float()[:, None], grid)
        s_first, s_second, _ = method.backbone(episode.support_images[:, 0, k])
        s_high = method.backbone.network.stage4(s_second * mask) * mask
        support = method.support_reduction(torch.cat([s_second, s_first], 1))
        prototypes.append((support * mask).sum((2, 3), keepdim=True) / (mask.sum((2, 3), keepdim=True) + 5e-4))
        rows = zip(high.numpy(), s_high.numpy(), strict=True)
        priors.append(torch.tensor(np.array([prior_by_hand(q, s) for q, s in rows])).float()[:, None])
    prototype, prior = sum(prototypes) / 2, sum(priors) / 2

    found = []
    for level, size in enumerate([(12, 10), (6, 5), (3, 2), (2, 1)]):
        cells = F.adaptive_avg_pool2d(query, size)
        x = method.enrichment[level](torch.cat([cells, prototype.expand(-1, -1, *size), sized(prior, size)], 1))
        if level:
            x = x + method.between_scales[level - 1](torch.cat([x, sized(found[-1], size)], 1))
        x = x + method.within_scale[level](x)
        found.append(sized(x, grid))
    x = method.fusion(torch.cat(found, 1))
    expected = sized(method.classifier(x + method.refinement(x)), (48, 40))
    torch.testing.assert_close(method(episode), expected, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_the_loss_of_the_scales_is_the_mean_of_each_ones():
    """Two ways, each against the rest, corners aligned; void is in none of them."""
    method, episode = small_method("pfenet").eval(), random_episode(ways=2)
    maps = method._all_answers(*method.encode_both(episode))
    assert [tuple(m.shape) for m in maps] == [(2, 2, 2, n, n) for n in (8, 8, 4, 2, 1)]
    target = way_labels(episode).flatten(0, 1)
    costs = [F.cross_entropy(sized(m.flatten(0, 1), (32, 32)), target, ignore_index=255).item() for m in maps]
    losses = method.losses(episode)
    assert losses["segmentation"].item() == pytest.approx(costs[0], rel=1e-5)
    assert losses["scales"].item() == pytest.approx(np.mean(costs[1:]), rel=1e-5)


@pytest.mark.parametrize("legacy", [False, True])
def test_the_backbone_stays_as_it_is_unless_its_statistics_drift_as_released(legacy):
    method = small_method("pfenet", legacy_batch_norm=legacy).train()
    before = {name: value.clone() for name, value in method.backbone.state_dict().items()}
    method.training_step(random_episode(), optimizers_of(method))
    moved = {name for name, value in method.backbone.state_dict().items() if not torch.equal(value, before[name])}
    statistics = {name for name in before if "running" in name or "num_batches" in name}
    assert moved == (statistics if legacy else set())
    assert not any(p.requires_grad for p in method.backbone.parameters())
