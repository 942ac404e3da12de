"""The notebook plugin, proved with notebooks that must fail and notebooks that must pass."""

import json
import os
import subprocess
import sys
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.notebooks.made import code, result, stdout, teaching
from tests.notebooks.plugin import NumericText, pytest_configure, settle

ROOT = Path(__file__).resolve().parents[2]
HTML_OBJECT = "<IPython.core.display.HTML object>"

CASES = {
    # One kernel serves several harmless cells: starting one costs about a second.
    "passes.ipynb": teaching(
        code("print('near 0.5001, 1.2341e-3,   -0.0000')", stdout("near 0.5000, 1.2340e-3, 0.0000\n")),
        code("print('nan inf -inf 7')", stdout("nan inf -inf 7\n")),
        code("import random; print(random.random())", stdout("0.5\n"), tags=("nbval-ignore-output",)),
        code("import os; print({'FSSLIB_DATA', 'PYTHONWARNINGS'} & set(os.environ))", stdout("set()\n")),
        code("print('inline' in os.environ['MPLBACKEND'])", stdout("True\n")),
        code("import IPython\nIPython.display.HTML('1.0001')", result(html="1.0000", plain=HTML_OBJECT)),
    ),
    "changed_number.ipynb": teaching(code("print('mean 0.5100')", stdout("mean 0.5000\n"))),
    "changed_shape.ipynb": teaching(code("[[0.5, 1.5], [2.5, 3.5]]", result(plain="[[0.5, 1.5, 2.5, 3.5]]"))),
    "exception.ipynb": teaching(
        code("value = 1\nprint(value)", stdout("1\n")),
        code("total = value / 0\nprint(total)", stdout("1.0\n")),
        code("print(total)", stdout("1.0\n")),
        code("print(total + 1)", stdout("2.0\n")),
    ),
    "unexecuted.ipynb": teaching(code("print(1)"), code("print(2)"), executed=0),
    "partly_executed.ipynb": teaching(code("print(1)", stdout("1\n")), code("print(2)"), executed=1),
    "without_outputs.ipynb": teaching(code("print(1)"), code("print(2)")),
    "train.ipynb": teaching(code("raise SystemError('it was run')", tags=("parameters",)), executed=0),
    "train_with_outputs.ipynb": teaching(code("epochs = 1", stdout("1\n"), tags=("parameters",))),
    "unlisted.ipynb": teaching(code("print(1)", stdout("1\n"))),
}


def index_of(names: list[str]) -> str:
    kinds = {name: "train" if name.startswith("train") else "teach" for name in names}
    rows = [{"file": n, "kind": kind, "minutes": 1, "datasets": [], "prerequisites": []} for n, kind in kinds.items()]
    return json.dumps({"notebooks": rows})


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
    for name, notebook in CASES.items():
        (folder / name).write_text(json.dumps(notebook), encoding="utf-8")
    (folder / "index.yml").write_text(index_of([name for name in CASES if name != "unlisted.ipynb"]), encoding="utf-8")
    run = run_pytest(folder, folder / "report.xml")
    assert run.returncode == 1, run.stdout + run.stderr
    found: dict[str, dict[str, tuple[str, str]]] = {}
    for case in ElementTree.parse(folder / "report.xml").iter("testcase"):
        problem = next((child for child in case if child.tag in ("failure", "error", "skipped")), None)
        outcome = ("passed", "") if problem is None else (problem.tag, f"{problem.get('message')}\n{problem.text}")
        found.setdefault(case.get("classname"), {})[case.get("name")] = outcome
    return found


def results(outcomes: dict, notebook: str) -> dict[str, str]:
    """Item -> outcome of one notebook."""
    return {item: outcome for item, (outcome, _) in outcomes[f"{notebook}.ipynb"].items()}


def test_near_numbers_ignored_outputs_and_hidden_variables_pass(outcomes):
    assert results(outcomes, "passes") == {"rules": "passed"} | {f"Cell {number}": "passed" for number in range(6)}


def test_a_changed_number_fails_and_is_shown(outcomes):
    assert results(outcomes, "changed_number") == {"rules": "passed", "Cell 0": "failure"}
    assert "- mean 0.5100" in outcomes["changed_number.ipynb"]["Cell 0"][1]


def test_a_changed_array_shape_fails(outcomes):
    assert results(outcomes, "changed_shape") == {"rules": "passed", "Cell 0": "failure"}


def test_an_exception_is_one_failure_and_the_later_cells_say_why_they_did_not_run(outcomes):
    expected = {"rules": "passed", "Cell 0": "passed", "Cell 1": "failure", "Cell 2": "skipped", "Cell 3": "skipped"}
    assert results(outcomes, "exception") == expected
    assert "ZeroDivisionError" in outcomes["exception.ipynb"]["Cell 1"][1]
    assert "not run: Cell 1 failed" in outcomes["exception.ipynb"]["Cell 3"][1]


