"""The papers' networks by their numbers, the rates of the releases, and the authors' checkpoints. 10 s.

Each tensor of a synthetic checkpoint holds its own number throughout and takes no room on the disk.
"""

import pytest
import torch
import torchvision
from torch import nn

from fsslib.blocks.backbones import WeightsError
from fsslib.methods import build_method
from fsslib.methods.released import load_released, rename
from fsslib.training.recipe import Recipe
from tests.methods.contract import random_episode, random_images, without_memory

PFENET = {"backbone": "resnet50", "legacy_backbone": True}
PFENET_HEAD = {
    "query_reduction": 1536 * 256,
    "support_reduction": 1536 * 256,
    "enrichment": 4 * 513 * 256,
    "between_scales": 3 * 512 * 256,
    "within_scale": 4 * 2 * 9 * 256 * 256,
    "side_classifiers": 4 * (9 * 256 * 256 + 2 * 256 + 2),
    "fusion": 1024 * 256,
    "refinement": 2 * 9 * 256 * 256,
    "classifier": 9 * 256 * 256 + 2 * 256 + 2,
}
SG_ONE = {"guidance": 2_359_808, "side3": 295_040, "side4": 737_408, "side5": 737_408, "fuse": 147_584, "exit": 258}
PIXDA = {"num_classes": 19, "dilations": "6,12,18,24", "caffe_layout": True, "backbone_stages": "layer4"}


@pytest.mark.parametrize(
    ("name", "options", "learn", "parts"),
    [
        ("panet", {"backbone": "vgg16"}, 14_714_688, {"backbone": 14_714_688}),
        ("sg_one", {"backbone": "vgg16"}, 18_992_194, SG_ONE | {"backbone": 14_714_688}),  # the paper: 19.0 million
        ("hsnet", {"backbone": "resnet50"}, 2_573_794, {"backbone": 23_508_032, "learner": 2_573_794}),
        ("hsnet", {"backbone": "resnet101"}, 2_587_394, {"backbone": 42_500_160, "learner": 2_587_394}),
        ("hsnet", {"backbone": "vgg16"}, 2_570_018, {"backbone": 14_714_688, "learner": 2_570_018}),
        ("pfenet", PFENET, 10_817_034, PFENET_HEAD | {"backbone": 23_631_808}),
        ("pfenet", {"backbone": "resnet50"}, 10_817_034, PFENET_HEAD | {"backbone": 23_508_032}),
        (
            "pixda",  # scale and shift of 104 batch norms learn nothing
            PIXDA | {"backbone": "resnet101"},
            43_901_068 - 105_344 + 84_993 + 2_781_121,
            {
                "segmenter": 42_500_160 + 4 * (2048 * 19 * 9 + 19),
                "pixel_discriminator": 84_993,
                "image_discriminator": 2_781_121,
            },
        ),
    ],
)
def test_the_network_is_the_papers_by_its_numbers(name, options, learn, parts):
    method = without_memory(name, **options)
    assert {part: sum(p.numel() for p in module.parameters()) for part, module in method.named_children()} == parts
    assert sum(p.numel() for p in method.parameters() if p.requires_grad) == learn


def shapes_of(layers: list[nn.Module], run) -> list[tuple[int, ...]]:
    """The shape of what each layer gives, in the order in which they are called."""
    seen = []
    for layer in layers:
        layer.register_forward_hook(lambda module, inputs, output: seen.append(tuple(output.shape)))
    run()
    return seen


@pytest.mark.parametrize(("backbone", "coarsest"), [("resnet50", 13), ("resnet101", 13), ("vgg16", 12)])
def test_hsnets_levels_end_on_one_support_grid_at_400_pixels(backbone, coarsest):
    method = without_memory("hsnet", backbone=backbone)
    learner = method.learner
    episode = random_episode(batch=1, height=400, width=400).to("meta")
    ends = [blocks[-1] for blocks in (*learner.encoders, *learner.mixers)]
    found = shapes_of([*ends, learner], lambda: method(episode))
    assert found == [*((1, 128, n, n, 2, 2) for n in (coarsest, 25, 25, 50, 50)), (1, 2, 100, 100)]


