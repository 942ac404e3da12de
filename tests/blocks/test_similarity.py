"""The cosine map of small and zero vectors, and the merging of ways: golden values, thresholds. 1 s.

The definition of the map in NumPy, gradients and precision are in test_blocks.py.
"""

import pytest
import torch
import torch.nn.functional as F

from fsslib.blocks.similarity import cosine_similarity_map, merge_ways


def test_equals_torch_for_small_and_zero_vectors_too():
    features, prototype = torch.randn(2, 5, 4, 3), torch.randn(2, 5)
    features[0] *= 1e-9
    features[1, :, 0] = 0
    expected = F.cosine_similarity(features, prototype[:, :, None, None], dim=1, eps=1e-8)
    torch.testing.assert_close(cosine_similarity_map(features, prototype), expected)


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


def test_two_ways_by_hand():
    foreground = torch.tensor([0.98, 0.0025], dtype=torch.float64)
    binary = torch.stack([1 - foreground, foreground], 1)[None, :, :, None, None]
    arithmetic, geometric = (merge_ways(binary, rule=rule).flatten() for rule in ("arithmetic", "geometric"))
    assert arithmetic.tolist() == pytest.approx([0.50875, 0.98, 0.0025])
    assert geometric[0].item() == pytest.approx(0.141, abs=5e-4)
    assert geometric[1:].tolist() == foreground.tolist()


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
