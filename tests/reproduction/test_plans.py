"""Plans through Snakemake, on notebooks that train nothing: what is repeated, tried again, named, interrupted. 80 s."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import filelock
import papermill
import pytest
import torch

from fsslib import paths
from fsslib.reproduction import forecast, plans
from fsslib.reproduction import run as runner
from fsslib.reproduction.config import ConfigError, RunConfig
from fsslib.reproduction.plans import Plan
from fsslib.reproduction.run import NOTEBOOK, run
from tests.reproduction.made_notebook import DEFAULTS, WRITE_RESULT, write_notebook

PLAN = """
name: tried
runs:
  - {label: first, method: prototype, seed: [0, 1], targets: []}
  - {label: second, seed: [1, 0], targets: []}
  - {label: first again, method: prototype, seed: 0, targets: []}
"""

# A record that can be gathered, of a notebook that computed nothing.
RECORD = """
import json, pathlib
from fsslib.reproduction.config import RunConfig
values = {name: globals()[name] for name in NAMES if name != "output"}
sha256 = RunConfig.model_construct(**values | {"targets": tuple(targets)}).sha256
parts = {name: {} for name in ("classes", "scores", "floors", "weights", "peak_memory_bytes", "environment")}
parts |= {"config": values, "config_sha256": sha256}
parts |= {"seconds": 1.0, "training": {"steps": 0, "seconds": 0.0, "final": {}}}
pathlib.Path(output, "result.json").write_text(json.dumps({"schema_version": 1} | parts))
""".replace("NAMES", repr(list(DEFAULTS)))


def load(tmp_path, text=PLAN) -> Plan:
    (tmp_path / "tried.yaml").write_text(text)
    return Plan.load(tmp_path / "tried.yaml")


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """A copy of the package outside a checkout, so that runs and results go to the folder it is used in."""
    site = tmp_path_factory.mktemp("site")
    shutil.copytree(paths.PACKAGE, site / "fsslib")
    (site / "fsslib" / "shipped" / "notebooks").mkdir(parents=True)
    return site


class Project:
    """A folder in which the installed copy carries out the plan, with a training notebook made of these cells."""

    def __init__(self, folder: Path, site: Path):
        self.folder, self.site = folder, site
        self.plan = load(folder)
        self.runs = {
            config.seed: folder / "runs" / config.run_id for label, config in self.plan.order() if label == "second"
        }

    def trains(self, *cells: str) -> None:
        write_notebook(self.site / "fsslib" / "shipped" / "notebooks" / NOTEBOOK, *cells)

    def start(self, threads: int | None = 1, **options) -> subprocess.Popen:
        code = (
            "from fsslib.reproduction import plans\n"
            "plan = plans.Plan.load('tried.yaml')\n"
            f"print(*plans.carry_out(plan, **{options!r}), sep='\\n')"
        )
        environment = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
        environment |= {"PYTHONPATH": str(self.site)} | ({"OMP_NUM_THREADS": str(threads)} if threads else {})
        command = [sys.executable, "-c", code]
        return subprocess.Popen(
            command, cwd=self.folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def rows(self) -> list[tuple[str, int]]:
        rows = plans.read_rows(self.folder / "results" / "tried.json")
        return [(row["label"], row["config"]["seed"]) for row in rows]


@pytest.fixture
def project(tmp_path, installed) -> Project:
    return Project(tmp_path, installed)


def test_early_seeds_of_all_rows_come_first_and_no_run_twice(tmp_path):
    plan = load(tmp_path)
    assert [(label, config.seed) for label, config in plan.order()] == [
        ("first", 0),
        ("second", 0),
        ("first", 1),
        ("second", 1),
    ]
    assert [plan.at(index) for index in range(4)] == [config for _, config in plan.order()]
    for index in (-1, 4):
        with pytest.raises(ConfigError, match=f"tried has the runs 0 to 3; found index {index}"):
            plan.at(index)


def test_a_result_counts_for_its_own_run_only(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "project_root", lambda: tmp_path)
    monkeypatch.setattr(plans, "_snakemake", lambda *_: pytest.fail("Snakemake was called"))
    plan = load(tmp_path)
    mine, other = plan.at(0), plan.at(2)
    mine.folder.mkdir(parents=True)
    record = {"config": other.model_dump(mode="json", exclude={"output"}), "config_sha256": other.sha256}
    for text, said in (
        (json.dumps({"schema_version": 1} | record), "belongs to a run with seed = 1; this one has seed = 0"),
        ("{", "is damaged or of another version"),
    ):
        (mine.folder / "result.json").write_text(text)
        with pytest.raises(ConfigError, match=said):
            plans.carry_out(plan)
        assert plans.read_rows(plans.gather(plan)) == []


def test_different_runs_in_one_folder_are_refused(tmp_path):
    text = "name: tried\nruns:\n  - {label: a, output: here, seed: SEED}\n  - {label: b, output: here}\n"
    assert len(load(tmp_path, text.replace("SEED", "0")).order()) == 1
    with pytest.raises(ConfigError, match=r"different runs would write to .*here\. Leave `output` out"):
        load(tmp_path, text.replace("SEED", "1"))


@pytest.mark.slow
def test_what_fails_is_tried_again_and_named_and_what_is_finished_not_repeated(project):
    count = "import pathlib; log = pathlib.Path(output, 'tries'); log.open('a').write('x'); tries = log.read_text()"
    fail = "assert seed == 0, 'no such seed'\nassert method == 'prototype' or len(tries) > 1, 'by chance'"
    project.trains(count, fail, RECORD)
    told, errors = project.start(jobs=2, cores=2).communicate(timeout=500)
    assert not errors
    *progress, first, first_notebook, second, second_notebook = told.splitlines()
    assert sorted(line.split("  ")[1] for line in progress) == ["first", "second"]
    assert first.startswith("first, toy-prototype-tiny-fold0-1way1shot-seed1-")
    assert second.endswith("The run failed in cell [4] with AssertionError: no such seed")
    assert first_notebook.endswith(".failed.ipynb")
    assert Path(second_notebook.split(": ")[1]).is_relative_to(project.runs[1])
    assert project.rows() == [("first", 0), ("second", 0), ("first again", 0)]
    assert [(project.runs[seed] / "tries").read_text() for seed in (0, 1)] == ["xx", "xx"]
    parameters = json.loads((project.runs[0] / plans.PARAMETERS).read_text())
    assert RunConfig(**parameters) == project.plan.at(1)

    project.trains(count, RECORD)
    told, errors = project.start(jobs=2, cores=2).communicate(timeout=500)
    assert not errors
    assert len(told.splitlines()) == 3  # two runs, and an empty line for no failures
    assert len(project.rows()) == 5
    assert [(project.runs[seed] / "tries").read_text() for seed in (0, 1)] == ["xx", "xxx"]


@pytest.mark.slow
def test_a_result_stays_when_its_job_starts_late_or_fails(project):
    """The first run is stopped when its result is written; the second was finished by another command meanwhile."""
    plan = load(project.folder, "name: tried\nruns:\n  - {label: a, seed: [0, 1], targets: []}\n")
    early, late = (project.folder / "runs" / config.run_id for _, config in plan.order())
    count = "import pathlib; pathlib.Path(output, 'tries').open('a').write('x')"
    elsewhere = (
        f"values['seed'], parts['config_sha256'] = 1, {plan.at(1).sha256!r}\n"
        f"pathlib.Path({str(late)!r}, 'result.json').write_text(json.dumps({{'schema_version': 1}} | parts))"
    )
    project.trains(count, RECORD, elsewhere, "1 / 0")
    told, errors = project.start().communicate(timeout=500)
    assert not errors
    assert len(told.splitlines()) == 3  # two runs, and an empty line for no failures
    assert project.rows() == [("a", 0), ("a", 1)]
    assert (early / "tries").read_text() == "x"
    assert not (late / "tries").exists()
    assert (early / NOTEBOOK).with_suffix(".failed.ipynb").exists()
    assert not list((project.folder / "runs" / ".snakemake").rglob("result.json"))  # nor is a copy of it left


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_an_interrupt_reaches_the_runs_which_save(project, number):
    """SIGTERM is passed on; after kill -9 Snakemake sees that its parent is gone."""
    project.trains(
        "import pathlib, time\n"
        "pathlib.Path(output, 'started').touch()\n"
        "try:\n    time.sleep(300)\n"
        "except KeyboardInterrupt:\n    pathlib.Path(output, 'checkpoint.pt').write_text('step 7'); raise"
    )
    process = project.start()
    started = project.plan.at(0).folder.name
    folder = project.folder / "runs" / started
    wait_for((folder / "started").exists)
    process.send_signal(number)
    told, errors = process.communicate(timeout=500)
    assert process.returncode not in (0, None)
    wait_for((folder / "checkpoint.pt").exists)
    wait_for(lambda: not (folder / ".runner").exists())
    assert "goes on from its checkpoint" in (folder / plans.LOG).read_text()
    assert not told.strip()
    assert "KeyboardInterrupt" in errors or number == signal.SIGKILL
    if number == signal.SIGTERM:
        assert project.rows() == []


@pytest.mark.slow
def test_after_a_killed_snakemake_each_run_says_what_it_has(project):
    project.trains(
        "import pathlib, time\n"
        "pathlib.Path(output, 'started').touch()\n"
        "try:\n    time.sleep(300)\n"
        "except KeyboardInterrupt:\n"
        "    time.sleep(3); pathlib.Path(output, 'checkpoint.pt').write_text('step 7'); raise"
    )
    process = project.start()
    folders = [project.folder / "runs" / config.folder.name for _, config in project.plan.order()]
    folders[1].mkdir(parents=True, exist_ok=True)
    (folders[1] / "checkpoint.pt").write_text("step 3, by an earlier call")
    wait_for((folders[0] / "started").exists)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    os.kill(int(children[0]), signal.SIGKILL)
    told, errors = process.communicate(timeout=500)
    assert not errors
    first, second, third, _ = told.splitlines()
    assert first.endswith(f"Interrupted in {folders[0]}. The same call goes on from its checkpoint.")
    assert "it was not started. The next call goes on from its checkpoint. Snakemake: " in second
    assert "it was not started. The next call starts at the first step. Snakemake: " in third


def test_a_run_that_was_killed_is_not_said_to_have_never_started(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "project_root", lambda: tmp_path)
    plan = load(tmp_path)
    log = plan.at(0).folder / plans.LOG
    log.parent.mkdir(parents=True)
    log.touch()
    assert plans._what_became_of(plan.at(0), plan).startswith(f"it ended without a word; see {log.parent}. The next")


@pytest.mark.slow
@pytest.mark.parametrize(("told", "expected"), [(1, 1), (3, 3), (None, 2)])
def test_a_run_computes_with_as_many_threads_as_the_user_says(project, told, expected):
    """Snakemake 9.27.1 sets them all, and torch 2.15.0 heeds more than OMP's (snakemake-torch-threads.sh)."""
    project.plan = load(project.folder, "name: tried\nruns:\n  - {label: a, targets: []}\n")
    names = [f"{library}_NUM_THREADS" for library in ("OMP", "MKL", "OPENBLAS")]
    project.trains(f"import os; assert [os.environ[n] for n in {names}] == {[str(expected)] * 3}", RECORD)
    _, errors = project.start(threads=told, cores=2).communicate(timeout=500)
    assert not errors
    assert project.rows() == [("a", 0)]


