"""The training notebook itself, run through papermill from the command line at the smallest scale. About 25 s."""

import ast
import json
import shutil

import nbformat
import papermill
import pytest
import yaml

from fsslib import paths
from fsslib.cli import main
from fsslib.reproduction.config import RunConfig
from fsslib.reproduction.result import config_of, read_result
from fsslib.reproduction.run import NOTEBOOK, check_notebook
from fsslib.training.checkpoint import load_checkpoint, save_checkpoint
from tests.reproduction.counts import read_meter

PATH = paths.shipped("notebooks") / NOTEBOOK


def test_its_parameters_are_those_of_a_run_with_the_same_defaults():
    check_notebook(PATH)
    found = papermill.inspect_notebook(str(PATH))
    assert {name: ast.literal_eval(said["default"]) for name, said in found.items()} == RunConfig().model_dump(
        mode="json"
    )
    assert all(said["help"] and said["inferred_type_name"] != "None" for said in found.values())
    assert len(found) <= 26


def test_it_is_committed_without_outputs():
    code = [c for c in nbformat.read(PATH, as_version=4).cells if c.cell_type == "code"]
    assert code
    assert all(not c.outputs and c.execution_count is None for c in code)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A finished run: parameters from a YAML file with flags over it, through the command line."""
    folder = tmp_path_factory.mktemp("run")
    file = folder / "mine.yaml"
    file.write_text("steps: 5\nepisodes: 4\nimage_size: 32\nlearning_rate: 1e-3\ntargets: [sketch]\ndevice: cpu\n")
    assert main(["run", str(file), "--steps", "2", "--batch-size=2", "--output", str(folder / "out")]) == 0
    return folder / "out"


@pytest.mark.slow
def test_the_result_is_the_runs_and_can_be_made_again_from_its_counts(folder):
    result = read_result(folder / "result.json")
    config = config_of(folder / "result.json")
    assert (config.steps, config.batch_size, config.learning_rate) == (2, 2, 0.001)
    assert (config.targets, config.image_size) == (("sketch",), 32)
    assert list(result["scores"]) == ["photo", "sketch"]
    for domain, score in result["scores"].items():
        assert read_meter(folder / "result.json", domain).compute().miou == score["miou"]
        assert score["episodes"] == 4
    # The toy world's domains ask the same questions.
    assert len({score["manifest_sha256"] for score in result["scores"].values()}) == 1
    assert result["training"]["steps"] == 2
    assert result["seconds"] >= result["training"]["seconds"] > 0
    assert yaml.safe_load((folder / "run-config.yaml").read_text())["learning_rate"] == 0.001
    assert len((folder / "metrics.csv").read_text().splitlines()) == 3


@pytest.mark.slow
def test_the_executed_copy_shows_scores_and_pictures(folder):
    cells = nbformat.read(folder / NOTEBOOK, as_version=4).cells
    outputs = [output for cell in cells for output in cell.get("outputs", [])]
    text = "".join(output.get("text", "") for output in outputs)
    assert "learning_rate = 0.001" in "".join(cell.source for cell in cells)
    assert RunConfig(**json.loads((folder / "result.json").read_text())["config"]).run_id in text
    for domain in ("photo", "sketch"):
        assert f"\n{domain:14} " in text
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 2
    assert "MiB of the machine" in text
    assert not any(output.get("name") == "stderr" for output in outputs)


@pytest.mark.slow
def test_a_second_call_repeats_nothing(folder, capsys):
    before = (folder / "result.json").stat().st_mtime_ns
    assert main(["run", str(folder / "run-config.yaml"), "--output", str(folder)]) == 0
    assert "finished before; --force repeats it" in capsys.readouterr().out
    assert (folder / "result.json").stat().st_mtime_ns == before


@pytest.mark.slow
def test_the_seconds_before_an_interruption_count(folder, tmp_path):
    out = shutil.copytree(folder, tmp_path / "out")
    (out / "result.json").unlink()
    state = load_checkpoint(out / "checkpoint.pt")
    save_checkpoint(out / "checkpoint.pt", state | {"seconds": 1000.0})
    assert main(["run", str(out / "run-config.yaml"), "--output", str(out)]) == 0
    result = read_result(out / "result.json")
    assert result["seconds"] > result["training"]["seconds"] >= 1000


@pytest.fixture(scope="module")
def adapted(tmp_path_factory):
    """A finished run of the other kind: a segmenter that is carried to another domain."""
    folder = tmp_path_factory.mktemp("adapted")
    flags = ["--method=pixda", "--data=streets", "--targets=meadow", "--shots=2", "--steps=4", "--batch-size=2"]
    small = ["--image-size=32", "--episodes=6", "--checkpoint-every=2", "--method-options=discriminator_width=4"]
    assert main(["run", *flags, *small, "--output", str(folder)]) == 0
    return folder


@pytest.mark.slow
def test_a_segmenter_leaves_the_same_record(adapted):
    result = read_result(adapted / "result.json")
    assert list(result["scores"]) == ["game", "meadow"]
    assert result["classes"]["test"][:2] == ["road", "pavement"]
    for domain, score in result["scores"].items():
        meter = read_meter(adapted / "result.json", domain)
        assert meter.compute().miou == score["miou"]
        assert score["images"] == 6
        assert result["floors"]["by_domain"][domain] == meter.without_looking()
    assert result["best"]["step"] in (2, 4)
    assert set(result["best"]["scores"]) == {"game", "meadow"}
    assert config_of(adapted / "result.json").shots == 2
