"""The rules for notebooks that can be checked without running them: ``python -m tests.notebooks.lint notebooks``.

Every rule keeps a notebook readable or keeps its stored outputs comparable. Cells are named as nbval names them:
"Cell 3" is the fourth code cell, empty ones counted. A cell is *compared* unless its tags hold ``nbval-ignore-output``.
"""

import json
import re
import statistics
import sys
from collections.abc import Iterator
from pathlib import Path

import yaml

KINDS = ("teach", "train", "report", "solve")
INDEX_KEYS = {"file", "kind", "minutes", "datasets", "prerequisites"}
MAX_BYTES, MAX_CODE_CELLS, MEDIAN_LINES, MAX_LINES = 1_000_000, 45, 8, 60
SECTIONS = ("What you will be able to do", "Exercises", "Next")
IGNORE_OUTPUT = "nbval-ignore-output"

BANNED_SOURCE = {
    r"^\s*%%": "a cell magic: its output differs on every run, or it swallows errors",
    r"^\s*%(time|timeit|prun|sx|system)\b": "a timing or shell magic: its output differs on every run",
    r"^\s*(\w+\s*=\s*)?!\w": "a shell command: it does not work on every system",
    r"#\s*NBVAL_": f"a marker comment of nbval: readers see it, use the cell tag {IGNORE_OUTPUT}",
    r"^\s*(from tqdm import|import tqdm\b(?!\.auto))": "plain tqdm: import it from tqdm.auto",
}
BANNED_COMPARED = {
    r"\bclear_output\(": "clear_output: nbval cannot replay it",
    r"\bupdate_display\(|\bdisplay_id\s*=": "an updated display: nbval cannot replay it",
    r";\Z": "a final ';' silences Jupyter but not nbval: end plots with plt.show(), give other values a name",
    r"\bt(qdm|range)\(": f"a progress bar: its text holds a speed, tag the cell {IGNORE_OUTPUT}",
}
BANNED_TAGS = {
    "raises-exception": "papermill stops there; catch the exception and print it",
    "nbval-raises-exception": "papermill stops there; catch the exception and print it",
    "nbval-skip": "the cell would never be tested",
}
HOME = re.compile(r"(?<![\w.])(/(home|Users|root)/|[A-Z]:\\Users\\)\w[^\s'\"]*")
# An absolute path of two parts or more; a slash after a word, a colon, a dot, "<" or another slash is no such path.
MACHINE_PATH = re.compile(r"(?<![\w.:/<~])/[\w.-]+/[\w./-]+|\b[A-Z]:\\Users\\[^\s'\"]*")
ADDRESS = re.compile(r"\b0x[0-9a-fA-F]{6,}\b")
WIDGET, SVG = "application/vnd.jupyter.widget-view+json", "image/svg+xml"


