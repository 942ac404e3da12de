"""`python -m fsslib.reproduction.scheduler`: Snakemake, but it ends when its parent does, however that ended."""

import os
import signal
import sys
import threading
import time

PARENT = "FSSLIB_PARENT"


def main() -> None:
    """Run Snakemake on this process's arguments while the process that the environment variable PARENT names lives."""

    def watch(parent: int) -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os.killpg(0, signal.SIGINT)  # Snakemake and the runs it started

    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs are born deaf to it
    threading.Thread(target=watch, args=(int(os.environ[PARENT]),), daemon=True).start()
    from snakemake.cli import main as snakemake

    sys.argv[0] = "snakemake"
    snakemake()


if __name__ == "__main__":
    main()
