"""The pages in a real browser, from a file: nothing fetched, nothing cut off, text large enough to read. About 6 s."""

import base64
import json
import re
import shutil
import subprocess
from pathlib import Path
from urllib.parse import unquote

import matplotlib.pyplot as plt
import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from fsslib.reproduction import pages
from fsslib.reproduction.claims import judge, load_claims
from fsslib.reproduction.tables import claims_table, tables

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
PHONE, DESKTOP = 390, 1280

HARNESS = Path(__file__).with_name("browser_harness.html")


def looked_at(folder, *names: str) -> list[dict]:
    """What a browser has to tell of these pages of a folder, each at the width of a phone and of a desk."""
    harness = HARNESS.read_text(encoding="utf-8")
    for name, value in (("PAGES", json.dumps(names)), ("PHONE", PHONE), ("DESKTOP", DESKTOP)):
        harness = harness.replace(name, str(value))
    (folder / "harness.html").write_text(harness, encoding="utf-8")
    options = "--headless --no-sandbox --disable-gpu --allow-file-access-from-files --enable-logging=stderr --dump-dom"
    done = subprocess.run(
        [BROWSER, *options.split(), f"--user-data-dir={folder / 'profile'}", (folder / "harness.html").as_uri()],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert "CONSOLE" not in done.stderr, done.stderr
    found = re.search(r"<pre id=\"told\">(.*?)</pre>", done.stdout)
    assert found, done.stderr + done.stdout[-2000:]
    return json.loads(unquote(found[1]))


@pytest.mark.skipif(BROWSER is None, reason="no chromium to look at pages with")
def test_the_report_is_whole_and_readable_on_a_phone_and_on_a_desk(tmp_path):
    figure, axes = plt.subplots(figsize=(12, 4))
    axes.plot([0, 1])
    figure.savefig(tmp_path / "wide.png")
    plt.close(figure)
    picture = base64.b64encode((tmp_path / "wide.png").read_bytes()).decode()
    outputs = [
        new_output("display_data", data={kind: data})
        for kind, data in (("text/markdown", claims_table().markdown()), ("image/png", picture))
    ]
    outputs.append(new_output("stream", text="a line of output that is long " * 8))
    cells = [
        new_markdown_cell("# Results\n\nOf all.\n\n$$" + "a+" * 60 + "b$$"),
        new_markdown_cell("## A picture"),
        new_code_cell("x = " + " + ".join(map(str, range(60))), outputs=outputs),
    ]
    nbformat.write(new_notebook(cells=cells), tmp_path / "99_results.ipynb")
    card = pages.Card(tmp_path / "99_results.ipynb", tmp_path / "99_results.ipynb")
    pages.write_notebook_page(card.executed, index="index.html")
    pages.Report(
        tmp_path / "index.html",
        lessons=[card] * 3,
        run=card,
        results=[card],
        scores={"underwater": {"miou": 0.4, "fb_iou": 0.6, "episodes": 100}},
        judged=[line for claim in load_claims() for line in judge(claim)],
        tables=[table for group in tables().values() for table in group],
        made_with="Made by a test.",
    ).write()
    told = looked_at(tmp_path, "index.html", "99_results.html")
    assert sorted((line["page"], line["width"]) for line in told) == [
        (page, width) for page in ("99_results.html", "index.html") for width in (PHONE, DESKTOP)
    ]
    for line in told:
        assert line["beyond"] <= 0, line
        assert line["cut"] == [], line
        assert line["smallest"] >= 12, line
        assert (line["pictures"] >= 1, line["broken"], line["fetched"]) == (True, 0, []), line


@pytest.mark.skipif(BROWSER is None, reason="no chromium to look at pages with")
def test_what_is_wrong_is_seen(tmp_path):
    body = "<div style='width: 2000px; font-size: 7px'>wide</div><img src='http://127.0.0.1:9/nothing.png'>"
    (tmp_path / "bad.html").write_text(f"<!doctype html><html><body>{body}</body></html>", encoding="utf-8")
    phone = next(line for line in looked_at(tmp_path, "bad.html") if line["width"] == PHONE)
    assert phone["beyond"] > 1000
    assert (phone["smallest"], phone["broken"]) == (7, 1)
    assert [name for name in phone["fetched"] if name.endswith("nothing.png")]
    assert phone["cut"]
