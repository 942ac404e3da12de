"""Pyramids of features, hypercorrelation in loops, and the centre-pivot convolution beside its direct form. 4 s."""

import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torchvision

from fsslib.blocks import correlation
from fsslib.blocks.backbones import build_backbone
from fsslib.blocks.correlation import (
    CentrePivotBlock,
    feature_pyramid,
    hypercorrelation,
    unit_features,
)
from tests.blocks import direct_correlation as direct


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# Features


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_the_pyramid_of_a_resnet_is_what_its_blocks_last_relu_is_given(name):
    """Over which torchvision 0.29.2 would write, its ReLUs being in place (torchvision-feature-in-place.sh)."""
    torch.manual_seed(0)
    backbone = build_backbone(name, stages=("layer1", "layer2"), output_stride=32).eval().double()
    images, seen = torch.rand(2, 3, 33, 48).double(), []  # float32's last digits are each kernel's own
    blocks = *backbone.network.layer1, *backbone.network.layer2
    for block in blocks:
        block.relu.inplace = False
        calls = []
        seen.append(calls)
        block.relu.register_forward_hook(lambda module, inputs, output, calls=calls: calls.append(inputs[0]))
    with torch.no_grad():
        stages = backbone(images)
        expected = [calls[-1] for calls in seen]
        for block in blocks:
            block.relu.inplace = True
        levels = feature_pyramid(backbone, images)
    torch.testing.assert_close([*levels[1].unbind(1), *levels[0].unbind(1)], expected)
    for level, stage in zip(levels, stages[::-1]):
        assert level.amin((0, 2, 3, 4)).max() < 0
        torch.testing.assert_close(F.relu(level[:, -1]), stage)


def test_the_pyramid_of_vgg16_is_places_17_to_30_of_torchvisions():
    torch.manual_seed(0)
    backbone = build_backbone("vgg16", stages=("block4", "block5"), output_stride=32)
    with torch.device("meta"):
        features = torchvision.models.vgg16().features
    own = backbone.network.state_dict()  # block1.0.weight and so on
    features.load_state_dict({name.partition(".")[2]: tensor for name, tensor in own.items()}, assign=True)
    images = torch.rand(1, 3, 40, 33)
    x, seen = (images - backbone.mean) / backbone.std, {}
    with torch.no_grad():
        for place, module in enumerate(features):
            x = module(x)
            seen[place] = x.clone()
        levels = feature_pyramid(backbone, images)
    expected = [[seen[30]], [seen[24], seen[26], seen[28]], [seen[17], seen[19], seen[21]]]
    torch.testing.assert_close(levels, [torch.stack(level, 1) for level in expected])


def test_the_pyramid_of_tiny_is_its_batch_norms():
    torch.manual_seed(0)
    backbone = build_backbone("tiny").eval()
    images = torch.rand(2, 3, 40, 64)
    with torch.no_grad():
        levels, stages = feature_pyramid(backbone, images), backbone(images)
    assert [tuple(level.shape) for level in levels] == [(2, 1, 64, 10, 16)] * 3
    torch.testing.assert_close(levels[0][:, 0], stages[2])  # ends without a ReLU
    torch.testing.assert_close([F.relu(level[:, 0]) for level in levels[1:]], [stages[1], stages[0]])
    assert min(level.min() for level in levels) < 0


def test_a_hypercorrelation_is_the_cosine_of_every_pair_of_places_cut_at_zero():
    query, support = random(2, 3, 5, 2, 3), random(2, 3, 5, 4, 2, seed=1)
    support[:, :, :, 1] = 0
    found = hypercorrelation(unit_features(query), unit_features(support)).numpy()
    assert found.shape == (2, 3, 2, 3, 4, 2)
    for place in itertools.product(*map(range, found.shape)):
        b, layer, y, x, v, u = place
        one, other = query[b, layer, :, y, x].numpy(), support[b, layer, :, v, u].numpy()
        lengths = (np.linalg.norm(one) + 1e-5) * (np.linalg.norm(other) + 1e-5)
        assert found[place] == pytest.approx(max(0, one @ other / lengths), abs=1e-6)
    assert (found[..., 1, :] == 0).all()


# The centre-pivot convolution


