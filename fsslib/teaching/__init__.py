"""Pictures, exercises and widgets for the notebooks, and what executes them."""

import importlib.util
from functools import cache
from types import ModuleType

from fsslib.paths import shipped


def lessons() -> list[int]:
    """The numbers of the notebooks that have a file of their own in notebooks/lessons, in order."""
    return sorted(int(path.stem[1:]) for path in (shipped("notebooks") / "lessons").glob("n*.py"))


@cache
def lesson(number: int) -> ModuleType:
    """What notebook `number` alone needs: its exercises, figures and widget, from notebooks/lessons/nNN.py.

    Found by its place beside the notebooks, of a checkout or of an installed package, so that no module of the same
    name can be in the way. Raises ValueError for a notebook that has none.
    """
    if number not in lessons():
        raise ValueError(f"Notebook {number} has nothing of its own; there are {', '.join(map(str, lessons()))}.")
    path = shipped("notebooks") / "lessons" / f"n{number:02}.py"
    spec = importlib.util.spec_from_file_location(f"fsslib_lesson_{number:02}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
