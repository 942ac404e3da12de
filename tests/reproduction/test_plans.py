"""Plans through Snakemake, on notebooks that train nothing: what is repeated, tried again, named, stopped. 100 s."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from fsslib import paths
from fsslib.reproduction import plans
from fsslib.reproduction.config import ConfigError, RunConfig, load, parse
from fsslib.reproduction.plans import Plan, expand, forecast, seconds_of, shipped_plans
from fsslib.reproduction.run import NOTEBOOK
from tests.reproduction.made_notebook import COUNT, DEFAULTS, wait_for, write_notebook

PLAN = """
name: tried
runs:
  - {label: first, method: prototype, seed: [0, 1], targets: []}
  - {label: second, seed: [1, 0], targets: []}
  - {label: first again, method: prototype, seed: 0, targets: []}
"""
ONE = "name: tried\nruns:\n  - {label: a, targets: []}\n"

# A record that can be gathered, of a notebook that computed nothing.
RECORD = """
import json, pathlib
from fsslib.reproduction.config import RunConfig
values = {name: globals()[name] for name in NAMES if name != "output"}
sha256 = RunConfig.model_construct(**values | {"targets": tuple(targets)}).sha256
parts = {name: {} for name in ("classes", "scores", "floors", "weights", "peak_memory_bytes", "environment")}
parts |= {"schema_version": 1, "config": values, "config_sha256": sha256, "seconds": 1.0}
parts |= {"training": {"steps": 0, "seconds": 0.0, "final": {}, "tail": []}, "best": None}
pathlib.Path(output, "result.json").write_text(json.dumps(parts))
""".replace("NAMES", repr(list(DEFAULTS)))

# It goes on for five minutes; when it is interrupted it saves after some seconds.
TRAIN = """
import pathlib, time
pathlib.Path(output, 'started').touch()
try:
    time.sleep(300)
except KeyboardInterrupt:
    time.sleep({})
    pathlib.Path(output, 'checkpoint.pt').write_text('step 7')
    raise
