"""CONTRIBUTING's recipe for one more data set and one more method, run as it stands there. 5 s."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch

import fsslib as fss
from fsslib.data import names
from fsslib.data.check import check
from fsslib.data.sets import LAYOUTS, open_images
from fsslib.methods.base import Method
from tests.data import trees

PAGE = (Path(__file__).resolve().parents[1] / "CONTRIBUTING.md").read_text(encoding="utf-8")
ROW, TREE, METHOD = re.findall(r"^```python\n(.*?)^```$", PAGE.partition("## One more")[2], re.MULTILINE | re.DOTALL)


def test_the_code_is_short():
    assert sum(bool(line.strip()) for block in (ROW, TREE, METHOD) for line in block.splitlines()) < 40


@pytest.fixture
def pets(tmp_path, monkeypatch):
    """The set of the recipe, on its own tree."""
    monkeypatch.setattr(names, "CLASS_IDS", {**names.CLASS_IDS, "pet": 254})
    monkeypatch.setattr(trees, "class_id", names.class_id)
    code = "from fsslib.data.quirks import *\nfrom fsslib.data.layouts import Layout\n" + ROW.replace(
        "Layout(", "row = Layout("
    )
    scope: dict = {}
    exec(code, scope)
    monkeypatch.setitem(LAYOUTS, "oxford_pet", scope["row"])
    drawer = dict(vars(trees))
    exec(TREE, drawer)
    return drawer["draw_pets"](tmp_path), open_images("oxford_pet", root=tmp_path, size=32)


def test_the_data_set_reads_what_was_drawn_and_poses_episodes(pets):
    tree, images = pets
    assert images.ids == ("Bengal_1", "pug_2", "pug_3")
    for image_id, labels in tree.labels.items():
        assert np.array_equal(images.original(image_id)[1], labels)
        assert set(np.unique(labels)) == {0, 254, fss.VOID}
    assert images.episode(images.sample([254], 4)).presence.all()
    assert check(images).damaged == {}


def test_the_method_learns_and_is_asked(tmp_path, monkeypatch):
    (tmp_path / "recipe_module.py").write_text(METHOD)
    monkeypatch.syspath_prepend(tmp_path)
    method = fss.build_method("recipe_module:MyNet")
    assert isinstance(method, Method)
    task = fss.open_task("toy", size=32)
    before = method.background.item()
    fss.fit(
        method, fss.Recipe.load("prototype").with_changes(steps=3), task.streams(batch_size=2, shots=2), progress=False
    )
    assert method.background.item() != before
    meter = fss.evaluate(method, task.exams(4, ways=2, shots=2)["photo"], "toy")
    assert meter.compute().episodes == 4
    assert torch.isfinite(torch.tensor(meter.compute().miou))
