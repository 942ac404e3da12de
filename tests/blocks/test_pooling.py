"""Masked average pooling: golden values, its two families, what may be in a mask; the rules that merge shots. 3 s.

The loop over pixels, gradients and number formats are in test_blocks.py.
"""

import inspect

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fsslib.blocks.pooling import background_mask, grid_weights, masked_average_pooling, merge_shots
from fsslib.episodes import VOID

FAMILIES = [(resize, corners) for resize in ("features", "mask") for corners in (False, True)]


def drawn(grid, size, *, batch=3, channels=4, seed=0, values=(0, 1, VOID)):
    """Random features in float64 and random masks."""
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(batch, channels, *grid, generator=generator, dtype=torch.float64)
    chosen = torch.randint(len(values), (batch, *size), generator=generator)
    return features, torch.tensor(values)[chosen]


# Golden values and families


@pytest.mark.parametrize(("resize", "align_corners"), FAMILIES)
def test_golden_value_of_a_two_by_two_map(resize, align_corners):
    features = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]], [[0.0, 1.0], [0.0, 1.0]]]])
    mask = torch.tensor([[[1, 0], [0, 1]]])
    options = {"resize": resize, "align_corners": align_corners}
    assert masked_average_pooling(features, mask, eps=0.0, **options).tolist() == [[2.5, 0.5]]
    assert masked_average_pooling(features, mask, **options).tolist() == [pytest.approx([2.5, 0.5], rel=1e-5)]


def test_the_two_families_differ_at_a_border_and_agree_at_equal_sizes():
    features, mask = drawn((4, 4), (16, 16), values=(0, 1))
    fine = [masked_average_pooling(features, mask, resize=resize) for resize in ("features", "mask")]
    assert (fine[0] - fine[1]).abs().max() > 0.01
    features, mask = drawn((16, 16), (16, 16), values=(0, 1))
    same = [masked_average_pooling(features, mask, resize=resize) for resize in ("features", "mask")]
    torch.testing.assert_close(*same)


# What may be in a mask


def test_a_mask_lost_on_the_way_down_gives_zeros_only_if_the_mask_is_resized():
    features = torch.ones(1, 3, 8, 8)
    mask = torch.zeros(1, 64, 64, dtype=torch.int64)
    mask[0, 0:2, 0:2] = 1  # the points read are the pixels 3 and 4 of every eight
    assert masked_average_pooling(features, mask, resize="mask").tolist() == [[0.0, 0.0, 0.0]]
    assert masked_average_pooling(features, mask, resize="features").tolist() == [pytest.approx([1.0] * 3, rel=1e-5)]


@pytest.mark.parametrize(("resize", "align_corners"), FAMILIES)
def test_void_is_in_neither_sum(resize, align_corners):
    features, mask = drawn((4, 5), (13, 20))
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
    assert torch.equal(background_mask(background_mask(mask)), mask)
    assert torch.equal(background_mask(mask.expand(4, 5, 2, 3)), background_mask(mask).expand(4, 5, 2, 3))


# Properties


@st.composite
def problems(draw):
    sizes = draw(st.tuples(*[st.integers(1, 6)] * 2)), draw(st.tuples(*[st.integers(1, 20)] * 2))
    features, mask = drawn(*sizes, seed=draw(st.integers(0, 99)))
    resize, align_corners = draw(st.sampled_from(FAMILIES))
    return features, mask, {"resize": resize, "align_corners": align_corners}


@settings(deadline=None, max_examples=60)
@given(problems(), st.floats(-5, 5))
def test_properties(problem, constant):
    features, mask, options = problem
    found = masked_average_pooling(features, mask, **options)

    # A constant comes back, and nothing from an empty mask. Features resized: each masked pixel has one vote.
    weights = grid_weights(mask, features.shape[-2:], dtype=torch.float64, **options).sum((1, 2))
    flat = masked_average_pooling(torch.full_like(features, constant), mask, **options)
    torch.testing.assert_close(flat, (constant * weights / (weights + 1e-5))[:, None].expand_as(flat))
    assert (weights[(mask != 1).all(-1).all(-1)] == 0).all()
    if options["resize"] == "features":
        torch.testing.assert_close(weights, (mask == 1).sum((1, 2)).double())

    # Between the smallest and the largest feature.
    low, high = features.flatten(2).aminmax(dim=2)
    assert (found >= low.clamp(max=0) - 1e-9).all()
    assert (found <= high.clamp(min=0) + 1e-9).all()

    # Channels and directions are exchangeable, images independent.
    channels = torch.tensor([2, 0, 3, 1])
    torch.testing.assert_close(masked_average_pooling(features[:, channels], mask, **options), found[:, channels])
    # One point in place of many is the first of them with align_corners, the middle without.
    if not (options["align_corners"] and 1 in (*features.shape[-2:], *mask.shape[-2:])):
        for axis in (-1, -2):
            torch.testing.assert_close(masked_average_pooling(features.flip(axis), mask.flip(axis), **options), found)
        torch.testing.assert_close(masked_average_pooling(features.mT, mask.mT, **options), found)
    features[1], mask[1] = 1e6, 1
    torch.testing.assert_close(masked_average_pooling(features, mask, **options)[[0, 2]], found[[0, 2]])