"""


def planned(folder: Path, text: str = PLAN) -> Plan:
    (folder / "tried.yaml").write_text(text)
    return Plan.load(folder / "tried.yaml")


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """A copy of the package outside a checkout, so that runs and results go to the folder it is used in."""
    site = tmp_path_factory.mktemp("site")
    shutil.copytree(paths.PACKAGE, site / "fsslib")
    (site / "fsslib" / "shipped" / "notebooks").mkdir(parents=True)
    return site


class Project:
    """A folder in which the installed copy carries out a plan, with a training notebook made of these cells."""

    def __init__(self, folder: Path, site: Path):
        self.folder, self.site = folder, site

    def plans(self, text: str = PLAN) -> list[Path]:
        """Write the plan and return the folders of its runs, in their order."""
        self.plan = planned(self.folder, text)
        return [self.folder / "runs" / config.run_id for _, config in self.plan.order()]

    def trains(self, *cells: str) -> None:
        write_notebook(self.site / "fsslib" / "shipped" / "notebooks" / NOTEBOOK, *cells)

    def start(self, threads: int | None = 1, **options) -> subprocess.Popen:
        options = {"jobs": 1} | options
        code = (
            "from fsslib.reproduction import plans\n"
            "plan = plans.Plan.load('tried.yaml')\n"
            f"print(*plans.carry_out(plan, **{options!r}), sep='\\n')"
        )
        environment = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
        environment |= {"PYTHONPATH": str(self.site)} | ({"OMP_NUM_THREADS": str(threads)} if threads else {})
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        return subprocess.Popen([sys.executable, "-c", code], cwd=self.folder, env=environment, **pipes)

    def carry_out(self, **options) -> list[str]:
        """The lines that are told, of which the last is empty where nothing failed."""
        told, errors = self.start(**options).communicate(timeout=500)
        assert not errors
        return told.splitlines()

    def rows(self) -> list[tuple[str, int]]:
        rows = plans.read_rows(self.folder / "results" / "tried.json")
        assert all("best" not in row and "tail" not in row["training"] for row in rows)
        return [(row["label"], row["config"]["seed"]) for row in rows]


@pytest.fixture
def project(tmp_path, installed) -> Project:
    return Project(tmp_path, installed)


def test_two_runs_at_a_time_where_nothing_is_said_and_there_are_two_cores(monkeypatch):
    monkeypatch.setattr(plans, "cpu_cores", lambda: 8)
    assert [plans.at_a_time(*told) for told in ((None,), (None, 1), (None, 4), (3,), (1, 4))] == [2, 1, 2, 3, 1]


def test_matrices_expand_to_every_combination():
    assert list(expand({"fold": [0, 1], "seed": [2, 3], "targets": ["night"]})) == [
        {"fold": f, "seed": s, "targets": ["night"]} for f in (0, 1) for s in (2, 3)
    ]


def test_early_seeds_of_all_rows_come_first_and_no_run_twice(tmp_path):
    plan = planned(tmp_path)
    order = [("first", 0), ("second", 0), ("first", 1), ("second", 1)]
    assert [(label, config.seed) for label, config in plan.order()] == order
    assert [plan.at(index) for index in range(4)] == [config for _, config in plan.order()]
    for index in (-1, 4):
        with pytest.raises(ConfigError, match=f"tried has the runs 0 to 3; found index {index}"):
            plan.at(index)


HERE = "name: tried\nruns:\n  - {label: a, output: here, seed: SEED}\n  - {label: b, output: here}\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name: x\nruns:\n  - {label: a, fold: 9}\n", r"labelled 'a'.*unknown fold 9"),
        ("name: x\nruns:\n  - {fold: 1}\n", "with a label"),
        ("name: x\n", "name and runs"),
        ("name: [", "is not YAML"),
        ("name: x\nruns: []\ntable: []\n", "name and runs, and may have tables"),
        (HERE.replace("SEED", "1"), r"different runs would write to .*here\. Leave `output` out"),
    ],
)
def test_bad_plans_say_where(tmp_path, text, said):
    assert len(planned(tmp_path, HERE.replace("SEED", "0")).order()) == 1
    with pytest.raises(ConfigError, match=said):
        planned(tmp_path, text)
    with pytest.raises(ConfigError, match=r"no plan 'nothing'.*sg_one_toy"):
        Plan.load("nothing")


COMMITTED = {path.stem for path in paths.shipped("results").glob("*.json")} & set(shipped_plans())


@pytest.mark.parametrize("name", shipped_plans())
def test_plans_of_the_package_are_whole_and_results_are_theirs(name):
    plan = Plan.load(name)
    assert plan.name == name
    assert plan.order()
    assert {"sg_one_toy", "toy_splits"} <= COMMITTED
    hashes = {config.sha256: label for label, config in plan.runs}
    assert len(hashes) == len(plan.runs) or name not in COMMITTED
    rows = plans.read_rows(plan.results_file) if name in COMMITTED else []
    found = {row["config_sha256"]: row["label"] for row in rows}
    assert len(found) == len(rows)
    assert found.items() <= hashes.items(), "a row is not of this plan, or stands under another label"
    assert all(RunConfig(**row["config"]).sha256 == row["config_sha256"] for row in rows)


def test_a_result_counts_for_its_own_run_only(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "project_root", lambda: tmp_path)
    monkeypatch.setattr(plans, "_snakemake", lambda *_: pytest.fail("Snakemake was called"))
    plan = planned(tmp_path)
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


def test_rows_of_another_machine_are_kept_while_the_plan_holds_them(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "project_root", lambda: tmp_path)
    plan = planned(tmp_path)
    plan.results_file.parent.mkdir()
    kept, gone = ({"config_sha256": sha256, "label": "old"} for sha256 in (plan.at(1).sha256, 64 * "0"))
    plan.results_file.write_text(json.dumps({"runs": [kept, gone]}))
    mine = {"config_sha256": plan.at(0).sha256, "training": {"steps": 9}, "best": {"step": 3}}
    more = {"schema_version": 1, "run_id": "", "at_once": {}, "training": {"steps": 9, "tail": []}}
    plan.at(0).folder.mkdir(parents=True)
    (plan.at(0).folder / "result.json").write_text(json.dumps(mine | more))
    rows = [mine | {"label": "first"}, kept | {"label": "second"}, mine | {"label": "first again"}]
    assert plans.read_rows(plans.gather(plan)) == rows


@pytest.mark.slow
def test_what_fails_is_tried_again_and_named_and_what_is_finished_not_repeated(project):
    first_zero, second_zero, _, second_one = project.plans()
    fail = "assert seed == 0, 'no such seed'\nassert method == 'prototype' or len(tries) > 1, 'by chance'"
    project.trains(COUNT, fail, RECORD)
    *progress, first, first_notebook, second, second_notebook = project.carry_out(jobs=2, cores=2)
    assert sorted(line.split("  ")[1] for line in progress) == ["first", "second"]
    assert first.startswith("first, toy-prototype-tiny-fold0-1way1shot-seed1-")
    assert second.endswith("The run failed in cell [4] with AssertionError: no such seed")
    assert first_notebook.endswith(".failed.ipynb")
    assert Path(second_notebook.split(": ")[1]).is_relative_to(second_one)
    assert project.rows() == [("first", 0), ("second", 0), ("first again", 0)]
    assert [(folder / "tries").read_text() for folder in (second_zero, second_one)] == ["xx", "xx"]
    assert parse(load(first_zero / plans.PARAMETERS)) == project.plan.at(0)

    project.trains(COUNT, RECORD)
    assert len(project.carry_out(jobs=2, cores=2)) == 3  # two runs, and an empty line for no failures
    assert len(project.rows()) == 5
    assert [(folder / "tries").read_text() for folder in (second_zero, second_one)] == ["xx", "xxx"]


@pytest.mark.slow
def test_a_result_stays_when_its_job_starts_late_or_fails(project):
    """The first run is stopped when its result is written; the second was finished by another command meanwhile."""
    early, late = project.plans(ONE.replace("targets", "seed: [0, 1], targets"))
    elsewhere = (
        f"values['seed'], parts['config_sha256'] = 1, {project.plan.at(1).sha256!r}\n"
        f"pathlib.Path({str(late)!r}, 'result.json').write_text(json.dumps(parts))"
    )
    project.trains(COUNT, RECORD, elsewhere, "1 / 0")
    assert len(project.carry_out()) == 3  # two runs, and an empty line for no failures
    assert project.rows() == [("a", 0), ("a", 1)]
    assert (early / "tries").read_text() == "x"
    assert not (late / "tries").exists()
    assert (early / NOTEBOOK).with_suffix(".failed.ipynb").exists()
    assert not list((project.folder / "runs" / ".snakemake").rglob("result.json"))  # nor is a copy of it left


@pytest.mark.slow
def test_start_weights_of_a_split_are_made_before_its_runs_once_and_disturb_none_that_ended(project):
    recipe = project.site / "fsslib" / "training" / "recipes" / "base_classes.yaml"
    recipe.write_text(recipe.read_text().replace("steps: 800", "steps: 2"))
    text = ONE.replace("targets", "data: toy_splits, fold: [3, 5], seed: [0, 1], targets")
    runs = project.plans(text)
    look = "from fsslib.reproduction.config import RunConfig as R\n"
    look += "assert R(data=data, fold=fold).made_weights.exists()"
    project.trains(COUNT, look, RECORD)
    assert len(project.carry_out()) == 5
    made = sorted((project.folder / "data" / "cache" / "weights").glob("*.pt"))
    assert [file.name.split("-")[2] for file in made] == ["split3", "split5"]
    log = project.folder / "runs" / ".plans" / "tried" / plans.LOG
    assert log.read_text().count("is trained first") == 2
    jobs = re.findall(r"rule (start_weights|one_run):", log.read_text())
    assert jobs == ["start_weights", "one_run", "start_weights", "one_run", "one_run", "one_run"]

    for file in made:
        file.unlink()
    project.plans(text.replace("[0, 1]", "[0, 1, 2]").replace("[3, 5]", "[3]"))
    assert len(project.carry_out()) == 2
    assert [file.exists() for file in made] == [True, False]
    assert [log.read_text().count(f"rule {name}:") for name in ("start_weights", "one_run")] == [1, 1]
    assert [(folder / "tries").read_text() for folder in runs] == ["x"] * 4


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_an_interrupt_reaches_the_runs_which_save(project, number):
    """SIGTERM is passed on; after kill -9 Snakemake sees that its parent is gone."""
    folder = project.plans()[0]
    project.trains(TRAIN.format(0))
    process = project.start()
    wait_for((folder / "started").exists)
    process.send_signal(number)
    told, errors = process.communicate(timeout=500)
    assert process.returncode not in (0, None)
    wait_for((folder / "checkpoint.pt").exists)
    wait_for(lambda: not (folder / ".runner").exists())
    wait_for(lambda: "goes on from its checkpoint" in (folder / plans.LOG).read_text(), 10)
    assert not told.strip()
    assert "KeyboardInterrupt" in errors or number == signal.SIGKILL
    if number == signal.SIGTERM:
        assert project.rows() == []


@pytest.mark.slow
def test_after_a_killed_snakemake_each_run_says_what_it_has(project):
    folders = project.plans()
    project.trains(TRAIN.format(3))
    process = project.start()
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
    (folders[0] / plans.LOG).write_text("")  # as after kill -9
    config = project.plan.at(0).model_copy(update={"output": str(folders[0])})
    told = plans._what_became_of(config, project.plan)
    assert told.startswith(f"it ended without a word; see {folders[0]}. The next")


@pytest.mark.slow
@pytest.mark.parametrize(("told", "expected"), [(1, 1), (3, 3), (None, 2)])
def test_a_run_computes_with_as_many_threads_as_the_user_says_and_its_job_without_torch(project, told, expected):
    """Snakemake 9.27.1 sets them all, and torch 2.15.0 heeds more than OMP's (snakemake-torch-threads.sh)."""
    project.plans(ONE)
    names = [f"{library}_NUM_THREADS" for library in ("OMP", "MKL", "OPENBLAS")]
    runner = "pathlib.Path('/proc', str(os.getppid()), 'maps').read_text()"
    check = f"assert [os.environ[n] for n in {names}] == {[str(expected)] * 3}; assert 'libtorch' not in {runner}"
    project.trains(f"import os, pathlib; {check}", RECORD)
    project.carry_out(threads=told, cores=2)
    assert project.rows() == [("a", 0)]


