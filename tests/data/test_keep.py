"""Training that reads what frozen stages give of images: the same losses, the same run resumed, off where needed."""

import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fsslib.blocks.backbones import replace_stride_with_dilation
from fsslib.data import cache, open_task
from fsslib.data.images import LabelledImageSet
from fsslib.data.keep import keep_features
from fsslib.data.layouts import Layout, find
from fsslib.episodes import EpisodeStream
from fsslib.files import DataError
from fsslib.methods import build_method
from fsslib.reproduction.config import RunConfig
from fsslib.reproduction.experiment import Experiment
from fsslib.reproduction.result import read_result
from fsslib.training.fit import fit
from fsslib.training.recipe import Recipe
from tests.training.test_training import equal, interrupted


@pytest.fixture
def photos(tmp_path) -> LabelledImageSet:
    """Eight pictures of noise on files; each shows two classes and some void."""
    rng, labels = np.random.default_rng(0), np.zeros((40, 40), np.uint8)
    labels[4:30, 2:18], labels[8:36, 20:38], labels[:3] = 1, 2, 255
    (tmp_path / "files").mkdir()
    for n in range(8):
        Image.fromarray(rng.integers(0, 255, (40, 40, 3), np.uint8)).save(tmp_path / "files" / f"{n}.jpg")
        Image.fromarray(np.roll(labels, n, 0)).save(tmp_path / "files" / f"{n}.png")
    layout = Layout("noise", ["{name}.jpg"], ["{name}.png"], {1: "aeroplane", 2: "bicycle"})
    files = find(layout, tmp_path / "files").files
    return LabelledImageSet(files, layout.named(), name="noise", domain="photo", size=40)


def stream(photos, **options) -> EpisodeStream:
    return EpisodeStream(photos, tuple(photos.class_names), **{"batch_size": 2} | options)


def frozen(name, **options):
    """A method on tiny of which nothing learns, not even batch norm."""
    torch.manual_seed(0)
    method = build_method(name, weights="tiny-toy-fold0.pt", **options)
    method.backbone.requires_grad_(False).frozen_batch_norm = True
    return method.train()


def losses(method, batch):
    torch.manual_seed(1)
    return {name: loss.item() for name, loss in method.losses(batch).items()}


@torch.no_grad()
def encoded(method, batch):
    torch.manual_seed(1)
    return [values for part in method.encode_both(batch) for name, values in part.items() if name != "size"]


RTD = {"contrast": False, "target": "none", "source": "none"}
METHODS = [
    ("pfenet", {}, ["stage2", "stage3", "stage4"]),
    ("hsnet", {}, ["level0", "level1", "level2"]),
    ("prototype", {"stages": "all"}, ["stage2", "stage3", "stage4"]),
    ("panet", {}, ["stage2", "stage3", "stage4"]),
    ("sg_one", {}, ["stage2", "stage3", "stage4"]),
    ("rtd", RTD, ["stage2", "stage3", "stage4"]),
    ("rtd", RTD | {"source": "lowest", "target": "highest"}, ["stage1"]),
    ("rtd", {"backbone_stages": "stage1,stage3,stage4", "memory_after": "stage3"}, ["stage1", "stage3"]),
]


@pytest.mark.parametrize(("name", "options", "kept"), METHODS)
def test_losses_are_those_of_images_without_a_look_at_them(photos, tmp_path, capsys, name, options, kept):
    method, plain = frozen(name, **options), stream(photos, ways=2, shots=2)
    if name == "rtd":
        channels = method.backbone.channels_behind(method.memory_after)
        method.memory.store(torch.rand(4, channels), torch.rand(4, channels))
    keeping = keep_features(method, plain, root=tmp_path / "cache")
    images = 8 + 16 * (name == "pfenet")
    assert f"keeps {', '.join(kept)} of {images} images" in capsys.readouterr().out
    batch = keeping.batch(3)
    assert {kind: values.dtype for kind, values in batch.kept.items()} == dict.fromkeys(kept, torch.float16)
    if not getattr(method, "contrast", False):  # whose twin has other colours, each time
        black = {side: torch.full_like(getattr(batch, side), torch.nan) for side in ("support_images", "query_images")}
        batch = replace(batch, **black)
    assert losses(method, batch) == pytest.approx(losses(method, plain.batch(3)), rel=1e-3)
    for found, wanted in zip(encoded(method, batch), encoded(method, plain.batch(3)), strict=True):
        assert (found - wanted).norm() < 5e-4 * wanted.norm(), "half precision is off by 1.4e-4 of a number"


