"""Running teaching notebooks in place: what is stored, what is removed, and that a failure changes nothing."""

import json
import os

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from fsslib.teaching import execute
from tests.notebooks import lint
from tests.notebooks.made import code, index_of, teaching


def folder_of(folder, kind="teach", **notebooks):
    """Notebooks by name, in a folder with its index."""
    (folder / "index.yml").write_text(index_of({f"{name}.ipynb": kind for name in notebooks}), encoding="utf-8")
    for name, notebook in notebooks.items():
        (folder / f"{name}.ipynb").write_text(json.dumps(notebook), encoding="utf-8")
    return [str(folder / f"{name}.ipynb") for name in notebooks]


def test_a_notebook_is_run_in_its_folder_and_a_failing_one_is_left_alone(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("FSSLIB_DATA", "somewhere")
    (tmp_path / "neighbour.txt").write_text("found", encoding="utf-8")
    look = code("import os\nprint(open('neighbour.txt').read(), 'FSSLIB_DATA' in os.environ)")
    good = teaching(look, code("print('one')\nprint('two')"), executed=0)
    good["metadata"]["papermill"] = {"duration": 1}
    paths = folder_of(tmp_path, bad=teaching(code("value = 1 / 0"), executed=0), good=good)
    before = (tmp_path / "bad.ipynb").read_bytes()
    assert execute.main(paths) == 1
    told = capsys.readouterr().err
    assert "bad.ipynb: not changed" in told
    assert "ZeroDivisionError" in told
    assert (tmp_path / "bad.ipynb").read_bytes() == before
    assert sorted(os.listdir(tmp_path)) == ["bad.ipynb", "good.ipynb", "index.yml", "neighbour.txt"]

    assert lint.notebook_findings(tmp_path / "good.ipynb") == []
    stored = nbformat.read(tmp_path / "good.ipynb", as_version=4)
    nbformat.validate(stored)
    printed = [[output.text for output in cell.outputs] for cell in stored.cells if cell.cell_type == "code"]
    assert printed == [["found False\n"], ["one\ntwo\n"]], "one stream, however it arrived"
    assert stored.metadata.kernelspec.name == "python3"
    assert "version" not in stored.metadata.language_info
    assert "papermill" not in stored.metadata


def test_clean_removes_what_others_cannot_use_and_keeps_the_rest():
    metadata = {"widgets": {"state": {}}, "papermill": {}, "kernelspec": {"name": "my-env", "display_name": "mine"}}
    metadata |= {"language_info": {"name": "python", "version": "3.11.2"}, "title": "kept"}
    data = {execute.WIDGET: {"model_id": "ab"}, "text/plain": "Episode explorer"}
    outputs = [new_output("execute_result", data, execution_count=1), new_output("stream", text="kept")]
    cell = new_code_cell("explorer", metadata={"execution": {}, "papermill": {}, "tags": ["kept"]}, outputs=outputs)
    notebook = new_notebook(metadata=metadata, cells=[cell, new_markdown_cell("prose")])
    assert execute.clean(notebook) is notebook
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    assert notebook.metadata == {"kernelspec": kernel, "language_info": {"name": "python"}, "title": "kept"}
    assert cell.metadata == {"tags": ["kept"]}
    assert cell.outputs[0].data == {"text/plain": "Episode explorer"}
    assert cell.outputs[1].text == "kept"


@pytest.mark.parametrize("kind", ["train", "report", None])
def test_notebooks_that_keep_no_outputs_are_refused_but_in_the_folder_of_solutions(tmp_path, kind):
    path = folder_of(tmp_path, kind, other=teaching(code("1"), executed=0))[0] if kind else tmp_path / "unlisted.ipynb"
    with pytest.raises(ValueError, match=f"says kind {kind!r}"):
        execute.run_notebook(path)
    (tmp_path / "solutions").mkdir()
    if kind == "train":
        [path] = folder_of(tmp_path / "solutions", other=teaching(code("print(1)"), executed=0))
        (tmp_path / "solutions" / "index.yml").unlink()
        assert [cell.outputs[0].text for cell in execute.run_notebook(path).cells if "outputs" in cell] == ["1\n"]


def test_missing_notebooks_and_an_empty_list_are_refused(tmp_path, capsys):
    [path] = folder_of(tmp_path, listed=teaching(code("1"), executed=0))
    os.remove(path)
    assert execute.main([path]) == 1
    assert "No such file" in capsys.readouterr().err
    assert execute.main([]) == 2
