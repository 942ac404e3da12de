"""`make numerics`: the tests and notebooks under other arithmetics than this machine's, a line of a table each.

What hangs on the last digits of a training is green on one processor and red on the next. The rows stand in for other
processors, and `--python` adds one for another torch. A row is kept in results/numerics.json as it ends; an interrupted
run goes on after the last one if no line of code has changed.

python -m tests.numerics                                     all rows; half an hour each on two cores
python -m tests.numerics --only avx2 -- tests/methods -x     one row, and other arguments for pytest than all there is
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from pathlib import Path

from fsslib import paths
from fsslib.files import write_atomically
from fsslib.reproduction.environment import cpu_name

ROOT = paths.project_root()
RESULTS = ROOT / "results" / "numerics.json"
ARITHMETICS = {
    "own": {},
    "two threads": {"OMP_NUM_THREADS": "2", "OMP_WAIT_POLICY": "PASSIVE"},
    "avx2": {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2"},
    "plain": {"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41", "MKL_CBWR": "COMPATIBLE"},
    "no oneDNN": {"PYTHONPATH": os.pathsep.join(["{folder}", str(ROOT)])},
}
OTHER = "another torch"
SWITCH = {
    "no_onednn.py": "import torch\ndef off():\n    torch.backends.mkldnn.set_flags(False)\n",
    "no_onednn-0.dist-info/entry_points.txt": "[torch.backends]\nno_onednn = no_onednn:off\n",
}
"""No variable turns oneDNN off. But torch calls what stands under this entry point in every process that imports it."""
PROBE = """
import torch
torch.manual_seed(0)
layer = torch.nn.Conv2d(16, 32, 3)
layer(torch.randn(4, 16, 33, 33)).square().mean().backward()
units = [torch.backends.cpu.get_cpu_capability(), "oneDNN" if torch.backends.mkldnn.enabled else "no oneDNN"]
gradient = layer.weight.grad.double().sum().item()
print(torch.__version__, f"{', '.join(units)}, threads {torch.get_num_threads()}, {gradient:.17g}", sep="|", end="")
"""
IN_A_KERNEL = """
import nbclient, nbformat, sys
book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(sys.argv[1])])
print(nbclient.NotebookClient(book).execute().cells[0].outputs[0].text, end="")
"""


def code_state() -> str:
    """A hash of everything a test could run; results and documents may change under way."""
    files = (p for folder in ("fsslib", "tests", "notebooks") for p in (ROOT / folder).rglob("*"))
    content = (p.read_bytes() for p in sorted(files) if p.suffix in (".py", ".ipynb", ".yaml", ".yml"))
    return hashlib.sha256(b"\0".join(content)).hexdigest()[:12]


def row_of(name: str, python: str, chosen: list[str], kept: list[dict], folder: Path) -> dict:
    """The row with this name: a kept one, or what pytest now finds. Raises SystemExit if pytest could not finish."""
    for file, text in SWITCH.items():
        write_atomically(folder / file, text)
    changes = {key: value.format(folder=folder) for key, value in ARITHMETICS.get(name, {}).items()}
    how = {"cwd": ROOT, "env": os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)} | changes}
    # In a kernel, for that is where notebooks compute.
    shown = subprocess.run([python, "-c", IN_A_KERNEL, PROBE], capture_output=True, text=True, check=False, **how)
    if shown.returncode:
        raise SystemExit(f"{python} cannot run a notebook under {name!r}:\n{shown.stderr}")
    head = dict(zip(("torch", "shows"), shown.stdout.split("|")), arithmetic=name, processor=cpu_name())
    head |= {"arguments": " ".join(chosen), "code": code_state()}
    if same := [row for row in kept if head.items() <= row.items()]:
        return same[0]
    print(f"== {name}: {head['shows']}, torch {head['torch']}", flush=True)
    command = [python, "-m", "pytest", *chosen, "--nbval", "--nbval-cell-timeout", "600", "-n", "2", "-q"]
    start = time.perf_counter()
    code = subprocess.run([*command, f"--junitxml={folder}/junit.xml"], check=False, **how).returncode
    if code not in (0, 1):
        raise SystemExit(f"pytest ended with {code} under {name!r}: no row is kept for it. Mend that, and go on.")
    cases = list(ElementTree.parse(folder / "junit.xml").iter("testcase"))
    failing = [f"{c.get('classname')}::{c.get('name')}" for c in cases if {"failure", "error"} & {x.tag for x in c}]
    skipped = sum(c.find("skipped") is not None for c in cases)
    counts = {"passed": len(cases) - skipped - len(failing), "failed": len(failing), "skipped": skipped}
    return {**head, **counts, "seconds": round(time.perf_counter() - start), "failing": failing}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.numerics", description=__doc__.splitlines()[0])
    parser.add_argument("--only", action="append", choices=[*ARITHMETICS, OTHER], help="this row; may be repeated")
    parser.add_argument("--python", help=f"the interpreter of an environment for the row {OTHER!r}")
    parser.add_argument("pytest", nargs="*", default=["tests", "notebooks"], help="after --: pytest's arguments")
    given = parser.parse_args(arguments)
    if OTHER in (given.only or ()) and not given.python:
        parser.error(f"the row {OTHER!r} wants --python")
    names = given.only or [*ARITHMETICS, *([OTHER] if given.python else [])]
    kept, rows = json.loads(RESULTS.read_text("utf-8"))["rows"] if RESULTS.exists() else [], []
    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            python = given.python if name == OTHER else sys.executable
            rows.append(row := row_of(name, python, given.pytest, kept, Path(folder)))
        same = ("arithmetic", "torch", "processor", "arguments")
        kept = [old for old in kept if any(old[key] != row[key] for key in same)] + [row]
        lines = ",\n".join(map(json.dumps, kept))
        write_atomically(RESULTS, f'{{"command": "make numerics", "rows": [\n{lines}\n]}}\n')
    columns = "{arithmetic:15}{torch:15}{passed:>8}{failed:>8}{skipped:>8}{seconds:>9}  {shows}"
    print(columns.format_map({key: key for key in rows[0]} | {"shows": "in a kernel, with the sum of a gradient"}))
    for row in rows:
        print(columns.format_map(row), *row["failing"], sep="\n    ")
    return int(any(row["failed"] for row in rows))


if __name__ == "__main__":
    sys.exit(main())
