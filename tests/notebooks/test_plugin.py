"""The notebook plugin, proved with notebooks that must fail and notebooks that must pass."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.notebooks.made import code, index_of, result, stdout, teaching
from tests.notebooks.plugin import NumericText, pytest_configure, settle

ROOT = Path(__file__).resolve().parents[2]
HTML_OBJECT = "<IPython.core.display.HTML object>"
FRAMELESS = teaching(code("print(1)", stdout("1\n")))
FRAMELESS["cells"] = [cell for cell in FRAMELESS["cells"] if "outputs" in cell]

CASES = {  # a notebook, whether its rules and then its cells pass (p), fail (f) or are skipped (s), and what is said
    # One kernel serves several harmless cells: starting one costs about a second.
    "passes": (
        teaching(
            code("print('near 0.5001, 1.2341e-3,   -0.0000')", stdout("near 0.5000, 1.2340e-3, 0.0000\n")),
            code("print('nan inf -inf 7')", stdout("nan inf -inf 7\n")),
            code("import random; print(random.random())", stdout("0.5\n"), tags=("nbval-ignore-output",)),
            code("import os; print({'FSSLIB_DATA', 'PYTHONWARNINGS'} & set(os.environ))", stdout("set()\n")),
            code("print('inline' in os.environ['MPLBACKEND'])", stdout("True\n")),
            code("import IPython\nIPython.display.HTML('1.0001')", result(html="1.0000", plain=HTML_OBJECT)),
        ),
        *("ppppppp", {}),
    ),
    "number": (teaching(code("print('mean 0.5100')", stdout("mean 0.5000\n"))), "pf", {"Cell 0": "- mean 0.5100"}),
    "shape": (teaching(code("[[0.5], [2.5]]", result(plain="[[0.5, 2.5]]"))), "pf", {}),
    # One cause is one failure.
    "exception": (
        teaching(
            code("value = 1\nprint(value)", stdout("1\n")),
            code("total = value / 0\nprint(total)", stdout("1.0\n")),
            code("print(total)", stdout("1.0\n")),
            code("print(total + 1)", stdout("2.0\n")),
        ),
        *("ppfss", {"Cell 1": "ZeroDivisionError", "Cell 3": "not run: Cell 1 failed"}),
    ),
    # nbval would pass these three vacuously.
    "unexecuted": (teaching(code("print(1)"), code("print(2)"), executed=0), "f", {"rules": "fsslib.teaching.execute"}),
    "partly": (teaching(code("1", stdout("1\n")), code("2"), executed=1), "f", {"rules": "fsslib.teaching.execute"}),
    "no_outputs": (teaching(code("print(1)"), code("print(2)")), "f", {"rules": "fsslib.teaching.execute"}),
    # Training notebooks are held to the rules and not run, solutions are run and need no sections.
    "train": (teaching(code("raise SystemError('it was run')", tags=("parameters",)), executed=0), "p", {}),
    "train_stored": (teaching(code("epochs = 1", stdout("1\n"), tags=("parameters",))), "f", {}),
    "solutions/solved": (FRAMELESS, "pp", {}),
    "frameless": (FRAMELESS, "fp", {"rules": "0 headings begin with 'Exercises'"}),
    "unlisted": (teaching(code("print(1)", stdout("1\n"))), "f", {}),
}
LETTERS = {"p": "passed", "f": "failure", "s": "skipped"}


def run_pytest(folder: Path, report: Path) -> subprocess.CompletedProcess:
    """pytest in a process of its own, with this project's settings (warnings are errors) and the plugin."""
    command = [sys.executable, "-m", "pytest", str(folder), "--nbval", "-p", "tests.notebooks.plugin"]
    command += ["-c", str(ROOT / "pyproject.toml"), "--rootdir", str(folder), "--junitxml", str(report), "--color=no"]
    command += ["-p", "no:hypothesispytest"]  # two seconds of imports, for nothing here
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    environment |= {"FSSLIB_DATA": "somewhere", "MPLBACKEND": "Agg", "PYTHONWARNINGS": "default"}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300, check=False)


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory) -> dict[str, dict[str, tuple[str, str]]]:
    """All cases in one run of pytest: file -> item -> (outcome, message)."""
    folder = tmp_path_factory.mktemp("notebooks")
    (folder / "solutions").mkdir()
    for name, (notebook, *_) in CASES.items():
        (folder / f"{name}.ipynb").write_text(json.dumps(notebook), encoding="utf-8")
    kinds = {f"{name}.ipynb": "train" if "train" in name else "teach" for name in CASES}
    unlisted = {"unlisted.ipynb", "solutions/solved.ipynb"}
    listed = index_of({name: kind for name, kind in kinds.items() if name not in unlisted})
    (folder / "index.yml").write_text(listed, encoding="utf-8")
    run = run_pytest(folder, folder / "report.xml")
    assert run.returncode == 1, run.stdout + run.stderr
    found: dict[str, dict[str, tuple[str, str]]] = {}
    for case in ElementTree.parse(folder / "report.xml").iter("testcase"):
        problem = next((child for child in case if child.tag in ("failure", "error", "skipped")), None)
        outcome = ("passed", "") if problem is None else (problem.tag, f"{problem.get('message')}\n{problem.text}")
        found.setdefault(case.get("classname").replace(".solved", "/solved"), {})[case.get("name")] = outcome
    return found


