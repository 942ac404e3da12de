"""One run: a config goes into the training notebook through papermill, and a result file comes out or an error.

papermill by itself accepts misspelt parameters, a notebook whose `parameters` tag was lost and a folder it cannot write
to, turns `false` into text, and leaves a notebook that looks fine when it was killed. So the notebook is inspected
first, gets typed values, and a run counts as done only when papermill returned, no cell shows an error, and
`result.json`, which the notebook writes last, is there and is this config's.
"""

import contextlib
import os
import platform
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import filelock
import yaml

from fsslib import paths
from fsslib.files import write_atomically
from fsslib.reproduction import result
from fsslib.reproduction.config import RunConfig, load, parse
from fsslib.reproduction.result import CHECKPOINT, RunError, RunInterrupted

# nbformat imports jsonschema, which builds a grammar of international links, a kind of text that no notebook's schema
# has. That takes as long as all else here; without the optional module jsonschema leaves the check out.
with contextlib.ExitStack() as at_the_end:
    if sys.modules.setdefault("rfc3987_syntax", None) is None:
        at_the_end.callback(sys.modules.pop, "rfc3987_syntax")
    import nbformat
    import papermill
    from jupyter_client.kernelspec import KernelSpec
    from jupyter_client.manager import AsyncKernelManager
    from nbclient.exceptions import DeadKernelError
    from papermill.exceptions import PapermillExecutionError

NOTEBOOK = "90_train_and_evaluate.ipynb"
CONFIG = "run-config.yaml"

KERNEL_SECONDS = 2.0
"""How long the kernel of a runner that was killed may go on: it looks for its parent once a second."""

IN_THE_KERNEL = "__import__('gc').set_threshold(10_000); __import__('atexit').register(__import__('os')._exit, 0)"
"""While torch is imported, one tenth of the time goes into looking for garbage that is not there. At the end of a run,
for which everybody waits, it would be taken to pieces for over a second."""


class ThisPython(AsyncKernelManager):
    """Starts kernels with this interpreter and this copy of fsslib, whatever kernels the machine has installed."""

    # After an interrupt the training cell writes a checkpoint; only a kernel that hangs needs this long.
    shutdown_wait_time = 60.0

    @property
    def kernel_spec(self) -> KernelSpec:
        # An installed fsslib is found anyway, and an environment's packages must not come before Python's own.
        checkout = [str(paths.PACKAGE.parent)] if paths.project_root() == paths.PACKAGE.parent else []
        search = [*checkout, *filter(None, [os.environ.get("PYTHONPATH")])]
        return KernelSpec(
            # ipykernel warns of unencrypted local connections at every start, and of sockets at an interrupted end.
            argv=[
                *(sys.executable, "-m", "ipykernel_launcher", "--IPKernelApp.log_level=50"),
                *(f"--IPKernelApp.exec_lines={IN_THE_KERNEL}", "-f", "{connection_file}"),
            ],
            # An inherited MPLBACKEND would leave notebooks without pictures.
            env={"PYTHONPATH": os.pathsep.join(search), "MPLBACKEND": "module://matplotlib_inline.backend_inline"},
            name="python3",
            display_name="Python 3",
            language="python",
        )


def _plain(path: Path) -> str:
    """The path for papermill, which would read braces in it as placeholders."""
    return str(path).replace("{", "{{").replace("}", "}}")


def execute_notebook(source: Path, target: Path, **options: Any) -> nbformat.NotebookNode:
    """papermill's execution of `source` into `target`, by this Python and whatever characters the paths hold."""
    how = {"kernel_name": "python3", "kernel_manager_class": ThisPython, "start_timeout": 300}
    return papermill.execute_notebook(_plain(source), _plain(target), **how, **options)


