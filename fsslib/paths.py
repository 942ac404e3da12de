"""Where things are: the project, the files shipped with it, and the data sets on this machine."""

import os
from pathlib import Path
from typing import Literal

PACKAGE = Path(__file__).resolve().parent


def _is_checkout() -> bool:
    # Some published wheels drop a stray pyproject.toml into site-packages, so a file of that name is not enough.
    project_file = PACKAGE.parent / "pyproject.toml"
    return project_file.is_file() and 'name = "fsslib"' in project_file.read_text(encoding="utf-8")


def project_root() -> Path:
    """The folder of the checkout this package is imported from; for an installed wheel, the current folder.

    Results, runs and downloads of somebody who works without a checkout therefore land where they started Python.
    """
    return PACKAGE.parent if _is_checkout() else Path.cwd()


def shipped(kind: Literal["notebooks", "data", "results"]) -> Path:
    """The folder of files that come with fsslib: at the root of a checkout, or the copy inside an installed package."""
    return PACKAGE.parent / kind if _is_checkout() else PACKAGE / "shipped" / kind


def data_root() -> Path:
    """The folder that holds the real data sets, each in the layout of its official archive.

    The environment variable FSSLIB_DATA names it and nothing else does; a relative value counts from `project_root`,
    because notebooks and runs start in different folders. Unset or empty, it is `data/downloads` of the project. The
    folder need not exist: every reader says what it misses there.
    """
    return project_root() / Path(os.environ.get("FSSLIB_DATA") or "data/downloads").expanduser()
