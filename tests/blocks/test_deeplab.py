"""DeepLab segmenters: the head's sum, where pixels end up, gradients, and Caffe's layout of ResNet-101. 5 s."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fsslib.blocks.backbones import build_backbone
from fsslib.blocks.deeplab import AtrousHead, DeepLab, make_caffe_layout


def images(height, width, batch=2, seed=0):
    return torch.rand(batch, 3, height, width, generator=torch.Generator().manual_seed(seed))


def seeded(num_classes=5, name="tiny", dilations=(1, 2), as_released=False, **options):
    torch.manual_seed(0)
    return DeepLab(build_backbone(name, **options), num_classes, dilations=dilations, as_released=as_released)


# The head


def test_the_head_is_the_sum_of_its_branches_and_looks_as_far_as_their_dilations():
    torch.manual_seed(0)
    head, features = AtrousHead(4, 3, (1, 2, 5)), torch.randn(2, 4, 9, 7)
    expected = 0
    for branch, reach in zip(head.branches, (1, 2, 5), strict=True):
        nn.init.normal_(branch.bias)
        expected = expected + F.conv2d(features, branch.weight, branch.bias, padding=reach, dilation=reach)
    torch.testing.assert_close(head(features), expected)


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
    segmenter = seeded()
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
    # Without the padding the grid is stretched.
    stretched = F.interpolate(ramp[:, :, ::4, ::4], size, mode="bilinear", align_corners=True)
    if (height - 1) % 4:
        assert (stretched - ramp).abs().max() > 2


def test_as_released_looks_at_the_image_as_it_is():
    """Equal where nothing is padded; else the grid is stretched, and the features next to the added edge are others."""
    sound, released = seeded().eval(), seeded(as_released=True).eval()
    with torch.no_grad():
        for x, grid in ((images(33, 49), (9, 13)), (images(32, 48), (8, 12))):
            coarse = released.head(released.backbone(x)[-1])
            assert coarse.shape[-2:] == grid
            expected = F.interpolate(coarse, x.shape[-2:], mode="bilinear", align_corners=True)
            assert torch.equal(released(x), expected)
            assert torch.equal(sound(x), expected) is (grid == (9, 13))  # a multiple of the stride, and one
        bare = x
        padded = sound.backbone(F.pad(bare, (0, 1, 0, 1), mode="replicate"))[-1][:, :, :8, :12]
        change = (padded - released.backbone(bare)[-1]).norm(dim=1)
    # A cell of tiny sees 33 pixels, 16 to each side of its own: 4 cells.
    assert change[:, :4, :8].max() < 1e-5
    assert change[:, 7].min() > 0.01 < change[:, :, 11].min()


# DeepLab-V2 with ResNet-101


def papers(name="resnet101"):
    torch.manual_seed(0)
    return make_caffe_layout(build_backbone(name, stages=("layer4",)))


@pytest.fixture(scope="module")
def paper():
    """On the meta device: shapes without numbers."""
    with torch.device("meta"):
        return DeepLab(papers(), 19)


def test_the_grid_of_the_paper(paper):
    """Also on the bare image, which the release does not pad."""
    picture, seen = torch.empty(1, 3, 512, 1024, device="meta"), {}
    grids = {"maxpool": (129, 257), "layer1": (129, 257), "layer2": (65, 129), "layer3": (65, 129), "layer4": (65, 129)}

    def remember(name):
        return lambda module, _, output: seen.setdefault(name, []).append(tuple(output.shape[2:]))

    for name in grids:
        paper.backbone.network.get_submodule(name).register_forward_hook(remember(name))
    paper.backbone(picture)
    assert paper(picture).shape == (1, 19, 512, 1024)
    assert seen == {name: [grid, grid] for name, grid in grids.items()}


def test_the_layout_is_caffes_and_batch_norms_affine_alone_is_frozen(paper):
    network = paper.backbone.network
    for stage, count, stride, dilation in (
        ("layer1", 3, 1, 1),
        ("layer2", 4, 2, 1),
        ("layer3", 23, 1, 2),
        ("layer4", 3, 1, 4),
    ):
        blocks = network.get_submodule(stage)
        assert [block.conv1.stride[0] for block in blocks] == [stride] + [1] * (count - 1)
        assert blocks[0].downsample[0].stride == (stride, stride)
        for block in blocks:
            assert block.conv2.stride == block.conv3.stride == (1, 1)
            assert block.conv2.dilation == block.conv2.padding == (dilation, dilation)
    trunk = 44_549_160 - 2_049_000  # torchvision's, without the classifier
    assert sum(p.numel() for p in paper.parameters()) == trunk + 4 * (2048 * 19 * 9 + 19)
    norms = [m for m in paper.modules() if isinstance(m, nn.BatchNorm2d)]
    assert len(norms) == 104
    frozen = {id(p) for m in norms for p in m.parameters()}
    assert all(p.requires_grad is (id(p) not in frozen) for p in paper.parameters())
    assert all(m.training for m in norms)
    assert not any(m.training for m in copy.deepcopy(paper).eval().modules())


def test_the_dense_map_refines_the_strided_one_of_caffe():
    """Taking the strides out and dilating keeps what pretrained weights mean: every fourth point is the strided map."""
    dense = papers().double().eval()
    strided = copy.deepcopy(dense)
    for stage in (strided.network.layer3, strided.network.layer4):
        stage[0].conv1.stride = stage[0].downsample[0].stride = (2, 2)
        for block in stage:
            block.conv2.dilation = block.conv2.padding = (1, 1)
    with torch.no_grad():
        x = images(65, 65, batch=1).double()
        fine, coarse = dense(x)[0], strided(x)[0]
    assert fine.shape[-2:] == (9, 9)
    torch.testing.assert_close(fine[:, :, ::4, ::4], coarse)


@pytest.mark.parametrize(
    ("name", "options", "found"),
    [
        ("resnet34", {}, "resnet34 at 8"),
        ("tiny", {}, "tiny at 4"),
        ("resnet50", {"output_stride": 16}, "resnet50 at 16"),
    ],
)
def test_another_backbone_has_no_caffe_layout(name, options, found):
    with torch.device("meta"), pytest.raises(ValueError, match=rf"resnet101 at stride 8; found {found}\. Take"):
        make_caffe_layout(build_backbone(name, **options))