def test_the_rest_learns_where_the_first_stage_alone_is_frozen(photos, tmp_path):
    method, plain = build_method("sg_one"), stream(photos)
    method.backbone.network.stage1.requires_grad_(False)
    method.backbone.frozen_batch_norm = True
    method.train()
    batch = keep_features(method, plain, root=tmp_path).batch(0)
    assert list(batch.kept) == ["stage1"]
    grads = []
    for given in (batch, plain.batch(0)):
        method.zero_grad()
        method.losses(given)["segmentation"].backward()
        grads.append(method.backbone.network.stage2[0].weight.grad.clone())
    assert 0 < (grads[0] - grads[1]).norm() < 0.02 * grads[1].norm()


@pytest.mark.parametrize("name", ["pfenet", "sg_one"])
def test_resumed_is_uninterrupted_to_the_bit_where_the_entry_went_meanwhile(photos, tmp_path, name):
    recipe = Recipe.load(name).with_changes(steps=4)

    def train(root, cut=None, **options):
        method = frozen(name)
        kept = keep_features(method, stream(photos), root=root)
        history = fit(method, recipe, {"source": cut(kept) if cut else kept}, progress=False, **options)
        return method.state_dict(), history.rows

    whole = train(tmp_path / "one")
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "two", lambda kept: interrupted(kept, 1), checkpoint=tmp_path / "c.pt")
    shutil.rmtree(tmp_path / "two")
    resumed = train(tmp_path / "two", checkpoint=tmp_path / "c.pt")
    assert equal(whole[0], resumed[0])
    assert whole[1] == resumed[1]


def test_pieces_of_a_batch_and_another_device_take_what_is_kept_along(photos, tmp_path):
    method = frozen("sg_one")
    batch = keep_features(method, stream(photos), root=tmp_path).batch(0)
    assert {kind: values.device.type for kind, values in batch.to("meta").kept.items()} == dict.fromkeys(
        batch.kept, "meta"
    )
    halves = [losses(method, batch[rows])["segmentation"] for rows in (slice(0, 1), slice(1, 2))]
    assert batch[0:1].kept["stage4"].shape == (1, 2, 64, 10, 10)
    assert sum(halves) / 2 == pytest.approx(losses(method, batch)["segmentation"], rel=0.02)


def test_queries_without_their_class_are_kept_as_well(photos, tmp_path):
    labels = np.array(Image.open(tmp_path / "files" / "7.png"))
    Image.fromarray(labels * (labels != 2)).save(tmp_path / "files" / "7.png")
    one = EpisodeStream(photos, (max(photos.class_names),), batch_size=4, presence_probability=0.5)
    kept = keep_features(frozen("pfenet"), one, root=tmp_path / "cache")
    assert not all(bool(kept.batch(step).presence.all()) for step in range(4))


class Counted:
    """`frozen` of a method, counted."""

    def __init__(self, method):
        self.calls, self.real = 0, method.frozen
        method.frozen = self

    def __call__(self, *given):
        self.calls += 1
        return self.real(*given)


def touch(photos, method):
    os.utime(photos.files["2"].image, ns=(1, 1))


def other_weights(photos, method):
    with torch.no_grad():
        method.backbone.network.stage1[0].weight[0, 0, 0, 0] += 1e-3


