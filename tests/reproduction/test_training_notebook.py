"""The training notebook, run from the command line at the smallest scale, and the record that it leaves. About 30 s."""

import ast
import csv
import hashlib
import json
import shutil

import nbformat
import numpy as np
import papermill
import pytest
import torch
import yaml

from fsslib import paths
from fsslib.cli import main
from fsslib.metrics import FewShotMeter, SegmentationMeter, protocol_named
from fsslib.reproduction.config import RunConfig
from fsslib.reproduction.experiment import Experiment
from fsslib.reproduction.result import config_of, read_result, score_table
from fsslib.reproduction.run import NOTEBOOK, check_notebook
from fsslib.training.checkpoint import load_checkpoint, save_checkpoint
from fsslib.training.fit import History

PATH = paths.shipped("notebooks") / NOTEBOOK


def read_meter(path, domain):
    """A domain's counts, question by question, from the file beside a result, which must be the one it names."""
    result = read_result(path)
    stated = result["scores"][domain]["counts"]
    assert hashlib.sha256(path.with_name(stated["file"]).read_bytes()).hexdigest() == stated["sha256"]
    counts = dict(np.load(path.with_name(stated["file"])))
    if "names" in counts:
        meter = SegmentationMeter(dict(enumerate(counts.pop("names").tolist())))
    else:
        rule = protocol_named(result["config"]["protocol"])
        meter = FewShotMeter(counts.pop("class_ids").tolist(), rule.absent)
    vars(meter).update({name: torch.from_numpy(values) for name, values in counts.items()})
    return meter


