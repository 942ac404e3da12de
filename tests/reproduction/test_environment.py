"""What is recorded about code, versions and device. About 2 s."""

import subprocess

import pytest
import torch

from fsslib import paths
from fsslib.reproduction import environment


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """A repository with one commit, from which fsslib seems to be imported."""
    root = tmp_path.resolve() / "checkout"
    (root / "fsslib").mkdir(parents=True)
    (root / "fsslib" / "a.py").write_text("a = 1\n")
    for arguments in (
        ["init", "-q"],
        ["add", "."],
        ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-q", "-m", "first"],
    ):
        subprocess.run(["git", "-C", root, *arguments], check=True, capture_output=True)
    monkeypatch.setattr(paths, "PACKAGE", root / "fsslib")
    return root


def test_the_commit_and_whether_files_changed(repository, monkeypatch):
    head = subprocess.run(["git", "-C", repository, "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
    clean = {"commit": head.stdout.strip(), "dirty": False}
    assert environment.git_state() == clean
    (repository / "results").mkdir()
    (repository / "results" / "plan.json").write_text("{}")
    assert environment.git_state() == clean
    (repository / "fsslib" / "new.py").write_text("")
    assert environment.git_state() == clean | {"dirty": True}
    # Installed inside somebody else's repository.
    monkeypatch.setattr(paths, "PACKAGE", repository / "environment" / "fsslib")
    (repository / "environment" / "fsslib").mkdir(parents=True)
    assert environment.git_state() is None


def test_outside_of_a_repository_and_without_git_there_is_no_commit(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "PACKAGE", tmp_path / "fsslib")
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert environment.git_state() is None
    monkeypatch.setenv("PATH", "")
    assert environment.git_state() is None


def test_versions_and_machine():
    versions = environment.package_versions(("torch", "no-such-package"))
    assert list(versions) == ["python", "fsslib", "torch", "no-such-package"]
    assert versions["torch"]
    assert versions["no-such-package"] is None
    assert environment.cpu_name()
    assert 1 <= environment.cpu_cores() <= 10_000
    assert environment.peak_memory_bytes("cpu")["host"] > 50 * 2**20


CGROUP, MAX = "proc/self/cgroup", "sys/fs/cgroup/cpu.max"
GRANTS = {
    "none": ({}, 8),
    "a core and a half": ({CGROUP: "0::/\n", MAX: "150000 100000\n"}, 2),
    "more than there are": ({CGROUP: "0::/\n", MAX: "1600000 100000\n"}, 8),
    "no limit": ({CGROUP: "0::/a\n", "sys/fs/cgroup/a/cpu.max": "max 100000\n"}, 8),
    "that of the group above": (
        {
            CGROUP: "0::/job/step\n",
            "sys/fs/cgroup/job/cpu.max": "250000 100000\n",
            "sys/fs/cgroup/job/step/cpu.max": "max 100000\n",
        },
        3,
    ),
    "the host's name for a container": ({CGROUP: "0::/docker/5f\n", MAX: "50000 100000\n"}, 1),
    "version 1 beside it, which is not read": ({CGROUP: "4:cpu:/a\n0::/\n", "sys/fs/cgroup/a/cpu.max": "1 10\n"}, 8),
}


@pytest.mark.parametrize(("files", "cores"), GRANTS.values(), ids=GRANTS)
def test_cores_are_those_that_a_container_grants(tmp_path, monkeypatch, files, cores):
    monkeypatch.setattr(environment.os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    assert environment.cpu_cores(tmp_path) == cores


@pytest.mark.parametrize(
    ("driver", "works", "chosen"), [(True, True, "cuda"), (True, False, "cpu"), (False, True, "cpu")]
)
def test_the_device_that_is_wanted(monkeypatch, driver, works, chosen):
    monkeypatch.setattr(environment, "_may_have_gpu", lambda: driver)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: works)
    assert [environment.choose_device(name) for name in ("auto", "cpu")] == [chosen, "cpu"]
    if works:
        assert environment.choose_device("cuda") == "cuda"
    else:
        with pytest.raises(ValueError, match=r"torch can use no GPU here\. Take device auto or cpu"):
            environment.choose_device("cuda")
