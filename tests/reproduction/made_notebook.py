"""Small notebooks with the training notebook's parameters, for tests of the runner that need no training."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from fsslib.reproduction.config import RunConfig

DEFAULTS = RunConfig().model_dump(mode="json")

WRITE_RESULT = """
import json, pathlib
values = {name: globals()[name] for name in NAMES if name != "output"}
pathlib.Path(output, "result.json").write_text(json.dumps({"schema_version": 1, "config": values, "scores": {}}))
""".replace("NAMES", repr(list(DEFAULTS)))

COUNT = "import pathlib; log = pathlib.Path(output, 'tries'); log.open('a').write('x'); tries = log.read_text()"


def write_notebook(
    path: Path, *cells: str, parameters: Mapping[str, Any] | str = DEFAULTS, tags: tuple[str, ...] = ("parameters",)
) -> Path:
    """A notebook with a parameters cell (made of literals, or given as source) followed by `cells`."""
    if not isinstance(parameters, str):
        parameters = "\n".join(f"{name} = {value!r}" for name, value in parameters.items())
    code = [new_code_cell(parameters, metadata={"tags": list(tags)}), *(new_code_cell(cell) for cell in cells)]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    notebook = new_notebook(cells=[new_markdown_cell("# A made notebook"), *code], metadata={"kernelspec": kernel})
    nbformat.write(notebook, path)
    return path


def wait_for(condition, seconds=300) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it never came to pass"
        time.sleep(0.1)
