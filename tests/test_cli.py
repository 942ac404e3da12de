"""The command line: flags made from the models, one clear message and an exit code for what goes wrong. 20 s."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fsslib import cli, doctor
from fsslib.cli import main
from fsslib.data import catalogue, check
from fsslib.reproduction import plans, tutorial
from fsslib.reproduction import run as runner
from fsslib.reproduction.config import RunConfig
from fsslib.reproduction.run import RunError, RunInterrupted
from tests.data.trees import draw_voc

ROOT = Path(cli.__file__).parents[1]


@pytest.fixture
def runs(monkeypatch, tmp_path) -> list:
    """Calls of `run`, which makes a result without running anything."""
    calls = []

    def record(config, **options):
        calls.append((config, options))
        path = tmp_path / "result.json"
        path.write_text('{"schema_version": 1, "scores": {}}')
        return path

    monkeypatch.setattr(runner, "run", record)
    return calls


def test_help_needs_neither_torch_nor_papermill():
    code = """
import sys
from fsslib.cli import main
assert main(["--help"]) == 0
assert main(["run", "--help"]) == 0
heavy = {"torch", "torchvision", "numpy", "papermill", "matplotlib"} & set(sys.modules)
assert not heavy, heavy
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert all(f"--{name.replace('_', '-')} " in done.stdout for name in RunConfig.model_fields)
    assert all(command in done.stdout for command in ("tutorial", "run", "reproduce", "doctor", "data", "segment"))


@pytest.mark.parametrize("targets", ["--targets night,sketch", "--targets night sketch", "--targets=night,sketch"])
def test_flags_arrive_as_what_they_are(runs, targets):
    arguments = f"run --learning-rate 1e-3 --fold 2 {targets} --dtype bfloat16 --force"
    options = "--method-options a=false --method-options b=1e-3 --method-options c=mean"
    assert main(f"{arguments} {options}".split()) == 0
    ((config, given),) = runs
    assert (config.learning_rate, config.fold, config.targets) == (0.001, 2, ("night", "sketch"))
    assert config.method_options == {"a": False, "b": 0.001, "c": "mean"}
    assert config.dtype == "bfloat16"
    assert given == {"force": True, "wait": False, "log_output": False}


