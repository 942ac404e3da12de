"""The doctor: what a bug report needs, the next step for what is missing, a clear end on a broken pair. About 1 s."""

import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from fsslib import doctor


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
    assert "Broken" not in report
    # Data that are missing come with the next step.
    assert re.search(r"toy +found", report)
    folder = empty / "data" / "VOCdevkit" / "VOC2012" / "SegmentationClassAug"
    assert re.search(rf"pascal +missing: there is no {folder}", report)
    assert "To get it: fsslib data get pascal" in report
    assert "Set FSSLIB_DATA to the folder that holds SUIM" in report


@pytest.mark.parametrize(
    ("broken", "error"),
    [
        ("torch", ImportError("libcudart.so.13")),
        ("torch", OSError("x")),
        ("torchvision", RuntimeError("operator torchvision::nms does not exist\nmore")),
    ],
)
def test_a_broken_pair_ends_with_1_and_says_what_to_do(empty, capsys, monkeypatch, broken, error):
    monkeypatch.setattr(
        doctor.importlib, "import_module", lambda name: (_ for _ in ()).throw(error) if name == broken else None
    )
    assert doctor.main() == 1
    report = capsys.readouterr().out
    assert f"importing {broken} fails with {type(error).__name__}: {str(error).splitlines()[0]}" in report
    assert "pip install -c constraints.txt torch torchvision" in report
    assert "\n  papermill " in report


def test_weights_are_found_below_the_data_and_in_torchs_cache(empty):
    assert "none found: weights=imagenet downloads them" in doctor.weights_report()
    for name in ("data/weights/mine.pth", "torch/hub/checkpoints/r18.pth"):
        (empty / name).parent.mkdir(parents=True)
        (empty / name).write_bytes(b"0" * 2**20)
        assert f"{Path(name).name}  (1 MiB in {(empty / name).parent})" in doctor.weights_report()


def test_gpus_are_named_with_their_memory(monkeypatch):
    card = SimpleNamespace(name="Model X", total_memory=24 * 2**30)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: card)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: False)
    assert doctor.gpu_name() == "Model X, 24 GiB; Model X, 24 GiB; no bfloat16"
