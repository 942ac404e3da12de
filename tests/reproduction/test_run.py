"""The runner on small notebooks: what it refuses, what counts as success, what it leaves behind. About 20 s."""

import functools
import json
import os
import signal
import sys
import tempfile
from pathlib import Path

import nbformat
import papermill
import pytest

from fsslib import paths
from fsslib.reproduction import run as runner
from fsslib.reproduction.config import RunConfig, parse
from fsslib.reproduction.run import RunError, RunInterrupted, check_notebook, run
from tests.reproduction.made_notebook import DEFAULTS, WRITE_RESULT, write_notebook


@pytest.fixture
def config(tmp_path) -> RunConfig:
    return RunConfig(output=str(tmp_path / "out"))


@pytest.fixture
def no_kernel(monkeypatch):
    """Fails the test when papermill is called."""
    monkeypatch.setattr(papermill, "execute_notebook", lambda *_, **__: pytest.fail("papermill was called"))


def files_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} - {".lock"}


@pytest.mark.parametrize("tags", [(), ("parameter",)])
def test_a_notebook_without_the_tag_is_refused_before_anything_runs(tmp_path, config, no_kernel, tags):
    notebook = write_notebook(tmp_path / "a.ipynb", WRITE_RESULT, tags=tags)
    with pytest.raises(RunError, match="has 0 cells tagged 'parameters'; a run needs exactly one"):
        run(config, notebook=notebook)
    assert not config.folder.exists()


def test_two_parameters_cells_are_refused(tmp_path):
    notebook = write_notebook(tmp_path / "a.ipynb", "x = 1")
    content = nbformat.read(notebook, as_version=4)
    content.cells[2].metadata["tags"] = ["parameters"]
    nbformat.write(content, notebook)
    with pytest.raises(RunError, match="has 2 cells"):
        check_notebook(notebook)


def test_other_parameters_than_the_configs_are_refused_with_the_difference(tmp_path):
    changed = {name: value for name, value in DEFAULTS.items() if name not in ("fold", "seed")} | {"colour": 1}
    with pytest.raises(RunError, match="it lacks fold, seed; RunConfig does not know colour"):
        check_notebook(write_notebook(tmp_path / "a.ipynb", parameters=changed))


@pytest.mark.parametrize("line", ["fold = 1 + len('a')", "import os", "print(1)", "fold: int", "fold ="])
def test_a_cell_that_sets_no_parameters_is_refused(tmp_path, line):
    with pytest.raises(RunError, match=r"it lacks .*seed.*in lines such as 'fold: int = 0'"):
        check_notebook(write_notebook(tmp_path / "a.ipynb", parameters=line))


def test_a_missing_or_damaged_notebook_is_named(tmp_path):
    with pytest.raises(RunError, match="There is no notebook"):
        check_notebook(tmp_path / "a.ipynb")
    (tmp_path / "a.ipynb").write_text('{"cells": [')
    with pytest.raises(RunError, match="cannot be read as a notebook"):
        check_notebook(tmp_path / "a.ipynb")


def test_values_arrive_in_the_notebook_as_what_they_are(tmp_path, config):
    values = {
        "learning_rate": "1e-3",
        "method_options": {"a": "false", "b": True, "c": "1e-3", "d": 'a "quoted" \\ path', "e": 3},
        "targets": ["night"],
        "output": config.output,
    }
    tell = "import pathlib; pathlib.Path(output, 'seen.txt').write_text(repr([learning_rate, method_options, targets]))"
    run(parse(values), notebook=write_notebook(tmp_path / "a.ipynb", tell, WRITE_RESULT))
    options = {"a": False, "b": True, "c": 0.001, "d": 'a "quoted" \\ path', "e": 3}
    assert (config.folder / "seen.txt").read_text() == repr([0.001, options, ["night"]])


def test_a_run_uses_this_interpreter_and_this_fsslib_whatever_kernels_are_installed(tmp_path, config, monkeypatch):
    decoy = tmp_path / "jupyter" / "kernels" / "python3"
    decoy.mkdir(parents=True)
    spec = {"argv": ["/nowhere/python", "{connection_file}"], "display_name": "Decoy", "language": "python"}
    (decoy / "kernel.json").write_text(json.dumps(spec))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    monkeypatch.chdir(tmp_path)
    tell = (
        "import os, pathlib, sys, fsslib.paths\n"
        "seen = [sys.executable, os.getcwd(), str(fsslib.paths.PACKAGE)]\n"
        "pathlib.Path(output, 'seen.txt').write_text('|'.join(seen))"
    )
    run(config, notebook=write_notebook(tmp_path / "a.ipynb", tell, WRITE_RESULT))
    seen = (config.folder / "seen.txt").read_text().split("|")
    assert seen == [sys.executable, str(paths.project_root()), str(paths.PACKAGE)]


def test_a_finished_run_is_not_repeated_unless_forced(tmp_path, config):
    count = "import pathlib; log = pathlib.Path(output, 'log'); log.open('a').write('x')"
    notebook = write_notebook(tmp_path / "a.ipynb", count, WRITE_RESULT)
    path = run(config, notebook=notebook)
    assert path == config.folder / "result.json"
    assert files_in(config.folder) == {"a.ipynb", "log", "result.json", "run-config.yaml"}
    assert run(config, notebook=notebook) == path
    assert (config.folder / "log").read_text() == "x"
    (config.folder / "checkpoint.pt").write_text("old")
    (config.folder / "mine.ipynb").write_text("not the run's")
    run(config, notebook=notebook, force=True)
    assert (config.folder / "log").read_text() == "xx"
    assert not (config.folder / "checkpoint.pt").exists()
    assert (config.folder / "mine.ipynb").exists()