@pytest.mark.parametrize(
    ("height", "width", "expected"),
    [
        (473, 473, [(60, 60), (30, 30), (15, 15), (8, 8)]),
        (641, 641, [(81, 81), (40, 40), (20, 20), (10, 10)]),
        (375, 500, [(47, 63), (24, 32), (12, 16), (6, 8)]),
    ],
)
def test_pfenets_scales_are_the_releases_at_its_sizes(height, width, expected):
    method, episode = without_memory("pfenet", **PFENET), random_episode(batch=1, height=height, width=width).to("meta")
    found = shapes_of(list(method.side_classifiers), lambda: method(episode))
    assert [shape[2:] for shape in found] == expected
    dilations = {n: m.dilation[0] for n, m in method.backbone.network.named_modules() if n.endswith("0.conv2")}
    assert list(dilations.values()) == [1, 1, 2, 4]


@pytest.mark.parametrize(("legacy", "grid"), [(False, (47, 63)), (True, (49, 65))])
def test_sg_ones_grids_at_500_by_375(legacy, grid):
    """The released exit pads, so its map is two cells larger."""
    method = without_memory("sg_one", backbone="vgg16", legacy_exit_pad=legacy)
    episode = random_episode(batch=1, height=375, width=500).to("meta")
    assert shapes_of([method.exit], lambda: method(episode)) == [(1, 2, *grid)]
    assert method(episode).shape == (1, 2, 375, 500)


def test_a_vgg16_that_panet_has_cut_is_left_alone():
    method = without_memory("panet", backbone="vgg16")
    again = type(method)(method.backbone)
    assert len(again.backbone.network.block5) == 5
    assert isinstance(again.backbone.network.block5[-1], nn.Conv2d)


def test_a_run_of_pixda_may_ask_for_the_papers_trunk():
    """As `fsslib run --method pixda --backbone resnet101 --method-options caffe_layout=true` does, at tiny size."""
    method = build_method("pixda", backbone="resnet50", num_classes=3, caffe_layout=True, distillation=True).train()
    for segmenter in (method.segmenter, method.teacher):
        network = segmenter.backbone.network
        assert network.maxpool.ceil_mode
        assert network.layer2[0].conv1.stride == (2, 2)
        assert network.layer4[0].conv2.dilation == (4, 4)
    before = {name: value.clone() for name, value in method.segmenter.state_dict().items()}
    optimizers = Recipe.load("pixda_paper").optimizers_of(0, method)
    source, target = (random_images(height=33, width=33, classes=3, seed=seed) for seed in (0, 1))
    method.training_step((source, target), optimizers)
    moved = {name for name, value in method.segmenter.state_dict().items() if not torch.equal(value, before[name])}
    norms = {name for name in before if "bn" in name or "downsample.1" in name}
    assert moved & norms == {name for name in norms if not name.endswith(("weight", "bias"))}
    assert {"backbone.network.conv1.weight", "head.branches.0.weight"} <= moved


# Rates


@pytest.mark.parametrize(
    ("name", "backbone", "phase", "groups"),
    [
        *(("panet", "tiny", n, {"all": (rate, 0.9, 5e-4)}) for n, rate in enumerate((1e-3, 1e-4, 1e-5))),
        ("pfenet", "tiny", 0, {"all": (0.025, 0.9, 1e-4)}),  # ten times the printed one
        ("hsnet", "tiny", 0, {"all": (1e-3, None, 0)}),
        (
            "sg_one",  # guidance ten times the rate, biases twice, the guidance bias twenty times
            "vgg16",
            0,
            {
                "weights": (1e-5, 0.99, 5e-4),
                "biases": (2e-5, 0.99, 5e-4),
                "guidance_weights": (1e-4, 0.99, 5e-4),
                "guidance_biases": (2e-4, 0.99, 5e-4),
            },
        ),
    ],
)
def test_the_learning_rates_of_the_release(name, backbone, phase, groups):
    method, recipe = without_memory(name, backbone=backbone), Recipe.load(f"{name}_paper")
    optimizer = recipe.optimizers_of(phase, method)["segmenter"]
    found = {g["name"]: (g["lr"], g.get("momentum"), g["weight_decay"]) for g in optimizer.param_groups}
    assert found.keys() == groups.keys()
    assert all(found[group] == pytest.approx(groups[group]) for group in groups)
    learning = sorted(id(p) for p in method.parameters() if p.requires_grad)
    assert sorted(id(p) for g in optimizer.param_groups for p in g["params"]) == learning
    if name == "sg_one":
        assert [len(g["params"]) for g in optimizer.param_groups] == [18, 18, 1, 1]