def run(
    config: RunConfig,
    *,
    force: bool = False,
    wait: bool = False,
    log_output: bool = False,
    notebook: Path | str | None = None,
) -> Path:
    """Execute the training notebook with these parameters and return the path of its `result.json`.

    All files go to `config.folder`. A run that is finished there is not repeated; one that was interrupted goes on from
    its checkpoint; `force` starts it afresh. Where another process is at this run, `wait` waits for it to end and does
    what is left, most often nothing. `log_output` shows what the notebook prints while it runs. `notebook` names
    another notebook with the same parameters than the shipped one.

    Raises RunError when the notebook does not take exactly the config's parameters, the folder cannot be written,
    belongs to another config or is in use, and when the run fails: its notebook is then kept as `*.failed.ipynb`, with
    papermill's note of the error on top. Raises RunInterrupted on Ctrl-C and SIGTERM.
    """
    notebook = Path(notebook) if notebook else paths.shipped("notebooks") / NOTEBOOK
    check_notebook(notebook)
    folder = config.folder.absolute()
    finished, done = folder / result.FILE, folder / notebook.name
    partial, failed = done.with_suffix(".partial.ipynb"), done.with_suffix(".failed.ipynb")
    with only_runner_in(folder, wait):
        if force:  # Only what a run writes goes: the folder is the user's, and may hold other things.
            for path in (folder / CONFIG, finished, folder / CHECKPOINT, done, partial, failed):
                path.unlink(missing_ok=True)
        check_belongs_to(folder, config)
        if finished.exists():
            if partial.exists() and not done.exists():  # It was killed after its last cell.
                os.replace(partial, done)
            return finished
        stated = config.model_dump(mode="json", exclude={"output"})
        write_atomically(folder / CONFIG, yaml.safe_dump(stated, sort_keys=False))
        try:
            with sigterm_interrupts(), _a_gpu_of_its_own(config.device):
                _execute(config, notebook, partial, log_output)
        except KeyboardInterrupt as interrupt:
            how = "without force " if force else ""
            raise RunInterrupted(f"Interrupted in {folder}. The same call {how}{goes_on(folder)}.") from interrupt
        except Exception as error:
            if partial.exists():
                os.replace(partial, failed)
            raise RunError(_what_failed(error), failed if failed.exists() else None) from error
        os.replace(partial, done)
        failed.unlink(missing_ok=True)
    return finished


def _execute(config: RunConfig, notebook: Path, target: Path, log_output: bool) -> None:
    """Run the notebook and raise RunError where papermill lets pass what is no finished run."""
    executed = execute_notebook(
        notebook,
        target,
        parameters=config.model_dump(mode="json") | {"output": str(target.parent)},
        cwd=str(paths.project_root()),
        progress_bar=sys.stderr.isatty(),
        stdout_file=sys.stdout if log_output else None,
        stderr_file=sys.stderr if log_output else None,
    )
    for cell in executed.cells:
        for output in cell.get("outputs", []):
            if output.output_type == "error":
                raise RunError(f"Cell [{cell.execution_count}] ended with {output.ename}: {output.evalue}")
    if not (file := target.with_name(result.FILE)).exists():
        raise RunError(f"The notebook ended without writing {file.name}: its last cell must write the record.")
    if result.config_of(file).sha256 != config.sha256:
        raise RunError(f"{file.name} was written for other parameters than the run's.")


def _what_failed(error: Exception) -> str:
    if isinstance(error, RunError):
        return str(error)
    if isinstance(error, PapermillExecutionError):
        return f"The run failed in cell [{error.exec_count}] with {error.ename}: {error.evalue}"
    if isinstance(error, DeadKernelError):
        return "The run's kernel died, most often because memory ran out: try a smaller batch_size or image_size."
    return f"The run failed outside of its cells with {type(error).__name__}: {error}"


def goes_on(folder: Path) -> str:
    """What the next call does with a run that did not end."""
    return "goes on from its checkpoint" if (folder / CHECKPOINT).exists() else "starts at the first step"


