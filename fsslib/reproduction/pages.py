"""Executed notebooks as HTML, and the index page over them: what `report.html.j2` is filled with.

No page asks the network for anything. Formulas become MathML, which browsers draw by themselves; pictures are embedded;
a widget, which needs a running kernel, is named in its place.
"""

import base64
import html
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import Any

import nbformat
from latex2mathml.converter import convert as mathml
from nbconvert import HTMLExporter
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath
from nbformat import NotebookNode
from PIL import Image
from pygments.formatters import HtmlFormatter

from fsslib.files import write_atomically
from fsslib.reproduction.claims import RULE, WORDS, Judgement, counted
from fsslib.reproduction.result import score_rows
from fsslib.reproduction.statistics import Interval
from fsslib.reproduction.tables import Table

TEMPLATE = Path(__file__).with_name("report.html.j2")
THUMBNAIL_WIDTH = 640


class _Renderer(IPythonRenderer):
    """nbconvert's Markdown with formulas as MathML; one that cannot be converted stays TeX, as code."""

    def inline_math(self, body: str) -> str:
        return _formula(body, "inline")

    def block_math(self, body: str) -> str:
        return _formula(body, "block")

    def latex_environment(self, name: str, body: str) -> str:
        return _formula(rf"\begin{{{name}}}{body}\end{{{name}}}", "block")


def _formula(tex: str, display: str) -> str:
    try:
        return mathml(tex, display=display)
    except Exception:  # the converter has no common error; a page with one formula as TeX is better than none
        return f"<code>{html.escape(tex)}</code>"


def markdown_html(source: str) -> str:
    """Markdown as HTML: formulas as MathML, tables in a box that scrolls on a narrow screen."""
    page = MarkdownWithMath(renderer=_Renderer(escape=False, exclude_anchor_links=True)).render(source)
    return page.replace("<table>", '<div class="table"><table>').replace("</table>", "</table></div>")


def _plain(markdown: str) -> str:
    return html.unescape(" ".join(re.sub(r"<[^>]+>", "", markdown_html(markdown)).split()))


@dataclass(frozen=True)
class Card:
    """One notebook as the index shows it. `executed` need not exist if it failed, which `problem` says."""

    source: Path
    executed: Path
    problem: str | None = None

    @cached_property
    def content(self) -> NotebookNode:
        return nbformat.read(self.executed if self.executed.exists() else self.source, as_version=4)

    @property
    def page(self) -> Path:
        """Where the notebook stands as HTML, beside its executed copy."""
        return self.executed.with_suffix(".html")

    @property
    def seconds(self) -> float | None:
        """How long the executed copy took, by papermill's clock."""
        return self.content.metadata.get("papermill", {}).get("duration")

    @property
    def words(self) -> tuple[str, str]:
        """The heading and the first paragraph, as plain text."""
        opening = next((cell.source for cell in self.content.cells if cell.cell_type == "markdown"), "")
        heading, _, rest = opening.strip().partition("\n")
        return _plain(heading) or "Notebook", _plain(rest.strip().split("\n\n")[0])

    @cached_property
    def pictures(self) -> list[tuple[str, str]]:
        """Each picture as base64, after the heading and the text above it."""
        found, heading = [], ""
        for cell in self.content.cells:
            if cell.cell_type == "markdown":
                heading = (re.findall(r"^#+ (.*)$", cell.source, re.MULTILINE) or [heading])[-1]
            caption = heading
            for data in (output.get("data", {}) for output in cell.get("outputs", [])):
                if "image/png" in data:
                    found.append((caption, "".join(data["image/png"].split())))
                elif "text/markdown" in data:
                    caption = f"{heading}: {_plain(data['text/markdown'])}"
        return found

    def thumbnail(self, which: int = 0) -> str:
        """One of the pictures (0 the first, -1 the last), made small, as a data URI."""
        with Image.open(io.BytesIO(base64.b64decode(self.pictures[which][1]))) as image:
            image.thumbnail((THUMBNAIL_WIDTH, THUMBNAIL_WIDTH))
            small = io.BytesIO()
            image.save(small, "PNG", optimize=True)
        return "data:image/png;base64," + base64.b64encode(small.getvalue()).decode()


def write_notebook_page(
    path: Path, *, index: str, page: Path | None = None, links: Mapping[str, str] | None = None
) -> Path:
    """Write the notebook at `path` as HTML, beside it unless `page` says where, and return that path.

    `index` is the link back; `links` says where links to other notebooks lead instead. Picture n stands at `#figure-n`.
    """
    card = Card(path, path)
    body = _filled(card.content, title=card.words[0], index=index)
    for target, other in (links or {}).items():
        body = body.replace(f'href="{target}"', f'href="{other}"')
    write_atomically(page or card.page, body)
    return page or card.page


@dataclass(frozen=True)
class Report:
    """What the index page at `path` shows: lessons, the fresh run with its scores, claims, pictures and tables.

    `results` are the notebooks of kind report; each of their pictures is shown, and leads to its place in them.
    """

    path: Path
    lessons: Sequence[Card]
    run: Card
    results: Sequence[Card]
    scores: Mapping[str, Any]
    judged: Sequence[Judgement]
    tables: Sequence[Table]
    made_with: str

    def write(self) -> None:
        write_atomically(self.path, _filled(nbformat.v4.new_notebook(), title="fsslib", report=self))


def _filled(notebook: NotebookNode, **resources: Any) -> str:
    told = {one.__name__: one for one in (counted, duration, grouped, reach, place, score_rows)}
    filters = {"markdown2html": markdown_html} | told
    exporter = HTMLExporter(
        template_file=str(TEMPLATE), filters=filters, exclude_input_prompt=True, exclude_output_prompt=True
    )
    highlighting = HtmlFormatter(style="friendly").get_style_defs(".highlight")
    resources |= {"words": WORDS, "rule": RULE, "highlighting": highlighting}
    return exporter.from_notebook_node(notebook, resources)[0]


def grouped(lines: Iterable[Judgement], by: str) -> list[tuple[Any, list[Judgement]]]:
    """Neighbours with the same attribute together, in their order."""
    return [(key, list(group)) for key, group in groupby(lines, attrgetter(by))]


def reach(lines: Iterable[Judgement]) -> float:
    """How far from 0 the furthest interval of some claims ends; 1 if none does."""
    return max((abs(end) for line in lines if line.interval for end in line.interval.ends), default=0) or 1


def place(interval: Interval, furthest: float) -> str:
    """Where the bar of an interval stands in a box from -furthest to +furthest."""
    low, high = (50 + 50 * end / furthest for end in interval.ends)
    return f"left:{low:.1f}%;width:{max(high - low, 1.5):.1f}%"


def duration(seconds: float) -> str:
    """Seconds for people: "48 s", "2 min 5 s"."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
