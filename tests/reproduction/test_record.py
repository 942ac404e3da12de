"""The record of a run: whole, its counts checked by hash, its scores those of the counts. About 2 s."""

import csv
import json
from types import SimpleNamespace

import pytest
import torch

from fsslib.data import open_task
from fsslib.episodes import EpisodeManifest, EpisodeSet
from fsslib.methods import build_method
from fsslib.metrics import FewShotMeter
from fsslib.reproduction.config import RunConfig
from fsslib.reproduction.record import write_result
from fsslib.reproduction.result import config_of, read_result, score_table
from fsslib.training.fit import History
from tests.reproduction.counts import read_meter


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("run")


@pytest.fixture(scope="module")
def parts(folder):
    """All that a finished run hands over, made without training."""
    config = RunConfig(method="prototype", targets=("night",), episodes=4, output=str(folder), learning_rate=1e-3)
    task = open_task("toy", fold=0, source="photo", targets=("night",), size=32)
    exams, meters = {}, {}
    generator = torch.Generator().manual_seed(0)
    for domain, images in task.tests.items():
        rows = images.sample(task.test_classes, 4, seed=config.test_seed)
        exams[domain] = EpisodeSet(images, EpisodeManifest(tuple(rows)))
        meters[domain] = FewShotMeter(task.test_classes)
        episode = next(exams[domain].batches(4))
        guess = torch.randint(0, 2, episode.query_labels.shape, generator=generator)
        meters[domain].update(guess, episode.query_labels, episode.class_ids)
    history = History(seconds=1.5)
    history.rows += [{"step": s, "phase": 0, "segmentation": 1.0 / (s + 1)} for s in range(60)]
    method = build_method("prototype")
    made = {"config": config, "task": task, "method": method, "history": history, "exams": exams, "meters": meters}
    return made | {"device": "cpu", "at_once": {"photo": 4, "night": 3}}


@pytest.fixture(scope="module")
def path(parts):
    return write_result(SimpleNamespace(**parts), seconds=3.0)


def test_the_record_holds_what_a_number_needs(parts, path):
    content = read_result(path)
    assert config_of(path).sha256 == parts["config"].sha256 == content["config_sha256"]
    assert "output" not in content["config"]
    assert len(content["classes"]["train"]) == 15
    assert list(content["scores"]) == ["photo", "night"]
    assert content["scores"]["night"]["manifest_sha256"] == parts["exams"]["night"].manifest.sha256
    assert content["at_once"] == parts["at_once"]
    assert content["training"]["steps"] == 60
    assert content["training"]["final"]["segmentation"] == pytest.approx(sum(1 / s for s in range(11, 61)) / 50)
    assert [row["step"] for row in content["training"]["tail"]] == list(range(50, 60))
    assert len(content["weights"]["end_sha256"]) == 64
    assert content["peak_memory_bytes"]["device"] is None
    assert content["environment"]["device"] == "cpu"
    assert content["environment"]["versions"]["torch"] == torch.__version__.split("+")[0]


def test_a_class_that_was_not_asked_for_has_no_score(parts, path):
    asked = {row.classes[0] for row in parts["exams"]["photo"].manifest.rows}
    (left_out,) = set(parts["task"].test_classes) - asked
    per_class = read_result(path)["scores"]["photo"]["per_class"]
    assert per_class[parts["task"].train.class_names[left_out]] is None
    assert sum(iou is not None for iou in per_class.values()) == 4


@pytest.mark.parametrize("domain", ["photo", "night"])
def test_the_scores_can_be_made_again_from_the_counts(parts, path, domain):
    meter, stated = read_meter(path, domain), read_result(path)["scores"][domain]
    score = meter.compute()
    assert (score.miou, score.fb_iou, score.exact_ratio) == (stated["miou"], stated["fb_iou"], stated["exact_ratio"])
    assert torch.equal(meter.ways, parts["meters"][domain].ways)
    assert meter.class_ids == parts["task"].test_classes


def test_counts_are_read_with_the_rule_of_their_protocol(parts, tmp_path):
    config = parts["config"].model_copy(update={"protocol": "panet", "output": str(tmp_path)})
    path = write_result(SimpleNamespace(**parts | {"config": config}), seconds=3.0)
    assert read_meter(path, "night").absent == "dropped"


def test_counts_that_were_changed_are_refused(parts, path):
    write_result(SimpleNamespace(**parts), seconds=3.0)
    file = path.parent / "counts-night.npz"
    file.write_bytes((path.parent / "counts-photo.npz").read_bytes())
    with pytest.raises(ValueError, match=r"counts-night\.npz is not the file"):
        read_meter(path, "night")


def test_every_step_is_in_the_losses(path):
    with (path.parent / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["step"]) for row in rows] == list(range(60))
    assert float(rows[1]["segmentation"]) == 0.5


def test_an_untrained_network_has_a_record_too(parts, tmp_path):
    config = parts["config"].model_copy(update={"output": str(tmp_path), "steps": 0})
    path = write_result(SimpleNamespace(**parts | {"config": config, "history": History()}), seconds=1.0)
    assert read_result(path)["training"] == {"steps": 0, "seconds": 0.0, "final": {}, "tail": []}
    assert (tmp_path / "metrics.csv").read_text().strip() == "step,phase"


def test_a_number_that_is_none_is_never_recorded(parts, tmp_path):
    config = parts["config"].model_copy(update={"output": str(tmp_path)})
    broken = History([{"segmentation": float("nan")}])
    with pytest.raises(ValueError, match="JSON compliant"):
        write_result(SimpleNamespace(**parts | {"config": config, "history": broken}), seconds=1.0)
    assert not (tmp_path / "result.json").exists()


@pytest.mark.parametrize("content", ["{}", "[]", json.dumps({"schema_version": 2}), '{"schema'])
def test_a_damaged_or_foreign_result_is_refused(tmp_path, content):
    (tmp_path / "result.json").write_text(content)
    with pytest.raises(ValueError):
        read_result(tmp_path / "result.json")


def test_the_table_is_in_percent():
    scores = {"photo": {"miou": 0.5, "fb_iou": 0.61234, "exact_ratio": 1.0, "episodes": 7}}
    assert score_table(scores).splitlines()[1].split() == ["photo", "50.0", "61.2", "100.0", "7"]


def test_a_result_of_earlier_rules_is_not_taken_for_todays(path, tmp_path):
    content = read_result(path) | {"config_sha256": 64 * "0"}
    (tmp_path / "result.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"result\.json is of earlier rules: .* has the hash .* now"):
        config_of(tmp_path / "result.json")