def test_half_precision_features_are_summed_in_float32_and_weights_under_autocast():
    features, mask = drawn((32, 32), (256, 256), values=(0, 1))
    coarse = (features + 3).half()
    found = masked_average_pooling(coarse, mask)
    assert torch.equal(found, masked_average_pooling(coarse.float(), mask).half())  # only the result is rounded
    with torch.autocast("cpu", dtype=torch.bfloat16):
        weights = grid_weights(mask, (16, 16))
    assert torch.equal(weights, grid_weights(mask, (16, 16)))


def test_an_unknown_family_is_refused():
    # The shape checks of the tests would refuse the argument before the function can.
    with pytest.raises(ValueError, match=r"resize.*found 'neither'"):
        inspect.unwrap(grid_weights)(torch.ones(1, 4, 4, dtype=torch.int64), (2, 2), resize="neither")


# K shots


def shots_of(votes, shots=5):
    """Binary predictions [1, K, 1, W] in which pixel x has `votes[x]` votes."""
    return (torch.arange(shots)[:, None] < torch.tensor(votes)).long()[None, :, None]


@pytest.mark.parametrize(
    ("votes", "vote", "majority", "union"),
    [
        ([0, 1, 2, 2, 1], [0, 1, 1, 1, 1], [0, 0, 0, 0, 0], [0, 1, 1, 1, 1]),
        ([0, 1, 3, 5, 2], [0, 0, 1, 1, 0], [0, 0, 1, 1, 0], [0, 1, 1, 1, 1]),
        ([0, 0, 0, 0, 0], [0, 0, 0, 0, 0], [0, 0, 0, 0, 0], [0, 0, 0, 0, 0]),
        ([4, 2, 1, 0, 3], [1, 1, 0, 0, 1], [1, 0, 0, 0, 1], [1, 1, 1, 0, 1]),
    ],
)
def test_golden_votes(votes, vote, majority, union):
    predictions = shots_of(votes)
    for rule, expected in {"vote": vote, "majority": majority, "union": union}.items():
        merged = merge_shots(predictions, rule=rule)
        assert merged.dtype == torch.int64
        assert merged.tolist() == [[expected]], rule


def test_the_mean_is_the_default_for_prototypes_and_for_maps():
    prototypes = torch.tensor([[[1.0, 0.0], [3.0, 4.0]]])
    assert merge_shots(prototypes).tolist() == [[2.0, 2.0]]
    maps = torch.arange(24.0).view(1, 2, 3, 4)
    torch.testing.assert_close(merge_shots(maps, rule="mean"), maps[:, 0] + 6)


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 6), st.floats(0, 1), st.integers(0, 99))
def test_rules_against_numpy_and_each_other(shots, share, seed):
    generator = torch.Generator().manual_seed(seed)
    predictions = torch.rand(2, shots, 3, 4, generator=generator) < share
    merged = {rule: merge_shots(predictions, rule=rule) for rule in ("union", "vote", "majority")}
    for image, found in zip(predictions.numpy(), merged["vote"].numpy()):
        votes = image.sum(0)
        np.testing.assert_array_equal(found, votes / max(votes.max(), 1) >= 0.5)
    np.testing.assert_array_equal(merged["union"].numpy(), predictions.numpy().any(1))
    np.testing.assert_array_equal(merged["majority"].numpy(), predictions.numpy().mean(1) > 0.5)
    assert (merged["majority"] <= merged["vote"]).all()
    assert (merged["vote"] <= merged["union"]).all()
    order = torch.randperm(shots, generator=generator)
    for rule, found in merged.items():
        assert torch.equal(merge_shots(predictions[:, order].long(), rule=rule), found)
        if shots == 1:
            assert torch.equal(found, predictions[:, 0].long())


def test_rules_that_cannot_apply_are_refused():
    with pytest.raises(ValueError, match=r"integers 0 and 1; found torch\.float32"):
        merge_shots(torch.rand(1, 5, 4, 4), rule="vote")
    with pytest.raises(ValueError, match='Unknown rule \'loudest\'; there are "mean", "union", "vote", "majority"'):
        inspect.unwrap(merge_shots)(torch.rand(1, 5, 4, 4), rule="loudest")
