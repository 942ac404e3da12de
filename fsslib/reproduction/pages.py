"""Executed notebooks as HTML, and the index page over them. No page asks the network for anything.

Formulas become MathML, which browsers draw by themselves; pictures are embedded; a widget, which needs a running
kernel, is named in its place.
"""

import base64
import copy
import html
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import nbformat
from latex2mathml.converter import convert as mathml
from nbconvert import HTMLExporter
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath
from nbformat import NotebookNode
from PIL import Image
from pygments.formatters import HtmlFormatter

from fsslib.episodes import write_atomically

WIDGET = "application/vnd.jupyter.widget-view+json"
THUMBNAIL_WIDTH = 640
SENTENCE = (
    "Cross-domain few-shot semantic segmentation: find, in a picture of another kind, what you have seen outlined "
    "once. Notebooks that teach it, a library behind them, and runs that test the papers' claims."
)


@dataclass(frozen=True)
class Card:
    """One notebook as the index shows it. `executed` need not exist if it failed, which `problem` says."""

    source: Path
    executed: Path
    problem: str | None = None

    @property
    def seconds(self) -> float | None:
        """How long the executed copy took, by papermill's clock."""
        return self.content.metadata.get("papermill", {}).get("duration")

    @property
    def content(self) -> NotebookNode:
        return nbformat.read(self.executed if self.executed.exists() else self.source, as_version=4)


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


def write_notebook_page(path: Path, *, index: str) -> Path:
    """Write the notebook at `path` as HTML beside it and return that path; `index` is the link back."""
    notebook = _without_widgets(nbformat.read(path, as_version=4))
    exporter = HTMLExporter(
        template_name="basic",
        filters={"markdown2html": markdown_html},
        exclude_input_prompt=True,
        exclude_output_prompt=True,
    )
    body, _ = exporter.from_notebook_node(notebook)
    title, _ = title_and_lead(notebook)
    link = f'<nav><a href="{index}">&larr; all notebooks</a></nav>'
    page = path.with_suffix(".html")
    write_atomically(page, _page(title, f'<main class="notebook">{link}{body}{link}</main>'))
    return page


def write_index(
    path: Path, *, lessons: Sequence[Card], run: Card, scores: Mapping[str, Any], tables: str, made_with: str
) -> None:
    """Write the index page: cards of the lessons, the fresh run with its scores, the tables of reference results."""
    body = f"""<header><h1>fsslib</h1><p class="lead">{html.escape(SENTENCE)}</p></header>
<main><h2>Lessons, as they ran here</h2>
<div class="cards">{"".join(_card(lesson, path.parent) for lesson in lessons)}</div>
<h2>Trained and tested on this machine</h2>
<div class="cards beside">{_card(run, path.parent, -1)}<div class="panel">{_score_table(scores)}
<p class="soft">Toy world, 1-shot, in percent, on classes that the training never showed. One short run is one point:
look at it, do not conclude from it.</p></div></div>
<h2>Reference results</h2>
<p class="soft">From the result files that come with the project. To change code and pictures yourself:
<code>make lab</code>.</p>{tables}</main>
<footer>{html.escape(made_with)}</footer>"""
    write_atomically(path, _page("fsslib", body))


def title_and_lead(notebook: NotebookNode) -> tuple[str, str]:
    """The notebook's heading and its first paragraph, both as plain text."""
    text = next((cell.source for cell in notebook.cells if cell.cell_type == "markdown"), "")
    heading, _, rest = text.strip().partition("\n")
    lead = rest.strip().split("\n\n")[0]
    plain = [" ".join(re.sub(r"<[^>]+>", "", markdown_html(part)).split()) for part in (heading, lead)]
    return html.unescape(plain[0]) or "Notebook", html.unescape(plain[1])


def thumbnail(notebook: NotebookNode, which: int = 0) -> str | None:
    """One picture of a notebook's outputs (0 the first, -1 the last), made small, as a data URI; None without any."""
    outputs = [output.get("data", {}) for cell in notebook.cells for output in cell.get("outputs", [])]
    pictures = [data["image/png"] for data in outputs if "image/png" in data]
    if not pictures:
        return None
    with Image.open(io.BytesIO(base64.b64decode(pictures[which]))) as image:
        image.thumbnail((THUMBNAIL_WIDTH, THUMBNAIL_WIDTH))
        small = io.BytesIO()
        image.save(small, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(small.getvalue()).decode()


def _without_widgets(notebook: NotebookNode) -> NotebookNode:
    """A copy in which a widget is a sentence, and every picture has a description for screen readers."""
    notebook = copy.deepcopy(notebook)
    notebook.metadata.pop("widgets", None)
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            if WIDGET in output.get("data", {}):
                output.data = {"text/markdown": "*Interactive: open the notebook with `make lab` to use it.*"}
            elif "image/png" in output.get("data", {}):
                output.metadata.setdefault("image/png", {}).setdefault("alt", "figure drawn by the code above")
    return notebook


def _card(card: Card, base: Path, which_picture: int = 0) -> str:
    title, lead = title_and_lead(card.content)
    picture = thumbnail(card.content, which_picture)
    image = f'<img src="{picture}" alt="" loading="lazy">' if picture else ""
    page = card.executed.with_suffix(".html")
    link = f'href="{page.relative_to(base).as_posix()}"' if page.exists() else ""
    state = f"ran in {duration(card.seconds)}" if card.seconds else "not run"
    if card.problem:
        state = f'<span class="failed">failed</span>: {html.escape(card.problem)}'
    return f"""<a class="card" {link}>{image}
<div><h3>{html.escape(title)}</h3><p>{html.escape(lead)}</p>
<small>{html.escape(card.source.name)} &middot; {state}</small></div></a>"""


def duration(seconds: float) -> str:
    """Seconds for people: "48 s", "2 min 5 s"."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def _score_table(scores: Mapping[str, Any]) -> str:
    if not scores:
        return "<p>No scores: the run did not finish.</p>"
    rows = "".join(
        f"<tr><td>{html.escape(domain)}</td>"
        + "".join(f"<td>{100 * score[key]:.1f}</td>" for key in ("miou", "fb_iou"))
        + f"<td>{score['episodes']}</td></tr>"
        for domain, score in scores.items()
    )
    heads = "".join(f"<th>{name}</th>" for name in ("mIoU", "FB-IoU", "episodes"))
    return f'<div class="table"><table><tr><th>tested in</th>{heads}</tr>{rows}</table></div>'


def _page(title: str, body: str) -> str:
    style = resources.files("fsslib.reproduction").joinpath("pages.css").read_text(encoding="utf-8")
    colours = HtmlFormatter(style="friendly").get_style_defs(".highlight")
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{html.escape(title)}</title><link rel="icon" href="data:,"><style>
{colours}
{style}</style></head><body>
{body}
</body></html>
"""
