"""Where the project, its shipped files and the data are looked for. Takes a hundredth of a second."""

from pathlib import Path

import pytest

from fsslib import paths

ROOT = Path(__file__).resolve().parents[1]


def test_a_checkout_is_its_own_root(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert paths.project_root() == ROOT
    assert (ROOT / "pyproject.toml").is_file()
    assert [paths.shipped(kind) for kind in ("notebooks", "results")] == [ROOT / "notebooks", ROOT / "results"]


def test_an_installed_package_works_in_the_current_folder(tmp_path, monkeypatch):
    """As from a wheel, with Python started in another folder; a stray project file in site-packages is no checkout."""
    package = tmp_path / "site-packages" / "fsslib"
    package.mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.setattr(paths, "PACKAGE", package)
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert paths.project_root() == tmp_path / "elsewhere"
    assert paths.shipped("data") == package / "shipped" / "data"
    for name, root in (("somebody-else", tmp_path / "elsewhere"), ("fsslib", package.parent)):
        (package.parent / "pyproject.toml").write_text(f'[project]\nname = "{name}"\n', encoding="utf-8")
        assert paths.project_root() == root


@pytest.mark.parametrize(
    ("value", "found"),
    [
        (None, ROOT / "data" / "downloads"),
        ("", ROOT / "data" / "downloads"),
        ("../sets", ROOT / "../sets"),
        ("/some/sets", Path("/some/sets")),
        ("~/sets", Path("/home/of/me/sets")),
    ],
)
def test_the_data_folder_has_a_default_and_counts_from_the_project(monkeypatch, tmp_path, value, found):
    monkeypatch.chdir(tmp_path)
    for name in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(name, "/home/of/me")
    monkeypatch.delenv("FSSLIB_DATA", raising=False)
    if value is not None:
        monkeypatch.setenv("FSSLIB_DATA", value)
    assert paths.data_root() == found
