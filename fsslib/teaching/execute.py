"""Run teaching notebooks in place: `python -m fsslib.teaching.execute NOTEBOOK ...`.

Each notebook runs from a clean kernel of this Python, in its own folder, without the variables of `HIDDEN_VARIABLES`.
What a reader cannot use or a machine would leave behind is removed (`clean`). A notebook is replaced whole, and only
when every cell ran.
"""

import base64
import io
import os
import sys
from pathlib import Path

import nbformat
import yaml
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from nbformat import NotebookNode
from PIL import Image

from fsslib.files import write_atomically

HIDDEN_VARIABLES = ("FSSLIB_DATA", "MPLBACKEND", "PYTHONWARNINGS")
"""Committed outputs show the toy world only, drawn inline; a reader's data, backend and warning filters change them."""

CELL_SECONDS = 600
WIDGET = "application/vnd.jupyter.widget-view+json"


def run_notebook(path: Path | str) -> NotebookNode:
    """The notebook at `path` with the outputs of one run from top to bottom, cleaned; the file stays as it is.

    Raises ValueError for a notebook that neither `index.yml` beside it calls "teach" nor the folder `solutions` holds,
    and what nbclient raises (CellExecutionError, CellTimeoutError, DeadKernelError) for one that breaks off.
    """
    path = Path(path)
    index = path.parent / "index.yml"
    rows = yaml.safe_load(index.read_text(encoding="utf-8"))["notebooks"] if index.is_file() else []
    kind = "teach" if path.parent.name == "solutions" else None
    if (kind := next((row["kind"] for row in rows if row["file"] == path.name), kind)) != "teach":
        raise ValueError(
            f'{path}: index.yml beside it says kind {kind!r}; only "teach" notebooks keep their outputs. '
            "Run the others with `fsslib run`."
        )
    notebook = nbformat.read(path, as_version=4)
    options = {"kernel_name": "python3", "timeout": CELL_SECONDS, "record_timing": False, "coalesce_streams": True}
    client = NotebookClient(notebook, resources={"metadata": {"path": str(path.parent.resolve())}}, **options)
    client.execute(env={name: value for name, value in os.environ.items() if name not in HIDDEN_VARIABLES})
    return clean(notebook)


def clean(notebook: NotebookNode) -> NotebookNode:
    """Remove what does not belong into a committed notebook, in place; returns it.

    That is: times of execution, papermill's notes, the state of widgets and their views (nothing to show without a
    kernel; the plain text beside them stays), the version of Python, and any name of the kernel but "python3". Figures
    are stored with 256 colours, which the eye does not miss and which makes pictures of photographs a third as large.
    """
    for holder in (notebook, *notebook.cells):
        for key in ("execution", "papermill", "widgets"):
            holder.metadata.pop(key, None)
    for data in (output.get("data", {}) for cell in notebook.cells for output in cell.get("outputs", [])):
        data.pop(WIDGET, None)
        if "image/png" in data:
            data["image/png"] = _lighter(data["image/png"])
    notebook.metadata.kernelspec = {"display_name": "Python 3", "language": "python", "name": "python3"}
    notebook.metadata.get("language_info", {}).pop("version", None)
    return notebook


def _lighter(png: str) -> str:
    """A base64 PNG with a palette of 256 colours, if that is smaller."""
    with Image.open(io.BytesIO(base64.b64decode(png))) as image:
        small = io.BytesIO()
        image.convert("RGB").quantize(256, dither=Image.Dither.NONE).save(small, "PNG", optimize=True)
    return min(png, base64.b64encode(small.getvalue()).decode(), key=len)


def main(names: list[str]) -> int:
    """Run the notebooks one after the other; 1 when one failed (it is left as it was, the others are still run)."""
    if not names:
        print("Name the notebooks to run: python -m fsslib.teaching.execute notebooks/00_start_here.ipynb ...")
    failed = 0 if names else 2
    for name in names:
        try:
            write_atomically(name, nbformat.writes(run_notebook(name)) + "\n")
            print(f"{name}: done")
        except (OSError, ValueError, CellExecutionError, CellTimeoutError, DeadKernelError) as error:
            print(f"{name}: not changed. {error}", file=sys.stderr)
            failed = 1
    return failed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
