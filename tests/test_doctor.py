"""The doctor: what a bug report needs, the next step for what is missing, a clear end on a broken pair. About 1 s."""

import importlib
import os
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from fsslib import doctor
from fsslib.data import catalogue
from tests.data.camvid_fixture import draw_camvid
from tests.data.voc_fixture import draw_voc


@pytest.fixture
def empty(tmp_path, monkeypatch) -> Path:
    """A machine without data and weights."""
    monkeypatch.setenv("FSSLIB_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    return tmp_path


def test_a_sound_machine_is_described(empty, capsys):
    assert doctor.main() == 0
    report = capsys.readouterr().out
    for name in ("python", "fsslib", "torch", "torchvision", "papermill", "system", "processor", "GPU"):
        assert f"\n  {name} " in report
    assert torch.__version__.split("+")[0] in report
    assert "bfloat16" in report
    assert re.search(r"toy +found", report)
    assert "Broken" not in report


@pytest.mark.parametrize("broken", ["torch", "torchvision"])
@pytest.mark.parametrize(
    "error",
    [RuntimeError("operator torchvision::nms does not exist\nmore"), ImportError("libcudart.so.13"), OSError("x")],
)
def test_a_broken_pair_ends_with_1_and_says_what_to_do(empty, capsys, monkeypatch, broken, error):
    real = importlib.import_module

    def import_module(name):
        if name == broken:
            raise error
        return real(name)

    monkeypatch.setattr(doctor.importlib, "import_module", import_module)
    assert doctor.main() == 1
    report = capsys.readouterr().out
    assert f"importing {broken} fails with {type(error).__name__}: {str(error).splitlines()[0]}" in report
    assert "pip install -c constraints.txt torch torchvision" in report
    assert "\n  papermill " in report


def test_data_that_is_there_is_counted(tmp_path, monkeypatch):
    draw_voc(tmp_path)
    draw_camvid(tmp_path)
    monkeypatch.setenv("FSSLIB_DATA", str(tmp_path))
    report = catalogue.report()
    assert f"below {tmp_path} (FSSLIB_DATA)" in report
    assert re.search(r"pascal +found: 85 files VOCdevkit", report)
    assert re.search(r"camvid +found: \d+ files CamVid", report)
    assert re.search(r"coco +missing: ", report)


def test_data_that_is_missing_comes_with_the_next_step(empty):
    report = catalogue.report()
    folder = empty / "data" / "VOCdevkit" / "VOC2012" / "SegmentationClassAug"
    assert re.search(rf"pascal +missing: there is no {folder}", report)
    assert "To get it: fsslib data get pascal" in report
    assert "Set FSSLIB_DATA to the folder that holds SUIM" in report


def test_weights_are_found_below_the_data_and_in_torchs_cache(empty):
    assert "none found: weights=imagenet downloads them" in doctor.weights_report()
    for folder, name in (
        (empty / "data" / "weights", "mine.pth"),
        (empty / "torch" / "hub" / "checkpoints", "r18.pth"),
    ):
        folder.mkdir(parents=True)
        (folder / name).write_bytes(b"0" * 2**20)
        assert f"{name}  (1 MiB in {folder})" in doctor.weights_report()


def test_gpus_are_named_with_their_memory(monkeypatch):
    card = SimpleNamespace(name="Model X", total_memory=24 * 2**30)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: card)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: False)
    assert doctor.gpu_name() == "Model X, 24 GiB; Model X, 24 GiB; no bfloat16"


@pytest.mark.realdata
@pytest.mark.skipif(not os.environ.get("FSSLIB_DATA"), reason="FSSLIB_DATA is not set")
def test_real_data_are_found():
    report = catalogue.report()
    assert all(re.search(rf"{name} +found: ", report) for name in ("pascal", "coco", "camvid", "magnetic_tile", "suim"))