@pytest.mark.slow
def test_what_keeps_snakemake_from_starting_is_shown(project):
    project.plans()
    told, errors = project.start(profile="no_such_profile", jobs=None).communicate(timeout=500)
    assert not told
    assert "Snakemake started no run. Its last words:" in errors
    assert "no_such_profile" in errors


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
    assert seconds_of(config, [*same, *other]) == (6 * 20 + 2 * 8, True)
    options = config.model_copy(update={"method_options": {"guidance": "none"}})
    assert seconds_of(options, same) == (136, False)
    assert seconds_of(config, other) is None
    # A network that was never trained says nothing about training, but all about a test without.
    untrained = [measured(30.0, 0.1, steps=0, episodes=50, targets=("sketch",))]
    assert seconds_of(config, untrained) is None
    assert seconds_of(config.model_copy(update={"steps": 0}), untrained) == (pytest.approx(2 * 29.9), True)


def test_a_forecast_says_what_is_done_and_what_is_not_known(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "project_root", lambda: tmp_path)
    plan = planned(tmp_path)
    told = forecast(plan).splitlines()
    assert told[0] == "tried: 4 runs, 0 done, 4 to run"
    assert told[-1] == "How long that takes is not known: no such run was measured here. Make one, and ask again."
    done = plan.at(0).folder / "result.json"
    done.parent.mkdir(parents=True)
    took = measured(70.0, 60.0, method="prototype", targets=())
    rows = [took | {"config_sha256": plan.at(index).sha256} for index in (0, 1)]
    done.write_text(json.dumps({"schema_version": 1} | rows[0]))
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "tried.json").write_text(json.dumps({"runs": rows}))
    (tmp_path / "results" / "bench.json").write_text('{"cases": []}')
    lines = forecast(plan, jobs=2).splitlines()
    assert lines[0] == "tried: 4 runs, 1 done, 3 to run"
    assert lines[1].split() == ["first", "2", "runs", "1", "done", "about", "70", "s", "each"]
    assert lines[2].endswith("0 done  never measured")
    assert lines[3] == (
        "results/tried.json holds 1 of these runs, whose folders are not here; running them again replaces their rows."
    )
    assert lines[4] == "About 70 s with 2 at a time, going by runs/ and results/, and 2 runs never measured."
    rows.append(measured(50.0, 40.0, targets=()))
    (tmp_path / "results" / "tried.json").write_text(json.dumps({"runs": rows}))
    *_, second, _, last = forecast(plan, jobs=2).splitlines()
    assert second.endswith("2 runs    0 done  about 50 s each")
    assert last == "About 85 s with 2 at a time, going by runs/ and results/."
