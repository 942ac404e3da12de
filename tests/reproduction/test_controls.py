"""Positive controls: other supports, foreign styles, and the rows that they leave behind. About 15 s."""

import pytest
import torch

from fsslib import paths
from fsslib.blocks.memory import feature_statistics
from fsslib.data import open_task
from fsslib.reproduction import controls
from fsslib.reproduction.config import RunConfig
from fsslib.reproduction.experiment import Experiment
from fsslib.reproduction.plans import Plan, read_rows
from tests.methods.contract import small_method

ITEMS = ("no item", "selected item", "best item")


def test_a_wrong_support_is_one_of_another_class_with_its_own_mask():
    exam = open_task("toy", size=32).exams(12)["photo"]
    (right,), (wrong,) = (
        list(batches) for batches in (exam.batches(12), controls.with_wrong_supports(exam.batches(12)))
    )
    for name in ("query_images", "query_labels", "class_ids"):
        assert torch.equal(getattr(right, name), getattr(wrong, name))
    for row, image in enumerate(wrong.support_images):
        place = next(n for n, other in enumerate(right.support_images) if torch.equal(image, other))
        assert right.class_ids[place] != right.class_ids[row]
        assert torch.equal(wrong.support_masks[row], right.support_masks[place])
    alone = next(iter(controls.with_wrong_supports(exam.batches(1))))
    assert torch.equal(alone.support_images, next(iter(exam.batches(1))).support_images)


def test_a_foreign_style_is_the_drawn_one_and_the_best_item_is_chosen_by_what_was_taken_away():
    method = small_method("rtd", alpha=0.0).eval()
    generator = torch.Generator().manual_seed(0)
    channels = method.memory.mean.shape[1]
    features = 1 + torch.rand(3, channels, 8, 8, generator=generator)
    home = feature_statistics(features)
    away = tuple(5 + torch.rand(1, channels, generator=generator) for _ in home)
    for _ in range(3):
        method.memory.store(*home)
        method.memory.store(*(statistic.expand(3, -1) for statistic in away))
    changed = {
        item: controls.foreign_style(method, away, item)(features) for item in ("no item", "selected item", "best item")
    }
    for statistic, wanted in zip(feature_statistics(changed["no item"]), away):
        torch.testing.assert_close(statistic, wanted.expand(3, -1), rtol=1e-3, atol=1e-3)
    index = {item: feature_statistics(changed[item])[0] for item in changed}
    distance = {item: (mean - home[0]).norm() for item, mean in index.items()}
    assert distance["best item"] < 0.5 * distance["selected item"]
    assert distance["selected item"] == pytest.approx(distance["no item"].item(), rel=0.2)


def test_rows_are_added_for_finished_runs_that_were_not_asked_and_hold_what_a_claim_reads(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(paths, "project_root", lambda: tmp_path)
    asked = {"steps": 2, "batch_size": 2, "image_size": 32, "episodes": 6, "targets": ("night",), "weights": "none"}
    runs = {
        "SG-One": RunConfig(method="sg_one", **asked),
        "all": RunConfig(method="rtd", **asked),
        "BS": RunConfig(method="rtd", method_options={"contrast": False, "source": "none", "target": "none"}, **asked),
        "prototypes": RunConfig(method="prototype", **asked),
        "never run": RunConfig(method="sg_one", seed=1, **asked),
    }
    for label, config in runs.items():
        if label != "never run":
            run = Experiment(config)
            run.train(), run.test(), run.record()
    plan = Plan("tried", tuple(runs.items()))
    assert controls.add(plan) == 2
    rows = read_rows(tmp_path / "results" / "tried_controls.json")
    assert {row["label"]: set(row["scores"]) for row in rows} == {
        "SG-One, wrong support": {"photo", "night"},
        **{f"all, foreign style, {item}": {"night"} for item in ITEMS},
    }
    assert all(0 <= score["miou"] <= 1 for row in rows for score in row["scores"].values())
    assert {row["config_sha256"] for row in rows} == {runs["SG-One"].sha256, runs["all"].sha256}
    assert controls.add(plan) == 0
    assert read_rows(tmp_path / "results" / "tried_controls.json") == rows
    # The control of the right support is the run's own score.
    run = Experiment(runs["SG-One"])
    run.train(), run.test()
    exam = run.exams["night"]
    found = controls.score(run.method.eval(), exam.batches(6), run.task.classes_in("night"))
    assert found == pytest.approx(run.meters["night"].compute().miou)
