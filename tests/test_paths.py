"""Where the project, its shipped files and the data are looked for. Takes a hundredth of a second."""

from pathlib import Path

import pytest

from fsslib import paths


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """fsslib as in a wheel: the package in site-packages, Python started in another folder."""
    package = tmp_path / "site-packages" / "fsslib"
    package.mkdir(parents=True)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.setattr(paths, "PACKAGE", package)
    monkeypatch.chdir(elsewhere)
    return package


def test_a_checkout_is_its_own_root(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    root = paths.project_root()
    assert root == Path(__file__).resolve().parents[1]
    assert (root / "pyproject.toml").is_file()
    assert paths.shipped("notebooks") == root / "notebooks"
    assert paths.shipped("results") == root / "results"


def test_an_installed_package_works_in_the_current_folder(installed):
    assert paths.project_root() == installed.parents[1] / "elsewhere"
    assert paths.shipped("data") == installed / "shipped" / "data"


def test_a_stray_project_file_in_site_packages_is_no_checkout(installed):
    (installed.parent / "pyproject.toml").write_text('[project]\nname = "somebody-else"\n', encoding="utf-8")
    assert paths.project_root() == Path.cwd()
    (installed.parent / "pyproject.toml").write_text('[project]\nname = "fsslib"\n', encoding="utf-8")
    assert paths.project_root() == installed.parent


@pytest.mark.parametrize("value", [None, ""])
def test_the_data_folder_has_a_default(monkeypatch, value):
    if value is None:
        monkeypatch.delenv("FSSLIB_DATA", raising=False)
    else:
        monkeypatch.setenv("FSSLIB_DATA", value)
    assert paths.data_root() == paths.project_root() / "data" / "downloads"


def test_a_relative_data_folder_counts_from_the_project(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FSSLIB_DATA", "../sets")
    assert paths.data_root() == paths.project_root() / "../sets"


def test_absolute_and_home_folders_are_taken_as_they_are(monkeypatch, tmp_path):
    monkeypatch.setenv("FSSLIB_DATA", str(tmp_path))
    assert paths.data_root() == tmp_path
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    monkeypatch.setenv("FSSLIB_DATA", "~/sets")
    assert paths.data_root() == tmp_path / "sets"
