"""Running teaching notebooks in place: what is stored, what is removed, and that a failure changes nothing."""

import json
import os

import nbformat
import pytest

from fsslib.teaching import execute
from tests.notebooks import lint
from tests.notebooks.made import code, teaching


def folder_of(tmp_path, kind="teach", **notebooks):
    rows = [
        {"file": f"{name}.ipynb", "kind": kind, "minutes": 1, "datasets": [], "prerequisites": []} for name in notebooks
    ]
    (tmp_path / "index.yml").write_text(json.dumps({"notebooks": rows}), encoding="utf-8")
    for name, notebook in notebooks.items():
        (tmp_path / f"{name}.ipynb").write_text(json.dumps(notebook), encoding="utf-8")
    return [str(tmp_path / f"{name}.ipynb") for name in notebooks]


def test_a_notebook_is_run_in_its_folder_and_a_failing_one_is_left_alone(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("FSSLIB_DATA", "somewhere")
    (tmp_path / "neighbour.txt").write_text("found", encoding="utf-8")
    good = teaching(
        code("import os\nprint(open('neighbour.txt').read(), 'FSSLIB_DATA' in os.environ)"),
        code("print('one')\nprint('two')"),
        executed=0,
    )
    good["metadata"]["papermill"] = {"duration": 1}
    bad = teaching(code("value = 1 / 0"), executed=0)
    paths = folder_of(tmp_path, bad=bad, good=good)
    before = (tmp_path / "bad.ipynb").read_bytes()

    assert execute.main(paths) == 1
    printed = capsys.readouterr()
    assert "bad.ipynb: not changed" in printed.err
    assert "ZeroDivisionError" in printed.err
    assert (tmp_path / "bad.ipynb").read_bytes() == before
    assert sorted(os.listdir(tmp_path)) == ["bad.ipynb", "good.ipynb", "index.yml", "neighbour.txt"]

    assert lint.notebook_findings(tmp_path / "good.ipynb") == []
    stored = nbformat.read(tmp_path / "good.ipynb", as_version=4)
    nbformat.validate(stored)
    first, second = (cell for cell in stored.cells if cell.cell_type == "code")
    assert [output.text for output in first.outputs] == ["found False\n"]
    assert [output.text for output in second.outputs] == ["one\ntwo\n"], "one stream, however it arrived"
    assert stored.metadata.kernelspec.name == "python3"
    assert "version" not in stored.metadata.language_info
    assert "papermill" not in stored.metadata


def test_clean_removes_what_others_cannot_use_and_keeps_the_rest():
    notebook = nbformat.v4.new_notebook(
        metadata={
            "widgets": {"state": {}},
            "papermill": {},
            "kernelspec": {"name": "my-env", "display_name": "mine", "language": "python"},
            "language_info": {"name": "python", "version": "3.11.2"},
            "title": "kept",
        }
    )
    data = {execute.WIDGET: {"model_id": "ab"}, "text/plain": "Episode explorer"}
    cell = nbformat.v4.new_code_cell("explorer", metadata={"execution": {}, "papermill": {}, "tags": ["kept"]})
    cell.outputs = [
        nbformat.v4.new_output("execute_result", data, execution_count=1),
        nbformat.v4.new_output("stream", text="kept"),
    ]
    notebook.cells = [cell, nbformat.v4.new_markdown_cell("prose")]
    cleaned = execute.clean(notebook)
    assert cleaned is notebook
    assert cleaned.metadata == {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
        "title": "kept",
    }
    assert cell.metadata == {"tags": ["kept"]}
    assert cell.outputs[0].data == {"text/plain": "Episode explorer"}
    assert cell.outputs[1].text == "kept"


@pytest.mark.parametrize("kind", ["train", "report"])
def test_notebooks_that_keep_no_outputs_are_refused(tmp_path, kind):
    [path] = folder_of(tmp_path, kind, other=teaching(code("1"), executed=0))
    with pytest.raises(ValueError, match=f"says kind '{kind}'"):
        execute.run_notebook(path)


def test_unlisted_and_missing_notebooks_and_an_empty_list_are_refused(tmp_path, capsys):
    folder_of(tmp_path, listed=teaching(code("1"), executed=0))
    with pytest.raises(ValueError, match="says kind None"):
        execute.run_notebook(tmp_path / "unlisted.ipynb")
    (tmp_path / "listed.ipynb").unlink()
    assert execute.main([str(tmp_path / "listed.ipynb")]) == 1
    assert "No such file" in capsys.readouterr().err
    assert execute.main([]) == 2
