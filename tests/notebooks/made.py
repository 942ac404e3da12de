"""Notebooks made by hand for the tests of the plugin, of the rules and of what executes them."""

import json


def code(source: str, *outputs: dict, tags: tuple[str, ...] = ()) -> dict:
    """A code cell with stored outputs; `teaching` counts it as executed."""
    return {"cell_type": "code", "source": source, "outputs": list(outputs), "metadata": {"tags": list(tags)}}


def stdout(text: str) -> dict:
    return {"output_type": "stream", "name": "stdout", "text": text}


def result(**texts: str) -> dict:
    data = {f"text/{kind}": text for kind, text in texts.items()}
    return {"output_type": "execute_result", "data": data, "metadata": {}, "execution_count": 1}


def prose(text: str) -> dict:
    return {"cell_type": "markdown", "source": text, "metadata": {}}


def teaching(*cells: dict, executed: int | None = None) -> dict:
    """A notebook that keeps every rule but what ``cells`` break; only the first ``executed`` cells carry a count."""
    count = 0
    for cell in cells:
        if cell["cell_type"] == "code":
            count += 1
            cell["execution_count"] = count if executed is None or count <= executed else None
    frame = [prose("# Title\n\n## What you will be able to do")]
    frame += [part for cell in cells for part in (prose("What comes:"), cell)]
    frame += [prose("## Exercises"), prose("## Next: more")]
    cells_with_ids = [{**cell, "id": f"cell-{number}"} for number, cell in enumerate(frame)]
    metadata = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    return {"cells": cells_with_ids, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}


def index_of(kinds: dict[str, str]) -> str:
    """An index.yml of notebooks by name."""
    rows = [{"file": n, "kind": kind, "minutes": 1, "datasets": [], "prerequisites": []} for n, kind in kinds.items()]
    return json.dumps({"notebooks": rows})
