"""`make gpu` tried where there is no GPU: what it says, how it shares the time, what it packs. About 20 s."""

import json
import os
import subprocess
import sys
import tarfile
import time

import pytest
import torch

from fsslib import paths
from fsslib.reproduction.plans import Plan
from tests.gpu import __main__ as gpu
from tests.gpu import throughput


def test_without_a_gpu_it_says_what_is_missing(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert gpu.main([]) == 2
    assert "finds none here" in capsys.readouterr().err


def test_its_plans_are_for_the_gpu_and_small():
    for name in gpu.PLANS.values():
        configs = [config for _, config in Plan.load(name).runs]
        assert all((config.device, config.dtype) == ("cuda", "bfloat16") for config in configs)
        assert sum(config.steps for config in configs) < 3000


@pytest.mark.slow
def test_the_table_has_every_network_and_the_yardstick(tmp_path):
    found = throughput.report(tmp_path / "table.json", "cpu", tiny=True)
    assert [row["title"] for row in found["networks"]] == [network.title for network in throughput.NETWORKS]
    assert all(row["per_second"] > 0 and row["trained_per_second"] > 0 for row in found["networks"])
    assert found["backbone"]["share"] > 0
    assert json.loads((tmp_path / "table.json").read_text()) == found


IN_PLACE = {
    "tests": "print('FAILED tests/test_a.py')",
    "throughput": """
try:
    time.sleep(60)
except KeyboardInterrupt:
    (out / "gpu_throughput.json").write_text("{}")
""",
    "plan": """
for name in ("result.json", "checkpoint.pt", "90.failed.ipynb"):
    (out / "tiny_plan" / name).write_text("{}")
signal.signal(signal.SIGINT, signal.SIG_IGN)
time.sleep(60)
""",
    "real": "1 / 0",
}


def test_each_part_ends_at_its_share_of_the_time_says_how_and_is_packed(monkeypatch, tmp_path, capsys):
    """One tells a failure, one saves when it is interrupted, one has a failed run and must be killed, one breaks."""
    start = f"import pathlib, signal, time; out = pathlib.Path({str(tmp_path)!r})\n"
    monkeypatch.setenv("OUT", str(tmp_path))
    monkeypatch.setattr(paths, "project_root", lambda: tmp_path)
    monkeypatch.setattr(gpu, "PARTING", 2.0)
    monkeypatch.setattr(gpu, "command_of", lambda part, *_: ["-c", start + IN_PLACE[part]])
    for folder in ("tiny_plan", "results"):
        (tmp_path / folder).mkdir()
    (trial := tmp_path / "results" / "tiny_plan.json").write_text("{}")
    began = time.monotonic()
    assert gpu.main(["--tiny", "--minutes", "0.2"]) == 1
    assert time.monotonic() - began < 60 * 0.2
    told = capsys.readouterr().out.partition("== all\n")[2].splitlines()
    ends = (
        "tests: failed;",
        "throughput: stopped at its share;",
        "plan: failed, 1 of 1 runs have ended;",
        "real: failed",
    )
    assert [line for line, end in zip(told, ends, strict=False) if not line.startswith(end)] == []
    with tarfile.open(tmp_path / "results-gpu.tgz") as archive:
        names = set(archive.getnames())
    assert {"gpu-tests.log", gpu.TABLE, "tiny_plan/result.json", "tiny_plan/90.failed.ipynb", trial.name} < names
    assert "tiny_plan/checkpoint.pt" not in names
    assert not trial.exists(), "a trial is no result"
    monkeypatch.setitem(IN_PLACE, "real", "pass")
    assert gpu.main(["--tiny", "real"]) == 0
    assert "real: done, 0 of 1 runs have ended" in capsys.readouterr().out


OPEN = """
from fsslib.blocks.backbones import build_backbone
from fsslib.data import open_task
from fsslib.reproduction.plans import Plan
for _, c in Plan.load("gpu_real").runs:
    task = open_task(c.data, fold=c.fold, source=c.source, targets=c.targets, size=64)
    build_backbone(c.backbone, weights=c.weights, stages=["layer3"])
    task.exams(2, shots=c.shots)
    [stream.batch(0) for stream in task.streams(batch_size=2, shots=c.shots).values()]
"""


@pytest.mark.realdata
@pytest.mark.skipif(not os.environ.get("FSSLIB_DATA"), reason="FSSLIB_DATA is not set: no real data to carry")
def test_what_is_carried_to_a_machine_without_a_network_is_small_and_all_that_the_plan_reads(tmp_path, monkeypatch):
    assert gpu.main(["--carry", str(tmp_path / "gpu.tgz")]) == 0
    assert (tmp_path / "gpu.tgz").stat().st_size < 60e6
    with tarfile.open(tmp_path / "gpu.tgz") as archive:
        archive.extractall(tmp_path, filter="data")
    monkeypatch.delenv("FSSLIB_DATA")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "fsslib"))
    subprocess.run([sys.executable, "-c", OPEN], cwd=tmp_path / "fsslib", check=True)
