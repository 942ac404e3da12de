"""The runner on small notebooks: what it refuses, what counts as success, what it leaves behind. About 20 s."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import filelock
import nbformat
import papermill
import pytest

from fsslib import paths
from fsslib.reproduction import run as runner
from fsslib.reproduction.config import RunConfig, parse
from fsslib.reproduction.run import NOTEBOOK, RunError, check_notebook, run
from tests.reproduction.made_notebook import COUNT, DEFAULTS, WRITE_RESULT, write_notebook


@pytest.fixture
def config(tmp_path) -> RunConfig:
    return RunConfig(output=str(tmp_path / "out"))


@pytest.fixture
def run_cells(tmp_path, config):
    """Runs a notebook of these cells in the folder of `config`."""
    return lambda *cells, config=config, **options: run(
        config, notebook=write_notebook(tmp_path / "a.ipynb", *cells), **options
    )


@pytest.fixture
def no_kernel(monkeypatch):
    """Fails the test when papermill is called."""
    monkeypatch.setattr(papermill, "execute_notebook", lambda *_, **__: pytest.fail("papermill was called"))


def files_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} - {".lock"}


OTHERS = {name: value for name, value in DEFAULTS.items() if name not in ("fold", "seed")} | {"colour": 1}
NO_LITERAL = r"it lacks .*seed.*in lines such as 'fold: int = 0'"


@pytest.mark.parametrize(
    ("made", "said"),
    [
        ({"tags": ()}, "has 0 cells tagged 'parameters'; a run needs exactly one"),
        ({"tags": ("parameter",)}, "has 0 cells tagged 'parameters'; a run needs exactly one"),
        ({"parameters": OTHERS}, "it lacks fold, seed; RunConfig does not know colour"),
        *(({"parameters": line}, NO_LITERAL) for line in ("fold = 1 + len('a')", "import os", "fold: int", "fold =")),
    ],
)
def test_a_notebook_without_the_runs_parameters_is_refused_before_anything_runs(
    tmp_path, config, no_kernel, made, said
):
    with pytest.raises(RunError, match=said):
        run(config, notebook=write_notebook(tmp_path / "a.ipynb", WRITE_RESULT, **made))
    assert not config.folder.exists()


def test_two_parameters_cells_or_no_notebook_at_all_are_refused(tmp_path):
    notebook = write_notebook(tmp_path / "a.ipynb", "x = 1")
    content = nbformat.read(notebook, as_version=4)
    content.cells[2].metadata["tags"] = ["parameters"]
    nbformat.write(content, notebook)
    with pytest.raises(RunError, match="has 2 cells"):
        check_notebook(notebook)
    notebook.write_text('{"cells": [')
    with pytest.raises(RunError, match="cannot be read as a notebook"):
        check_notebook(notebook)
    notebook.unlink()
    with pytest.raises(RunError, match="There is no notebook"):
        check_notebook(notebook)


def test_values_arrive_as_what_they_are_in_this_python_whatever_kernels_are_installed(tmp_path, config, monkeypatch):
    decoy = tmp_path / "jupyter" / "kernels" / "python3"
    decoy.mkdir(parents=True)
    spec = {"argv": ["/nowhere/python", "{connection_file}"], "display_name": "Decoy", "language": "python"}
    (decoy / "kernel.json").write_text(json.dumps(spec))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    monkeypatch.chdir(tmp_path)
    options = {"a": "false", "b": True, "c": "1e-3", "d": 'a "quoted" \\ path', "e": 3}
    values = {"learning_rate": "1e-3", "method_options": options, "targets": ["night"], "output": config.output}
    tell = (
        "import os, pathlib, sys, fsslib.paths\n"
        "seen = [sys.executable, os.getcwd(), str(fsslib.paths.PACKAGE), learning_rate, method_options, targets]\n"
        "pathlib.Path(output, 'seen.txt').write_text(repr(seen))"
    )
    run(parse(values), notebook=write_notebook(tmp_path / "a.ipynb", tell, WRITE_RESULT))
    options |= {"a": False, "c": 0.001}
    seen = [sys.executable, str(paths.project_root()), str(paths.PACKAGE), 0.001, options, ["night"]]
    assert (config.folder / "seen.txt").read_text() == repr(seen)


def test_a_finished_run_is_not_repeated_unless_forced(config, run_cells):
    path = run_cells(COUNT, WRITE_RESULT)
    assert path == config.folder / "result.json"
    assert files_in(config.folder) == {"a.ipynb", "tries", "result.json", "run-config.yaml"}
    assert run_cells(COUNT, WRITE_RESULT) == path
    assert (config.folder / "tries").read_text() == "x"
    for name in ("checkpoint.pt", "mine.ipynb"):
        (config.folder / name).write_text("old")
    run_cells(COUNT, WRITE_RESULT, force=True)
    assert (config.folder / "tries").read_text() == "xx"
    assert {"mine.ipynb"} == files_in(config.folder) - {"a.ipynb", "tries", "result.json", "run-config.yaml"}


def test_a_failed_run_keeps_its_notebook_with_the_error_on_top_and_can_be_repeated(config, run_cells):
    with pytest.raises(RunError, match=r"failed in cell \[4\] with ValueError: no such fold") as caught:
        run_cells("print('so far')", "raise ValueError('no such fold')", WRITE_RESULT)
    kept = config.folder / "a.failed.ipynb"
    assert caught.value.notebook == kept
    assert str(kept) in str(caught.value)
    assert files_in(config.folder) == {"a.failed.ipynb", "run-config.yaml"}
    cells = nbformat.read(kept, as_version=4).cells
    assert "An Exception was encountered at" in cells[0].source
    assert any(output.get("text") == "so far\n" for cell in cells for output in cell.get("outputs", []))
    run_cells(WRITE_RESULT)
    assert files_in(config.folder) == {"a.ipynb", "result.json", "run-config.yaml"}


@pytest.mark.parametrize(
    ("cell", "reason"),
    [
        ("pass", "ended without writing result.json"),
        ("raise SystemExit(0)", r"Cell \[3\] ended with SystemExit"),
        (WRITE_RESULT.replace("import json", "fold = 3; import json"), "written for other parameters"),
        ("import os; os._exit(1)", "kernel died, most often because memory ran out"),
    ],
)
def test_what_papermill_lets_pass_is_no_success(config, run_cells, cell, reason):
    with pytest.raises(RunError, match=reason):
        run_cells(cell)
    assert (config.folder / "a.failed.ipynb").exists()
    assert not (config.folder / "a.ipynb").exists()


def test_a_folder_that_cannot_be_written_is_refused_before_anything_runs(tmp_path, no_kernel, monkeypatch, config):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match=r"output folder .* cannot be written to \(Not a directory\)"):
        run(RunConfig(output=str(tmp_path / "file" / "out")))

    def read_only(_):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(filelock.FileLock, "acquire", read_only)
    with pytest.raises(RunError, match=r"Read-only file system.*Choose another"):
        run(config)


def test_a_folder_of_another_config_is_refused(config, no_kernel):
    config.folder.mkdir()
    (config.folder / "run-config.yaml").write_text("fold: 2\ntargets: []\n")
    (config.folder / "checkpoint.pt").write_text("two hours of work")
    with pytest.raises(RunError, match=r"belongs to a run with targets = \(\), fold = 2; this one has .*fold = 0"):
        run(config)
    (config.folder / "run-config.yaml").unlink()
    (config.folder / "result.json").write_text('{"schema_version": 99}')
    with pytest.raises(RunError, match=r"result\.json is damaged or of another version .*99"):
        run(config)


def test_two_runners_never_take_one_run_and_the_second_can_wait(config, no_kernel):
    config.folder.mkdir()
    seen = []
    with runner.only_runner_in(config.folder):
        with pytest.raises(RunError, match=f"in use by process {os.getpid()} on"):
            run(config)
        second = threading.Thread(target=lambda: seen.append(run(config, wait=True)))
        second.start()
        time.sleep(0.3)
        assert not seen
        values = config.model_dump(mode="json", exclude={"output"})
        (config.folder / "result.json").write_text(json.dumps({"schema_version": 1, "config": values}))
        (config.folder / NOTEBOOK).with_suffix(".partial.ipynb").write_text("saved last")
    second.join(30)
    assert seen == [config.folder / "result.json"]
    assert (config.folder / NOTEBOOK).read_text() == "saved last"


def test_after_a_killed_runner_the_next_waits_for_its_kernel_and_tidies_up(tmp_path, monkeypatch):
    waited = []
    monkeypatch.setattr(runner.time, "sleep", waited.append)
    with runner.only_runner_in(tmp_path):
        assert not waited
    for name in (".runner", ".checkpoint.pt.k3_x9ab1", "checkpoint.pt"):
        (tmp_path / name).write_text("process 1 on elsewhere")
    with runner.only_runner_in(tmp_path):
        assert waited == [runner.KERNEL_SECONDS]
        assert files_in(tmp_path) == {".runner", "checkpoint.pt"}
        assert (tmp_path / ".runner").read_text().startswith(f"process {os.getpid()} on")
    assert files_in(tmp_path) == {"checkpoint.pt"}


INTERRUPTED = """
import signal, sys, time
from pathlib import Path
from fsslib.reproduction.config import RunConfig
from fsslib.reproduction.run import RunInterrupted, run

