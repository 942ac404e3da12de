"""The cosine map and the merging of ways: golden values, limits, zero vectors, thresholds. 1 s.

The definition in NumPy, gradients and precision are in test_blocks.py.
"""

import inspect

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from fsslib.blocks.similarity import cosine_similarity_map, merge_ways, prototype_logits

GOLDEN_FEATURES = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]], [[0.0, 1.0], [0.0, 1.0]]]])
GOLDEN_PROTOTYPE = torch.tensor([[2.5, 0.5]])
GOLDEN_MAP = torch.tensor([[[0.980581, 0.964764], [0.980581, 0.998868]]])

shapes = st.tuples(st.integers(1, 3), st.integers(1, 9), st.integers(1, 6), st.integers(1, 6))


def drawn(shape, seed, dtype=torch.float32):
    """Features and prototypes of a shape [B, C, h, w]."""
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(shape, generator=generator, dtype=torch.float64)
    prototype = torch.randn(shape[:2], generator=generator, dtype=torch.float64)
    return features.to(dtype), prototype.to(dtype)


# The cosine map


def test_golden_map():
    found = cosine_similarity_map(GOLDEN_FEATURES, GOLDEN_PROTOTYPE)
    torch.testing.assert_close(found, GOLDEN_MAP, rtol=0, atol=1e-6)


def test_equals_torch_for_small_and_zero_vectors_too():
    features, prototype = drawn((2, 5, 4, 3), 0)
    features[0] *= 1e-9
    features[1, :, 0] = 0
    expected = F.cosine_similarity(features, prototype[:, :, None, None], dim=1, eps=1e-8)
    torch.testing.assert_close(cosine_similarity_map(features, prototype), expected)


@settings(deadline=None, max_examples=40)
@given(shape=shapes, seed=st.integers(0, 2**31), up=st.floats(1e-6, 1e6), down=st.floats(0.01, 100))
def test_it_lies_in_minus_one_to_one_and_length_does_not_count(shape, seed, up, down):
    features, prototype = drawn(shape, seed, torch.float64)
    plain = cosine_similarity_map(features, prototype)
    assert plain.abs().max() <= 1 + 1e-6
    torch.testing.assert_close(cosine_similarity_map(up * features, down * prototype), plain)
    torch.testing.assert_close(cosine_similarity_map(-features, prototype), -plain)


def test_zero_vectors_give_zero_and_finite_gradients():
    features, prototype = drawn((2, 3, 2, 2), 2)
    features[0, :, 0, 0] = 0
    prototype[1] = 0
    features.requires_grad_()
    prototype.requires_grad_()
    similarity = cosine_similarity_map(features, prototype)
    assert similarity[0, 0, 0] == 0
    assert (similarity[1] == 0).all()
    assert similarity[0, 1, 1] != 0
    similarity.sum().backward()
    assert torch.isfinite(features.grad).all()
    assert torch.isfinite(prototype.grad).all()


def test_the_cosine_of_bfloat16_features_is_not_rounded_again():
    """Cosines of 0.999 and 0.998 are one number in bfloat16, and the tie would go to the background."""
    ones = torch.ones(1, 2, 1, 1, dtype=torch.bfloat16)
    near = [torch.tensor([[1.0, beside]], dtype=torch.bfloat16) for beside in (0.875, 0.9375)]
    background, foreground = prototype_logits(ones, near[1], near[0])[0]
    assert background < foreground
    assert background.bfloat16() == foreground.bfloat16()


# Merging ways


def one_believed(probability, ways):
    """One pixel: the first way at `probability`, the others at 0; [1, N, 2, 1, 1]."""
    foreground = torch.zeros(ways, dtype=torch.float64)
    foreground[0] = probability
    return torch.stack([1 - foreground, foreground], 1)[None, :, :, None, None]


ARITHMETIC = {1: 0.500, 2: 0.667, 3: 0.750, 4: 0.800, 5: 0.833}
GEOMETRIC = {1: 0.500, 2: 0.618, 3: 0.682, 4: 0.724, 5: 0.755}


@pytest.mark.parametrize("ways", range(1, 6))
@pytest.mark.parametrize(("rule", "thresholds"), [("arithmetic", ARITHMETIC), ("geometric", GEOMETRIC)])
def test_how_sure_one_way_must_be(rule, thresholds, ways):
    """Just below the threshold the background wins, just above it the way does."""
    for offset, winner in ((-0.001, 0), (0.001, 1)):
        scores = merge_ways(one_believed(thresholds[ways] + offset, ways), rule=rule)
        assert scores.shape == (1, 1 + ways, 1, 1)
        assert scores.argmax(1).item() == winner


@settings(deadline=None, max_examples=30)
@given(probability=st.floats(1e-6, 1 - 1e-6))
def test_the_rules_agree_for_one_way(probability):
    binary = one_believed(probability, 1)
    arithmetic, geometric = (merge_ways(binary, rule=rule) for rule in ("arithmetic", "geometric"))
    torch.testing.assert_close(arithmetic, binary[:, 0])
    torch.testing.assert_close(geometric, binary[:, 0])


def test_two_ways_by_hand():
    foreground = torch.tensor([0.98, 0.0025], dtype=torch.float64)
    binary = torch.stack([1 - foreground, foreground], 1)[None, :, :, None, None]
    arithmetic, geometric = (merge_ways(binary, rule=rule).flatten() for rule in ("arithmetic", "geometric"))
    assert arithmetic.tolist() == pytest.approx([0.50875, 0.98, 0.0025])
    assert geometric[0].item() == pytest.approx(0.141, abs=5e-4)
    assert geometric[1:].tolist() == foreground.tolist()


def test_the_maps_are_scores_and_not_a_distribution():
    binary = torch.randn(2, 3, 2, 4, 4, generator=torch.Generator().manual_seed(0)).softmax(2)
    for rule in ("arithmetic", "geometric"):
        total = merge_ways(binary, rule=rule).sum(1)
        assert (total - 1).abs().max() > 0.1


def test_a_certain_foreground_leaves_no_infinity():
    for rule in ("arithmetic", "geometric"):
        binary = one_believed(1.0, 2).requires_grad_()
        scores = merge_ways(binary, rule=rule)
        scores.sum().backward()
        assert scores.argmax(1).item() == 1
        assert torch.isfinite(scores).all()
        assert torch.isfinite(binary.grad).all()


def test_what_are_no_probabilities_is_refused():
    with pytest.raises(ValueError, match=r"must add up to 1; found sums from 4 to 4.*softmax\(2\)"):
        merge_ways(torch.full((1, 2, 2, 3, 3), 2.0))
    with pytest.raises(ValueError, match="must add up to 1; found sums from nan"):
        merge_ways(torch.full((1, 2, 2, 3, 3), float("nan")))
    with pytest.raises(ValueError, match=r"'harmonic'.*arithmetic.*geometric"):
        inspect.unwrap(merge_ways)(one_believed(0.5, 1), rule="harmonic")
