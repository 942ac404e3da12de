"""The habits of the house, read from the source: who imports whom, how long files are, what tests owe. 5 s."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LIBRARY = sorted((ROOT / "fsslib").rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))
LESSONS = sorted((ROOT / "notebooks" / "lessons").glob("*.py"))

# What each part of the package may import beside itself. One way only: nothing below names what stands further down.
BASICS = {"paths", "files", "protocols", "episodes", "metrics"}
MAY_IMPORT = {
    "paths": set(),
    "files": set(),
    "protocols": set(),
    "episodes": {"files"},
    "metrics": {"episodes", "protocols"},
    "data": BASICS,
    "blocks": BASICS,
    "methods": BASICS | {"blocks"},
    "training": BASICS | {"blocks", "methods", "data"},
    "reproduction": BASICS | {"blocks", "methods", "data", "training"},
    "teaching": BASICS | {"blocks", "methods", "data", "training", "reproduction"},
    "doctor": BASICS | {"data", "reproduction"},
    "cli": BASICS | {"doctor", "data", "training", "reproduction"},
}
LONGEST_FILE = 400
BUDGET = {
    "fsslib/*.py": 1_210,
    "fsslib/blocks": 1_550,
    "fsslib/methods": 1_595,
    "fsslib/data": 4_935,
    "fsslib/data/toyworld": 2_035,
    "fsslib/training": 1_190,
    "fsslib/reproduction": 2_565,
    "fsslib/teaching": 655,
    "notebooks/lessons": 1_905,
    "tests": 18_430,
}
"""Lines of Python that a folder may have. They only fall, until the plan of the house is met; work under way may stand
5 % above."""


def imported(tree: ast.AST) -> Iterator[str]:
    """Every module that is imported anywhere in the tree, inside functions too, by its full name."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield "." * node.level + (node.module or "")
            if node.module == "fsslib":
                yield from (f"fsslib.{name.name}" for name in node.names)


def wrong_imports(part: str, source: str) -> list[str]:
    """The imports in `source`, a file of this part of fsslib, that go the wrong way."""
    ours = [name.split(".") for name in imported(ast.parse(source)) if name.split(".")[0] in ("fsslib", "", "tests")]
    allowed = {"fsslib", *(f"fsslib.{other}" for other in (MAY_IMPORT[part] | {part}))}
    return [".".join(name) for name in ours if ".".join(name[:2]) not in allowed]


def part_of(path: Path) -> str:
    return path.relative_to(ROOT / "fsslib").parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", LIBRARY, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_imports_go_one_way(path):
    if path.name == "__init__.py" and path.parent.name == "fsslib":
        # It names every part, as text, and loads one when it is asked for.
        assert not [name for name in imported(ast.parse(path.read_text(encoding="utf-8"))) if "fsslib" in name]
    else:
        assert wrong_imports(part_of(path), path.read_text(encoding="utf-8")) == []


def test_the_table_of_imports_is_acyclic_and_names_what_there_is():
    """Each part may import only parts that stand above it in the table, so no order of imports can go round."""
    parts = {part_of(path) for path in LIBRARY} - {"__init__"}
    assert parts == set(MAY_IMPORT)
    order = list(MAY_IMPORT)
    assert all(order.index(other) < order.index(part) for part, others in MAY_IMPORT.items() for other in others)


def test_nothing_imports_a_notebook_or_a_lesson():
    """What a lesson alone needs is found by its place, `fss.lesson(10)`; it may use all of the library."""
    for path in (*LIBRARY, *TESTS, *LESSONS):
        modules = {name.split(".")[0] for name in imported(ast.parse(path.read_text(encoding="utf-8")))}
        banned = {"notebooks", "lessons", "import_ipynb", "importnb", "nbimporter", "ipynb", *(p.stem for p in LESSONS)}
        assert not modules & banned, path
    assert LESSONS
    assert [wrong for path in LESSONS for wrong in wrong_imports("teaching", path.read_text(encoding="utf-8"))] == []


def test_no_file_of_the_library_is_long():
    lines = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in (*LIBRARY, *LESSONS)}
    assert {str(path): count for path, count in lines.items() if count > LONGEST_FILE} == {}