def test_the_schedules_of_the_releases():
    assert [phase.steps for phase in Recipe.load("panet_paper").phases] == [10_000] * 3
    assert {phase.schedule.factor(9_999, 10_000) for phase in Recipe.load("panet_paper").phases} == {1}
    assert Recipe.load("pfenet_paper").phases[0].schedule.factor(500, 1000) == pytest.approx(0.5**0.9)


# The authors' checkpoints


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
        f"layer0.{i}.weight": (width, inputs, 3, 3) for i, inputs, width in ((0, 3, 64), (3, 64, 64), (6, 64, 128))
    }
    for i, width in ((1, 64), (4, 64), (7, 128)):
        names |= {f"layer0.{i}.{kind}": (width,) for kind in ("weight", "bias", "running_mean", "running_var")}
        names[f"layer0.{i}.num_batches_tracked"] = ()
    names |= {name: shape for name, shape in torchvision_names("resnet50").items() if name.startswith("layer")}
    names |= {"layer1.0.conv1.weight": (64, 128, 1, 1), "layer1.0.downsample.0.weight": (256, 128, 1, 1)}
    square, classes = (256, 256, 3, 3), {"weight": (2, 256, 1, 1), "bias": (2,)}
    names |= {"down_query.0.weight": (256, 1536, 1, 1), "down_supp.0.weight": (256, 1536, 1, 1)}
    names |= {f"init_merge.{i}.0.weight": (256, 513, 1, 1) for i in range(4)}
    names |= {f"alpha_conv.{i}.0.weight": (256, 512, 1, 1) for i in range(3)}
    names |= {f"beta_conv.{i}.{j}.weight": square for i in range(4) for j in (0, 2)}
    for classifier in ("cls", *(f"inner_cls.{i}" for i in range(4))):
        names |= {f"{classifier}.0.weight": square} | {f"{classifier}.3.{k}": shape for k, shape in classes.items()}
    return names | {"res1.0.weight": (256, 1024, 1, 1), "res2.0.weight": square, "res2.2.weight": square}


