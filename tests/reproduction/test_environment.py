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


def test_the_commit_and_whether_files_changed(repository):
    head = subprocess.run(["git", "-C", repository, "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
    clean = {"commit": head.stdout.strip(), "dirty": False}
    assert environment.git_state() == clean
    (repository / "results").mkdir()
    (repository / "results" / "plan.json").write_text("{}")
    assert environment.git_state() == clean
    (repository / "fsslib" / "new.py").write_text("")
    assert environment.git_state()["dirty"] is True


def test_a_commit_of_somebody_elses_repository_is_not_recorded(repository, monkeypatch):
    installed = repository / "environment" / "fsslib"
    installed.mkdir(parents=True)
    monkeypatch.setattr(paths, "PACKAGE", installed)
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


def test_the_device_that_is_wanted(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert [environment.choose_device(name) for name in ("auto", "cpu")] == ["cpu", "cpu"]
    with pytest.raises(ValueError, match=r"torch can use no GPU here\. Take device auto or cpu"):
        environment.choose_device("cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert [environment.choose_device(name) for name in ("auto", "cpu", "cuda")] == ["cuda", "cpu", "cuda"]
