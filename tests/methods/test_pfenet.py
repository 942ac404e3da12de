"""PFENet: its prior, the loss of its scales, the frozen backbone. 2 s. All else: test_parity.py, test_contract.py."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from fsslib.methods.base import way_labels
from fsslib.methods.pfenet import prior_mask
from tests.methods.contract import optimizers_of, random_episode, small_method


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


@pytest.mark.parametrize("cells", [slice(0, 0), slice(2, 5), slice(0, 9)], ids=["none", "some", "all"])
def test_a_prior_is_the_largest_cosine_over_all_cells_those_outside_the_object_too(cells):
    """Features of both signs: a cell whose every cosine with the object is below 0 is most alike to what is outside."""
    torch.manual_seed(0)
    query, support = torch.randn(2, 4, 3, 3), torch.zeros(2, 1, 4, 9)
    support[..., cells] = torch.randn(4, 9)[:, cells]
    cosines = F.cosine_similarity(query.flatten(2)[:, :, :, None], support[:, 0][:, :, None], dim=1)
    most = cosines.amax(2)
    low, high = most.amin(1, keepdim=True), most.amax(1, keepdim=True)
    expected = ((most - low) / (high - low + 1e-7)).view(2, 1, 3, 3)
    torch.testing.assert_close(prior_mask(query, support.view(2, 1, 4, 3, 3)), expected, atol=1e-5, rtol=0)


@torch.no_grad()
def test_the_loss_of_the_scales_is_the_mean_of_each_ones():
    """Two ways, each against the rest, corners aligned; void is in none of them."""
    method, episode = small_method("pfenet").eval(), random_episode(ways=2)
    maps = method._all_answers(*method.encode_both(episode))
    assert [tuple(m.shape) for m in maps] == [(2, 2, 2, n, n) for n in (8, 8, 4, 2, 1)]
    target = way_labels(episode).flatten(0, 1)
    large = [F.interpolate(m.flatten(0, 1), (32, 32), mode="bilinear", align_corners=True) for m in maps]
    costs = [F.cross_entropy(logits, target, ignore_index=255).item() for logits in large]
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