def hsnet_names(backbone: str, layers: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
    """juhongm999/hsnet: torchvision's network with its classifier, and the learner."""
    names = {f"backbone.{name}": shape for name, shape in torchvision_names(backbone).items()}

    def layer(stem: str, *shape: int) -> dict[str, tuple[int, ...]]:
        return {f"hpn_learner.{stem}.weight": shape, f"hpn_learner.{stem}.bias": shape[:1]}

    kernels = {"4": (3, 3, 3), "3": (5, 3, 3), "2": (5, 5, 3), "4to3": (3, 3, 3), "3to2": (3, 3, 3)}
    for (block, sides), first in zip(kernels.items(), (*layers, 128, 128)):
        widths = (128, 128, 128) if "to" in block else (16, 64, 128)
        for number, (inputs, outputs, side) in enumerate(zip((first, *widths), widths, sides)):
            for half in ("conv1", "conv2"):
                names |= layer(f"encoder_layer{block}.{3 * number}.{half}", outputs, inputs, side, side)
            names |= layer(f"encoder_layer{block}.{3 * number + 1}", outputs)
    for place, inputs, outputs in (("1.0", 128, 128), ("1.2", 128, 64), ("2.0", 64, 64), ("2.2", 64, 2)):
        names |= layer(f"decoder{place}", outputs, inputs, 3, 3)
    return names


def torchvision_names(name: str) -> dict[str, tuple[int, ...]]:
    with torch.device("meta"):
        return {key: tuple(value.shape) for key, value in torchvision.models.get_model(name).state_dict().items()}


def synthetic(names: dict[str, tuple[int, ...]]) -> dict[str, torch.Tensor]:
    """A checkpoint with these names, as if saved from DataParallel."""
    return {
        f"module.{name}": torch.tensor(i if name.endswith("tracked") else float(i)).expand(shape)
        for i, (name, shape) in enumerate(names.items())
    }


HSNET_LEARNER = {
    "hpn_learner.encoder_layer4.0.conv1.weight": "learner.encoders.0.0.query.weight",
    "hpn_learner.encoder_layer2.3.conv2.bias": "learner.encoders.2.1.support.bias",
    "hpn_learner.encoder_layer3.7.weight": "learner.encoders.1.2.norm.weight",
    "hpn_learner.encoder_layer4to3.0.conv2.weight": "learner.mixers.0.0.support.weight",
    "hpn_learner.encoder_layer3to2.7.bias": "learner.mixers.1.2.norm.bias",
    "hpn_learner.decoder1.2.weight": "learner.decoder.2.weight",
    "hpn_learner.decoder2.0.weight": "learner.decoder.5.weight",
    "hpn_learner.decoder2.2.bias": "learner.decoder.7.bias",
}
CHECKPOINTS = {
    "panet": (
        ("panet", {"backbone": "vgg16"}),
        panet_names,
        {
            "encoder.backbone.features.0.0.weight": "backbone.network.block1.0.weight",
            "encoder.backbone.features.4.4.bias": "backbone.network.block3.14.bias",
            "encoder.backbone.features.8.4.weight": "backbone.network.block5.28.weight",
        },
    ),
    "pfenet": (
        ("pfenet", PFENET),
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
    "hsnet, resnet50": (
        ("hsnet", {"backbone": "resnet50"}),
        lambda: hsnet_names("resnet50", (3, 6, 4)),
        HSNET_LEARNER | {"backbone.layer3.5.bn2.running_var": "backbone.network.layer3.5.bn2.running_var"},
    ),
    "hsnet, vgg16": (
        ("hsnet", {"backbone": "vgg16"}),
        lambda: hsnet_names("vgg16", (1, 3, 3)),
        HSNET_LEARNER | {"backbone.features.28.weight": "backbone.network.block5.28.weight"},
    ),
}


@pytest.mark.parametrize("case", CHECKPOINTS)
def test_every_released_tensor_but_a_classifiers_has_its_place(case, tmp_path):
    (name, options), names, places = CHECKPOINTS[case]
    state = synthetic(names())
    wrapped = {"epoch": 199, "state_dict": state, "optimizer": {}} if name == "pfenet" else state
    torch.save(wrapped, tmp_path / "released.pth")
    method = build_method(name, **options)
    load_released(method, tmp_path / "released.pth")
    ours = method.state_dict()
    kept = [v for k, v in state.items() if not k.startswith(("module.backbone.fc.", "module.backbone.classifier."))]
    assert sorted(v.flatten()[0].item() for v in ours.values()) == sorted(v.flatten()[0].item() for v in kept)
    assert (method.backbone.weights.source, method.backbone.weights.loaded) == ("released.pth", len(state))
    for theirs, here in places.items():
        assert torch.equal(ours[here], state[f"module.{theirs}"])


PANET = synthetic(panet_names())
LAST = list(PANET)[-1]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (lambda: {k: v for k, v in PANET.items() if k != LAST}, "Missing key.*block5.28.bias"),
        (lambda: PANET | {LAST: torch.zeros(7)}, "size mismatch for backbone.network.block5.28.bias"),
        (lambda: PANET | {"module.extra": torch.zeros(1)}, "no tensor 'module.extra'"),
        (lambda: {"state_dict": {}}, "no state dict"),
        (None, r"released\.pth cannot be read as weights .*It is not there"),
    ],
)
def test_a_checkpoint_that_does_not_fit_says_why(content, said, tmp_path):
    if content:
        torch.save(content(), tmp_path / "released.pth")
    with pytest.raises(WeightsError, match=said):
        load_released(build_method("panet", backbone="vgg16"), tmp_path / "released.pth")


def test_a_method_without_a_checkpoint_says_which_have_one(tmp_path):
    with pytest.raises(
        WeightsError, match="No released checkpoint of PrototypeNetwork is known; PANet, PFENet and HSN"
    ):
        load_released(build_method("prototype"), tmp_path / "released.pth")


def test_names_are_renamed_dropped_and_never_merged():
    tensors = {"module.a.weight": torch.zeros(1), "fc.weight": torch.ones(1)}
    assert list(rename(tensors, [("a.", "b."), ("fc.", None)])) == ["b.weight"]
    with pytest.raises(WeightsError, match=r"both become 'c\.weight'"):
        rename(tensors, [("a.", "c."), ("fc.", "c.")])
