"""The tutorial and its pages, on made notebooks that import nothing. About 15 s: kernels have to start."""

import base64
import io
import json
import re

import nbformat
import pytest
import yaml
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from PIL import Image

from fsslib import paths
from fsslib.cli import main as command_line
from fsslib.reproduction import pages, tutorial
from fsslib.reproduction.claims import Claim, Judgement, Test
from fsslib.reproduction.run import NOTEBOOK, RunError
from fsslib.reproduction.statistics import Interval
from fsslib.reproduction.tables import Table

PICTURE = """
import base64
from IPython.display import Image, display
display(Image(base64.b64decode("{}")))
"""


def png(width: int, height: int) -> str:
    content = io.BytesIO()
    Image.new("RGB", (width, height), "crimson").save(content, "PNG")
    return base64.b64encode(content.getvalue()).decode()


def write(path, *code: str, prose: str = "# A lesson\n\nOne *idea*, with $x^2$.\n\nMore."):
    cells = [new_markdown_cell(prose), *(new_code_cell(source) for source in code)]
    nbformat.write(new_notebook(cells=cells), path)


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project with two lessons and a training notebook that is replaced by a stroke of the pen."""
    for folder in ("notebooks", "data", "results"):
        (tmp_path / folder).mkdir()
    rows = [{"file": "00_a.ipynb", "kind": "teach"}, {"file": "10_b.ipynb", "kind": "teach"}]
    index = {"notebooks": [*rows, {"file": NOTEBOOK, "kind": "train"}]}
    (tmp_path / "notebooks" / "index.yml").write_text(yaml.safe_dump(index))
    write(tmp_path / "notebooks" / "00_a.ipynb", "print(6 * 7)", PICTURE.format(png(900, 300)))
    write(tmp_path / "notebooks" / "10_b.ipynb", "import os; print(os.getcwd())", prose="# Second\n\nWith `code`.")
    write(tmp_path / "notebooks" / NOTEBOOK, "steps = 1", prose="# Train\n\nIt trains.")
    monkeypatch.setattr(paths, "project_root", lambda: tmp_path)
    monkeypatch.setattr(paths, "shipped", lambda kind: tmp_path / kind)
    monkeypatch.setattr(paths, "PACKAGE", tmp_path / "notebooks")  # a small one to hash
    return tmp_path


@pytest.fixture
def trainings(project, monkeypatch) -> list[bool]:
    """Whether each call of `run` was to start afresh."""
    calls = []

    def run(config, *, force):
        calls.append(force)
        write(config.folder / NOTEBOOK, "steps = 1", prose="# Train\n\nIt trains.")
        scores = {"photo": {"miou": 0.4321, "fb_iou": 0.6, "episodes": 100}}
        (config.folder / "result.json").write_text(json.dumps({"schema_version": 1, "scores": scores}))

    monkeypatch.setattr(tutorial, "run", run)
    return calls


def told(capsys) -> list[str]:
    return capsys.readouterr().out.splitlines()


def requests_in(page: str) -> list[str]:
    """What a browser would fetch for this page beside the page itself."""
    found = re.findall(r"""(?:src|href)\s*=\s*["']?([^"'\s>]+)""", page) + re.findall(r"url\(([^)]+)\)", page)
    addresses = [target for target in found if "//" in target.split(",")[0]]
    return addresses + re.findall(r"@import|<script|<link rel=.style", page)


def test_the_tutorial_runs_all_and_the_second_call_nothing(project, trainings, capsys):
    assert command_line(["tutorial"]) == 0
    lines = told(capsys)
    assert lines[-1] == str(project / "report" / "index.html")
    assert [re.sub(r"\d+ s|done", "T", line).split() for line in lines[:-1]] == [
        ["1/3", "00_a.ipynb", "T"],
        ["2/3", "10_b.ipynb", "T"],
        ["3/3", NOTEBOOK, "T"],
    ]
    page = (project / "report" / "index.html").read_text()
    for text in ("A lesson", "One idea, with", "Second", "With code.", "Train", "43.2", "data:image/png;base64"):
        assert text in page
    for link in re.findall(r'class="card" href="([^"]+)"', page):
        assert requests_in((project / "report" / link).read_text()) == []
    assert requests_in(page) == []
    assert "42" in (project / "report" / "notebooks" / "00_a.html").read_text()
    assert str(project / "notebooks") in (project / "report" / "notebooks" / "10_b.html").read_text()

    before = {path: path.stat().st_mtime_ns for path in (project / "report").rglob("*.ipynb")}
    assert command_line(["tutorial"]) == 0
    assert [line.split(maxsplit=2)[2] for line in told(capsys)[:-1]] == ["up to date"] * 3
    assert before == {path: path.stat().st_mtime_ns for path in (project / "report").rglob("*.ipynb")}
    assert trainings == [True]


REPORT = """
from pathlib import Path
from IPython.display import Markdown
Markdown(f"A link to [a run](../../runs/one/{name}), here is {here}, to [a lesson](00_a.ipynb)")
"""


def test_a_report_is_made_of_the_runs_and_leads_to_them(project, trainings):
    (project / "notebooks" / "index.yml").write_text(
        yaml.safe_dump(
            {"notebooks": [{"file": "99_r.ipynb", "kind": "report"}, {"file": "00_a.ipynb", "kind": "teach"}]}
        )
    )
    parameters = new_code_cell("here = ''", metadata={"tags": ["parameters"]})
    cells = [new_markdown_cell("# Results\n\nAll."), parameters, new_code_cell(f"name = {NOTEBOOK!r}{REPORT}")]
    cells += [new_markdown_cell("## A picture of it"), new_code_cell(PICTURE.format(png(300, 200)))]
    metadata = {"language_info": {"name": "python"}}
    nbformat.write(new_notebook(cells=cells, metadata=metadata), project / "notebooks" / "99_r.ipynb")
    (project / "runs" / "one").mkdir(parents=True)
    write(project / "runs" / "one" / NOTEBOOK, "1", prose="# The run\n\nAs it was.")
    assert tutorial.main() == 0

    index = (project / "report" / "index.html").read_text()
    assert '<a href="notebooks/99_r.html#figure-0">' in index
    assert "<figcaption>A picture of it</figcaption>" in index
    page = (project / "report" / "notebooks" / "99_r.html").read_text()
    assert 'id="figure-0"' in page
    assert "here is report/notebooks" in page
    assert 'href="../runs/one.html"' in page
    assert 'href="../notebooks/00_a.html"' in page
    assert "As it was." in (project / "report" / "runs" / "one.html").read_text()
    assert not (project / "runs" / "one" / NOTEBOOK).with_suffix(".html").exists()

    executed, before = project / "report" / "notebooks" / "99_r.ipynb", {}
    for finished in (False, True):
        if finished:
            (project / "runs" / "one" / "result.json").write_text("{}")
        assert tutorial.main() == 0
        before[finished] = executed.stat().st_mtime_ns
    assert before[True] > before[False]  # a run that has ended since is a reason to look again
    assert len(trainings) == 1


def test_claims_and_tables_are_shown_as_they_are(tmp_path):
    test = Test(world="toy world", plan="p", label="a <i>", baseline="c", columns=["night"], fixed="after")
    claim = Claim(id="x", paper="RtD", claim="It <i>helps.", difference=8.2, instead="not <i>that", tests=[test])
    judged = [
        Judgement(claim, test, "night", Interval(3.0, 1.0, 5.0, 12, 0.01), {}, "holds"),
        Judgement(claim, test, "sketch", Interval(-2.0, None, None, 3, None), {}, "inconclusive"),
        Judgement(claim, test, "rain", Interval(0.0, 0.0, 0.0, 12, 1.0), {}, "inconclusive"),
        Judgement(claim, test, "fog", None, {}, "not run"),
        Judgement(claim, None, "", None, {}, "not run"),
    ]
    write(tmp_path / "a.ipynb", "1")
    card = pages.Card(tmp_path / "a.ipynb", tmp_path / "a.ipynb")
    table = Table("t<i>", ("", "<i>x"), (("<i>r", "1"),), "<i>n")
    told = {"lessons": [], "run": card, "results": [card], "scores": {}, "tables": [table], "made_with": "<i>m"}
    pages.Report(tmp_path / "index.html", judged=judged, **told).write()
    page = (tmp_path / "index.html").read_text()
    said = [
        "The paper: +8.2.",
        "a &lt;i&gt; minus c",
        "compared when the numbers were known",
        "<td>&lt;i&gt;r</td><td>1</td>",
    ]
    numbers = ["+3.0 [+1.0, +5.0] (n=12)", "-2.0 (n=3)", "left:60.0%;width:40.0%", "left:50.0%;width:1.5%"]
    counts = ['<b class="holds">holds</b> 1', '<b class="not-run">not run</b> 2']
    assert [text for text in (*said, *numbers, *counts) if text not in page] == []
    assert re.findall(r"&lt;i&gt;(\w*)", page) == ["helps", "that", "", "", "x", "r", "n", "m"]
    assert requests_in(page) == []


def test_a_failing_notebook_is_named_kept_and_tried_again(project, trainings, capsys):
    write(project / "notebooks" / "10_b.ipynb", "print('so far')", "1 / 0", "print('never')")
    assert tutorial.main() == 1
    output = capsys.readouterr()
    assert "10_b.ipynb" in output.err
    lines = output.out.splitlines()
    assert re.search(r"10_b.ipynb +FAILED: cell \[2\] ended with ZeroDivisionError: division by zero\n", output.out)
    copy = project / "report" / "notebooks" / "10_b.ipynb"
    assert f"as far as it came: {copy}" in output.out
    assert "so far" in copy.read_text()
    assert "ZeroDivisionError" in copy.with_suffix(".html").read_text()
    assert "failed</span>: cell [2] ended with ZeroDivisionError" in (project / "report" / "index.html").read_text()
    assert lines[-1] == str(project / "report" / "index.html")
    assert len(trainings) == 1  # the notebooks after it are run all the same

    write(project / "notebooks" / "10_b.ipynb", "print('repaired')")
    assert tutorial.main() == 0
    assert "repaired" in copy.read_text()
    assert "failed</span>" not in (project / "report" / "index.html").read_text()


def test_what_a_notebook_is_made_from_decides_whether_it_runs_again(project, monkeypatch):
    monkeypatch.delenv("FSSLIB_DATA", raising=False)
    monkeypatch.setattr(paths, "PACKAGE", project / "package")
    for folder in ("package", "notebooks/lessons"):
        (project / folder).mkdir()
    cells, surroundings = tutorial._cells(project / "notebooks" / "00_a.ipynb"), tutorial._hash_of_surroundings()

    notebook = nbformat.read(project / "notebooks" / "00_a.ipynb", as_version=4)
    notebook.cells[1].outputs = [new_output("stream", text="42\n")]
    nbformat.write(notebook, project / "notebooks" / "00_a.ipynb")
    assert tutorial._cells(project / "notebooks" / "00_a.ipynb") == cells  # committed outputs are no input
    assert tutorial._hash_of_surroundings() == surroundings

    seen = {surroundings}
    for change in (
        lambda: (project / "results" / "a.json").write_text("{}"),
        lambda: (project / "data" / "split.txt").write_text("a\n"),
        lambda: (project / "package" / "code.py").write_text("x = 1"),
        lambda: (project / "notebooks" / "lessons" / "n00.py").write_text("x = 1"),
        lambda: (project / "package" / "page.html.j2").write_text("x"),
        lambda: (project / "data" / "downloads" / "VOCdevkit").mkdir(parents=True),
        lambda: monkeypatch.setenv("FSSLIB_DATA", str(project)),
    ):
        change()
        seen.add(tutorial._hash_of_surroundings())
    assert len(seen) == 8


def test_a_training_goes_on_after_an_interrupt_and_starts_afresh_after_a_change(
    project, monkeypatch, trainings, capsys
):
    (project / "notebooks" / "index.yml").write_text("notebooks: []")
    finish = tutorial.run

    def interrupted(config, *, force):
        finish(config, force=force)
        raise KeyboardInterrupt

    monkeypatch.setattr(tutorial, "run", interrupted)
    assert command_line(["tutorial"]) == 130
    assert "The next call goes on" in capsys.readouterr().err
    monkeypatch.setattr(tutorial, "run", finish)
    assert command_line(["tutorial"]) == 0
    write(project / "notebooks" / NOTEBOOK, "steps = 2")
    assert command_line(["tutorial"]) == 0
    assert trainings == [True, False, True]


def test_a_failing_training_has_no_scores_and_says_why(project, monkeypatch, capsys):
    (project / "notebooks" / "index.yml").write_text("notebooks: []")

    def fail(config, *, force):
        raise RunError("The run failed in cell [3] with ValueError: no")

    monkeypatch.setattr(tutorial, "run", fail)
    assert tutorial.main() == 1
    page = (project / "report" / "index.html").read_text()
    assert "No scores" in page
    assert "The run failed in cell [3] with ValueError: no" in page
    assert "FAILED" in capsys.readouterr().out


def test_formulas_are_drawn_without_a_network():
    page = pages.markdown_html("Inline $a_b$ and\n\n$$\\frac{1}{2}$$\n\n| a | b |\n|---|---|\n| 1 | 2 |\n")
    assert page.count("<math") == 2
    assert 'display="block"' in page
    assert "<mfrac>" in page
    assert "$" not in page
    assert '<div class="table"><table>' in page


def test_a_formula_that_cannot_be_drawn_stays_readable(monkeypatch):
    def fail(*_, **__):
        raise RuntimeError

    monkeypatch.setattr(pages, "mathml", fail)
    assert "<code>a &lt; b</code>" in pages.markdown_html("$a < b$")


def test_a_widget_is_named_in_its_place(tmp_path):
    widget = "application/vnd.jupyter.widget-view+json"
    view = {widget: {"model_id": "1"}, "text/plain": "VBox(children=...)"}
    cell = new_code_cell("w", outputs=[new_output("display_data", data=view)])
    metadata = {"widgets": {"application/vnd.jupyter.widget-state+json": {"state": {"1": {}}}}}
    notebook = new_notebook(cells=[new_markdown_cell("# T"), cell], metadata=metadata)
    nbformat.write(notebook, tmp_path / "a.ipynb")
    page = pages.write_notebook_page(tmp_path / "a.ipynb", index="index.html").read_text()
    assert "Interactive: open the notebook with <code>make lab</code>" in page
    assert "VBox" not in page
    assert requests_in(page) == []


def test_pictures_have_places_descriptions_and_thumbnails(tmp_path):
    data = [{"image/png": png(*size)} for size in ((2000, 1000), (64, 32))]
    described = [{}, {"image/png": {"alt": "two dots", "width": 32}}]
    outputs = [new_output("display_data", data=d, metadata=m) for d, m in zip(data, described)]
    cells = [new_markdown_cell("# T\n\nOne.\n\n## Two *dots*"), new_code_cell("x", outputs=outputs)]
    nbformat.write(new_notebook(cells=cells), tmp_path / "a.ipynb")
    card = pages.Card(tmp_path / "a.ipynb", tmp_path / "a.ipynb")
    assert card.words == ("T", "One.")
    assert [caption for caption, _ in card.pictures] == ["Two *dots*"] * 2

    def size(thumbnail):
        return Image.open(io.BytesIO(base64.b64decode(thumbnail.partition(",")[2]))).size

    assert (size(card.thumbnail()), size(card.thumbnail(-1))) == ((640, 320), (64, 32))
    page = pages.write_notebook_page(tmp_path / "a.ipynb", index="index.html").read_text()
    drawn = re.findall(r"<img ([^>]+?)/?>", page)
    assert ['id="figure-0"' in drawn[0], 'alt="figure drawn by the code above"' in drawn[0]] == [True, True]
    assert all(text in drawn[1] for text in ('id="figure-1"', 'alt="two dots"', 'width="32"'))
    assert len(drawn) == 2


@pytest.mark.parametrize(("seconds", "text"), [(0.4, "0 s"), (59.6, "1 min 0 s"), (125, "2 min 5 s")])
def test_durations_are_for_people(seconds, text):
    assert pages.duration(seconds) == text
