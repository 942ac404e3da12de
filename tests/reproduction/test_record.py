"""The record of a run: whole, its counts named by hash, its scores those of the counts. About 2 s."""

import csv
import json

import pytest
import torch

from fsslib.metrics import FewShotMeter
from fsslib.reproduction.config import RunConfig
from fsslib.reproduction.experiment import Experiment
from fsslib.reproduction.result import config_of, read_result, score_table
from fsslib.training.fit import History
from tests.reproduction.counts import read_meter

SIXTY = History([{"step": s, "phase": 0, "segmentation": 1.0 / (s + 1)} for s in range(60)], seconds=1.5, earlier=9)


def trained_and_tested(folder, history=SIXTY, **changes) -> Experiment:
    """An experiment with this history and with answers that were guessed."""
    values = {"method": "prototype", "targets": ("night",), "episodes": 4, "image_size": 32, "learning_rate": 1e-3}
    made = Experiment(RunConfig(**values | {"output": str(folder)} | changes))
    made.history, made.at_once, made.meters = history, {"photo": 4, "night": 3}, {}
    generator = torch.Generator().manual_seed(0)
    for domain, exam in made.exams.items():
        episode = next(exam.batches(4))
        guess = torch.randint(0, 2, episode.query_labels.shape, generator=generator)
        made.meters[domain] = FewShotMeter(made.task.test_classes)
        made.meters[domain].update(guess, episode.query_labels, episode.class_ids)
    return made


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Experiment:
    return trained_and_tested(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def path(made):
    return made.record()


def test_the_record_holds_what_a_number_needs(made, path):
    content = read_result(path)
    assert config_of(path).sha256 == made.config.sha256 == content["config_sha256"]
    assert "output" not in content["config"]
    assert len(content["classes"]["train"]) == 15
    assert list(content["scores"]) == ["photo", "night"]
    assert content["scores"]["night"]["manifest_sha256"] == made.exams["night"].manifest.sha256
    assert content["at_once"] == made.at_once
    assert content["floors"]["everything"] == content["floors"]["by_domain"]["photo"]
    assert 0 < content["floors"]["everything"] < content["floors"]["every_object"] < 1
    assert content["training"]["steps"] == 60
    assert content["training"]["final"]["segmentation"] == pytest.approx(sum(1 / s for s in range(11, 61)) / 50)
    assert [row["step"] for row in content["training"]["tail"]] == list(range(50, 60))
    assert content["seconds"] > 9
    assert len(content["weights"]["end_sha256"]) == 64
    assert content["peak_memory_bytes"]["device"] is None
    assert content["environment"]["device"] == "cpu"
    assert content["environment"]["versions"]["torch"] == torch.__version__.split("+")[0]
    with path.with_name("metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(int(row["step"]), float(row["segmentation"])) for row in rows[:2]] == [(0, 1), (1, 0.5)]
    assert len(rows) == 60


def test_a_class_that_was_not_asked_for_has_no_score(made, path):
    asked = {row.classes[0] for row in made.exams["photo"].manifest.rows}
    (left_out,) = set(made.task.test_classes) - asked
    per_class = read_result(path)["scores"]["photo"]["per_class"]
    assert per_class[made.task.train.class_names[left_out]] is None
    assert sum(iou is not None for iou in per_class.values()) == 4


@pytest.mark.parametrize("domain", ["photo", "night"])
def test_the_scores_can_be_made_again_from_the_counts(made, path, domain):
    meter, stated = read_meter(path, domain), read_result(path)["scores"][domain]
    score = meter.compute()
    assert (score.miou, score.fb_iou, score.exact_ratio) == (stated["miou"], stated["fb_iou"], stated["exact_ratio"])
    assert torch.equal(meter.ways, made.meters[domain].ways)
    assert meter.class_ids == made.task.test_classes


def test_an_untrained_network_has_a_record_too(tmp_path):
    path = trained_and_tested(tmp_path, History(), steps=0).record()
    assert read_result(path)["training"] == {"steps": 0, "seconds": 0.0, "final": {}, "tail": []}
    assert (tmp_path / "metrics.csv").read_text().strip() == "step,phase"


def test_a_number_that_is_none_is_never_recorded(tmp_path):
    with pytest.raises(ValueError, match="JSON compliant"):
        trained_and_tested(tmp_path, History([{"segmentation": float("nan")}])).record()
    assert not (tmp_path / "result.json").exists()


@pytest.mark.parametrize("content", ["{}", "[]", json.dumps({"schema_version": 2}), '{"schema'])
def test_a_damaged_or_foreign_result_is_refused(tmp_path, content):
    (tmp_path / "result.json").write_text(content)
    with pytest.raises(ValueError):
        read_result(tmp_path / "result.json")


def test_a_result_of_earlier_rules_is_not_taken_for_todays(path, tmp_path):
    (tmp_path / "result.json").write_text(json.dumps(read_result(path) | {"config_sha256": 64 * "0"}))
    with pytest.raises(ValueError, match=r"result\.json is of earlier rules: .* has the hash .* now"):
        config_of(tmp_path / "result.json")


def test_the_table_is_in_percent():
    scores = {"photo": {"miou": 0.5, "fb_iou": 0.61234, "exact_ratio": 1.0, "episodes": 7}}
    titles, cells = (line.split() for line in score_table(scores).splitlines())
    assert titles == ["domain", "mIoU", "FB-IoU", "exact", "episodes"]
    assert cells == ["photo", "50.0", "61.2", "100.0", "7"]
