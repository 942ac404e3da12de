"""Executed notebooks as HTML, and the index page over them. No page asks the network for anything.

Formulas become MathML, which browsers draw by themselves; pictures are embedded; a widget, which needs a running
kernel, is named in its place.
"""

import base64
import copy
import html
import io
import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from itertools import groupby
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
from fsslib.reproduction.claims import RULE, WORDS, Judgement, Test
from fsslib.reproduction.statistics import Interval

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


def write_notebook_page(
    path: Path, *, index: str, page: Path | None = None, links: Mapping[str, str] | None = None
) -> Path:
    """Write the notebook at `path` as HTML, beside it unless `page` says where, and return that path.

    `index` is the link back; `links` says where links to other notebooks lead instead. Picture n stands at `#figure-n`.
    """
    notebook = _without_widgets(nbformat.read(path, as_version=4))
    exporter = HTMLExporter(
        template_name="basic",
        filters={"markdown2html": markdown_html},
        exclude_input_prompt=True,
        exclude_output_prompt=True,
    )
    body, _ = exporter.from_notebook_node(notebook)
    for target, other in (links or {}).items():
        body = body.replace(f'href="{target}"', f'href="{other}"')
    number = itertools.count()
    body = re.sub(r'<img (?=[^>]*src="data:image/png)', lambda _: f'<img id="figure-{next(number)}" ', body)
    title, _ = title_and_lead(notebook)
    link = f'<nav><a href="{index}">&larr; all notebooks</a></nav>'
    page = page or path.with_suffix(".html")
    page.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(page, _page(title, f'<main class="notebook">{link}{body}{link}</main>'))
    return page


def write_index(
    path: Path,
    *,
    lessons: Sequence[Card],
    run: Card,
    results: Sequence[Card] = (),
    scores: Mapping[str, Any],
    claims: str = "",
    tables: str,
    made_with: str,
) -> None:
    """Write the index page: the claims, the lessons, the fresh run with its scores, the pictures and tables of results.

    `results` are the notebooks of kind report; each of their pictures is shown, and leads to its place in them.
    """
    body = f"""<header><h1>fsslib</h1><p class="lead">{html.escape(SENTENCE)}</p>
<nav><a href="#lessons">Lessons</a> <a href="#run">This machine</a> <a href="#claims">Claims</a>
<a href="#pictures">Pictures</a> <a href="#tables">Tables</a></nav></header>
<main><h2 id="lessons">Lessons, as they ran here</h2>
<div class="cards">{"".join(_card(lesson, path.parent) for lesson in lessons)}</div>
<h2 id="run">Trained and tested on this machine</h2>
<div class="cards beside">{_card(run, path.parent, -1)}<div class="panel">{_score_table(scores)}
<p class="soft">Toy world, 1-shot, in percent, on classes that the training never showed. One short run is one point:
look at it, do not conclude from it.</p></div></div>
<h2 id="claims">What the papers claim, and what became of it</h2>{claims}
<h2 id="pictures">Results in pictures</h2>
<div class="cards">{"".join(_card(card, path.parent) for card in results)}</div>
{"".join(_gallery(card, path.parent) for card in results)}
<h2 id="tables">Reference results</h2>
<p class="soft">From the result files that come with the project. To change code and pictures yourself:
<code>make lab</code>.</p>{tables}</main>
<footer>{html.escape(made_with)}</footer>"""
    write_atomically(path, _page("fsslib", body))