def check_notebook(path: Path) -> None:
    """Raise RunError unless one cell is tagged `parameters` and sets exactly RunConfig's fields."""
    try:
        cells = nbformat.read(path, as_version=4).cells
    except FileNotFoundError as error:
        raise RunError(f"There is no notebook {path}. Install fsslib again, or restore the file.") from error
    except Exception as error:
        raise RunError(f"{path} cannot be read as a notebook ({error}). Restore the file.") from error
    tagged = [cell for cell in cells if "parameters" in cell.metadata.get("tags", [])]
    if len(tagged) != 1:
        raise RunError(
            f"{path} has {len(tagged)} cells tagged 'parameters'; a run needs exactly one, else its values would not "
            "arrive. Tag the cell that sets the parameters (in JupyterLab: property inspector, cell tags)."
        )
    found, wanted = set(papermill.inspect_notebook(_plain(path))), set(RunConfig.model_fields)
    if found != wanted:
        lacks, extra = ", ".join(sorted(wanted - found)), ", ".join(sorted(found - wanted))
        raise RunError(
            f"The parameters of {path} are not those of RunConfig: it lacks {lacks or 'nothing'}; RunConfig does not "
            f"know {extra or 'nothing else'}. Give both the same names, in lines such as 'fold: int = 0'."
        )


def check_belongs_to(folder: Path, config: RunConfig) -> None:
    """Raise RunError when the folder holds the checkpoint or the result of another config."""
    stated = {folder / result.FILE: result.config_of}
    if (folder / CHECKPOINT).exists():
        stated = {folder / CONFIG: lambda path: parse(load(path))} | stated
    for path, read in ((path, read) for path, read in stated.items() if path.exists()):
        try:
            other = read(path)
        except ValueError as error:
            raise RunError(
                f"{path} is damaged or of another version ({error}). Delete it, or start afresh (force)."
            ) from error
        if other.sha256 != config.sha256:
            mine, theirs = (one.model_dump(exclude={"output", "device"}) for one in (config, other))
            differing = [name for name in mine if mine[name] != theirs[name]]
            raise RunError(
                f"{folder} belongs to a run with {', '.join(f'{n} = {theirs[n]!r}' for n in differing)}; this one has "
                f"{', '.join(f'{n} = {mine[n]!r}' for n in differing)}. Choose another output, or start afresh (force)."
            )


@contextlib.contextmanager
def only_runner_in(folder: Path, wait: bool = False) -> Iterator[None]:
    """Make the folder and hold its lock; the system lets go of it when this process ends, however it ends."""
    lock, owner = filelock.FileLock(folder / ".lock", timeout=-1 if wait else 0), folder / ".runner"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except filelock.Timeout as error:
        who = owner.read_text(encoding="utf-8") if owner.exists() else "another process"
        raise RunError(f"{folder} is in use by {who}. Wait for it, or choose another output.") from error
    except OSError as error:
        raise RunError(
            f"The output folder {folder} cannot be written to ({error.strerror}). Choose another with output=..., or "
            "change its permissions."
        ) from error
    try:
        killed = owner.exists()
        owner.write_text(f"process {os.getpid()} on {platform.node()}", encoding="utf-8")
        if killed:  # The last runner, whose kernel may not have noticed yet.
            time.sleep(KERNEL_SECONDS)
            for half_written in folder.glob(f".{CHECKPOINT}.*"):
                half_written.unlink(missing_ok=True)
        yield
    finally:
        owner.unlink(missing_ok=True)
        lock.release()


@contextlib.contextmanager
def sigterm_interrupts() -> Iterator[None]:
    """Treat SIGTERM, which batch systems send before they kill, as Ctrl-C: time enough for a checkpoint."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _a_gpu_of_its_own(device: str) -> contextlib.AbstractContextManager:
    """Where FSSLIB_GPUS names several GPUs of this machine, show the kernel one that no other run has; its lock."""
    names = [name for name in os.environ.get("FSSLIB_GPUS", "").split(",") if name and device != "cpu"]
    while len(names) > 1:
        for name in names:
            # By user: nobody may open the files of others there.
            path = Path(tempfile.gettempdir(), f"fsslib-gpu-{os.getuid()}-{name}.lock")
            with contextlib.suppress(filelock.Timeout):
                held = filelock.FileLock(path, timeout=0).acquire()
                os.environ["CUDA_VISIBLE_DEVICES"] = name
                return held
        time.sleep(1)
    return contextlib.nullcontext()
