"""The pages of the report: claims, tables, formulas, widgets and pictures as they are shown, with nothing to fetch."""

import base64
import io
import re

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from PIL import Image

from fsslib.reproduction import pages
from fsslib.reproduction.claims import Claim, Judgement, Test
from fsslib.reproduction.statistics import Interval
from fsslib.reproduction.tables import Table


def png(width: int, height: int) -> str:
    content = io.BytesIO()
    Image.new("RGB", (width, height), "crimson").save(content, "PNG")
    return base64.b64encode(content.getvalue()).decode()


def requests_in(page: str) -> list[str]:
    """What a browser would fetch for this page beside the page itself."""
    found = re.findall(r"""(?:src|href)\s*=\s*["']?([^"'\s>]+)""", page) + re.findall(r"url\(([^)]+)\)", page)
    addresses = [target for target in found if "//" in target.split(",")[0]]
    return addresses + re.findall(r"@import|<script|<link rel=.style", page)


def page_of(tmp_path, *outputs, **metadata):
    cells = [new_markdown_cell("# T\n\nOne.\n\n## Two *dots*"), new_code_cell("x", outputs=list(outputs))]
    nbformat.write(new_notebook(cells=cells, metadata=metadata), tmp_path / "a.ipynb")
    return pages.write_notebook_page(tmp_path / "a.ipynb", index="index.html").read_text()


def test_claims_and_tables_are_shown_as_they_are(tmp_path):
    asked = {"plan": "p", "label": "a <i>", "baseline": "c", "columns": ["night"], "unit": "draw"}
    test = Test(world="toy world", fixed="after", **asked)
    claim = Claim(id="x", paper="RtD", claim="It <i>helps.", difference=8.2, instead="not <i>that", tests=[test])
    judged = [
        Judgement(claim, test, "night", Interval(3.0, 1.0, 5.0, 12, 0.01, 0.9), {}, "holds"),
        Judgement(claim, test, "sketch", Interval(-2.0, None, None, 3, None, None), {}, "inconclusive"),
        rain := Judgement(claim, test, "rain", Interval(0.0, 0.0, 0.0, 12, 1.0, 0.0), {}, "no effect"),
        Judgement(claim, test, "hail", Interval(1.5, -2.0, 5.0, 12, 0.3, 1.8), {}, "inconclusive"),
        Judgement(claim, test, "snow", Interval(2.0, 1.0, 3.0, 12, 0.01, 0.4), {}, "not testable here", rain),
        Judgement(claim, test, "fog", None, {}, "not run"),
        Judgement(claim, None, "", None, {}, "not run"),
    ]
    page_of(tmp_path)
    card = pages.Card(tmp_path / "a.ipynb", tmp_path / "a.ipynb")
    table = Table("t<i>", ("", "<i>x"), (("<i>r", "1"),), "<i>n")
    told = {"lessons": [], "run": card, "results": [card], "scores": {}, "tables": [table], "made_with": "<i>m"}
    pages.Report(tmp_path / "index.html", judged=judged, **told).write()
    page = (tmp_path / "index.html").read_text()
    said = ["The paper: +8.2.", "a &lt;i&gt; minus c", "compared when the numbers were known"]
    said += ["<td>&lt;i&gt;r</td><td>1</td>", "+3.0 [+1.0, +5.0] (n=12)", "-2.0 (n=3)", "left:60.0%;width:40.0%"]
    said += ["left:50.0%;width:1.5%", '<b class="holds">holds</b>', '<b class="not-run">not run</b>']
    said += ["<td>toy world</td><td>1</td><td>0</td><td>1</td><td>2</td><td>1</td><td>1</td>"]
    said += ["(n=12), needs n = 308<", "(n=12): +0.0 [+0.0, +0.0] (n=12)<"]
    assert [text for text in said if text not in page] == []
    assert re.findall(r"&lt;i&gt;(\w*)", page) == ["helps", "that", "", "", "x", "r", "n", "m"]
    assert requests_in(page) == []


def test_formulas_are_drawn_without_a_network_and_stay_readable_where_they_cannot_be(monkeypatch):
    page = pages.markdown_html("Inline $a_b$ and\n\n$$\\frac{1}{2}$$\n\n| a | b |\n|---|---|\n| 1 | 2 |\n")
    assert page.count("<math") == 2
    assert [text for text in ('display="block"', "<mfrac>", '<div class="table"><table>') if text not in page] == []
    assert "$" not in page
    monkeypatch.setattr(pages, "mathml", lambda *_, **__: 1 / 0)
    assert "<code>a &lt; b</code>" in pages.markdown_html("$a < b$")


def test_a_widget_is_named_in_its_place(tmp_path):
    kind = "application/vnd.jupyter.widget"
    view = {f"{kind}-view+json": {"model_id": "1"}, "text/plain": "VBox(children=...)"}
    page = page_of(
        tmp_path, new_output("display_data", data=view), widgets={f"{kind}-state+json": {"state": {"1": {}}}}
    )
    assert "Interactive: open the notebook with <code>make lab</code>" in page
    assert "VBox" not in page
    assert requests_in(page) == []


def test_pictures_have_places_descriptions_and_thumbnails(tmp_path):
    described = {(2000, 1000): {}, (64, 32): {"image/png": {"alt": "two dots", "width": 32}}}
    pictures = [
        new_output("display_data", data={"image/png": png(*size)}, metadata=words) for size, words in described.items()
    ]
    page = page_of(tmp_path, *pictures)
    card = pages.Card(tmp_path / "a.ipynb", tmp_path / "a.ipynb")
    assert card.words == ("T", "One.")
    assert [caption for caption, _ in card.pictures] == ["Two *dots*"] * 2

    def size(thumbnail):
        return Image.open(io.BytesIO(base64.b64decode(thumbnail.partition(",")[2]))).size

    assert (size(card.thumbnail()), size(card.thumbnail(-1))) == ((640, 320), (64, 32))
    first, second = re.findall(r"<img ([^>]+?)/?>", page)
    assert [text for text in ('id="figure-0"', 'alt="figure drawn by the code above"') if text not in first] == []
    assert [text for text in ('id="figure-1"', 'alt="two dots"', 'width="32"') if text not in second] == []


@pytest.mark.parametrize(("seconds", "text"), [(0.4, "0 s"), (59.6, "1 min 0 s"), (125, "2 min 5 s")])
def test_durations_are_for_people(seconds, text):
    assert pages.duration(seconds) == text