def lines_of(folder: str) -> int:
    """Lines of Python in a folder, without the folders inside it that have a budget of their own."""
    files = set((ROOT / folder).glob("**/*.py") if "*" not in folder else ROOT.glob(folder))
    inner = [ROOT / other for other in BUDGET if other.startswith(f"{folder}/")]
    return sum(
        len(path.read_text(encoding="utf-8").splitlines())
        for path in files
        if not any(path.is_relative_to(folder) for folder in inner)
    )


@pytest.mark.parametrize("folder", BUDGET)
def test_the_house_stays_thin(folder):
    assert lines_of(folder) <= 1.05 * BUDGET[folder]


def test_every_file_of_the_library_counts_in_one_budget():
    counted = sum(lines_of(folder) for folder in BUDGET if folder.startswith("fsslib"))
    assert counted == sum(len(path.read_text(encoding="utf-8").splitlines()) for path in LIBRARY)


def test_shapes_in_annotations_can_be_checked():
    """Annotations that are text only (PEP 563) would leave the shape checks of the tests without effect."""
    for path in LIBRARY:
        assert "from __future__ import annotations" not in path.read_text(encoding="utf-8"), path


def test_the_toy_world_does_without_torchvision_and_dynamo():
    """They take seconds to import, in every kernel of every lesson."""
    code = """
import sys
import fsslib as fss
task, method = fss.open_task("toy", targets=["night"], size=32), fss.build_method("sg_one")
fss.fit(method, fss.Recipe.load("sg_one").with_changes(steps=1), task.streams(batch_size=1), progress=False)
fss.evaluate, fss.plots
assert not {"torchvision", "torch._dynamo"} & set(sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "use",
    [
        "import fsslib.files",
        "import fsslib.reproduction.plans",
        "from fsslib.cli import main; assert main(['data', 'list']) == 0",
        "from fsslib.cli import main; assert main(['reproduce', 'full_pixda', '--dry-run']) == 0",
        "from fsslib.cli import main; assert main(['reproduce', 'full_rtd', '--dry-run']) == 0",
    ],
)
def test_what_computes_nothing_does_without_torch(use):
    """Its import takes seconds. The data folder is an empty one: what is said of missing sets is to cost no more."""
    code = f"import os, sys; os.environ['FSSLIB_DATA'] = 'nowhere'; {use}; assert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr


def demands_something(test: ast.FunctionDef) -> bool:
    """Whether a test can fail by itself: an assert, an expected error or warning, or an `assert_...` of a library."""
    for node in ast.walk(test):
        if isinstance(node, ast.Assert):
            return True
        if isinstance(node, ast.Call):
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            if name in ("raises", "warns") or name.startswith("assert_"):
                return True
    return False


@pytest.mark.parametrize("path", [p for p in TESTS if p.name.startswith("test_")], ids=lambda path: path.name)
def test_every_test_demands_something(path):
    functions = [n for n in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(n, ast.FunctionDef)]
    tests = [function for function in functions if function.name.startswith("test")]
    assert tests
    assert [test.name for test in tests if not demands_something(test)] == []


def skip_reasons(tree: ast.AST) -> Iterator[str]:
    """The reason given to every skip; what is filled in at run time shows as "..."."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        if called in ("pytest.skip", "pytest.mark.skip", "pytest.mark.skipif", "pytest.xfail", "pytest.mark.xfail"):
            given = [keyword.value for keyword in node.keywords if keyword.arg in ("reason", "msg")]
            if called.endswith(("skip", "xfail")) and node.args:
                given.append(node.args[0])
            for reason in given or [ast.Constant("no reason at all")]:
                parts = reason.values if isinstance(reason, ast.JoinedStr) else [reason]
                yield "".join(str(part.value) if isinstance(part, ast.Constant) else "..." for part in parts)
        elif called in ("pytest.importorskip", "unittest.skip"):
            yield ast.unparse(node)


def test_every_skip_has_its_reason_in_the_quarantine_list():
    written = (ROOT / "tests" / "QUARANTINE.md").read_text(encoding="utf-8")
    found = {
        (path.relative_to(ROOT).as_posix(), reason)
        for path in TESTS
        for reason in skip_reasons(ast.parse(path.read_text(encoding="utf-8")))
    }
    assert found, "no skip was found: the search is broken"
    missing = [(path, reason) for path, reason in sorted(found) if f"`{path}`" not in written or reason not in written]
    assert missing == []
    named = {line.split("`")[1] for line in written.splitlines() if line.startswith("| `")}
    assert named <= {path for path, _ in found}, "the list names files that skip nothing"
