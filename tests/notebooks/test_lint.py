"""The notebook rules: a notebook that keeps them all, and one change for every rule that must be found."""

import copy
import json

import pytest

from tests.notebooks import lint
from tests.notebooks.made import code, index_of, result, stdout, teaching

PICTURE = {
    "output_type": "display_data",
    "data": {"image/png": "iVBORw0KGgo=", "text/plain": "<Figure>"},
    "metadata": {},
}
IGNORED = (lint.IGNORE_OUTPUT,)


def good() -> dict:
    return teaching(
        code("print(f'{0.5:.4f}')", stdout("0.5000\n")),
        code("plt.show()", copy.deepcopy(PICTURE)),
        code("'and/or 1/2 https://a.b/c/d'"),
    )


def write(folder, notebook: dict, kind: str = "teach"):
    path = folder / "10_topic.ipynb"
    path.write_text(json.dumps(notebook), encoding="utf-8")
    (folder / "index.yml").write_text(index_of({path.name: kind}), encoding="utf-8")
    return path


def first_cell(source: str | None = None, *outputs: dict, tags: tuple[str, ...] = ()):
    """A change of the first code cell."""

    def change(notebook: dict) -> None:
        cell = notebook["cells"][2]
        cell["source"] = cell["source"] if source is None else source
        cell["outputs"] = list(outputs) or cell["outputs"]
        cell["metadata"]["tags"] = list(tags)

    return change


def test_good_notebooks_pass(tmp_path):
    assert lint.notebook_findings(write(tmp_path, good())) == []
    training = teaching(code("epochs: int = 1", tags=("parameters",)), executed=0)
    for kind in ("train", "report"):
        assert lint.notebook_findings(write(tmp_path, training, kind)) == []
    assert lint.index_findings(tmp_path) == []
    assert lint.main([str(tmp_path)]) == 0


TEACHING_RULES = {
    "out of order": (lambda n: n["cells"][2].update(execution_count=5), "not in the order 1..n"),
    "no outputs": (lambda n: [cell.pop("outputs", None) for cell in n["cells"]], "no cell has an output"),
    "too big": (lambda n: n["cells"][4]["outputs"][0]["data"].update({"image/png": "x" * 1_000_000}), "1.00 MB"),
    "too many cells": (lambda n: n["cells"].extend([{**code("1"), "execution_count": 4}] * 50), "53 code cells"),
    "too little prose": (lambda n: n["cells"].extend([{**code("1"), "execution_count": 4}] * 5), "6 prose cells for 8"),
    "long cell": (first_cell("\n".join(["x = 1"] * 61)), "61 at most"),
    "long cells": (lambda n: [n["cells"][i].update(source="x\n" * 9) for i in (2, 4)], "9 lines in the median"),
    "kernel": (lambda n: n["metadata"]["kernelspec"].update(name="my-env"), "the kernel is named 'my-env'"),
    "papermill": (lambda n: n["metadata"].update(papermill={"duration": 1}), "papermill metadata"),
    "clear_output": (first_cell("clear_output(wait=True)"), "clear_output"),
    "update_display": (first_cell("update_display(figure)"), "an updated display"),
    "final semicolon": (first_cell("x = 1\nplt.plot(x);\n"), "a final ';' silences"),
    "%%time": (first_cell("%%time\nfit()"), "a cell magic"),
    "%timeit": (first_cell("%timeit fit()"), "a timing or shell magic"),
    "shell": (first_cell("!ls"), "a shell command"),
    "nbval comment": (first_cell("# NBVAL_IGNORE_OUTPUT\n1"), "a marker comment"),
    "plain tqdm": (first_cell("from tqdm import tqdm"), "import it from tqdm.auto"),
    "progress bar": (first_cell("for i in trange(3): pass"), "a progress bar"),
    "raises-exception": (first_cell(tags=("raises-exception",)), "the tag raises-exception"),
    "svg": (first_cell("1", {**PICTURE, "data": {"image/svg+xml": "<svg/>"}}), "an SVG picture"),
    "error": (first_cell("1", {"output_type": "error", "ename": "KeyError"}), "a stored error: KeyError"),
    "path in output": (first_cell("1", stdout("saved /srv/me/runs/a.pt\n")), "/srv/me/runs/a.pt"),
    "windows path": (first_cell("1", stdout("C:\\Users\\me\\a.pt\n")), "C:\\Users\\me"),
    "home in source": (first_cell("root = '/home/me/data'"), "/home/me/data"),
    "address": (first_cell("1", result(plain="<object at 0x7f3a2b1c>")), "a memory address"),
    "widget": (first_cell("1", {**PICTURE, "data": {lint.WIDGET: {}}}), "a widget in a compared cell"),
    "stderr": (first_cell("1", {**stdout("50%"), "name": "stderr"}), "stderr text"),
    "unread figure": (lambda n: n["cells"].pop(5), "the figure of In [2]"),
    "no section": (lambda n: n["cells"].pop(), "0 headings begin with 'Next'"),
    "sections in disorder": (lambda n: n["cells"].append(n["cells"].pop(0)), "not in the order"),
}


