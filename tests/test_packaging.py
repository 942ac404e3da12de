"""pyproject.toml, constraints.txt, environment.yml against each other and the code; what is in the wheel. 2 s."""

import ast
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterable
from itertools import chain
from pathlib import Path

import pytest
import yaml
from hatchling.builders.wheel import WheelBuilder
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.test_architecture import imported

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]

# What conda-forge calls a package that has another name on PyPI, in PyPI's spelling.
ON_PYPI = {"pytorch": "torch", "matplotlib-base": "matplotlib", "nbconvert-core": "nbconvert"}
# What a package is imported as, where that is not its name.
IMPORTED_AS = {"pillow": "PIL", "pyyaml": "yaml"}
# What conda-forge does not have, so that pip brings it.
NOT_ON_CONDA_FORGE = {"snakemake"}


def requirements(lines: Iterable[str]) -> dict[str, Requirement]:
    found = [Requirement(line) for line in lines]
    return {canonicalize_name(requirement.name): requirement for requirement in found}


EXTRAS = PROJECT["optional-dependencies"]
REQUIRED = requirements([*PROJECT["dependencies"], *EXTRAS["dev"]])
OFFERED = REQUIRED | requirements(chain.from_iterable(EXTRAS.values()))
PINNED = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
CONSTRAINTS = requirements(line for line in PINNED if line and not line.startswith("#"))


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The unpacked wheel of this checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    built = next(WheelBuilder(str(ROOT)).build(directory=str(folder), versions=["standard"]))
    with zipfile.ZipFile(built) as archive:
        archive.extractall(folder / "unpacked")
    return folder / "unpacked"


def test_conda_and_pip_name_the_same_packages_with_the_same_bounds():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    assert set(environment["channels"]) == {"conda-forge", "nodefaults"}
    *packages, pip_section = environment["dependencies"]
    assert pip_section == {"pip": ["-e .[dev]"]}

    conda = requirements(packages)
    assert str(conda.pop("python").specifier) == PROJECT["requires-python"]
    assert not conda.pop("pip").specifier
    by_pypi_name = {ON_PYPI.get(name, name): str(requirement.specifier) for name, requirement in conda.items()}
    wanted = {name: str(requirement.specifier) for name, requirement in REQUIRED.items()}
    assert by_pypi_name == {name: bounds for name, bounds in wanted.items() if name not in NOT_ON_CONDA_FORGE}


def test_every_requirement_has_a_tested_version_within_its_bounds():
    for name, requirement in OFFERED.items():
        (pin,) = CONSTRAINTS[name].specifier
        assert requirement.specifier.contains(pin.version), f"{requirement} forbids the tested {pin.version}"
        assert [specifier.operator for specifier in requirement.specifier] == [">="], "no upper bound"
    assert set(EXTRAS["coco"]) <= set(EXTRAS["dev"]), "the tests read COCO"


def test_constraints_are_exact_and_for_every_platform():
    for name, requirement in CONSTRAINTS.items():
        (pin,) = requirement.specifier
        assert pin.operator == "=="
        assert "+" not in pin.version, f"{requirement} is a build for one kind of machine"
        assert not name.startswith(("nvidia-", "cuda-", "triton")), f"torch itself asks for its {name}"
        assert not requirement.marker
        assert not requirement.url


def test_whatever_the_library_imports_is_required():
    extras = chain.from_iterable(lines for name, lines in EXTRAS.items() if name != "dev")
    needed = requirements([*PROJECT["dependencies"], *extras])
    declared = {IMPORTED_AS.get(name, name.replace("-", "_")) for name in needed}
    for path in sorted((ROOT / "fsslib").rglob("*.py")):
        modules = {name.split(".")[0] for name in imported(ast.parse(path.read_text(encoding="utf-8")))}
        assert modules - sys.stdlib_module_names - {"fsslib"} <= declared, path.relative_to(ROOT)


def files(folder: Path) -> set[Path]:
    return {path.relative_to(folder) for path in folder.rglob("*") if path.is_file()}


def is_ignored(path: Path) -> bool:
    ignored = {".ipynb_checkpoints", "__pycache__"} & set(path.parts)
    return bool(ignored) or path.parts[:2] in (("data", "downloads"), ("data", "cache"))


def test_the_wheel_holds_what_is_committed(wheel):
    for kind in ("notebooks", "data", "results"):
        shipped = files(wheel / "fsslib" / "shipped" / kind)
        assert shipped == {path for path in files(ROOT / kind) if not is_ignored(kind / path)}
        assert shipped
    reproduction = files(wheel / "fsslib" / "reproduction")
    assert {Path("pages.css"), Path("report.html.j2"), Path("Snakefile")} <= reproduction
    assert any(path.match("plan_files/*.yaml") for path in reproduction)
    assert list(wheel.glob("fsslib/training/recipes/*.yaml"))


def test_downloads_stay_out_of_the_wheel(tmp_path):
    (tmp_path / "fsslib").mkdir()
    (tmp_path / "fsslib" / "__init__.py").touch()
    for name in ("data/downloads/large.bin", "data/cache/large.bin", "data/README.md"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    for name in ("pyproject.toml", ".gitignore", "README.md", "LICENSE"):
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    built = next(WheelBuilder(str(tmp_path)).build(directory=str(tmp_path / "dist"), versions=["standard"]))
    names = zipfile.ZipFile(built).namelist()
    assert "fsslib/shipped/data/README.md" in names
    assert not [name for name in names if "large.bin" in name]


def test_an_installed_package_finds_its_files(wheel, tmp_path):
    code = """
import pathlib, fsslib
from fsslib import paths
from fsslib.reproduction import plans
print(paths.shipped("notebooks") / "index.yml")
print(paths.project_root() == pathlib.Path.cwd(), plans.Plan.load("sg_one_toy").name)
print(fsslib.lesson(10).__file__)
fsslib.exercises.check_vote(lambda predictions: fsslib.merge_shots(predictions, rule="vote"))
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(wheel)},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    index, facts, lesson, passed = done.stdout.splitlines()
    for found in (index, lesson):
        assert Path(found).is_file()
        assert Path(found).is_relative_to(wheel)
    assert facts == "True sg_one_toy"
    assert passed.startswith("passed: vote")


def test_the_version_is_the_same_everywhere():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    package = (ROOT / "fsslib" / "__init__.py").read_text(encoding="utf-8")
    stated = re.search(r'^__version__ = "(.+)"$', package, re.MULTILINE)
    assert stated
    assert citation["version"] == stated[1] == PROJECT["version"]


def test_the_make_file_offers_what_it_says():
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    said = set(re.findall(r'@echo "make (\w+)', text))
    there = set(re.search(r"^\.PHONY: (.+)$", text, re.MULTILINE)[1].split()) - {"help"}
    assert said == there
    assert all(re.search(rf"^{target}:", text, re.MULTILINE) for target in there)
