"""The two losses on prototypes: when they cost nothing, extreme temperatures, zero prototypes, sizes. 1 s.

Their definitions in NumPy are in test_blocks.py.
"""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from fsslib.blocks.contrast import prototype_contrastive_loss, prototype_segmentation_loss
from fsslib.episodes import VOID

# Telling images apart


@pytest.mark.parametrize("symmetric", [True, False])
def test_nothing_to_push_from_costs_nothing(symmetric):
    for batch, ids in ((1, None), (5, torch.full((5,), 7))):
        anchors, positives = torch.randn(batch, 5, requires_grad=True), torch.randn(batch, 5)
        loss = prototype_contrastive_loss(anchors, positives, ids, symmetric=symmetric)
        assert loss == 0
        loss.backward()
        assert (anchors.grad == 0).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_extreme_temperature_is_harmless(dtype):
    """Logits of 10,000: the right answer costs nothing, the opposite one their difference, with finite gradients."""
    anchors, positives = torch.eye(4).to(dtype).requires_grad_(), torch.eye(4).to(dtype)
    loss = prototype_contrastive_loss(anchors, positives, temperature=1e-4)
    assert loss.dtype == torch.float32
    assert loss == 0
    wrong = prototype_contrastive_loss(anchors, positives.roll(1, 0), temperature=1e-4)
    assert wrong.item() == pytest.approx(10_000)
    wrong.backward()
    assert torch.isfinite(anchors.grad).all()


def test_a_zero_prototype_is_unlike_everything():
    nothing = torch.zeros(3, 5)
    assert prototype_contrastive_loss(nothing, nothing, temperature=1.0).item() == pytest.approx(np.log(5))


# Telling an object from its background


def test_logits_are_brought_to_the_size_of_the_labels():
    features, foreground, background = (torch.randn(*shape) for shape in ((2, 4, 4, 4), (2, 4), (2, 4)))
    labels = torch.tensor([0, 1, VOID])[torch.randint(3, (2, 16, 16))]
    pairs = [F.cosine_similarity(features, p[:, :, None, None], dim=1) for p in (background, foreground)]
    large = F.interpolate(20 * torch.stack(pairs, 1), (16, 16), mode="bilinear", align_corners=False)
    expected = F.cross_entropy(large, labels, ignore_index=VOID)
    torch.testing.assert_close(prototype_segmentation_loss(features, foreground, background, labels), expected)