# Support grids around the size of the kernel, where a matrix takes the convolution's place.
@pytest.mark.parametrize(
    ("kernel_size", "stride", "support"),
    [(3, 1, (2, 2)), (3, 2, (3, 3)), (3, 2, (4, 3)), (5, 4, (5, 5)), (5, 4, (9, 6))],
)
@pytest.mark.parametrize("piece", [1, 2**22])
def test_a_block_equals_the_direct_form_whole_and_in_pieces_with_its_gradients(
    kernel_size, stride, support, piece, monkeypatch
):
    monkeypatch.setattr(correlation, "LARGEST_PIECE", piece)
    torch.manual_seed(0)
    block = CentrePivotBlock(3, 8, kernel_size, stride=stride)
    query, support = unit_features(random(2, 3, 6, 4, 5)), unit_features(random(2, 3, 6, *support, seed=1))

    def with_gradients(y):
        gradients = torch.autograd.grad((y * random(*y.shape, seed=2)).sum(), list(block.parameters()))
        return [y.detach(), *gradients]

    expected = with_gradients(direct.squeeze(direct.correlation(query.unbind(1), support.unbind(1)), [block]))
    torch.testing.assert_close(with_gradients(block.correlate(query, support)), expected, rtol=1e-4, atol=1e-4)
    whole = block(hypercorrelation(query, support))
    torch.testing.assert_close(with_gradients(whole), expected, rtol=1e-4, atol=1e-4)
    # Another size after the first: the released layer keeps the sampled places of its first call.
    x = random(1, 3, 3, 3, 8, 7)
    torch.testing.assert_close(block(x), direct.squeeze(x, [block]), rtol=1e-4, atol=1e-5)


def test_correlate_holds_the_sampled_correlations_and_a_piece_of_the_others_at_a_time(monkeypatch):
    sizes = []

    def watched(query, support):
        x = hypercorrelation(query, support)
        sizes.append(x.numel())
        return x

    monkeypatch.setattr(correlation, "hypercorrelation", watched)
    monkeypatch.setattr(correlation, "LARGEST_PIECE", 2**15)
    CentrePivotBlock(2, 4, 5, stride=4).correlate(torch.rand(1, 2, 3, 20, 20), torch.rand(1, 2, 3, 20, 20))
    *pieces, sampled = sizes
    assert sampled == 2 * 400 * 25  # a sixteenth of the support places
    assert sum(pieces) == 2 * 400 * 400
    assert max(pieces) <= 2**15
    monkeypatch.undo()
    assert [correlation.largest_piece(torch.device(*where)) for where in (("cpu",), ("cuda", 1))] == [2**22, 2**28]


def test_places_that_no_mask_marks_are_left_out_and_change_nothing():
    """An object at an edge, in the middle, of one place, nowhere: of all strides and kernels that the network has."""
    torch.manual_seed(0)
    query, everything = unit_features(random(1, 2, 6, 4, 5)), unit_features(random(1, 2, 6, 13, 11, seed=1))
    boxes = [(0, 3, 0, 11), (5, 9, 4, 7), (12, 13, 10, 11), (3, 4, 3, 4), (0, 0, 0, 0)]
    for (top, bottom, left, right), (kernel_size, stride) in itertools.product(boxes, [(5, 4), (3, 2), (3, 1)]):
        block, support = CentrePivotBlock(2, 8, kernel_size, stride=stride), torch.zeros_like(everything)
        support[..., top:bottom, left:right] = everything[..., top:bottom, left:right]
        expected = direct.squeeze(direct.correlation(query.unbind(1), support.unbind(1)), [block])
        torch.testing.assert_close(block.correlate(query, support), expected, rtol=1e-4, atol=1e-5)
        rows = block._seeing(support.norm(dim=2).sum((0, 1)).any(1))
        assert rows.stop - rows.start <= -(-(bottom - top + 2 * block.padding) // stride) + 1


def test_a_norm_over_very_many_places_is_exact():
    """torch 2.15's own group norm with channels last is off by 4e-4 here. Its gradients are torch's own."""
    torch.manual_seed(0)
    block, x = CentrePivotBlock(1, 8, 3), (0.01 * random(1, 50, 40, 10, 10, 8) + 0.05).movedim(-1, 1).requires_grad_()
    torch.nn.init.normal_(block.norm.weight)

    def with_gradients(y, *inputs):
        gradients = torch.autograd.grad((y * random(*y.shape, seed=2).to(y)).sum(), inputs)
        return [tensor.detach().double() for tensor in (y, *gradients)]

    found = with_gradients(block._normalised(x.clone()), x, *block.norm.parameters())  # it writes on what it is given
    x = x.detach().double().requires_grad_()
    normed = F.relu(block.norm.double()(x.flatten(3))).unflatten(3, x.shape[3:])
    expected = with_gradients(normed, x, *block.norm.parameters())
    torch.testing.assert_close(found[0], expected[0], rtol=0, atol=1e-5)
    torch.testing.assert_close(found[2:], expected[2:], rtol=1e-4, atol=1e-2)