def test_a_failed_run_keeps_its_notebook_with_the_error_on_top_and_can_be_repeated(tmp_path, config):
    notebook = write_notebook(tmp_path / "a.ipynb", "print('so far')", "raise ValueError('no such fold')", WRITE_RESULT)
    with pytest.raises(RunError, match=r"failed in cell \[4\] with ValueError: no such fold") as caught:
        run(config, notebook=notebook)
    kept = config.folder / "a.failed.ipynb"
    assert caught.value.notebook == kept
    assert str(kept) in str(caught.value)
    assert files_in(config.folder) == {"a.failed.ipynb", "run-config.yaml"}
    cells = nbformat.read(kept, as_version=4).cells
    assert "An Exception was encountered at" in cells[0].source
    assert any(output.get("text") == "so far\n" for cell in cells for output in cell.get("outputs", []))
    write_notebook(notebook, WRITE_RESULT)
    run(config, notebook=notebook)
    assert files_in(config.folder) == {"a.ipynb", "result.json", "run-config.yaml"}


OTHER_RESULT = WRITE_RESULT.replace("import json", "fold = 3; import json")


@pytest.mark.parametrize(
    ("cell", "reason"),
    [
        ("pass", "ended without writing result.json"),
        ("raise SystemExit(0)", r"Cell \[3\] ended with SystemExit"),
        (OTHER_RESULT, "written for other parameters"),
        ("import os; os._exit(1)", "kernel died, most often because memory ran out"),
    ],
)
def test_what_papermill_lets_pass_is_no_success(tmp_path, config, cell, reason):
    with pytest.raises(RunError, match=reason):
        run(config, notebook=write_notebook(tmp_path / "a.ipynb", cell))
    assert (config.folder / "a.failed.ipynb").exists()
    assert not (config.folder / "a.ipynb").exists()


def test_a_folder_that_cannot_be_written_is_refused_before_anything_runs(tmp_path, no_kernel, monkeypatch):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match=r"output folder .* cannot be written to \(Not a directory\)"):
        run(RunConfig(output=str(tmp_path / "file" / "out")))

    def read_only(**_):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(tempfile, "TemporaryFile", read_only)
    with pytest.raises(RunError, match=r"Read-only file system.*Choose another"):
        run(RunConfig(output=str(tmp_path / "out")))


def test_a_folder_of_another_config_is_refused(tmp_path, config, no_kernel):
    config.folder.mkdir()
    (config.folder / "run-config.yaml").write_text("fold: 2\ntargets: []\n")
    (config.folder / "checkpoint.pt").write_text("two hours of work")
    with pytest.raises(RunError, match=r"belongs to a run with targets = \(\), fold = 2; this one has .*fold = 0"):
        run(config)
    (config.folder / "run-config.yaml").unlink()
    (config.folder / "result.json").write_text('{"schema_version": 99}')
    with pytest.raises(RunError, match=r"result\.json is damaged or of another version .*99"):
        run(config)


def test_two_runners_never_take_one_run(config, no_kernel):
    config.folder.mkdir()
    with runner.only_runner_in(config.folder), pytest.raises(RunError, match=f"in use by process {os.getpid()} on"):
        run(config)
    # What a killed runner leaves behind holds nobody up.
    (config.folder / ".runner").write_text("process 1 on elsewhere")
    with runner.only_runner_in(config.folder):
        assert (config.folder / ".runner").read_text().startswith(f"process {os.getpid()}")
    assert not (config.folder / ".runner").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_reaches_the_training_cell_which_saves(tmp_path, config, number, request):
    # A test run in the background of a shell starts with SIGINT ignored, and its kernels would inherit that.
    request.addfinalizer(functools.partial(signal.signal, signal.SIGINT, signal.getsignal(signal.SIGINT)))
    signal.signal(signal.SIGINT, signal.default_int_handler)
    train = f"""
import os, pathlib, time
saved = pathlib.Path(output, "checkpoint.pt")
if saved.exists():
    print("resumed")
else:
    try:
        os.kill(os.getppid(), {int(number)})
        time.sleep(30)
    except KeyboardInterrupt:
        time.sleep(0.5)
        saved.write_text("step 7")
        raise
"""
    before = signal.getsignal(signal.SIGTERM)
    notebook = write_notebook(tmp_path / "a.ipynb", train, WRITE_RESULT)
    force = number == signal.SIGTERM
    with pytest.raises(RunInterrupted, match=f"The same call {'without force ' * force}goes on from its checkpoint"):
        run(config, notebook=notebook, force=force)
    assert signal.getsignal(signal.SIGTERM) == before
    assert (config.folder / "checkpoint.pt").read_text() == "step 7"
    assert not (config.folder / "a.ipynb").exists()
    run(config, notebook=notebook)
    assert "resumed" in (config.folder / "a.ipynb").read_text()
    assert not (config.folder / "a.partial.ipynb").exists()


def test_braces_in_a_path_are_no_placeholders_and_output_can_be_watched(tmp_path, capsys):
    config = RunConfig(output=str(tmp_path / "{fold}"))
    path = run(
        config, notebook=write_notebook(tmp_path / "a.ipynb", "print('loss 0.5')", WRITE_RESULT), log_output=True
    )
    assert path == tmp_path / "{fold}" / "result.json"
    assert "loss 0.5" in capsys.readouterr().out
