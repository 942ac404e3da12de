"""One idea a file: tensors in, tensors out. Only what there is is said here, without torch."""

_RESNET_STRIDES = {"layer1": 4, "layer2": 8, "layer3": 16, "layer4": 32}
STAGE_STRIDES = {
    "tiny": {"stage1": 2, "stage2": 4, "stage3": 4, "stage4": 4},
    "resnet18": _RESNET_STRIDES,
    "resnet34": _RESNET_STRIDES,
    "resnet50": _RESNET_STRIDES,
    "resnet101": _RESNET_STRIDES,
    "vgg16": {"block1": 2, "block2": 4, "block3": 8, "block4": 16, "block5": 32},
}
"""The backbones, and of each the stages with their strides."""
