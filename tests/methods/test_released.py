"""Released checkpoints: synthetic files with the released names and shapes land where they belong, or are refused. 5 s.

Each tensor of a synthetic file holds its own number throughout and takes no room on the disk.
"""

import pytest
import torch
import torchvision

from fsslib.blocks.backbones import WeightsError, build_backbone
from fsslib.methods.panet import PANet
from fsslib.methods.pfenet import PFENet
from fsslib.methods.prototype import PrototypeNetwork
from fsslib.methods.released import load_released, rename


def panet_names() -> dict[str, tuple[int, ...]]:
    """kaixin96/PANet, models/vgg.py: thirteen convolutions, blocks at every second place of `features`."""
    places = ["0.0", "0.2", "2.0", "2.2", "4.0", "4.2", "4.4", "6.0", "6.2", "6.4", "8.0", "8.2", "8.4"]
    widths = [3, 64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512]
    names = {}
    for place, inputs, outputs in zip(places, widths, widths[1:], strict=False):
        names[f"encoder.backbone.features.{place}.weight"] = (outputs, inputs, 3, 3)
        names[f"encoder.backbone.features.{place}.bias"] = (outputs,)
    return names


def pfenet_names() -> dict[str, tuple[int, ...]]:
    """dvlab-research/PFENet, model/PFENet.py with layers=50: a deep stem, torchvision's stages, the head."""
    names = {
        f"layer0.{i}.weight": shape for i, shape in ((0, (64, 3, 3, 3)), (3, (64, 64, 3, 3)), (6, (128, 64, 3, 3)))
    }
    for i, width in ((1, 64), (4, 64), (7, 128)):
        names |= {f"layer0.{i}.{kind}": (width,) for kind in ("weight", "bias", "running_mean", "running_var")}
        names[f"layer0.{i}.num_batches_tracked"] = ()
    with torch.device("meta"):
        stages = torchvision.models.resnet50().state_dict()
    names |= {name: tuple(value.shape) for name, value in stages.items() if name.startswith("layer")}
    names |= {"layer1.0.conv1.weight": (64, 128, 1, 1), "layer1.0.downsample.0.weight": (256, 128, 1, 1)}
    square, classes = (256, 256, 3, 3), {"weight": (2, 256, 1, 1), "bias": (2,)}
    names |= {"down_query.0.weight": (256, 1536, 1, 1), "down_supp.0.weight": (256, 1536, 1, 1)}
    names |= {f"init_merge.{i}.0.weight": (256, 513, 1, 1) for i in range(4)}
    names |= {f"alpha_conv.{i}.0.weight": (256, 512, 1, 1) for i in range(3)}
    names |= {f"beta_conv.{i}.{j}.weight": square for i in range(4) for j in (0, 2)}
    for classifier in ("cls", *(f"inner_cls.{i}" for i in range(4))):
        names |= {f"{classifier}.0.weight": square} | {f"{classifier}.3.{k}": shape for k, shape in classes.items()}
    return names | {"res1.0.weight": (256, 1024, 1, 1), "res2.0.weight": square, "res2.2.weight": square}


def synthetic(names: dict[str, tuple[int, ...]]) -> dict[str, torch.Tensor]:
    """A checkpoint with these names, as if saved from DataParallel."""
    return {
        f"module.{name}": torch.tensor(i if name.endswith("tracked") else float(i)).expand(shape)
        for i, (name, shape) in enumerate(names.items())
    }


def panet() -> PANet:
    return PANet(build_backbone("vgg16"))


CASES = {
    "panet": (
        panet,
        panet_names,
        {
            "encoder.backbone.features.0.0.weight": "backbone.network.block1.0.weight",
            "encoder.backbone.features.4.4.bias": "backbone.network.block3.14.bias",
            "encoder.backbone.features.8.4.weight": "backbone.network.block5.28.weight",
        },
    ),
    "pfenet": (
        lambda: PFENet(build_backbone("resnet50"), legacy_backbone=True),
        pfenet_names,
        {
            "layer0.3.weight": "backbone.network.conv1.3.weight",
            "layer0.7.running_var": "backbone.network.bn1.running_var",
            "layer3.5.bn2.bias": "backbone.network.layer3.5.bn2.bias",
            "down_supp.0.weight": "support_reduction.0.weight",
            "beta_conv.2.2.weight": "within_scale.2.2.weight",
            "inner_cls.3.3.bias": "side_classifiers.3.3.bias",
            "cls.3.weight": "classifier.3.weight",
        },
    ),
}


@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_every_released_tensor_has_its_place(case, wrapped, tmp_path):
    build, names, known = CASES[case]
    state = synthetic(names())
    torch.save({"epoch": 199, "state_dict": state, "optimizer": {}} if wrapped else state, tmp_path / "released.pth")
    method = build()
    load_released(method, tmp_path / "released.pth")
    ours = method.state_dict()
    assert len(ours) == len(state)
    assert sorted(value.flatten()[0].item() for value in ours.values()) == list(range(len(state)))
    assert (method.backbone.weights.source, method.backbone.weights.loaded) == ("released.pth", len(state))
    for theirs, here in known.items():
        assert torch.equal(ours[here], state[f"module.{theirs}"])


def test_a_checkpoint_that_does_not_fit_says_why(tmp_path):
    path, method = tmp_path / "released.pth", panet()

    def refused(content, message, method=method):
        torch.save(content, path)
        with pytest.raises(WeightsError, match=message):
            load_released(method, path)

    whole = synthetic(panet_names())
    last = list(whole)[-1]
    refused({k: v for k, v in whole.items() if k != last}, "Missing key.*block5.28.bias")
    refused(whole | {last: torch.zeros(7)}, "size mismatch for backbone.network.block5.28.bias")
    refused(whole | {"module.extra": torch.zeros(1)}, "no tensor 'module.extra'")
    refused(synthetic(pfenet_names()), "no tensor 'module.layer0.0.weight'")
    refused([1, 2], "no state dict")
    refused({"state_dict": {}}, "no state dict")
    refused({"code": print}, "cannot be read as weights")
    refused(whole, "No released checkpoint of PrototypeNetwork.*PANet", PrototypeNetwork(build_backbone("tiny")))
    with pytest.raises(WeightsError, match="nowhere.pth cannot be read .*It is not there"):
        load_released(method, tmp_path / "nowhere.pth")


def test_names_are_renamed_dropped_and_never_merged():
    tensors = {"module.a.weight": torch.zeros(1), "fc.weight": torch.ones(1)}
    assert list(rename(tensors, [("a.", "b."), ("fc.", None)])) == ["b.weight"]
    with pytest.raises(WeightsError, match=r"both become 'c\.weight'"):
        rename(tensors, [("a.", "c."), ("fc.", "c.")])
