"""A real SLURM on this machine alone, and the plan `smoke` on it: through Snakemake, then as a plain job array.

    apt-get install slurm-wlm munge && pip install snakemake-executor-plugin-slurm
    python -m tests.cluster.single_node

As root, for SLURM reads its configuration from /etc and starts jobs as other users. Everything listens on the loopback
address; everything that was started is stopped at the end, also when something fails on the way. Eight minutes on two
busy cores.
"""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from fsslib import paths
from fsslib.reproduction import plans
from fsslib.reproduction.run import sigterm_interrupts

SETTINGS = Path("/etc/slurm/slurm.conf")
"""SLURM's own place: a variable that names another reaches `sbatch`, but not what Snakemake starts inside a job."""

PROFILE = Path(__file__).parent / "profile"
MARK = "# written by fsslib's tests/cluster/single_node.py, and removed by it"


@contextlib.contextmanager
def slurm() -> Iterator[None]:
    """munge, slurmctld and slurmd with one node and one partition, "main"."""
    missing = [name for name in ("munged", "slurmctld", "slurmd", "sbatch") if not shutil.which(name, path=_path())]
    if missing or os.geteuid() != 0:
        raise SystemExit(f"This needs root and {', '.join(missing) or 'nothing else'}: apt-get install slurm-wlm munge")
    if SETTINGS.exists() and MARK not in SETTINGS.read_text(encoding="utf-8"):
        raise SystemExit(f"{SETTINGS} is there: this machine has a SLURM of its own, which is left alone.")
    folder = Path(tempfile.mkdtemp(prefix="slurm-"))
    SETTINGS.write_text(_settings(folder), encoding="utf-8")
    run_munge = Path("/run/munge")
    run_munge.mkdir(exist_ok=True)
    shutil.chown(run_munge, "munge", "munge")
    try:
        _call("runuser", "-u", "munge", "--", "munged", "--force")
        _call("slurmctld", "-c")
        _call("slurmd")
        _wait_for(lambda: _said("sinfo", "-h", "-o", "%T") == "idle", f"SLURM did not start; its logs are in {folder}")
        yield
    finally:
        _said("scancel", "--user", "root")
        _comes_true(lambda: not _said("squeue", "-h"))
        files = (folder / "slurmd.pid", folder / "slurmctld.pid", run_munge / "munged.pid")
        processes = [Path("/proc", file.read_text(encoding="utf-8").strip()) for file in files if file.exists()]
        for number in (signal.SIGTERM, signal.SIGKILL):
            for process in filter(Path.exists, processes):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(process.name), number)
            _comes_true(lambda: not any(map(Path.exists, processes)), 20)
        SETTINGS.unlink()


def _settings(folder: Path) -> str:
    host, memory = socket.gethostname(), os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20
    ports = [_free_port(), _free_port()]
    return f"""{MARK}
ClusterName=single
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
AuthType=auth/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
ReturnToService=2
NodeName={host} NodeAddr=127.0.0.1 CPUs={os.cpu_count()} RealMemory={memory * 9 // 10} State=UNKNOWN
PartitionName=main Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _path() -> str:
    return os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])


def _call(*command: str) -> None:
    subprocess.run(command, check=True, env=os.environ | {"PATH": _path()})


def _said(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60).stdout.strip()


def _wait_for(condition: Callable[[], bool], problem: str, seconds: float = 60) -> None:
    if not _comes_true(condition, seconds):
        raise SystemExit(problem)


def _comes_true(condition: Callable[[], bool], seconds: float = 60) -> bool:
    until = time.monotonic() + seconds
    while not (true := condition()) and time.monotonic() < until:
        time.sleep(0.5)
    return true


def _interrupt_once(plan: plans.Plan) -> bool:
    """Start the plan, end the command while a job runs, and tell whether SLURM has no job of it any more."""
    command = [sys.executable, "-m", "fsslib.cli", "reproduce", plan.name, "--profile", str(PROFILE)]
    process = subprocess.Popen(command, cwd=paths.project_root())
    _wait_for(lambda: _said("squeue", "-h", "-t", "R") != "", "no job was started", 300)
    process.send_signal(signal.SIGTERM)
    process.wait()
    _wait_for(lambda: _said("squeue", "-h") == "", "jobs go on after the command was ended")
    return process.returncode == 130


def _as_array(plan: plans.Plan) -> None:
    task = f"exec {sys.executable} -m fsslib.cli run {plan.name} --index $SLURM_ARRAY_TASK_ID"
    root, last = paths.project_root(), len(plan.order()) - 1
    log = root / "runs" / "array-%a.log"
    options = ["--wait", "--mem=4000", f"--array=0-{last}", "--chdir", str(root), "--output", str(log)]
    _call("sbatch", *options, "--wrap", task)


def main() -> int:
    plan = plans.Plan.load("smoke")
    ways = {
        "through Snakemake, ended once on the way": lambda: _interrupt_once(plan),
        "as a job array": lambda: _as_array(plan),
    }
    problems = []
    with sigterm_interrupts(), slurm():
        for way, work in ways.items():
            for _, config in plan.order():
                shutil.rmtree(config.folder, ignore_errors=True)
            started = time.monotonic()
            if work() is False:
                problems.append("the command was ended, but did not say so")
            problems += plans.carry_out(plan, profile=PROFILE)
            print(
                f"{len(plan.order())} runs {way}: {time.monotonic() - started:.0f} s; problems: {problems}", flush=True
            )
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