def claims_html(judged: Sequence[Judgement]) -> str:
    """The verdicts, claim by claim: what the paper says, and for each place of each test the interval and the word."""
    tally = ", ".join(
        f"<b class='{word.replace(' ', '-')}'>{word}</b> {sum(x.word == word for x in judged)}" for word in WORDS
    )
    parts = [f"<p>{tally}</p><p class='soft'>{html.escape(RULE)}</p>"]
    for paper, of_paper in groupby(judged, lambda x: x.claim.paper):
        of_paper = list(of_paper)
        reach = max((abs(end) for x in of_paper if x.interval for end in _span(x.interval)), default=0) or 1
        scale = f"<small>bars from -{reach:.1f} to +{reach:.1f}</small>"
        parts.append(f"<h3>{html.escape(paper)} {scale}</h3><div class='claims'>")
        for claim, of_claim in groupby(of_paper, lambda x: x.claim):
            parts.append(f"<section id='{claim.id}'><h4>{html.escape(claim.claim)}</h4>")
            said = (("The paper", claim.says.strip("–")), ("Here", claim.instead))
            parts += [f"<p>{who}: {html.escape(text)}.</p>" for who, text in said if text]
            for test, lines in groupby(of_claim, lambda x: x.test):
                parts.append(_test_html(test, list(lines), reach))
            parts.append("</section>")
        parts.append("</div>")
    return "\n".join(parts)


def _test_html(test: Test | None, lines: Sequence[Judgement], reach: float) -> str:
    if test is None:
        return "<p><b class='not-run'>not run</b></p>"
    rows = []
    for line in lines:
        bar = said = ""
        if line.interval:
            low, high = (50 + 50 * end / reach for end in _span(line.interval))
            place = f"left:{low:.1f}%;width:{max(high - low, 1.5):.1f}%"
            bar = f"<i class='{line.word.replace(' ', '-')}' style='{place}'></i>"
            said = str(line.interval).replace(", too few for an interval", "")
        rows.append(
            f"<tr><td>{html.escape(line.column)}<span class='range'>{bar}</span></td>"
            f"<td><b class='{line.word.replace(' ', '-')}'>{line.word}</b> <small>{said}</small></td></tr>"
        )
    known = "" if test.fixed == "before" else ", compared when the numbers were known"
    caption = f"{html.escape(test.compared)} <small>{html.escape(f'{test.world}, {test.plan}')}{known}</small>"
    return f"<div class='table'><table><caption>{caption}</caption>{''.join(rows)}</table></div>"


def _span(interval: Interval) -> tuple[float, float]:
    return (interval.mean, interval.mean) if interval.low is None else (interval.low, interval.high)


def _gallery(card: Card, base: Path) -> str:
    """The pictures of an executed notebook, each under the heading and the text above it, as links to their places."""
    page = card.executed.with_suffix(".html")
    if not page.exists():
        return ""
    found, heading = [], ""
    for cell in card.content.cells:
        if cell.cell_type == "markdown":
            heading = (re.findall(r"^#+ (.*)$", cell.source, re.MULTILINE) or [heading])[-1]
        caption = heading
        for data in (output.get("data", {}) for output in cell.get("outputs", [])):
            if "image/png" in data:
                found.append((caption, data["image/png"]))
            elif "text/markdown" in data:
                caption = f"{heading}: {_plain(data['text/markdown'])}"
    return (
        "<div class='gallery'>"
        + "".join(
            f"<a href='{page.relative_to(base).as_posix()}#figure-{number}'><figure>"
            f"<img src='data:image/png;base64,{''.join(picture.split())}' alt='{html.escape(title)}'>"
            f"<figcaption>{html.escape(title)}</figcaption></figure></a>"
            for number, (title, picture) in enumerate(found)
        )
        + "</div>"
    )


def title_and_lead(notebook: NotebookNode) -> tuple[str, str]:
    """The notebook's heading and its first paragraph, both as plain text."""
    text = next((cell.source for cell in notebook.cells if cell.cell_type == "markdown"), "")
    heading, _, rest = text.strip().partition("\n")
    lead = rest.strip().split("\n\n")[0]
    return _plain(heading) or "Notebook", _plain(lead)


def _plain(markdown: str) -> str:
    return html.unescape(" ".join(re.sub(r"<[^>]+>", "", markdown_html(markdown)).split()))


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
    image = f'<img src="{picture}" alt="">' if picture else ""
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
