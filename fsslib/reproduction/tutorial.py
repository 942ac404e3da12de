"""`fsslib tutorial`: run every lesson, train once at laptop scale, judge the claims, and write `report/index.html`.

What is up to date is not repeated. Beside each executed notebook lies a `.key`, the hash of all that it was made from:
its own cells, fsslib's code, the files shipped with fsslib, the versions of the libraries, and where real data lie.
"""

import datetime
import hashlib
import json
import re
import sys
from collections.abc import Callable, Iterable
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
    report = paths.project_root() / "report"
    (report / "notebooks").mkdir(parents=True, exist_ok=True)
    made_from = _hash_of_surroundings()
    folder, reports = report / "notebooks", notebooks_of("report")
    lessons = [_lesson(file, folder, made_from) for file in notebooks_of("teach")]
    after = _hash([made_from, *_runs()])
    jobs = [
        *lessons,
        _training(report / "run", made_from),
        *(_lesson(file, folder, after, here=folder) for file in reports),
    ]
    cards, width = [], max(len(name) for name, _ in jobs)
    style = "{bar:24} {n_fmt}/{total_fmt}  {elapsed}  {desc}"
    with tqdm(jobs, bar_format=style, leave=False, disable=not sys.stderr.isatty()) as bar:
        for number, (name, job) in enumerate(bar, start=1):
            bar.set_description_str(name)
            card, fresh = job()
            cards.append(card)
            outcome = "up to date" if not fresh else "done" if card.seconds is None else pages.duration(card.seconds)
            outcome = f"FAILED: {card.problem}" if card.problem else outcome
            tqdm.write(f"{number:{len(str(len(jobs)))}}/{len(jobs)}  {name:{width}}  {outcome}")
            if card.problem and card.executed.exists():
                tqdm.write(f"     as far as it came: {card.executed}")

    index = report / "index.html"
    run_result = report / "run" / result.FILE
    pages.Report(
        index,
        lessons=cards[: len(lessons)],
        run=cards[len(lessons)],
        results=cards[len(lessons) + 1 :],
        scores=result.read_result(run_result)["scores"] if run_result.exists() else {},
        judged=[line for claim in load_claims() for line in judge(claim)],
        tables=[table for group in tables().values() for table in group],
        made_with=_made_with(),
    ).write()
    failed = [card.source.name for card in cards if card.problem]
    if failed:
        print(f"{len(failed)} of {len(jobs)} notebooks failed: {', '.join(failed)}", file=sys.stderr)
    print(index)
    return 1 if failed else 0


def notebooks_of(kind: str) -> list[str]:
    """The files of this kind (teach, train or report) in `index.yml`, in its order."""
    index = paths.shipped("notebooks") / "index.yml"
    rows = yaml.safe_load(index.read_text(encoding="utf-8"))["notebooks"]
    return [row["file"] for row in rows if row["kind"] == kind]


Job = tuple[str, Callable[[], tuple[pages.Card, bool]]]
"""What is shown while it runs, and the work: a card, and whether the notebook ran (or was up to date)."""


def _lesson(file: str, folder: Path, made_from: str, here: Path | None = None) -> Job:
    """Execute a notebook; `here` is told to those that link to files, which are the reports."""
    source, executed = paths.shipped("notebooks") / file, folder / file

    def job() -> tuple[pages.Card, bool]:
        key = _hash([made_from, *_cells(source)])
        if _is_up_to_date(executed, key):
            return pages.Card(source, executed), False
        _forget(executed)
        problem = None
        try:
            execute_notebook(
                source,
                executed,
                parameters={"here": here.relative_to(paths.project_root()).as_posix()} if here else {},
                cwd=str(paths.project_root() if here else source.parent),
                progress_bar=False,
                execution_timeout=CELL_SECONDS,
            )
        except PapermillExecutionError as error:
            problem = f"cell [{error.exec_count}] ended with {error.ename}: {error.evalue}"
        except Exception as error:  # a kernel that died, a cell that never ended, a full disk
            problem = f"{type(error).__name__}: {error}"
        return _finish(source, executed, key, problem), True

    return file, job


