"""DeepLab segmenters: the head's beginning and where pixels end up. 1 s.

Caffe's layout of ResNet-101 and the images that are not padded: tests/methods/test_parity.py and test_papers.py.
"""

import pytest
import torch
from torch import nn

from fsslib.blocks.backbones import build_backbone
from fsslib.blocks.deeplab import AtrousHead, DeepLab, make_caffe_layout

# The head


def test_defaults_and_initialisation_of_the_head():
    torch.manual_seed(0)
    head = AtrousHead(512, 19)
    assert (
        [b.dilation for b in head.branches] == [b.padding for b in head.branches] == [(d, d) for d in (6, 12, 18, 24)]
    )
    assert sum(p.numel() for p in head.parameters()) == 4 * (512 * 19 * 9 + 19)
    weights = torch.stack([b.weight for b in head.branches])
    assert weights.mean().item() == pytest.approx(0, abs=2e-4)
    assert weights.std().item() == pytest.approx(0.01, rel=0.02)
    assert all((b.bias == 0).all() for b in head.branches)


@pytest.mark.parametrize("dilations", [(), (6, 0)])
def test_dilations_that_are_none_are_refused(dilations):
    with pytest.raises(ValueError, match="dilations are one or more numbers from 1 on; found"):
        AtrousHead(4, 3, dilations)


# The segmenter


class Sampler(nn.Module):
    """A backbone that does nothing but take every fourth pixel, as the centres of its convolutions would."""

    channels, strides = (3,), (4,)

    def forward(self, images):
        return (images[:, :, ::4, ::4],)


def plain_segmenter():
    """A DeepLab whose logits are the image, as far as its grid knows it."""
    segmenter = DeepLab(build_backbone("tiny"), 3)
    segmenter.backbone, segmenter.head = Sampler(), AtrousHead(3, 3, (1,))
    nn.init.dirac_(segmenter.head.branches[0].weight)
    return segmenter


@pytest.mark.parametrize("size", [(64, 64), (61, 32), (30, 47)])
def test_pixels_end_up_where_they_were(size):
    """A ramp comes back as a ramp, up to the last grid point that is a pixel of the image."""
    height, width = size
    ramp = (torch.arange(height)[:, None] * 2.0 + torch.arange(width)).expand(1, 3, height, width)
    with torch.no_grad():
        logits = plain_segmenter()(ramp)
    inside = (..., slice((height - 1) // 4 * 4 + 1), slice((width - 1) // 4 * 4 + 1))
    torch.testing.assert_close(logits[inside], ramp[inside])
    assert (logits - ramp).abs().max() <= 2 * 1.5 + 1.5


# DeepLab-V2 with ResNet-101


@pytest.mark.parametrize(
    ("name", "options", "found"),
    [("resnet34", {}, "resnet34 at 8"), ("resnet50", {"output_stride": 16}, "resnet50 at 16")],
)
def test_another_backbone_has_no_caffe_layout(name, options, found):
    with torch.device("meta"), pytest.raises(ValueError, match=rf"resnet101 at stride 8; found {found}\. Take"):
        make_caffe_layout(build_backbone(name, **options))