@pytest.mark.parametrize("rule", TEACHING_RULES)
def test_each_rule_for_teaching_notebooks_is_found(tmp_path, rule):
    change, message = TEACHING_RULES[rule]
    notebook = good()
    change(notebook)
    found = lint.notebook_findings(write(tmp_path, notebook))
    assert any(message in line for line in found), found
    assert lint.main([str(tmp_path)]) == 1


@pytest.mark.parametrize(
    "change",
    [
        first_cell("for i in trange(3): pass", tags=IGNORED),
        first_cell(
            "interact(show)", {**PICTURE, "data": {lint.WIDGET: {}, "text/plain": "at 0x7f3a2b1c"}}, tags=IGNORED
        ),
        first_cell("1", {**stdout("50%"), "name": "stderr"}, tags=IGNORED),
        first_cell("from tqdm.auto import tqdm"),
        first_cell("import tqdm.auto"),
        first_cell("same = a != b; other = 1\nsame"),
        first_cell("print(f'{value:%}')\nrest = 7 % 4"),
        lambda n: n["cells"].insert(1, {"cell_type": "code", "source": "", "metadata": {}, "execution_count": None}),
    ],
)
def test_what_looks_like_a_fault_and_is_none(tmp_path, change):
    notebook = good()
    change(notebook)
    assert lint.notebook_findings(write(tmp_path, notebook)) == []


@pytest.mark.parametrize("kind", ["train", "report"])
def test_rules_for_notebooks_without_outputs(tmp_path, kind):
    stored = teaching(code("epochs = 1", stdout("1\n"), tags=("parameters",)), code("2", tags=("parameters",)))
    found = lint.notebook_findings(write(tmp_path, stored, kind))
    assert any("outputs or execution counts" in line for line in found)
    assert any("2 cells are tagged 'parameters'" in line for line in found)
    without = lint.notebook_findings(write(tmp_path, teaching(code("epochs = 1"), executed=0), kind))
    assert without == ["0 cells are tagged 'parameters' (exactly one)"]


def test_a_broken_file_is_a_finding(tmp_path):
    path = write(tmp_path, good())
    path.write_text("<<<<<<< HEAD\n{}", encoding="utf-8")
    assert "not a readable notebook" in lint.notebook_findings(path)[0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: rows.clear(), "must hold 'notebooks:'"),
        (lambda rows: rows[0].update(file="11_gone.ipynb"), "10_topic.ipynb is not listed"),
        (lambda rows: rows[0].update(file="11_gone.ipynb"), "11_gone.ipynb is listed and does not exist"),
        (lambda rows: rows.append(rows[0]), "10_topic.ipynb is listed 2 times"),
        (lambda rows: rows[0].update(kind="lesson"), "has the kind 'lesson'; known: teach, train, report"),
        (lambda rows: rows[0].pop("minutes"), "must have exactly the keys"),
        (lambda rows: rows[0].update(minute=3), "must have exactly the keys"),
    ],
)
def test_each_rule_for_the_index_is_found(tmp_path, change, message):
    write(tmp_path, good())
    index = json.loads((tmp_path / "index.yml").read_text())
    change(index["notebooks"])
    (tmp_path / "index.yml").write_text(json.dumps(index), encoding="utf-8")
    assert any(message in line for line in lint.index_findings(tmp_path))


def test_a_missing_index_is_a_finding(tmp_path):
    path = write(tmp_path, good())
    (tmp_path / "index.yml").unlink()
    assert lint.index_findings(tmp_path)
    assert any("must list it" in line for line in lint.notebook_findings(path))