def _training(folder: Path, made_from: str) -> Job:
    source, executed = paths.shipped("notebooks") / NOTEBOOK, folder / NOTEBOOK

    def job() -> tuple[pages.Card, bool]:
        key = _hash([made_from, RUN.sha256, *_cells(source)])
        if _is_up_to_date(executed, key):
            return pages.Card(source, executed), False
        _forget(executed)
        # Noted before the run: an interrupted one goes on from its checkpoint unless something has changed since.
        started = folder / "started.key"
        force = not (started.exists() and started.read_text(encoding="utf-8") == key)
        folder.mkdir(exist_ok=True)
        started.write_text(key, encoding="utf-8")
        try:
            run(RUN, force=force)
        except RunError as error:
            return _finish(source, error.notebook or executed, key, str(error).splitlines()[0]), True
        return _finish(source, executed, key, None), True

    return NOTEBOOK, job


def _finish(source: Path, executed: Path, key: str, problem: str | None) -> pages.Card:
    if executed.exists():
        pages.write_notebook_page(executed, index="../index.html", links=_links(executed))
    if problem is None:
        _key_file(executed).write_text(key, encoding="utf-8")
    return pages.Card(source, executed, problem)


def _links(executed: Path) -> dict[str, str]:
    """Where the pages of the notebooks are that this one links to; those of executed runs are written for it."""
    found = {
        file: f"../notebooks/{Path(file).stem}.html" for kind in ("teach", "report") for file in notebooks_of(kind)
    }
    found[NOTEBOOK] = f"../run/{Path(NOTEBOOK).stem}.html"
    for target in re.findall(r"\]\(([^)#]+\.ipynb)\)", executed.read_text(encoding="utf-8")):
        run_notebook = executed.parent / target
        if target not in found and run_notebook.is_file():
            page = paths.project_root() / "report" / "runs" / f"{run_notebook.parent.name}.html"
            pages.write_notebook_page(run_notebook, index="../index.html", page=page)
            found[target] = f"../runs/{page.name}"
    return found


def _runs() -> list[str]:
    """The finished runs on this machine and when they ended, and the results files of somebody without a checkout."""
    root = paths.project_root()
    found = sorted([*root.glob("runs/*/result.json"), *root.glob("results/*.json")])
    return [f"{path} {path.stat().st_mtime_ns}" for path in found]


def _is_up_to_date(executed: Path, key: str) -> bool:
    there = all(path.exists() for path in (executed, executed.with_suffix(".html"), _key_file(executed)))
    return there and _key_file(executed).read_text(encoding="utf-8") == key


def _forget(executed: Path) -> None:
    """What an earlier call left: the key first, for without it the rest counts as nothing."""
    for path in (_key_file(executed), executed.with_suffix(".html"), executed):
        path.unlink(missing_ok=True)


def _key_file(executed: Path) -> Path:
    return executed.with_suffix(".key")


def _hash_of_surroundings() -> str:
    """Hash of what all notebooks are made from beside their own cells."""
    files = (path for path in paths.PACKAGE.rglob("*") if path.suffix not in (".pyc", ".ipynb"))
    code = [path for path in files if path.is_file()]
    shipped = [path for kind in ("data", "results") for path in paths.shipped(kind).rglob("*") if path.is_file()]
    real = paths.data_root()
    shipped = [path for path in shipped if not path.is_relative_to(real)]
    shipped += paths.shipped("notebooks").rglob("*.py")  # the lessons' own code
    found = sorted(path.name for path in real.iterdir()) if real.is_dir() else []
    contents = [part for path in sorted([*code, *shipped]) for part in (path.as_posix(), path.read_bytes())]
    return _hash([*contents, json.dumps(environment.package_versions()), str(real), *found])


def _cells(notebook: Path) -> list[str]:
    """What makes a notebook's outputs: its cells and their tags, not the outputs it is committed with."""
    cells = nbformat.read(notebook, as_version=4).cells
    return [f"{cell.cell_type} {cell.metadata.get('tags', [])} {cell.source}" for cell in cells]


def _hash(parts: Iterable[str | bytes]) -> str:
    return hashlib.sha256(repr(list(parts)).encode()).hexdigest()


def _made_with() -> str:
    versions = environment.package_versions(("torch",))
    return (
        f"Made on {datetime.date.today().isoformat()} with fsslib {versions['fsslib']}, Python {versions['python']}, "
        f"torch {versions['torch']}, on {environment.cpu_name()} ({environment.cpu_cores()} cores)."
    )
