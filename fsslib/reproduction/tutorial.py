"""`fsslib tutorial`: run every lesson, train once at laptop scale, judge the claims, and write `report/index.html`.

Two notebooks run at a time, with one thread each. What is up to date is not repeated: beside each executed notebook
lies a `.key`, the hash of all that it was made from: its own cells, fsslib's code and the files shipped with it, the
versions of the libraries, and where real data lie.
"""

import asyncio
import contextlib
import datetime
import hashlib
import itertools
import os
import re
import sys
import threading
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

import nbformat
import yaml
from papermill.exceptions import PapermillExecutionError
from tqdm import tqdm

from fsslib import paths
from fsslib.reproduction import environment, pages, result
from fsslib.reproduction.claims import judge, load_claims
from fsslib.reproduction.config import RunConfig
from fsslib.reproduction.run import NOTEBOOK, RunError, execute_notebook, run
from fsslib.reproduction.tables import tables

RUN = RunConfig(method="sg_one", data="toy", fold=0, steps=120, episodes=100, output="report/run")
"""The training run of the tutorial: small enough for a laptop, long enough to see something learnt."""

CELL_SECONDS = 600


def main() -> int:
    """Make the report; returns 0, or 1 when a notebook failed. The page's path is printed last.

    Every notebook is tried, whether or not one before it failed; a failed one keeps its copy, and is tried again by the
    next call.
    """
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # a thread for each of the two
    # papermill changes folders: at two places of one process it must be the same one.
    with contextlib.chdir(paths.project_root()):
        return _report(paths.project_root() / "report")


def _report(report: Path) -> int:
    folder, made_from = report / "notebooks", _hash_of_surroundings()
    folder.mkdir(parents=True, exist_ok=True)
    lessons, reports = notebooks_of("teach"), notebooks_of("report")
    # A run that has ended since, or the results file of somebody without a checkout, is a reason to look again.
    runs = [path for runs in ("runs/*/result.json", "results/*.json") for path in sorted(Path().glob(runs))]
    after = _hash([made_from, *((path, path.stat().st_mtime_ns) for path in runs)])
    cards = _two_at_a_time(
        [
            (report / "run" / NOTEBOOK, _train, [made_from, RUN.sha256]),
            # The longest first, so that both threads end together.
            *((folder / name, _execute, [made_from]) for name in sorted(lessons, key=lessons.get, reverse=True)),
            *((folder / name, partial(_execute, here="report/notebooks"), [after]) for name in reports),
        ]
    )

    versions = ", ".join(map(" ".join, environment.package_versions(("torch",)).items()))
    index, run_result = report / "index.html", report / "run" / result.FILE
    pages.Report(
        index,
        lessons=[cards[name] for name in lessons],
        run=cards[NOTEBOOK],
        results=[cards[name] for name in reports],
        scores=result.read_result(run_result)["scores"] if run_result.exists() else {},
        judged=[line for claim in load_claims() for line in judge(claim)],
        tables=[table for group in tables().values() for table in group],
        made_with=f"Made on {datetime.date.today().isoformat()} with {versions}, on {environment.cpu_name()} "
        f"({environment.cpu_cores()} cores).",
    ).write()
    failed = [name for name, card in cards.items() if card.problem]
    if failed:
        print(f"{len(failed)} of {len(cards)} notebooks failed: {', '.join(failed)}", file=sys.stderr)
    print(index)
    return 1 if failed else 0


def notebooks_of(kind: str) -> dict[str, float]:
    """The files of this kind (teach, train or report) in `index.yml`, in its order, and the minutes they take."""
    index = paths.shipped("notebooks") / "index.yml"
    rows = yaml.safe_load(index.read_text(encoding="utf-8"))["notebooks"]
    return {row["file"]: row["minutes"] for row in rows if row["kind"] == kind}


def _two_at_a_time(works: list[tuple]) -> dict[str, pages.Card]:
    """What `_made` makes of each work, by name; a line is printed when one is done.

    The first, which is the training, is done by this thread: Ctrl-C reaches it, so that it writes its checkpoint. The
    other thread ends with the process, and its kernel with it.
    """
    cards, todo, width = {}, iter(works), max(len(executed.name) for executed, *_ in works)
    style = {"bar_format": "{bar:24} {n_fmt}/{total_fmt}  {elapsed}", "leave": False}
    with tqdm(total=len(works), disable=not sys.stderr.isatty(), **style) as bar:

        def do(these: Iterable[tuple]) -> None:
            for work in these:
                card, fresh = _made(*work)
                cards[card.source.name] = card
                outcome = pages.duration(card.seconds or 0) if fresh else "up to date"
                outcome = f"FAILED: {card.problem}" if card.problem else outcome
                tqdm.write(f"{len(cards):{len(str(len(works)))}}/{len(works)}  {card.source.name:{width}}  {outcome}")
                if card.problem and card.executed.exists():
                    tqdm.write(f"     as far as it came: {card.executed}")
                bar.update()

        def help_out() -> None:
            do(todo)
            with contextlib.suppress(RuntimeError):  # it has none if it has run nothing
                asyncio.get_event_loop().close()  # papermill's, of this thread

        first = next(todo)
        other = threading.Thread(target=help_out, daemon=True)
        other.start()
        do(itertools.chain([first], todo))
        other.join()
    return cards