# A test run in the background of a shell starts with SIGINT ignored, and its kernels would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
before, config, force = signal.getsignal(signal.SIGTERM), RunConfig(output=sys.argv[1]), sys.argv[3] == "True"
try:
    run(config, notebook=sys.argv[2], force=force)
except RunInterrupted as interrupt:
    print(interrupt)
assert signal.getsignal(signal.SIGTERM) == before
while (config.folder / "checkpoint.pt").read_text() != "step 7":
    time.sleep(0.1)
assert not (config.folder / "a.ipynb").exists()
run(config, notebook=sys.argv[2])
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_reaches_the_training_cell_which_saves(config, tmp_path, number):
    """In a process of its own: a signal that comes a moment too late must not end the tests."""
    train = f"""
import os, pathlib, time
saved = pathlib.Path(output, "checkpoint.pt")
if saved.exists():
    print("resumed")
else:
    saved.write_text("step 3")
    try:
        os.kill(os.getppid(), {int(number)})
        time.sleep(30)
    except KeyboardInterrupt:
        time.sleep(0.5)
        saved.write_text("step 7")
        raise
"""
    force = number == signal.SIGTERM
    notebook = write_notebook(tmp_path / "a.ipynb", train, WRITE_RESULT)
    told = subprocess.run(
        [sys.executable, "-c", INTERRUPTED, config.output, notebook, str(force)],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert told.returncode == 0, told.stderr
    assert f"The same call {'without force ' * force}goes on from its checkpoint" in told.stdout
    assert "resumed" in (config.folder / "a.ipynb").read_text()
    assert not (config.folder / "a.partial.ipynb").exists()


def test_braces_in_a_path_are_no_placeholders_and_output_can_be_watched(tmp_path, run_cells, capsys):
    config = RunConfig(output=str(tmp_path / "{fold}"))
    path = run_cells("print('loss 0.5')", WRITE_RESULT, config=config, log_output=True)
    assert path == tmp_path / "{fold}" / "result.json"
    assert "loss 0.5" in capsys.readouterr().out


def test_runs_beside_each_other_take_different_gpus(monkeypatch, tmp_path):
    monkeypatch.setattr(runner.tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    for names, device, shown in (("1", "auto", ""), ("0,1", "cpu", ""), ("0,1", "auto", "0"), ("0,1", "cuda", "1")):
        monkeypatch.setenv("FSSLIB_GPUS", names)
        held = runner._a_gpu_of_its_own(device)
        assert os.environ["CUDA_VISIBLE_DEVICES"] == shown
        if shown == "0":
            first = held
    # One file for each user: a folder of temporary files is shared, its files are not.
    assert files_in(tmp_path) == {f"fsslib-gpu-{os.getuid()}-{name}.lock" for name in "01"}
    monkeypatch.setattr(runner.time, "sleep", lambda _: first.__exit__(None, None, None))
    with runner._a_gpu_of_its_own("auto"):
        assert os.environ["CUDA_VISIBLE_DEVICES"] == "0"
