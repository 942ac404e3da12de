"""`make gpu` tried where there is no GPU: what it says, and each part at the smallest size. About 15 s."""

import json
import subprocess
import tarfile

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
def test_the_table_has_every_network_and_the_yardstick():
    found = throughput.report("cpu", tiny=True)
    assert [row["title"] for row in found["networks"]] == [network.title for network in throughput.NETWORKS]
    assert all(row["per_second"] > 0 and row["trained_per_second"] > 0 for row in found["networks"])
    assert found["backbone"]["share"] > 0
    assert json.loads(json.dumps(found)) == found


def test_a_part_leaves_its_memory_to_the_next(monkeypatch, tmp_path):
    done = []
    monkeypatch.setenv("OUT", str(tmp_path))
    monkeypatch.setattr(gpu, "PARTS", {part: lambda *_, part=part: done.append(part) for part in ("a", "b")})
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: done.append("emptied"))
    gpu.main(["--tiny", "a", "b"])
    assert done == ["a", "emptied", "b", "emptied"]


def test_what_was_made_is_packed_and_what_failed_is_named(monkeypatch, tmp_path, capsys):
    def reproduced(command, **_):
        """In place of the runs: one record, and one run that fails."""
        plan = Plan.load(command[-1])
        (config,) = (config for _, config in plan.runs)
        config.folder.mkdir(parents=True)
        (config.folder / "result.json").write_text("{}")
        (config.folder / "checkpoint.pt").write_text("large")
        plan.results_file.write_text("{}")
        return subprocess.CompletedProcess(command, int("real" in plan.name))

    monkeypatch.setenv("OUT", str(tmp_path))
    monkeypatch.setattr(paths, "project_root", lambda: tmp_path)
    (tmp_path / "results").mkdir()
    monkeypatch.setattr(gpu.subprocess, "run", reproduced)
    assert gpu.main(["--tiny", "plan", "real"]) == 1
    assert "real: RuntimeError: some runs failed" in capsys.readouterr().err
    with tarfile.open(tmp_path / "results-gpu.tgz") as archive:
        names = archive.getnames()
    assert "tiny_plan/result.json" in names
    assert "tiny_plan.json" in names
    assert not any("checkpoint" in name for name in names)
    assert not Plan.load(tmp_path / "tiny_plan.yaml").results_file.exists(), "a trial is no result"
