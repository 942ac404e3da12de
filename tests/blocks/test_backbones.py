"""Backbones: grids, parity with torchvision, dilation, frozen batch norm, and weights that are all there or refused.

About 10 s.
"""

import functools
import hashlib
import os
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torchvision.models.feature_extraction import create_feature_extractor

from fsslib import paths
from fsslib.blocks import backbones
from fsslib.blocks.backbones import WeightsError, build_backbone

FIRST_THREE = ("layer1", "layer2", "layer3")
# Small enough to run for real on one thread; the larger networks are checked by shape on the meta device.
RUNNABLE = {
    "tiny": {},
    "resnet18": {"stages": FIRST_THREE},
    "resnet50": {"stages": ("layer1", "layer2")},
    "vgg16": {},
}


def seeded(name, **options):
    torch.manual_seed(0)
    return build_backbone(name, **options)


def images(height, width, batch=2, seed=0):
    return torch.rand(batch, 3, height, width, generator=torch.Generator().manual_seed(seed))


MEAN_AND_STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


def normalised(x):
    """The normalisation written out once more, channel by channel."""
    return torch.stack([(x[:, 0] - 0.485) / 0.229, (x[:, 1] - 0.456) / 0.224, (x[:, 2] - 0.406) / 0.225], dim=1)


def convolutions(module):
    return {key: m for key, m in module.named_modules() if isinstance(m, nn.Conv2d)}


@functools.cache
def without_memory(name, **options):
    """A backbone on the meta device: it has shapes, but neither numbers nor costs."""
    with torch.device("meta"):
        return build_backbone(name, **options).eval()


def grids(backbone, height, width):
    return [tuple(features.shape[2:]) for features in backbone(torch.empty(1, 3, height, width, device="meta"))]


# Grids and channels