def wait_for(condition, seconds=300) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it never came to pass"
        time.sleep(0.1)


@pytest.mark.slow
def test_what_keeps_snakemake_from_starting_is_shown(project):
    told, errors = project.start(profile="no_such_profile").communicate(timeout=500)
    assert not told
    assert "Snakemake started no run. Its last words:" in errors
    assert "no_such_profile" in errors


def test_a_second_runner_can_wait_and_then_has_nothing_to_do(tmp_path, monkeypatch):
    config = RunConfig(output=str(tmp_path / "out"))
    monkeypatch.setattr(papermill, "execute_notebook", lambda *_, **__: pytest.fail("papermill was called"))
    config.folder.mkdir()
    with runner.only_runner_in(config.folder):
        paths_seen = []
        second = threading.Thread(target=lambda: paths_seen.append(run(config, wait=True)))
        second.start()
        time.sleep(0.3)
        assert not paths_seen
        values = config.model_dump(mode="json", exclude={"output"})
        (config.folder / "result.json").write_text(json.dumps({"schema_version": 1, "config": values}))
        (config.folder / "90_train_and_evaluate.partial.ipynb").write_text("saved last")
    second.join(30)
    assert paths_seen == [config.folder / "result.json"]
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
        assert {path.name for path in tmp_path.iterdir()} == {".lock", ".runner", "checkpoint.pt"}