@pytest.mark.parametrize(
    ("change", "made"),
    [
        (lambda photos, method: None, 0),
        (lambda photos, method: setattr(photos, "size", 32), 8),
        (lambda photos, method: setattr(photos, "fit", "padded"), 8),
        (lambda photos, method: replace_stride_with_dilation(method.backbone.network.stage4, 4), 8),
        (touch, 8),
        (other_weights, 8),
    ],
    ids=["nothing", "size", "fit", "network", "file", "weights"],
)
def test_an_entry_is_of_these_files_this_size_network_and_weights(photos, tmp_path, change, made):
    keep_features(frozen("prototype"), stream(photos), root=tmp_path / "cache")
    method = frozen("prototype")
    change(photos, method)
    counted = Counted(method)
    keep_features(method, stream(photos), root=tmp_path / "cache")
    assert counted.calls == 1 + made, "one for the shapes"


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda: build_method("sg_one"), "no first stage of its backbone is frozen"),
        (lambda: build_method("sg_one", freeze_backbone=True), "no first stage of its backbone is frozen"),
        (lambda: build_method("pfenet", legacy_batch_norm=True), "stages that learn nothing"),
    ],
    ids=["weights", "batch norm", "PFENet's batch norm"],
)
def test_what_learns_is_not_kept_and_that_is_said(photos, tmp_path, capsys, make, why):
    plain = stream(photos)
    assert keep_features(make(), plain, root=tmp_path / "cache") is plain
    assert why in capsys.readouterr().out
    assert not (tmp_path / "cache").exists()


def test_neither_drawn_images_nor_a_full_disk_keep_anything(photos, tmp_path, monkeypatch, capsys):
    toy = open_task("toy", fold=0, size=32).streams(batch_size=2)["source"]
    assert keep_features(frozen("hsnet"), toy, root=tmp_path / "cache") is toy
    assert "episodes of images in files" in capsys.readouterr().out
    monkeypatch.setattr(cache.shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(1000, 500, 500))
    plain = stream(photos)
    assert keep_features(frozen("hsnet"), plain, root=tmp_path / "cache") is plain
    assert "of encoded images do not fit" in capsys.readouterr().out
    assert list((tmp_path / "cache").iterdir()) == []


def test_what_half_precision_cannot_hold_is_refused(photos, tmp_path):
    method = frozen("prototype")
    with torch.no_grad():
        method.backbone.network.stage4[1].weight *= 1e7
    with pytest.raises(DataError, match=r"too large for half precision. Train without"):
        keep_features(method, stream(photos), root=tmp_path / "cache")


# Runs


def record(tmp_path, **parameters):
    made = Experiment(RunConfig(steps=2, episodes=2, batch_size=2, device="cpu", output=str(tmp_path), **parameters))
    made.train()
    made.test()
    return read_result(made.record())


def test_a_run_says_whether_it_kept_what_it_was_asked_to(tmp_path):
    found = record(tmp_path, method="hsnet", image_size=32, targets=(), keep_features=True)
    assert found["config"]["keep_features"] is True
    assert found["training"]["features_kept"] is False, "the toy world is drawn anew"


@pytest.mark.realdata
@pytest.mark.skipif("FSSLIB_DATA" not in os.environ, reason="FSSLIB_DATA is not set: no real images to train on")
def test_a_run_on_photographs_keeps_features_and_ends_with_the_losses_of_one_that_does_not(tmp_path, monkeypatch):
    weights = "resnet18_imagenet1k_v1_to_layer3_bnfolded_fp16.pth"
    if not (Path(os.environ["FSSLIB_DATA"]) / "weights" / weights).exists():
        pytest.skip(f"no {weights} below FSSLIB_DATA")
    monkeypatch.setattr(cache, "cache_root", lambda: tmp_path / "cache")
    found = [
        record(
            tmp_path / str(keep),
            method="sg_one",
            method_options={"freeze_backbone": True, "backbone_stages": "layer1,layer2,layer3"},
            backbone="resnet18",
            weights=weights,
            data="pascal",
            targets=(),
            fold=1,
            image_size=64,
            protocol="square",
            keep_features=keep,
        )
        for keep in (True, False)
    ]
    kept, plain = (run["training"]["tail"] for run in found)
    assert found[0]["training"]["features_kept"] is True
    assert "features_kept" not in found[1]["training"]
    assert [row["segmentation"] for row in kept] == pytest.approx([row["segmentation"] for row in plain], rel=1e-3)
