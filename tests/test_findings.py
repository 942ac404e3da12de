"""The folder findings/: its form, and what fsslib must not do because of one. The scripts are run by hand. 15 s."""

import ast
import os
import platform
import re
import subprocess
from pathlib import Path

import pytest
import torch
from torch.optim.optimizer import register_optimizer_step_pre_hook
from torch.profiler import profile

from fsslib.blocks.backbones import build_backbone
from tests.methods.contract import ALL_METHODS, DEVICE, random_batch, small_method

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "findings"
SCRIPTS = sorted(FOLDER.glob("*.sh"))


def test_the_list_names_the_scripts_that_are_there():
    listed = re.findall(r"^\| `([\w-]+)`", (FOLDER / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert listed == [path.stem for path in SCRIPTS]


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_a_script_has_the_form_that_was_agreed(path):
    text = path.read_text(encoding="utf-8")
    assert os.access(path, os.X_OK)
    assert subprocess.run(["bash", "-n", path], check=False).returncode == 0
    assert 30 <= len(text.splitlines()) <= 70
    installed = re.search(r"pip\" install --quiet --disable-pip-version-check(?: \\\n)?(.*)", text)[1].split()
    assert installed
    assert all(re.fullmatch(r"[\w-]+==[\d.]+", package) for package in installed), "packages by name and exact version"
    assert "CHANGED: " in text
    assert "import fsslib" not in text
    assert "from fsslib" not in text


def test_a_resnet_convolves_one_image_with_one_thread_by_onednn():
    """torch 2.15 keeps 1x1 convolutions from it, most of a bottleneck ResNet's, unless they are dilated."""
    if not torch.backends.mkldnn.is_available():
        assert "arm" in platform.machine() or "aarch" in platform.machine()
        return
    backbone, threads = build_backbone("resnet50", stages=("layer1",)).eval(), torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.inference_mode(), profile() as seen:
            backbone(torch.rand(1, 3, 128, 128))  # of very small images no convolution goes there
    finally:
        torch.set_num_threads(threads)
    names = {event.key for event in seen.key_averages()}
    assert "aten::mkldnn_convolution" in names
    assert "aten::_slow_conv2d_forward" not in names


@pytest.mark.parametrize("folder", ["fsslib", "notebooks/lessons"])
def test_no_picture_is_drawn_with_colours_between_its_pixels(folder):
    """matplotlib 3.11.2 would smooth label maps at three times their size (matplotlib-at-three-times.sh)."""
    nodes = [node for path in (ROOT / folder).rglob("*.py") for node in ast.walk(ast.parse(path.read_text("utf-8")))]
    calls = [node for node in nodes if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "imshow"]
    assert calls
    for call in calls:
        assert "interpolation='nearest'" in ast.unparse(call), ast.unparse(call)


@pytest.mark.parametrize("name", ALL_METHODS)
def test_no_weight_is_updated_inside_autocast(name):
    """torch 2.15.0: the rest of the block would go on with the old weights (torch-autocast-keeps-old-weights.sh)."""
    method, inside = small_method(name).train(), []
    method.compute_dtype = torch.bfloat16
    optimizers = {key: torch.optim.SGD(group, lr=0.1) for key, group in method.parameter_groups().items()}
    kind = torch.device(DEVICE).type
    hook = register_optimizer_step_pre_hook(lambda *_: inside.append(torch.is_autocast_enabled(kind)))
    try:
        method.training_step(random_batch(name, batch=4), optimizers)
    finally:
        hook.remove()
    assert inside
    assert not any(inside)