def test_a_job_does_without_torch_and_tells_how_it_ended(tmp_path):
    config = RunConfig(output=str(tmp_path / "out"))
    (tmp_path / "plan.json").write_text(json.dumps(config.model_dump(mode="json")))
    write_notebook(tmp_path / "a.ipynb", "assert seed == 0, 'no'", WRITE_RESULT)
    code = (
        "import functools, sys\n"
        "from fsslib.reproduction import run as runner\n"
        f"runner.run = functools.partial(runner.run, notebook={str(tmp_path / 'a.ipynb')!r})\n"
        "status = runner.main('plan.json')\n"
        "assert 'torch' not in sys.modules\n"
        "sys.exit(status)"
    )
    environment = os.environ | {"PYTHONPATH": str(paths.PACKAGE.parent)}
    for expected in (0, 1):
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True
        )
        assert done.returncode == expected, done.stderr
        wrong = config.model_copy(update={"seed": 1, "output": str(tmp_path / "other")})
        (tmp_path / "plan.json").write_text(json.dumps(wrong.model_dump(mode="json")))
    assert "failed in cell [3] with AssertionError: no" in done.stderr


def test_runs_beside_each_other_take_different_gpus(monkeypatch, tmp_path):
    monkeypatch.setattr(runner.tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    monkeypatch.setenv("FSSLIB_GPUS", "1")
    assert runner._a_gpu_of_its_own() is None
    monkeypatch.setenv("FSSLIB_GPUS", "0,1")
    taken = []
    for name in ("0", "1"):
        taken.append(runner._a_gpu_of_its_own())
        assert os.environ["CUDA_VISIBLE_DEVICES"] == name
    monkeypatch.setattr(runner.time, "sleep", lambda _: taken[0].release())
    taken.append(runner._a_gpu_of_its_own())
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "0"
    assert all(isinstance(lock, filelock.BaseFileLock) for lock in taken)
    for lock in taken:
        lock.release()


def test_only_a_run_that_may_use_a_gpu_takes_one(monkeypatch, tmp_path):
    monkeypatch.setattr(runner.tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setenv("FSSLIB_GPUS", "0,1")
    shown = []
    monkeypatch.setattr(runner, "run", lambda *_, **__: shown.append(os.environ["CUDA_VISIBLE_DEVICES"]))
    for device in ("cpu", "auto"):
        config = RunConfig(device=device).model_dump(mode="json")
        (tmp_path / "plan.json").write_text(json.dumps(config))
        assert runner.main(str(tmp_path / "plan.json")) == 0
    assert shown == ["", "0"]
    # One file for each user: a folder of temporary files is shared, its files are not.
    assert [path.name for path in tmp_path.glob("*.lock")] == [f"fsslib-gpu-{os.getuid()}-0.lock"]


@pytest.mark.parametrize(
    ("visible", "works", "names"),
    [("", True, ["0", "1"]), ("3,GPU-5", True, ["3", "GPU-5"]), ("-1", False, []), ("0", False, [])],
)
def test_gpus_count_only_where_torch_can_use_them(monkeypatch, visible, works, names):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: works)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert plans._gpus() == names


def measured(seconds, training, device="cpu", **parameters):
    config = RunConfig.model_construct(**parameters).model_dump(mode="json")
    times = {"seconds": seconds, "training": {"steps": config["steps"], "seconds": training}}
    return {"config": config, "environment": {"device": device}} | times


def test_a_forecast_scales_what_the_same_work_took():
    config = RunConfig(steps=600, episodes=100, targets=("night",), device="cpu")
    same = [measured(t + 8, t, steps=100, episodes=50, targets=("sketch",)) for t in (10.0, 20.0, 60.0)]
    other = [measured(900.0, 800.0, batch_size=4), measured(9.0, 8.0, "cuda"), measured(9.0, 8.0, method="rtd")]
    # The median training of 100 steps took 20 s, and 100 questions 8 s.
    assert forecast.seconds_of(config, [*same, *other]) == (6 * 20 + 2 * 8, True)
    options = config.model_copy(update={"method_options": {"guidance": "none"}})
    assert forecast.seconds_of(options, same) == (136, False)
    assert forecast.seconds_of(config, other) is None
    # A network that was never trained says nothing about training, but all about a test without.
    untrained = [measured(30.0, 0.1, steps=0, episodes=50, targets=("sketch",))]
    assert forecast.seconds_of(config, untrained) is None
    assert forecast.seconds_of(config.model_copy(update={"steps": 0}), untrained) == (pytest.approx(2 * 29.9), True)


def test_a_forecast_says_what_is_done_and_what_is_not_known(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "project_root", lambda: tmp_path)
    plan = load(tmp_path)
    told = forecast.forecast("tried", plan.order())
    assert told.splitlines()[0] == "tried: 4 runs, 0 done, 4 to run"
    assert told.splitlines()[-1] == (
        "How long that takes is not known: no such run was measured here. Make one, and ask again."
    )
    done = plan.at(0).folder / "result.json"
    done.parent.mkdir(parents=True)
    took = measured(70.0, 60.0, method="prototype", targets=())
    rows = [took | {"config_sha256": plan.at(index).sha256} for index in (0, 1)]
    done.write_text(json.dumps({"schema_version": 1} | rows[0]))
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "tried.json").write_text(json.dumps({"runs": rows}))
    (tmp_path / "results" / "bench.json").write_text('{"cases": []}')
    lines = forecast.forecast("tried", plan.order(), jobs=2).splitlines()
    assert lines[0] == "tried: 4 runs, 1 done, 3 to run"
    assert lines[1].split() == ["first", "2", "runs", "1", "done", "about", "70", "s", "each"]
    assert lines[2].endswith("0 done  never measured")
    assert lines[3] == (
        "results/tried.json holds 1 of these runs, whose folders are not here; running them again replaces their rows."
    )
    assert lines[4] == "About 70 s with 2 at a time, going by runs/ and results/, and 2 runs never measured."


@pytest.mark.parametrize("name", sorted(p.stem for p in (paths.PACKAGE / "reproduction" / "plan_files").glob("*.yaml")))
def test_every_plan_of_the_package_can_be_read(name):
    plan = Plan.load(name)
    assert plan.name == name
    assert plan.order()
