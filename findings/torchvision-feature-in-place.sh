#!/usr/bin/env bash
# torchvision: what `create_feature_extractor` returns for a layer depends on which other layers are asked for.
#
# torchvision's networks end their blocks in ReLU(inplace=True). The extractor returns the very tensor of the node that
# was named. Asked for "bn1" alone it is right; asked for "bn1" and anything after it, the ReLU behind has overwritten it,
# and "bn1" comes back without a negative value, under the same name and shape. The sum that a residual block ends in
# ("layer1.0.add", the features of HSNet) is hit in the same way, and so is a forward hook on bn1.
# The documentation of the extractor warns of train and eval mode, not of this. Where layers are meant to be compared
# before their activation, take nn.ReLU(inplace=False), as below, or clone.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.15.0 torchvision==0.29.2
"$folder/venv/bin/python" - <<'END'
import warnings

import torch
import torchvision
from torchvision.models import resnet18
from torchvision.models.feature_extraction import create_feature_extractor

warnings.simplefilter("ignore")  # "torch.fx" on graphs of train and eval mode
print("torch", torch.__version__, "torchvision", torchvision.__version__)
torch.manual_seed(0)
network, image = resnet18(weights=None).eval(), torch.rand(1, 3, 64, 64)


@torch.no_grad()
def lowest(layer, *others):
    return create_feature_extractor(network, [layer, *others])(image)[layer].min().item()


found = {}
for layer, other in (("bn1", "layer1"), ("layer1.0.add", "layer2")):
    found[layer] = lowest(layer), lowest(layer, other)
    print(f"  lowest value of {layer!r}: {found[layer][0]:.3f} alone, {found[layer][1]:.3f} beside {other!r}")
for module in network.modules():
    if isinstance(module, torch.nn.ReLU):
        module.inplace = False
plain = lowest("bn1", "layer1")
print(f"  with ReLU(inplace=False): {plain:.3f}")
assert all(alone < 0 for alone, _ in found.values()) and plain == found["bn1"][0]
assert all(beside == 0 for _, beside in found.values()), "CHANGED: a layer is the same whatever else is asked for"
END