def test_its_parameters_are_those_of_a_run_with_the_same_defaults_and_it_has_no_outputs():
    check_notebook(PATH)
    found = papermill.inspect_notebook(str(PATH))
    defaults = {name: ast.literal_eval(said["default"]) for name, said in found.items()}
    assert defaults == RunConfig().model_dump(mode="json")
    assert all(said["help"] and said["inferred_type_name"] != "None" for said in found.values())
    assert len(found) <= 28
    code = [c for c in nbformat.read(PATH, as_version=4).cells if c.cell_type == "code"]
    assert code
    assert all(not c.outputs and c.execution_count is None for c in code)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A finished run: parameters from a YAML file with flags over it, through the command line."""
    folder = tmp_path_factory.mktemp("run")
    file = folder / "mine.yaml"
    file.write_text("steps: 5\nepisodes: 4\nimage_size: 32\nlearning_rate: 1e-3\ntargets: [sketch]\ndevice: cpu\n")
    assert main(["run", str(file), "--steps", "60", "--batch-size=2", "--output", str(folder / "out")]) == 0
    return folder / "out"


@pytest.mark.slow
def test_the_record_is_the_runs_and_holds_what_a_number_needs(folder):
    result, config = read_result(folder / "result.json"), config_of(folder / "result.json")
    assert (config.steps, config.batch_size, config.learning_rate) == (60, 2, 0.001)
    assert (config.targets, config.image_size) == (("sketch",), 32)
    assert result["config_sha256"] == config.sha256
    assert "output" not in result["config"]
    assert yaml.safe_load((folder / "run-config.yaml").read_text())["learning_rate"] == 0.001
    assert (len(result["classes"]["train"]), len(result["classes"]["test"])) == (15, 5)
    assert list(result["scores"]) == list(result["at_once"]) == ["photo", "sketch"]
    # The toy world's domains ask the same questions.
    exam = Experiment(config).exams["sketch"]
    assert {score["manifest_sha256"] for score in result["scores"].values()} == {exam.manifest.sha256}
    assert 0 < result["floors"]["everything"] < result["floors"]["every_object"] < 1
    with (folder / "metrics.csv").open(newline="") as file:
        rows = [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]
    training = result["training"]
    assert training["steps"] == len(rows) == 60
    assert training["tail"] == rows[-10:]
    assert training["final"] == pytest.approx(
        {name: sum(row[name] for row in rows[10:]) / 50 for name in set(rows[0]) - {"step", "phase"}}
    )
    assert result["seconds"] >= training["seconds"] > 0
    assert len(result["weights"]["end_sha256"]) == 64
    assert result["peak_memory_bytes"]["device"] is None
    assert result["environment"]["device"] == "cpu"
    assert result["environment"]["versions"]["torch"] == torch.__version__.split("+")[0]


@pytest.mark.slow
@pytest.mark.parametrize("domain", ["photo", "sketch"])
def test_the_scores_can_be_made_again_from_the_counts(folder, domain):
    meter, result = read_meter(folder / "result.json", domain), read_result(folder / "result.json")
    score, stated = meter.compute(), result["scores"][domain]
    asked = {row.classes[0] for row in Experiment(RunConfig(episodes=4)).exams[domain].manifest.rows}
    assert (score.miou, score.fb_iou, score.exact_ratio) == (stated["miou"], stated["fb_iou"], stated["exact_ratio"])
    assert stated["episodes"] == 4
    assert meter.without_looking() == result["floors"]["by_domain"][domain]
    # Four episodes ask for four classes, and the fifth has no score.
    assert {c for c, iou in zip(meter.class_ids, stated["per_class"].values()) if iou is not None} == asked
    assert len(asked) == 4


@pytest.mark.slow
def test_the_executed_copy_shows_scores_and_pictures(folder):
    cells = nbformat.read(folder / NOTEBOOK, as_version=4).cells
    outputs = [output for cell in cells for output in cell.get("outputs", [])]
    text = "".join(output.get("text", "") for output in outputs)
    assert "learning_rate = 0.001" in "".join(cell.source for cell in cells)
    assert RunConfig(**json.loads((folder / "result.json").read_text())["config"]).run_id in text
    assert all(f"\n{domain:14} " in text for domain in ("photo", "sketch"))
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 2
    assert "MiB of the machine" in text
    assert not any(output.get("name") == "stderr" for output in outputs)


@pytest.mark.slow
def test_a_second_call_repeats_nothing_and_the_seconds_before_an_interruption_count(folder, tmp_path, capsys):
    before = (folder / "result.json").stat().st_mtime_ns
    assert main(["run", str(folder / "run-config.yaml"), "--output", str(folder)]) == 0
    assert "finished before; --force repeats it" in capsys.readouterr().out
    assert (folder / "result.json").stat().st_mtime_ns == before
    out = shutil.copytree(folder, tmp_path / "out")
    (out / "result.json").unlink()
    state = load_checkpoint(out / "checkpoint.pt")
    save_checkpoint(out / "checkpoint.pt", state | {"seconds": 1000.0})
    assert main(["run", str(out / "run-config.yaml"), "--output", str(out)]) == 0
    result = read_result(out / "result.json")
    assert result["seconds"] > result["training"]["seconds"] >= 1000


@pytest.mark.slow
def test_a_segmenter_leaves_the_same_record(tmp_path):
    flags = ["--method=pixda", "--data=streets", "--targets=meadow", "--shots=2", "--steps=4", "--batch-size=2"]
    small = ["--image-size=32", "--episodes=6", "--checkpoint-every=2", "--method-options=discriminator_width=4"]
    assert main(["run", *flags, *small, "--output", str(tmp_path)]) == 0
    result = read_result(tmp_path / "result.json")
    assert list(result["scores"]) == ["game", "meadow"]
    assert result["classes"]["test"][:2] == ["road", "pavement"]
    for domain, score in result["scores"].items():
        meter = read_meter(tmp_path / "result.json", domain)
        assert (meter.compute().miou, 6) == (score["miou"], score["images"])
        assert result["floors"]["by_domain"][domain] == meter.without_looking()
    assert result["best"]["step"] in (2, 4)
    assert set(result["best"]["scores"]) == {"game", "meadow"}
    assert config_of(tmp_path / "result.json").shots == 2


def test_an_untrained_network_has_a_record_too_but_never_with_a_number_that_is_none(tmp_path):
    values = {"method": "prototype", "targets": (), "episodes": 2, "image_size": 32, "steps": 0}
    made = Experiment(RunConfig(**values, output=str(tmp_path)))
    made.test()
    made.history = History([{"segmentation": float("nan")}])
    with pytest.raises(ValueError, match="JSON compliant"):
        made.record()
    assert not (tmp_path / "result.json").exists()
    made.history = History()
    assert read_result(made.record())["training"] == {"steps": 0, "seconds": 0.0, "final": {}, "tail": []}
    assert (tmp_path / "metrics.csv").read_text().strip() == "step,phase"


@pytest.mark.parametrize("content", ["{}", "[]", '{"schema_version": 2}', '{"schema', None])
def test_a_damaged_foreign_or_outlived_result_is_refused(tmp_path, content):
    outlived = {"schema_version": 1, "config": RunConfig().model_dump(mode="json"), "config_sha256": 64 * "0"}
    (tmp_path / "result.json").write_text(content or json.dumps(outlived))
    told = r"result\.json is of earlier rules: .* has the hash .* now"
    with pytest.raises(ValueError, match=None if content else told):
        (read_result if content else config_of)(tmp_path / "result.json")


def test_the_table_is_in_percent():
    scores = {"photo": {"miou": 0.5, "fb_iou": 0.61234, "exact_ratio": 1.0, "episodes": 7}}
    titles, cells = (line.split() for line in score_table(scores).splitlines())
    assert titles == ["domain", "mIoU", "FB-IoU", "exact", "episodes"]
    assert cells == ["photo", "50.0", "61.2", "100.0", "7"]
