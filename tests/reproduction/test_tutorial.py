"""The tutorial, on made notebooks that import nothing. About 10 s: kernels have to start."""

import json
import re
import threading

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from fsslib import paths
from fsslib.cli import main as command_line
from fsslib.reproduction import tutorial
from fsslib.reproduction.run import NOTEBOOK, RunError
from tests.reproduction.test_pages import png, requests_in

SHOW = "import base64\nfrom IPython.display import Image, display\ndisplay(Image(base64.b64decode('{}')))"
MEET = """import os, pathlib, time
pathlib.Path("{0}").touch()
end = time.time() + 60
while not pathlib.Path("{1}").exists():
    assert time.time() < end, "the other one does not run at the same time"
    time.sleep(0.05)
print(os.getcwd(), "threads:", os.environ["OMP_NUM_THREADS"])
"""
REPORT = f"""from IPython.display import Markdown
Markdown(f"A link to [a run](../../runs/one/{NOTEBOOK}), here is {{here}}, to [a lesson](00_a.ipynb)")
"""


def write(path, *code: str, prose: str = "# A lesson\n\nOne *idea*, with $x^2$.\n\nMore."):
    cells = [new_code_cell(one, metadata={"tags": ["parameters"] * one.startswith("here")}) for one in code]
    cells = [new_markdown_cell(prose), *(new_markdown_cell(c.source) if c.source[0] == "#" else c for c in cells)]
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(new_notebook(cells=cells, metadata={"language_info": {"name": "python"}}), path)