@pytest.mark.parametrize(
    ("name", "channels", "strides", "parameters"),
    [
        ("resnet18", (128, 256, 512), (8, 8, 8), 11_689_512 - 513_000),
        ("resnet34", (128, 256, 512), (8, 8, 8), 21_797_672 - 513_000),
        ("resnet50", (512, 1024, 2048), (8, 8, 8), 25_557_032 - 2_049_000),
        ("resnet101", (512, 1024, 2048), (8, 8, 8), 44_549_160 - 2_049_000),
        ("vgg16", (256, 512, 512), (8, 8, 8), 14_714_688),
        ("tiny", (64, 64, 64), (4, 4, 4), 2_400 + 9 * (32 * 64 + 2 * 64 * 64) + 2 * (32 + 3 * 64)),
    ],
)
def test_defaults_are_the_last_three_stages_with_the_published_parameter_counts(name, channels, strides, parameters):
    backbone = without_memory(name)
    maps = backbone(torch.empty(2, 3, 64, 64, device="meta"))
    assert (backbone.name, backbone.channels, backbone.strides) == (name, channels, strides)
    assert [tuple(f.shape) for f in maps] == [(2, c, 64 // s, 64 // s) for c, s in zip(channels, strides)]
    assert sum(p.numel() for p in backbone.parameters()) == parameters
    assert backbone.weights == backbones.WeightsRecord(source="none", sha256=None, loaded=0, missing=(), unexpected=())


@given(
    backbone=st.sampled_from(
        [
            ("tiny", {}),
            ("vgg16", {}),
            ("resnet34", {"output_stride": 16}),
            ("resnet50", {"output_stride": 32}),
            ("resnet18", {"stages": ("layer1", "layer3")}),
        ]
    ),
    height=st.integers(1, 500),
    width=st.integers(1, 500),
)
@settings(deadline=None, max_examples=25)
def test_the_grid_is_the_size_over_the_stride_rounded_up(backbone, height, width):
    backbone = without_memory(backbone[0], **backbone[1])
    expected = [(int(np.ceil(height / s)), int(np.ceil(width / s))) for s in backbone.strides]
    assert grids(backbone, height, width) == expected


def test_stages_come_finest_first_and_later_ones_are_gone():
    backbone = seeded("resnet18", stages=["layer3", "layer1"])
    assert backbone.stages == ("layer1", "layer3")
    assert [tuple(f.shape[1:]) for f in backbone(images(33, 47))] == [(64, 9, 12), (256, 5, 6)]
    assert [name for name, _ in backbone.network.named_children()] == ["conv1", "bn1", "relu", "maxpool", *FIRST_THREE]


@pytest.mark.parametrize(
    ("name", "options", "complaint"),
    [
        ("resnet19", {}, "tiny, resnet18, resnet34, resnet50, resnet101, vgg16"),
        ("resnet18", {"stages": ("stage1",)}, "layer1.*found .*stage1"),
        ("resnet18", {"stages": ()}, "one or more of"),
        ("resnet18", {"stages": ("layer1", "layer1")}, "each once"),
        ("resnet18", {"stages": "layer1"}, "found 'layer1'"),
        ("resnet50", {"output_stride": 4}, "8 or 16 or 32; found 4"),
        ("vgg16", {"output_stride": 16}, "output_stride 8 or 32; found 16"),
        ("tiny", {"output_stride": 8}, "output_stride 4; found 8"),
    ],
)
def test_what_cannot_be_built_is_refused_with_what_can(name, options, complaint):
    with pytest.raises(ValueError, match=complaint):
        build_backbone(name, **options)


# What every backbone does


@pytest.mark.parametrize("name", RUNNABLE)
def test_gradients_seeds_saving_and_bfloat16(name, tmp_path):
    original, same = seeded(name, **RUNNABLE[name]), seeded(name, **RUNNABLE[name])
    copy = build_backbone(name, **RUNNABLE[name])
    assert all(torch.equal(a, b) for a, b in zip(original.parameters(), same.parameters(), strict=True))

    # Gradients reach every parameter and the image; the pass moves the batch norms' statistics.
    x = images(37, 52).requires_grad_()
    sum((features**2).mean() for features in original(x)).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in original.parameters())
    assert x.grad.abs().sum() > 0

    # A copy with other weights answers otherwise, until it is filled.
    torch.save(original.state_dict(), tmp_path / "backbone.pth")
    x = images(64, 41, seed=1)
    with torch.no_grad():
        wanted, different = original.eval()(x), copy.eval()(x)
        copy.load_state_dict(torch.load(tmp_path / "backbone.pth", weights_only=True))
        found = copy(x)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            rough = copy(x)
    for exact, loaded, before, half in zip(wanted, found, different, rough):
        assert torch.equal(loaded, exact)
        assert not torch.allclose(before, exact)
        assert half.dtype == torch.bfloat16
        assert 0 < (half.float() - exact).norm() < 0.03 * exact.norm()
    assert all(p.dtype == torch.float32 for p in copy.parameters())
    assert all(key.startswith("network.") for key in original.state_dict())


def test_tiny_normalises_its_images_ends_without_a_relu_and_sees_33_pixels():
    backbone = seeded("tiny").eval()  # no bias anywhere and untouched batch norm: zero in, zero out
    mean_colour = torch.tensor([0.485, 0.456, 0.406])[None, :, None, None].expand(1, 3, 16, 16)
    assert all(features.abs().max() < 1e-5 for features in backbone(mean_colour))
    assert all(features.abs().max() > 1e-2 for features in backbone(1 - mean_colour))
    x = images(64, 64, batch=1).requires_grad_()
    _, stage3, stage4 = backbone(x)
    assert stage3.min() == 0
    assert stage4.min() < -0.1
    stage4[0, :, 8, 8].square().sum().backward()
    rows, columns = x.grad[0].abs().sum(0).nonzero(as_tuple=True)
    assert (rows.min(), rows.max()) == (columns.min(), columns.max()) == (32 - 16, 32 + 16)


# ResNets


@pytest.mark.parametrize(
    ("name", "dilate"), [("resnet18", None), ("resnet50", None), ("resnet50", [False, True, True])]
)
def test_resnet_features_equal_torchvisions(name, dilate):
    torch.manual_seed(0)
    reference = torchvision.models.get_model(name, replace_stride_with_dilation=dilate).double().eval()
    stages = ("layer1", "layer2", "layer3", "layer4")
    backbone = build_backbone(name, stages=stages, output_stride=8 if dilate else 32).double().eval()
    backbone.mean, backbone.std = (torch.tensor(v, dtype=torch.float64)[:, None, None] for v in MEAN_AND_STD)
    backbone.network.load_state_dict({key: reference.state_dict()[key] for key in backbone.network.state_dict()})
    x = images(65, 90, batch=1).double()  # in single precision the two take other kernels and differ by 2e-6
    with torch.no_grad():
        wanted = create_feature_extractor(reference, list(stages))(normalised(x))
        found = backbone(x)
    for stage, features in zip(stages, found, strict=True):
        torch.testing.assert_close(features, wanted[stage], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("name", "output_stride", "size"),
    [("resnet18", 8, (64, 64)), ("resnet18", 8, (75, 50)), ("resnet18", 16, (75, 50)), ("resnet50", 8, (50, 33))],
)
def test_a_dilated_resnet_holds_the_strided_features_at_every_so_many_grid_points(name, output_stride, size):
    strided, dense = seeded(name, output_stride=32).eval(), seeded(name, output_stride=output_stride).eval()
    for key, tensor in strided.state_dict().items():
        assert torch.equal(tensor, dense.state_dict()[key]), key
    with torch.no_grad():
        for coarse, fine, s, t in zip(strided(images(*size)), dense(images(*size)), strided.strides, dense.strides):
            torch.testing.assert_close(fine[..., :: s // t, :: s // t], coarse, rtol=1e-4, atol=1e-4)


# VGG16


def test_vgg16_has_torchvisions_initial_spread():
    backbone = seeded("vgg16", stages=("block5",))
    for convolution in convolutions(backbone).values():
        spread = (2 / (9 * convolution.out_channels)) ** 0.5
        assert abs(convolution.weight.std().item() / spread - 1) < 0.05
        assert convolution.bias.abs().max() == 0


# Frozen batch norm


@pytest.mark.parametrize("name", ["tiny", "resnet18"])
@pytest.mark.parametrize("frozen", [True, False])
def test_frozen_batch_norm_keeps_its_statistics_and_affine_through_a_training_step(name, frozen):
    backbone = seeded(name, frozen_batch_norm=frozen)
    parent = nn.Sequential(backbone).eval().train()  # as a method holding a backbone does
    assert parent.training
    assert backbone.training
    norms = [m for m in backbone.modules() if isinstance(m, nn.BatchNorm2d)]
    assert all(m.training is not frozen for m in norms)
    before = {key: value.clone() for key, value in backbone.state_dict().items()}
    optimizer = torch.optim.SGD([p for p in backbone.parameters() if p.requires_grad], lr=0.1)
    sum((features**2).mean() for features in backbone(images(32, 32))).backward()
    optimizer.step()
    moved = {key for key, value in backbone.state_dict().items() if not torch.equal(value, before[key])}
    of_norms = {key for key in before if "running" in key or "num_batches" in key}
    assert moved & of_norms == (set() if frozen else of_norms)
    assert all((m.weight.grad is None and m.bias.grad is None) is frozen for m in norms)
    assert all(m.weight.requires_grad is m.bias.requires_grad is not frozen for m in norms)
    kernels = {f"{key}.weight" for key in convolutions(backbone)}
    assert kernels <= moved


# Weights


@pytest.fixture(scope="module")
def resnet18_state():
    torch.manual_seed(5)
    return torchvision.models.resnet18().state_dict()


@pytest.fixture(scope="module")
def resnet18_file(resnet18_state, tmp_path_factory):
    return save(tmp_path_factory.mktemp("weights") / "resnet18.pth", resnet18_state)


def save(path, state):
    torch.save(state, path)
    return path


def test_a_whole_file_loads_and_is_recorded(resnet18_file, resnet18_state, tmp_path):
    backbone = build_backbone("resnet18", weights=resnet18_file, stages=FIRST_THREE)
    loaded, record = backbone.network.state_dict(), backbone.weights
    assert all(torch.equal(tensor, resnet18_state[key]) for key, tensor in loaded.items())
    assert (record.source, record.loaded, record.missing) == ("resnet18.pth", len(loaded), ())
    assert set(record.unexpected) == {k for k in resnet18_state if k.startswith(("layer4.", "fc."))}
    digest = hashlib.sha256()
    for key in sorted(loaded):
        digest.update(key.encode() + loaded[key].numpy().tobytes())
    assert record.sha256 == digest.hexdigest()
    assert backbone.frozen_batch_norm
    assert not backbone.network.bn1.training
    assert not build_backbone("resnet18", weights=resnet18_file, frozen_batch_norm=False).frozen_batch_norm
    assert not build_backbone("resnet18").frozen_batch_norm
    wrapped = save(tmp_path / "wrapped.pth", {"state_dict": resnet18_state, "epoch": 3})
    assert build_backbone("resnet18", weights=wrapped, stages=FIRST_THREE).weights.sha256 == record.sha256
    changed = save(tmp_path / "changed.pth", resnet18_state | {"conv1.weight": resnet18_state["conv1.weight"] + 1e-3})
    assert build_backbone("resnet18", weights=changed, stages=FIRST_THREE).weights.sha256 != record.sha256
    swapped = {"a": torch.ones(2), "b": torch.zeros(2)}, {"b": torch.ones(2), "a": torch.zeros(2)}
    assert backbones.tensors_sha256(swapped[0]) != backbones.tensors_sha256(swapped[1])


def test_half_precision_is_widened_and_batch_counters_may_be_missing(resnet18_state, tmp_path):
    halves = {k: v.half() for k, v in resnet18_state.items() if not k.endswith("num_batches_tracked")}
    backbone = build_backbone("resnet18", weights=save(tmp_path / "half.pth", halves), stages=("layer1",))
    for key, parameter in backbone.network.named_parameters():
        assert parameter.dtype == torch.float32
        assert torch.equal(parameter, halves[key].float())
    norms = ("bn1", "layer1.0.bn1", "layer1.0.bn2", "layer1.1.bn1", "layer1.1.bn2")
    assert backbone.weights.missing == tuple(f"{norm}.num_batches_tracked" for norm in norms)


def test_a_relative_path_is_also_looked_for_below_the_data_root(resnet18_state, tmp_path, monkeypatch):
    monkeypatch.setenv("FSSLIB_DATA", str(tmp_path / "data"))
    (tmp_path / "data" / "weights").mkdir(parents=True)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    layer1 = {k: v for k, v in resnet18_state.items() if k.startswith(("conv1", "bn1", "layer1"))}
    save(tmp_path / "data" / "weights" / "net.pth", layer1)
    from_data = build_backbone("resnet18", weights="net.pth", stages=("layer1",))
    assert torch.equal(from_data.network.conv1.weight, layer1["conv1.weight"])
    layer1["conv1.weight"] = layer1["conv1.weight"] + 1
    save(tmp_path / "here" / "net.pth", layer1)  # a file at the path as given goes first
    as_given = build_backbone("resnet18", weights=Path("net.pth"), stages=("layer1",))
    assert torch.equal(as_given.network.conv1.weight, layer1["conv1.weight"])
    with pytest.raises(WeightsError, match=r"No weights file at other\.pth or .*weights.other\.pth.*'imagenet'"):
        build_backbone("resnet18", weights="other.pth")


def test_vgg16_weights_go_to_their_convolutions(tmp_path):
    with torch.device("meta"):
        state = torchvision.models.vgg16().features.state_dict(prefix="features.")
    state = {key: torch.full(t.shape, float(i), dtype=torch.float16) for i, (key, t) in enumerate(state.items())}
    state["classifier.6.weight"] = torch.zeros(1000, 4)
    backbone = build_backbone("vgg16", weights=save(tmp_path / "vgg16.pth", state), stages=("block2", "block4"))
    values = [tensor.unique().tolist() for tensor in backbone.network.parameters()]
    assert values == [[float(i)] for i in range(20)]
    assert backbone.weights.loaded == 20
    block5 = {f"features.{i}.{kind}" for i in (24, 26, 28) for kind in ("weight", "bias")}
    assert set(backbone.weights.unexpected) == block5 | {"classifier.6.weight"}
    assert not backbone.frozen_batch_norm


def less(*gone):
    return lambda state: {k: v for k, v in state.items() if not k.startswith(gone)}


class Trap:
    """Unpickling this with code allowed makes a folder."""

    def __reduce__(self):
        return os.mkdir, ("sprung",)


BROKEN = {
    "one tensor gone": (less("layer2.0.conv1.weight"), r'Missing key.*: "layer2\.0\.conv1\.weight"\. Ask for'),
    "another shape": (
        lambda state: state | {"conv1.weight": torch.zeros(64, 4, 7, 7)},
        r"size mismatch for conv1\.weight: .*\[64, 4, 7, 7\].*\[64, 3, 7, 7\]",
    ),
    "integers": (
        lambda state: state | {"conv1.weight": torch.zeros(64, 3, 7, 7, dtype=torch.int8)},
        r"Integers where fractions belong, .*: \['conv1\.weight'\]\. Ask for",
    ),
    "a counter of fractions": (
        lambda state: state | {"bn1.num_batches_tracked": torch.zeros(())},
        r"or fractions for integers: \['bn1\.num_batches_tracked'\]",
    ),
    "a stranger": (
        lambda state: state | {"layer1.2.conv1.weight": torch.zeros(1)},
        r'Unexpected key.*: "layer1\.2\.conv1\.weight"\. Ask for',
    ),
    "a prefix": (
        lambda state: {f"module.{k}": v for k, v in state.items()},
        r'Missing key.*: "conv1\.weight", .* \.\.\. Unexpected key.*: "module\.conv1\.weight"',
    ),
    "a checkpoint": (lambda state: {"model": state, "epoch": 3}, r"no state dict .* a dict with 2 .*'model', 'epoch'"),
    "nothing": (lambda state: {}, r"no state dict .* but a dict with 0 entries.*Save model"),
    "a list": (lambda state: [1, 2], "no state dict .* but a list"),
    "code": (lambda state: state | {"extra": Trap()}, "cannot be read as weights"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_weights_that_do_not_fit_are_refused_and_named_and_code_is_not_run(case, resnet18_state, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    broken, complaint = BROKEN[case]
    with pytest.raises(WeightsError, match=rf"file\.pth .*{complaint}"):
        build_backbone("resnet18", weights=save(tmp_path / "file.pth", broken(resnet18_state)))
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("name", ["resnet34", "resnet50", "vgg16", "tiny"])
def test_weights_of_another_network_are_refused(name, resnet18_file):
    with pytest.raises(WeightsError, match=rf"resnet18\.pth does not fit {name} .*pass weights of the whole {name}"):
        build_backbone(name, weights=resnet18_file)


def test_damaged_files_are_refused(resnet18_file, tmp_path):
    whole = resnet18_file.read_bytes()
    for content in (whole[: len(whole) // 2], b"<html>404</html>", b""):
        (tmp_path / "file.pth").write_bytes(content)
        with pytest.raises(WeightsError, match=r"file\.pth cannot be read as weights .*fetch it again"):
            build_backbone("resnet18", weights=tmp_path / "file.pth")


def test_imagenet_weights_come_by_torchvisions_enum_or_the_error_says_where_to_put_a_file(
    monkeypatch, resnet18_state, tmp_path
):
    asked = []

    def served(self, **options):
        asked.append(str(self))
        if "50" in str(self):
            raise URLError("no route")
        return resnet18_state

    monkeypatch.setenv("FSSLIB_DATA", str(tmp_path))
    monkeypatch.setattr(torchvision.models.WeightsEnum, "get_state_dict", served)
    backbone = build_backbone("resnet18", weights="imagenet")
    assert asked == [backbone.weights.source] == ["ResNet18_Weights.IMAGENET1K_V1"]
    assert torch.equal(backbone.network.conv1.weight, resnet18_state["conv1.weight"])
    assert backbone.frozen_batch_norm
    with pytest.raises(WeightsError, match=r"no route.*weights and pass weights='resnet50-\w+\.pth'") as caught:
        build_backbone("resnet50", weights="imagenet", stages=("layer1",))
    assert str(tmp_path / "weights") in str(caught.value)
    with pytest.raises(WeightsError, match="no ImageNet weights of tiny"):
        build_backbone("tiny", weights="imagenet")


# Real weights

REAL = "resnet18_imagenet1k_v1_to_layer3_bnfolded_fp16.pth"


@pytest.fixture
def real_weights():
    if not os.environ.get("FSSLIB_DATA"):
        pytest.skip("FSSLIB_DATA is not set: no real weights")
    folder = paths.data_root() / "weights"
    if not (folder / REAL).is_file():
        pytest.skip(f"no {REAL} below FSSLIB_DATA")
    return folder


@pytest.mark.realdata
def test_the_truncated_resnet18_loads_up_to_layer3_and_is_refused_for_layer4(real_weights):
    backbone = build_backbone("resnet18", weights=REAL, stages=FIRST_THREE, output_stride=32).eval()
    record = backbone.weights
    assert (record.source, record.loaded, record.missing, record.unexpected) == (REAL, 90, (), ())
    assert record.sha256 == "f043e55fab80d7678ec88acf62b6237a6b3fcec94b1ae8f5c23b5c89236c421a"
    reference = torchvision.models.resnet18().eval()
    reference.load_state_dict(torch.load(real_weights / REAL, weights_only=True), strict=False)
    x = images(64, 97)
    with torch.no_grad():
        wanted = create_feature_extractor(reference, list(FIRST_THREE))(normalised(x))
        for stage, features in zip(FIRST_THREE, backbone(x), strict=True):
            torch.testing.assert_close(features, wanted[stage], rtol=1e-6, atol=1e-6)
    with pytest.raises(WeightsError, match=r'Missing key.*: "layer4\.0'):
        build_backbone("resnet18", weights=REAL)