def _made(executed: Path, make: Callable[[Path, Path, str], None], made_from: list[str]) -> tuple[pages.Card, bool]:
    """Run a notebook unless it is up to date: its card, and whether it ran."""
    source = paths.shipped("notebooks") / executed.name
    # Its cells and their tags, not the outputs it is committed with.
    cells = [(c.cell_type, c.metadata.get("tags"), c.source) for c in nbformat.read(source, as_version=4).cells]
    key, (key_file, page) = _hash([*made_from, *cells]), map(executed.with_suffix, (".key", ".html"))
    if all(path.exists() for path in (executed, page, key_file)) and key_file.read_text(encoding="utf-8") == key:
        return pages.Card(source, executed), False
    for path in (key_file, page, executed):  # the key first, for without it the rest counts as nothing
        path.unlink(missing_ok=True)
    problem = None
    try:
        make(source, executed, key)
    except RunError as error:
        problem, executed = str(error).splitlines()[0], error.notebook or executed
    except PapermillExecutionError as error:
        problem = f"cell [{error.exec_count}] ended with {error.ename}: {error.evalue}"
    except Exception as error:  # a kernel that died, a cell that never ended, a full disk
        problem = f"{type(error).__name__}: {error}"
    if executed.exists():
        pages.write_notebook_page(executed, index="../index.html", links=_links(executed))
    if problem is None:
        key_file.write_text(key, encoding="utf-8")
    return pages.Card(source, executed, problem), True


def _execute(source: Path, executed: Path, key: str, here: str = "") -> None:
    """`here` is told to reports, which link to files; their kernel is in the project, that of lessons beside them."""
    place = paths.project_root() if here else source.parent
    options = {"parameters": {"here": here} if here else {}, "resources": {"metadata": {"path": str(place)}}}
    execute_notebook(source, executed, progress_bar=False, execution_timeout=CELL_SECONDS, **options)


def _train(source: Path, executed: Path, key: str) -> None:
    # Noted before the run: an interrupted one goes on from its checkpoint unless something has changed since.
    started = executed.parent / "started.key"
    force = not (started.exists() and started.read_text(encoding="utf-8") == key)
    executed.parent.mkdir(exist_ok=True)
    started.write_text(key, encoding="utf-8")
    run(RUN, force=force)


def _links(executed: Path) -> dict[str, str]:
    """Where the pages of the notebooks are that this one links to; those of runs and solutions are written for it."""
    names = [*notebooks_of("teach"), *notebooks_of("report")]
    found = {NOTEBOOK: f"../run/{Path(NOTEBOOK).stem}.html"} | {n: f"../notebooks/{Path(n).stem}.html" for n in names}
    back = {f"../{target}": page for target, page in found.items()}
    for target in re.findall(r"\]\(([^)#]+\.ipynb)\)", executed.read_text(encoding="utf-8")):
        run_notebook, solutions = executed.parent / target, paths.shipped("notebooks") / target
        there = {run_notebook: f"runs/{run_notebook.parent.name}", solutions: f"solutions/{solutions.stem}"}
        for notebook, page in there.items():
            if target not in found and notebook.is_file():
                found[target] = f"../{page}.html"
                page = paths.project_root() / "report" / f"{page}.html"
                pages.write_notebook_page(notebook, index="../index.html", page=page, links=back)
    return found


def _hash_of_surroundings() -> str:
    """Hash of what all notebooks are made from beside their own cells."""
    real = paths.data_root()
    folders = [paths.PACKAGE, *map(paths.shipped, ("data", "results"))]
    files = {path for folder in folders for path in folder.rglob("*") if path.suffix not in (".pyc", ".ipynb")}
    files |= {*paths.shipped("notebooks").rglob("*.py")}  # the lessons' own code
    made_from = sorted(path for path in files if path.is_file() and not path.is_relative_to(real))
    there = sorted(path.name for path in real.iterdir()) if real.is_dir() else []
    return _hash([*((path, path.read_bytes()) for path in made_from), environment.package_versions(), real, *there])


def _hash(parts: Iterable) -> str:
    return hashlib.sha256(repr(list(parts)).encode()).hexdigest()
