"""What may be in a mask that pools, and the rules that merge shots. 1 s.

Pooling in a loop over pixels, gradients, number formats and what is refused are in test_blocks.py.
"""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fsslib.blocks.pooling import background_mask, grid_weights, masked_average_pooling, merge_shots
from fsslib.episodes import VOID

FAMILIES = [(resize, corners) for resize in ("features", "mask") for corners in (False, True)]


# What may be in a mask


@pytest.mark.parametrize(("resize", "align_corners"), FAMILIES)
def test_void_is_in_neither_sum(resize, align_corners):
    features, mask = torch.randn(3, 4, 4, 5), torch.tensor([0, 1, VOID])[torch.randint(3, (3, 13, 20))]
    options = {"resize": resize, "align_corners": align_corners}

    def only(value):
        return masked_average_pooling(features, (mask == value).long(), **options)

    torch.testing.assert_close(masked_average_pooling(features, mask, **options), only(1))
    torch.testing.assert_close(masked_average_pooling(features, background_mask(mask), **options), only(0))
    shares = [grid_weights(m, (4, 5), **options) for m in (mask, background_mask(mask), (mask == VOID).long())]
    everywhere = grid_weights(torch.ones_like(mask), (4, 5), **options)
    torch.testing.assert_close(sum(shares), everywhere)


def test_background_mask_swaps_zero_and_one_and_keeps_void():
    mask = torch.tensor([[0, 1, VOID], [1, 0, VOID]])
    assert background_mask(mask).tolist() == [[1, 0, VOID], [0, 1, VOID]]


# K shots


def test_the_mean_is_the_default_for_prototypes_and_for_maps():
    prototypes = torch.tensor([[[1.0, 0.0], [3.0, 4.0]]])
    assert merge_shots(prototypes).tolist() == [[2.0, 2.0]]
    maps = torch.arange(24.0).view(1, 2, 3, 4)
    torch.testing.assert_close(merge_shots(maps, rule="mean"), maps[:, 0] + 6)


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 6), st.floats(0, 1), st.integers(0, 99))
def test_rules_against_numpy(shots, share, seed):
    generator = torch.Generator().manual_seed(seed)
    predictions = torch.rand(2, shots, 3, 4, generator=generator) < share
    merged = {rule: merge_shots(predictions, rule=rule) for rule in ("union", "vote", "majority")}
    for image, found in zip(predictions.numpy(), merged["vote"].numpy()):
        votes = image.sum(0)
        np.testing.assert_array_equal(found, votes / max(votes.max(), 1) >= 0.5)
    np.testing.assert_array_equal(merged["union"].numpy(), predictions.numpy().any(1))
    np.testing.assert_array_equal(merged["majority"].numpy(), predictions.numpy().mean(1) > 0.5)
    assert {found.dtype for found in merged.values()} == {torch.int64}