def listed(project, **kinds):
    rows = [{"file": f"{name}.ipynb", "kind": kind, "minutes": 1} for name, kind in {"00_a": "teach", **kinds}.items()]
    (project / "notebooks" / "index.yml").write_text(json.dumps({"notebooks": rows}))


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project with a lesson and a training notebook that is replaced by a stroke of the pen."""
    for folder in ("notebooks/lessons", "data", "results", "package"):
        (tmp_path / folder).mkdir(parents=True)
    write(tmp_path / "notebooks" / "00_a.ipynb", "print(6 * 7)", SHOW.format(png(900, 300)))
    write(tmp_path / "notebooks" / NOTEBOOK, "steps = 1", prose="# Train\n\nIt trains.")
    listed(tmp_path)
    monkeypatch.setattr(paths, "project_root", lambda: tmp_path)
    monkeypatch.setattr(paths, "shipped", lambda kind: tmp_path / kind)
    monkeypatch.setattr(paths, "PACKAGE", tmp_path / "package")
    monkeypatch.delenv("FSSLIB_DATA", raising=False)
    return tmp_path


@pytest.fixture
def lessons(monkeypatch) -> list[None]:
    calls = []  # one for each lesson that would have been executed
    monkeypatch.setattr(tutorial, "execute_notebook", lambda source, target, **_: calls.append(write(target, "1")))
    return calls


@pytest.fixture
def trainings(project, monkeypatch) -> list[bool]:
    calls = []  # whether each was to start afresh

    def run(config, *, force):
        calls.append(force)
        write(config.folder / NOTEBOOK, "steps = 1", prose="# Train\n\nIt trains.")
        scores = {"photo": {"miou": 0.4321, "fb_iou": 0.6, "episodes": 100}}
        (config.folder / "result.json").write_text(json.dumps({"schema_version": 1, "scores": scores}))

    monkeypatch.setattr(tutorial, "run", run)
    return calls


def outcomes(capsys) -> dict[str, str]:
    *lines, _ = capsys.readouterr().out.splitlines()
    assert [line.split("/")[0].strip() for line in lines] == [str(n + 1) for n in range(len(lines))]
    return {name: said for _, name, said in (line.split(maxsplit=2) for line in lines)}


def test_the_tutorial_runs_two_at_a_time_and_the_second_call_nothing(project, trainings, capsys, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    listed(project, **{"10_b": "teach", "20_c": "teach"})
    write(project / "notebooks" / "10_b.ipynb", MEET.format("b", "c"), prose="# Second\n\nWith `code`.")
    write(project / "notebooks" / "20_c.ipynb", MEET.format("c", "b"), prose="See [answers](solutions/20_c.ipynb)")
    write(project / "notebooks" / "solutions" / "20_c.ipynb", "the_answer", prose="# Solved\n\n[Back](../20_c.ipynb)")
    assert command_line(["tutorial"]) == 0
    first = outcomes(capsys)
    assert sorted(first) == ["00_a.ipynb", "10_b.ipynb", "20_c.ipynb", NOTEBOOK]
    assert all(re.fullmatch(r"\d+ s", said) for said in first.values())
    report = project / "report"
    page = (report / "index.html").read_text()
    told = ("A lesson", "One idea, with", "Second", "With code.", "Train", "43.2", "data:image/png;base64")
    assert [text for text in told if text not in page] == []
    links = ("index.html", *re.findall(r'class="card" href="([^"]+)"', page))
    assert not any(requests_in((report / link).read_text()) for link in links)
    told = {"notebooks/00_a": "42", "notebooks/10_b": f"{project / 'notebooks'} threads: 1"}
    told |= {"notebooks/20_c": 'href="../solutions/20_c.html"', "solutions/20_c": 'href="../notebooks/20_c.html"'}
    assert [name for name, text in told.items() if text not in (report / f"{name}.html").read_text()] == []
    assert command_line(["tutorial"]) == 0
    assert outcomes(capsys) == dict.fromkeys(first, "up to date")
    assert trainings == [True]


def test_a_report_is_made_of_the_runs_and_leads_to_them(project, trainings):
    listed(project, **{"99_r": "report"})
    code = ("here = ''", REPORT, "## A picture of it", SHOW.format(png(300, 200)))
    write(project / "notebooks" / "99_r.ipynb", *code, prose="# Results\n\nAll.")
    write(project / "runs" / "one" / NOTEBOOK, "1", prose="# The run\n\nAs it was.")
    assert tutorial.main() == 0
    report, executed = project / "report", project / "report" / "notebooks" / "99_r.ipynb"
    index, page = (report / "index.html").read_text(), executed.with_suffix(".html").read_text()
    told = ('id="figure-0"', "here is report/notebooks", 'href="../runs/one.html"', 'href="../notebooks/00_a.html"')
    assert [text for text in told if text not in page] == []
    assert '<a href="notebooks/99_r.html#figure-0">' in index
    assert "<figcaption>A picture of it</figcaption>" in index
    assert "As it was." in (report / "runs" / "one.html").read_text()
    assert not (project / "runs" / "one" / NOTEBOOK).with_suffix(".html").exists()
    assert tutorial.main() == 0
    before = executed.stat().st_mtime_ns
    (project / "runs" / "one" / "result.json").write_text("{}")
    assert tutorial.main() == 0
    assert executed.stat().st_mtime_ns > before  # a run that has ended since is a reason to look again
    assert len(trainings) == 1


@pytest.mark.usefixtures("trainings")
def test_a_failing_notebook_is_named_kept_and_tried_again(project, capsys):
    write(project / "notebooks" / "00_a.ipynb", "print('so far')", "1 / 0", "print('never')")
    assert tutorial.main() == 1
    output, index = capsys.readouterr(), project / "report" / "index.html"
    copy = project / "report" / "notebooks" / "00_a.ipynb"
    assert re.search(r"00_a.ipynb +FAILED: cell \[2\] ended with ZeroDivisionError: division by zero\n", output.out)
    assert output.out.endswith(f"{index}\n")
    assert f"as far as it came: {copy}" in output.out
    assert "1 of 2 notebooks failed: 00_a.ipynb" in output.err
    assert "so far" in copy.read_text()
    assert "ZeroDivisionError" in copy.with_suffix(".html").read_text()
    assert "failed</span>: cell [2] ended with ZeroDivisionError" in index.read_text()
    write(project / "notebooks" / "00_a.ipynb", "print('repaired')")
    assert tutorial.main() == 0
    assert "repaired" in copy.read_text()
    assert "failed</span>" not in index.read_text()


def test_what_a_notebook_is_made_from_decides_whether_it_runs_again(project, trainings, lessons, monkeypatch):
    lesson = project / "notebooks" / "00_a.ipynb"

    def committed():
        printed = '"outputs": [{"output_type": "stream", "name": "stdout", "text": "42"}]'
        lesson.write_text(lesson.read_text().replace('"outputs": []', printed))

    changes = {
        lambda: None: 1,
        committed: 1,  # outputs are no input
        lambda: (project / "results" / "a.json").write_text("{}"): 2,
        lambda: (project / "data" / "split.txt").write_text("a\n"): 3,
        lambda: (project / "package" / "code.py").write_text("x = 1"): 4,
        lambda: (project / "notebooks" / "lessons" / "n00.py").write_text("x = 1"): 5,
        lambda: (project / "package" / "page.html.j2").write_text("x"): 6,
        lambda: (project / "data" / "downloads" / "VOCdevkit").mkdir(parents=True): 7,
        lambda: monkeypatch.setenv("FSSLIB_DATA", str(project / "data")): 8,
        lambda: write(lesson, "print(43)"): 9,
    }
    for change, count in changes.items():
        change()
        assert tutorial.main() == 0
        assert len(lessons) == count


@pytest.mark.usefixtures("lessons")
def test_a_training_goes_on_after_an_interrupt_and_afresh_after_a_change(project, monkeypatch, trainings, capsys):
    finish = tutorial.run

    def interrupted(config, *, force):
        finish(config, force=force)
        raise KeyboardInterrupt

    monkeypatch.setattr(tutorial, "run", interrupted)
    assert command_line(["tutorial"]) == 130
    for other in (thread for thread in threading.enumerate() if "help_out" in thread.name):
        other.join(60)  # it would have ended with the process
    assert "The next call goes on" in capsys.readouterr().err
    monkeypatch.setattr(tutorial, "run", finish)
    assert command_line(["tutorial"]) == 0
    write(project / "notebooks" / NOTEBOOK, "steps = 2")
    assert command_line(["tutorial"]) == 0
    assert trainings == [True, False, True]


def test_a_failing_training_has_no_scores_and_says_why(project, lessons, monkeypatch, capsys):
    def fail(config, *, force):
        raise RunError("The run failed in cell [3] with ValueError: no")

    monkeypatch.setattr(tutorial, "run", fail)
    assert tutorial.main() == 1
    assert "No scores" in (page := (project / "report" / "index.html").read_text())
    assert "The run failed in cell [3] with ValueError: no" in page
    assert "FAILED" in capsys.readouterr().out
