"""Segmenters for a fixed list of classes: a backbone, an atrous head and bilinear upsampling, DeepLab-V2's design.

Chen, Papandreou, Kokkinos, Murphy, Yuille, "DeepLab: Semantic Image Segmentation with Deep Convolutional Nets, Atrous
Convolution, and Fully Connected CRFs", TPAMI 2018, without the CRF; the segmenter of AdaptSegNet, PixDA and their kin.
"""

from collections.abc import Sequence

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from fsslib.blocks.backbones import Backbone, replace_stride_with_dilation


class AtrousHead(nn.Module):
    """Class logits from several reaches at once: the sum of one 3x3 convolution with bias for each dilation.

    Features [B, channels, h, w] to logits [B, num_classes, h, w]. The default dilations, ASPP-L of DeepLab-V2, are for
    grids of 65 and more; on a grid smaller than a dilation that convolution sees its centre and padding, so take
    (1, 2, 4, 8) or so there. Weights are drawn from N(0, 0.01), biases are 0.

    AdaptSegNet's released head returns out of its loop and sums the first two convolutions only; PixDA's sums all.
    """

    def __init__(self, channels: int, num_classes: int, dilations: Sequence[int] = (6, 12, 18, 24)):
        super().__init__()
        if not dilations or min(dilations) < 1:
            raise ValueError(f"dilations are one or more numbers from 1 on; found {tuple(dilations)}.")
        self.branches = nn.ModuleList(
            nn.Conv2d(channels, num_classes, 3, padding=dilation, dilation=dilation) for dilation in dilations
        )
        for branch in self.branches:
            nn.init.normal_(branch.weight, std=0.01)
            nn.init.zeros_(branch.bias)

    def forward(self, features: Float[Tensor, "B channels h w"]) -> Float[Tensor, "B classes h w"]:
        return sum(branch(features) for branch in self.branches)


class DeepLab(nn.Module):
    """A `backbone`, a `head` on its last stage and bilinear upsampling: RGB images in [0, 1] to logits of their size.

    Images [B, 3, H, W] to logits [B, num_classes, H, W]; `dilations` as in `AtrousHead`. Upsampling is done with
    align_corners=True, as in all of this family, and with the image padded at its right and lower edge to a multiple of
    the stride plus one, as DeepLab's 321 and 513 pixels are: grid point k stands for pixel k * stride, the last one for
    the last pixel. Without the padding, `as_released=True`, the logits of a 64-pixel image are stretched, by up to 3
    pixels at stride 4 and up to 7 at stride 8, and the trunk sees its zeros one pixel nearer: features within its reach
    of the right and lower edge are others.
    """

    def __init__(
        self,
        backbone: Backbone,
        num_classes: int,
        *,
        dilations: Sequence[int] = (6, 12, 18, 24),
        as_released: bool = False,
    ):
        super().__init__()
        self.backbone, self.as_released = backbone, as_released
        self.head = AtrousHead(backbone.channels[-1], num_classes, dilations)

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B classes H W"]:
        height, width = images.shape[-2:]
        stride = 1 if self.as_released else self.backbone.strides[-1]
        padded = F.pad(images, (0, (1 - width) % stride, 0, (1 - height) % stride), mode="replicate")
        logits = self.head(self.backbone(padded)[-1])
        logits = F.interpolate(logits, padded.shape[-2:], mode="bilinear", align_corners=True)
        return logits[:, :, :height, :width]


def make_caffe_layout(backbone: Backbone) -> Backbone:
    """Turn torchvision's ResNet-101 at stride 8 into DeepLab-V2's, which PixDA and its relatives train; in place.

    Caffe has the stride of a stage on the first 1x1 convolution and not on the 3x3 behind it, which therefore has its
    stage's full dilation (2 in layer3, 4 in layer4) in the first block too; and the pool of the stem rounds up, for a
    grid of 65x129 for 512x1024 with or without the padding of `DeepLab`. Scale and shift of batch norm take no
    gradient; its statistics do follow the data. ResNet-50 will do as well; another backbone is a ValueError.

    Without the padding (`as_released`) a pixel moves by one at most, but the trunk sees its own zeros beyond the right
    and lower edge: features change as far from these edges as it looks, a long way in ResNet-101.

    The release has a second head on layer3, whose output enters no loss; it is left out. torchvision's weights were
    trained with the strides on the 3x3 convolutions; the papers' in Caffe's layout and on images as BGR from 0 to 255,
    which are normalised here as everywhere in this library.
    """
    network = backbone.network
    if backbone.name not in ("resnet50", "resnet101") or backbone.strides[-1] != 8:
        raise ValueError(
            f"Caffe's layout is one of resnet50 and resnet101 at stride 8; found {backbone.name} at "
            f"{backbone.strides[-1]}. Take backbone='resnet101', or leave the layout as it is."
        )
    network.maxpool = nn.MaxPool2d(3, stride=2, padding=1, ceil_mode=True)
    network.layer2[0].conv1.stride, network.layer2[0].conv2.stride = (2, 2), (1, 1)
    for stage, dilation in ((network.layer3, 2), (network.layer4, 4)):
        replace_stride_with_dilation(stage, dilation)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.requires_grad_(False)
    backbone.frozen_batch_norm = False
    return backbone.train()