@pytest.mark.parametrize("notebook", ["unexecuted", "partly_executed", "without_outputs"])
def test_what_nbval_would_pass_vacuously_is_refused_with_what_to_do(outcomes, notebook):
    assert results(outcomes, notebook) == {"rules": "failure"}
    assert "python -m fsslib.teaching.execute" in outcomes[f"{notebook}.ipynb"]["rules"][1]


def test_training_notebooks_are_held_to_the_rules_and_not_run(outcomes):
    assert results(outcomes, "train") == {"rules": "passed"}
    assert results(outcomes, "train_with_outputs") == {"rules": "failure"}


def test_an_unlisted_notebook_fails_and_the_index_with_it(outcomes):
    assert results(outcomes, "unlisted") == {"rules": "failure"}
    assert "unlisted.ipynb is not listed" in outcomes["index.yml"]["rules"][1]


def test_nothing_else_was_collected(outcomes):
    assert outcomes.keys() == CASES.keys() | {"index.yml"}


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


@pytest.mark.parametrize(
    ("fresh", "stored"),
    [
        ("0.5001", "0.5000"),
        ("48.3 %, 0.25%", "48.2 %, 0.26%"),
        ("0.0001", "-0.0000"),
        ("tensor([ 0.1000, -0.0000])", "tensor([0.1000, 0.0000])"),
        ("10.0000 | 3", "9.9999 | 3"),
        ("    9.9999 | 3", "   10.0000 | 3"),
        ("1.0000e-03, 1e-05", "0.0010, 0.00001"),
        ("9.0797e-05, 1.0000e-04", "9.0796e-05, 9.9999e-05"),
        ("-1.2345e+04", "-1.2346e+04"),
        ("loss nan, best inf", "loss nan, best inf"),
        ("64x64, conv1.2, 1.5s", "64x64, conv1.2, 1.5s"),
    ],
)
def test_texts_that_are_equal(fresh, stored):
    assert NumericText(stored) == NumericText(fresh)


@pytest.mark.parametrize(
    ("fresh", "stored"),
    [
        ("0.5100", "0.5000"),
        ("48.23", "48.25"),
        ("2.3e-04", "9.0796e-05"),
        ("0.0000e+00", "9.0796e-05"),
        ("9.0796e-05", "0.0000e+00"),
        ("9.0798e-05", "9.0796e-05"),
        ("1e-05", "0.0001"),
        ("0.0001", "-0.0001"),
        ("0.50002", "0.5000"),
        ("48.2 %", "48.2"),
        ("1001 images", "1000 images"),
        ("It saw 1001.", "It saw 1000."),
        ("1.0", "1"),
        ("[1.0, 2.0]", "[1.0, 2.0, 3.0]"),
        ("[[1.0], [2.0]]", "[[1.0, 2.0]]"),
        ("torch.Size([2, 3])", "torch.Size([3, 2])"),
        ("0.5000", "nan"),
        ("nan", "inf"),
        ("-inf", "inf"),
        ("-0.3", "0.3"),
        ("mIoU 0.5", "FB-IoU 0.5"),
        ("0.5\n0.5", "0.5 0.5"),
        ("64x64", "65x65"),
    ],
)
def test_texts_that_differ(fresh, stored):
    assert NumericText(stored) != NumericText(fresh)


@given(st.integers(-(10**6), 10**6), st.integers(0, 3), st.integers(1, 6), st.sampled_from(["", "e-05", "e+03"]))
def test_the_tolerance_is_one_unit_of_the_last_digit(digits, units, decimals, exponent):
    stored, fresh = (f"a {number / 10**decimals:.{decimals}f}{exponent} b" for number in (digits, digits + units))
    assert (NumericText(stored) == fresh) is (units <= 1)


@given(st.floats(-1e6, 1e6).filter(bool), st.floats(-0.99, 0.99), st.sampled_from([".1f", ".6f", ".1e", ".4e"]))
def test_values_closer_than_a_unit_are_equal_wherever_the_rounding_falls(value, share, style):
    unit = Decimal(1).scaleb(Decimal(f"{value:{style}}").as_tuple().exponent)
    # Below a power of ten the unit of scientific notation is a tenth of what it is above.
    unit = unit / 10 if "e" in style else unit
    assert NumericText(f"{value:{style}}") == f"{Decimal(value) + Decimal(share) * unit:{style}}"


def test_only_what_differs_is_shown():
    assert settle("a 0.50001 b 0.7000", "a 0.50000 b 0.6000") == "a 0.50000 b 0.7000"