def test_flags_go_over_a_file_and_defaults_below_it_and_variables_are_no_parameters(runs, tmp_path, monkeypatch):
    for name, value in {"run": '{"fold": 3}', "fold": "3", "data": "/some/folder"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    Path("run.yaml").write_text("fold: 1\nseed: 4\nlearning_rate: 1e-2\n")
    assert main(["run", "run.yaml", "--fold", "0", "--learning-rate", "none", "--output", "here", "--wait"]) == 0
    ((config, given),) = runs
    # The output folder is where the user stands.
    assert config == RunConfig(fold=0, seed=4, learning_rate=None, output=str(tmp_path / "here"))
    assert given == {"force": False, "wait": True, "log_output": False}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("run --metod sg_one", "unrecognized arguments: --metod; did you mean '--method'?"),
        ("run --learning_rat 1", "did you mean '--learning-rate'?"),
        ("run --fol 1", "did you mean '--fold'?"),
        ("run --fold one", "fold: Input should be a valid integer"),
        ("run --fold 9", "unknown fold 9 of toy; there are 0, 1, 2, 3, 4"),
        ("run --method sg_two", "unknown method 'sg_two'; there are"),
        ("run --device gpu", "'auto', 'cpu' or 'cuda'"),
        ("run --fold", "--fold: expected one argument"),
        ("run no_such_file.yaml", "no_such_file.yaml cannot be read"),
        ("runn", "invalid choice: 'runn'"),
        ("", "CLI subcommand is required"),
        ("data", "CLI subcommand is required {list, get, check}"),
        ("doctor --verbose", "unrecognized arguments: --verbose"),
        ("reproduce smoke --dryrun", "unrecognized arguments: --dryrun; did you mean '--dry-run'?"),
        ("data check toy --ful", "did you mean '--full'?"),
        ("run --targets night --targets sketch", "--targets is given once, with all names behind it"),
        ("segment --support a.png --query in --out out", "--support takes pairs, a picture and its mask each; found 1"),
        ("segment --support a b --support c d --query in --out out", "--support is given once, with all pairs behind"),
        ("segment --support a b --out out", "--query is missing"),
        ("run --index 3", "--index takes the name of a plan and no other parameters: fsslib run laptop --index 3"),
        ("run smoke --index 3 --seed 1", "--index takes the name of a plan and no other parameters"),
        ("run smoke --index 7000", "smoke has the runs 0 to "),
        ("run everything --index 0", "no plan 'everything'"),
        ("reproduce everything", "no plan 'everything'"),
        ("run run.yaml", "'lerning_rate' is no parameter of a run; did you mean 'learning_rate'?"),
    ],
)
def test_a_wrong_command_is_explained_and_ends_with_2(arguments, message, capsys, runs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("run.yaml").write_text("lerning_rate: 0.1\n")
    assert main(arguments.split()) == 2
    told = capsys.readouterr().err
    assert told.startswith("fsslib: ")
    assert message in told
    assert not runs


KEYS, GOES_ON = KeyboardInterrupt(), "Interrupted. The next call goes on with what is missing."


@pytest.mark.parametrize(
    ("command", "where", "name", "error", "code", "told"),
    [
        ("run", runner, "run", RunError("It failed.", Path("a.failed.ipynb")), 1, "It failed.\nThe notebook as far"),
        ("run", runner, "run", RunInterrupted("Interrupted in out."), 130, "Interrupted in out."),
        ("reproduce smoke", plans, "carry_out", KEYS, 130, GOES_ON),
        ("tutorial", tutorial, "main", KEYS, 130, GOES_ON),
        ("data get kvasir", catalogue, "get", KEYS, 130, GOES_ON),
        ("data check kvasir", check, "open_set", KEYS, 130, "Interrupted.\n"),
        ("data get kvasr", None, "", None, 1, "There is no data set 'kvasr'. There are: toy,"),
    ],
)
def test_what_did_not_finish_ends_with_its_code_and_one_message(
    command, where, name, error, code, told, monkeypatch, capsys
):
    if where:
        monkeypatch.setattr(where, name, lambda *_, **__: (_ for _ in ()).throw(error))
    assert main(command.split()) == code
    said = capsys.readouterr()
    assert said.err.startswith(f"fsslib: {told}")
    assert "Traceback" not in said.out + said.err


def test_a_folder_with_the_result_of_another_run_is_not_said_to_be_finished(tmp_path, capsys):
    config = RunConfig().model_dump(mode="json", exclude={"output"})
    (tmp_path / "result.json").write_text(json.dumps({"schema_version": 1, "config": config}))
    assert main(["run", "--output", str(tmp_path), "--seed", "1"]) == 1
    told = capsys.readouterr()
    assert "belongs to a run with seed = 0; this one has seed = 1" in told.err
    assert told.out == ""


def test_a_task_of_a_job_array_takes_its_run_of_a_plan(runs):
    planned = plans.Plan.load("laptop")
    for index in (0, 3):
        assert main(["run", "laptop", "--index", str(index)]) == 0
        assert runs.pop() == (planned.at(index), {"force": False, "wait": True, "log_output": False})


def test_reproduce_carries_out_a_plan_and_a_dry_run_nothing(capsys, monkeypatch):
    carried_out = []
    monkeypatch.setattr(plans, "carry_out", lambda plan, **options: carried_out.append((plan.name, options)) or [])
    assert main(["reproduce", "sg_one_toy", "--dry-run"]) == 0
    assert not carried_out
    told = capsys.readouterr().out
    assert told.startswith("sg_one_toy: 56 runs, ")
    assert "  SG-One trained in underwater " in told
    assert main(["reproduce", "sg_one_toy", "--jobs", "2", "--profile", "cluster"]) == 0
    assert carried_out == [("sg_one_toy", {"jobs": 2, "cores": None, "profile": Path("cluster")})]
    first, *_, last = capsys.readouterr().out.splitlines()
    assert first.startswith("sg_one_toy: 56 runs, ")
    assert last == str(plans.Plan.load("sg_one_toy").results_file)
    monkeypatch.setattr(plans, "carry_out", lambda plan, **_: ["SG-One, toy-1: no", "SG-One, toy-2: no"])
    assert main(["reproduce", "sg_one_toy"]) == 1
    assert capsys.readouterr().err == "fsslib: 2 runs failed:\nSG-One, toy-1: no\nSG-One, toy-2: no\n"


@pytest.mark.parametrize("command", ["run --help", "reproduce smoke --dry-run", "data list"])
def test_a_reader_that_has_seen_enough_is_no_error(command):
    """As `fsslib ... | head -0`: the pipe is closed before anything is written."""
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-m", "fsslib.cli", *command.split()],
        stdout=writing,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=os.environ | {"PYTHONUNBUFFERED": ""},
    )
    os.close(writing)
    assert done.stderr == ""
    assert done.returncode == 141


def test_doctor_data_list_and_data_get_are_wired(monkeypatch, capsys):
    monkeypatch.setattr(doctor, "main", lambda: 1)
    monkeypatch.setattr(catalogue, "report", lambda: "all there")
    monkeypatch.setattr(catalogue, "get", lambda name: print(f"{name} fetched"))
    assert main(["doctor"]) == 1
    assert main(["data", "list"]) == 0
    assert main(["data", "get", "kvasir"]) == 0
    assert capsys.readouterr().out == "all there\nkvasir fetched\n"


def test_data_check_reports_draws_and_fails_on_damage(tmp_path, monkeypatch, capsys):
    draw_voc(tmp_path, {"2007_000001": [12]})
    monkeypatch.setenv("FSSLIB_DATA", str(tmp_path))
    sheet = tmp_path / "sheet.png"
    assert main(["data", "check", "pascal", "--sheet", str(sheet)]) == 0
    assert "pascal: 1 images" in capsys.readouterr().out
    assert sheet.exists()
    assert main(["data", "check", "pascal", "--sheet", str(sheet), "--full"]) == 1
    assert "1 images are here, 12031 are published" in capsys.readouterr().err
    image = tmp_path / "VOCdevkit" / "VOC2012" / "JPEGImages" / "2007_000001.jpg"
    image.write_bytes(image.read_bytes()[:-200])
    assert main(["data", "check", "pascal", "--sheet", str(sheet)]) == 1
    assert "DAMAGED   1 files" in capsys.readouterr().out
    assert main(["data", "check", "isic"]) == 1
    assert "isic is not complete: there is no" in capsys.readouterr().err