def read_index(folder: Path) -> list[dict]:
    """The rows of ``index.yml`` in ``folder``; none when the file is missing or has another form."""
    path = folder / "index.yml"
    content = yaml.safe_load(path.read_text(encoding="utf-8")) if path.is_file() else None
    rows = content.get("notebooks") if isinstance(content, dict) else None
    return [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []


def notebook_kind(path: Path) -> str | None:
    """What the index beside a notebook says it is, "solve" in the folder of solutions; else None."""
    kind = "solve" if path.parent.name == "solutions" else None
    return next((row.get("kind") for row in read_index(path.parent) if row.get("file") == path.name), kind)


def index_findings(folder: Path) -> list[str]:
    """What is wrong with ``index.yml``: it must list every notebook of its folder once, completely, and no other."""
    rows = read_index(folder)
    if not rows:
        return ["index.yml must hold 'notebooks:', a list of {" + ", ".join(sorted(INDEX_KEYS)) + "}"]
    listed, present = [str(row.get("file")) for row in rows], [path.name for path in sorted(folder.glob("*.ipynb"))]
    found = [f"{name} is not listed" for name in present if name not in listed]
    found += [f"{name} is listed and does not exist" for name in listed if name not in present]
    found += [f"{name} is listed {listed.count(name)} times" for name in sorted(set(listed)) if listed.count(name) > 1]
    for name, row in zip(listed, rows):
        if row.keys() != INDEX_KEYS:
            found.append(f"{name} must have exactly the keys {', '.join(sorted(INDEX_KEYS))}")
        if row.get("kind") not in KINDS:
            found.append(f"{name} has the kind {row.get('kind')!r}; known: {', '.join(KINDS)}")
    return found


def text_of(value: str | list[str]) -> str:
    """Source or output text, which the notebook format stores as a string or as a list of lines."""
    return value if isinstance(value, str) else "".join(value)


def tags_of(cell: dict) -> list[str]:
    """The tags of a cell."""
    return cell.get("metadata", {}).get("tags", [])


def code_cells(notebook: dict) -> Iterator[tuple[str, str, dict]]:
    """Name, source and cell of every code cell that holds code."""
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    for number, cell in enumerate(cells):
        if source := text_of(cell["source"]).strip():
            yield f"Cell {number}", source, cell


def execution_findings(notebook: dict, path: Path) -> list[str]:
    """Why the stored outputs are not those of one run from top to bottom; empty when they are."""
    how = f"run it from a clean kernel and commit the result: python -m fsslib.teaching.execute {path}"
    counts = [cell.get("execution_count") for _, _, cell in code_cells(notebook)]
    if counts != list(range(1, len(counts) + 1)):
        done = sum(count is not None for count in counts)
        return [f"{done} of {len(counts)} code cells are executed, or not in the order 1..n; {how}"]
    if not any(cell.get("outputs") for _, _, cell in code_cells(notebook)):
        return [f"no cell has an output, so nothing would be compared; {how}"]
    return []


def output_findings(cell: dict) -> Iterator[str]:
    """What must not be stored among the outputs of a teaching cell."""
    compared = IGNORE_OUTPUT not in tags_of(cell)
    for output in cell.get("outputs", []):
        data = output.get("data", {})
        texts = [output.get("text", ""), *(text for mime, text in data.items() if mime.startswith("text/"))]
        text = "\n".join(text_of(text) for text in texts)
        if output["output_type"] == "error":
            yield f"a stored error: {output.get('ename')}"
        if SVG in data:
            yield "an SVG picture: nbval compares it letter by letter, store PNG"
        if leak := MACHINE_PATH.search(text):
            yield f"a path of one machine in the output: {leak.group()}"
        if compared and (address := ADDRESS.search(text)):
            yield f"a memory address in a compared output: {address.group()}"
        if compared and WIDGET in data:
            yield f"a widget in a compared cell: tag it {IGNORE_OUTPUT}, with a static figure before it"
        if compared and output.get("name") == "stderr":
            yield "stderr text in a compared cell: a warning or a progress bar"


def shape_findings(notebook: dict, size: int) -> Iterator[str]:
    """Whether a teaching notebook can be read at one sitting, in the order of the house."""
    sources = [source for _, source, _ in code_cells(notebook)]
    prose = [text_of(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "markdown"]
    lengths = [len(source.splitlines()) for source in sources] or [0]
    if size > MAX_BYTES:
        yield f"{size / 1e6:.2f} MB (at most {MAX_BYTES / 1e6:.0f})"
    if len(sources) > MAX_CODE_CELLS:
        yield f"{len(sources)} code cells (at most {MAX_CODE_CELLS})"
    if len(prose) < len(sources):
        yield f"{len(prose)} prose cells for {len(sources)} code cells (at least as many)"
    if statistics.median(lengths) > MEDIAN_LINES or max(lengths) > MAX_LINES:
        yield f"cells of {statistics.median(lengths)} lines in the median, {max(lengths)} at most (limits 8 and 60)"
    headings = re.findall(r"^#+\s+(.*)$", "\n".join(prose), re.MULTILINE)
    places = {name: [n for n, text in enumerate(headings) if re.match(rf"{name}\b", text, re.I)] for name in SECTIONS}
    for name in (name for name in SECTIONS if len(places[name]) != 1):
        yield f"{len(places[name])} headings begin with {name!r} (exactly one)"
    order = [found[0] for found in places.values() if found]
    if order != sorted(order):
        yield f"the sections are not in the order {', '.join(SECTIONS)}"
    following = [*notebook["cells"][1:], {"cell_type": "the end of the notebook"}]
    for cell, after in zip(notebook["cells"], following):
        pictures = {mime for output in cell.get("outputs", []) for mime in output.get("data", {})}
        if pictures & {"image/png", "image/jpeg"} and after["cell_type"] != "markdown":
            yield f"the figure of In [{cell['execution_count']}] is not followed by a sentence that reads it"


def notebook_findings(path: Path) -> list[str]:
    """Everything a notebook does against the rules of its kind, one line each; empty when it keeps them."""
    try:
        notebook = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        return [f"not a readable notebook (a merge conflict?): {error}"]
    kind, metadata, found = notebook_kind(path), notebook["metadata"], []
    if kind not in KINDS:
        found.append(f"index.yml beside it must list it with one of the kinds {', '.join(KINDS)}; found {kind!r}")
    if (kernel := metadata.get("kernelspec", {}).get("name")) != "python3":
        found.append(f"the kernel is named {kernel!r}; others have only 'python3'")
    if "papermill" in metadata or any("papermill" in cell["metadata"] for cell in notebook["cells"]):
        found.append("left-over papermill metadata: commit the notebook, not its executed copy")
    leaks = [HOME.search(text_of(cell["source"])) for cell in notebook["cells"]]
    found += [f"a path of one machine in the text: {leak.group()}" for leak in leaks if leak]
    for name, source, cell in code_cells(notebook):
        banned = dict(BANNED_SOURCE)
        if kind in ("teach", "solve") and IGNORE_OUTPUT not in tags_of(cell):
            banned |= BANNED_COMPARED
        found += [f"{name}: {why}" for pattern, why in banned.items() if re.search(pattern, source, re.MULTILINE)]
        found += [f"{name}: the tag {tag}: {why}" for tag, why in BANNED_TAGS.items() if tag in tags_of(cell)]
    if kind in ("train", "report"):
        tagged = sum("parameters" in tags_of(cell) for cell in notebook["cells"])
        found += [f"{tagged} cells are tagged 'parameters' (exactly one)"] if tagged != 1 else []
        if any(cell.get("outputs") or cell.get("execution_count") for cell in notebook["cells"]):
            found.append("outputs or execution counts are stored; only teaching notebooks keep them")
        return found
    found += execution_findings(notebook, path)
    found += [f"{name}: {why}" for name, _, cell in code_cells(notebook) for why in output_findings(cell)]
    return found + (list(shape_findings(notebook, path.stat().st_size)) if kind == "teach" else [])


def main(arguments: list[str]) -> int:
    """Print the findings of a folder of notebooks; 1 when there are any."""
    folder = Path(arguments[0] if arguments else "notebooks")
    found = [f"{folder / 'index.yml'}: {line}" for line in index_findings(folder)]
    paths = sorted([*folder.glob("*.ipynb"), *folder.glob("solutions/*.ipynb")])
    found += [f"{path}: {line}" for path in paths for line in notebook_findings(path)]
    print("\n".join(found) or f"{folder}: the notebooks keep the rules")
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