@pytest.mark.parametrize("case", CASES)
def test_each_notebook_ends_as_it_must(outcomes, case):
    _, letters, said = CASES[case]
    found = outcomes[f"{case}.ipynb"]
    items = ["rules", *(f"Cell {number}" for number in range(len(letters) - 1))]
    assert {item: outcome for item, (outcome, _) in found.items()} == dict(zip(items, map(LETTERS.get, letters)))
    assert [item for item, text in said.items() if text not in found[item][1]] == []


def test_the_index_fails_with_an_unlisted_notebook_and_nothing_else_was_collected(outcomes):
    assert outcomes.keys() == {f"{case}.ipynb" for case in CASES} | {"index.yml"}
    assert "unlisted.ipynb is not listed" in outcomes["index.yml"]["rules"][1]


def configured(**options) -> SimpleNamespace:
    """The options after the plugin has seen them."""
    option = SimpleNamespace(nbval=True, nbval_kernel_name=None, nbval_current_env=False, **options)
    pytest_configure(SimpleNamespace(option=option, getoption=lambda name, default: getattr(option, name, default)))
    return option


def test_a_plain_n_keeps_notebooks_whole():
    assert configured(dist="load").dist == "loadfile"
    assert configured(dist="loadscope").dist == "loadscope"
    assert configured().nbval_current_env, "without xdist"


@pytest.mark.parametrize("dist", ["worksteal", "loadgroup"])
def test_a_distribution_that_splits_notebooks_is_refused(dist):
    with pytest.raises(pytest.UsageError, match="use --dist loadfile"):
        configured(dist=dist)


def test_this_very_run_has_the_plugin(request):
    assert request.config.pluginmanager.has_plugin("tests.notebooks.plugin"), "conftest.py in the root must load it"


EQUAL = """0.5001 = 0.5000; 48.3 %, 0.25% = 48.2 %, 0.26%; 0.0001 = -0.0000; 10.0000 | 3 = 9.9999 | 3
    9.9999 | 3 =   10.0000 | 3; tensor([ 0.1000, -0.0000]) = tensor([0.1000, 0.0000]); -1.2345e+04 = -1.2346e+04
1.0000e-03, 1e-05 = 0.0010, 0.00001; 9.0797e-05, 1.0000e-04 = 9.0796e-05, 9.9999e-05
loss nan, best inf = loss nan, best inf; 64x64, conv1.2, 1.5s = 64x64, conv1.2, 1.5s"""
DIFFERENT = """0.5100 = 0.5000; 48.23 = 48.25; 2.3e-04 = 9.0796e-05; 0.0000e+00 = 9.0796e-05; 9.0796e-05 = 0.0000e+00
9.0798e-05 = 9.0796e-05; 1e-05 = 0.0001; 0.0001 = -0.0001; 0.50002 = 0.5000; 48.2 % = 48.2; 1001 images = 1000 images
It saw 1001. = It saw 1000.; 1.0 = 1; [1.0, 2.0] = [1.0, 2.0, 3.0]; [[1.0], [2.0]] = [[1.0, 2.0]]; 0.5000 = nan
torch.Size([2, 3]) = torch.Size([3, 2]); nan = inf; -inf = inf; -0.3 = 0.3; mIoU 0.5 = FB-IoU 0.5; 64x64 = 65x65"""


@pytest.mark.parametrize("pair", [pair.strip("\n") for pair in EQUAL.replace("\n", "; ").split("; ")])
def test_texts_that_are_equal(pair):
    fresh, stored = pair.split(" = ")
    assert NumericText(stored) == NumericText(fresh)


@pytest.mark.parametrize("pair", [*DIFFERENT.replace("\n", "; ").split("; "), "0.5\n0.5 = 0.5 0.5"])
def test_texts_that_differ(pair):
    fresh, stored = pair.split(" = ")
    assert NumericText(stored) != NumericText(fresh)


@given(st.integers(-(10**6), 10**6), st.integers(0, 3), st.integers(1, 6), st.sampled_from(["", "e-05", "e+03"]))
def test_the_tolerance_is_one_unit_of_the_last_digit(digits, units, decimals, exponent):
    stored, fresh = (f"a {number / 10**decimals:.{decimals}f}{exponent} b" for number in (digits, digits + units))
    assert (NumericText(stored) == fresh) is (units <= 1)


def test_only_what_differs_is_shown():
    assert settle("a 0.50001 b 0.7000", "a 0.50000 b 0.6000") == "a 0.50000 b 0.7000"
