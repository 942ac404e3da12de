#!/usr/bin/env bash
# Snakemake and torch: neither `export OMP_NUM_THREADS=1` nor writing it before a job's command gives torch one thread.
#
# Snakemake sets OMP_NUM_THREADS, MKL_NUM_THREADS and four like them to the rule's `threads` for every shell command,
# over what the user has exported. Setting OMP_NUM_THREADS once more before the command looks like the cure, and `env`
# in the job confirms it. But torch on x86 is built with MKL and starts with as many threads as MKL wants, so the
# other variable wins: two threads where one was asked for twice.
# fsslib had both faults; it now gives the rule as many `threads` as the user's OMP_NUM_THREADS says.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check snakemake==9.27.1 torch==2.15.0 numpy==2.4.6
"$folder/venv/bin/python" -W ignore -c 'import sys, torch; sys.exit(not torch.backends.mkl.is_available())' ||
    { echo "The torch for this machine is built without MKL: nothing of this can be seen here."; exit 1; }
cat >"$folder/ask.py" <<'END'
import os

import torch

print(os.environ["OMP_NUM_THREADS"], os.environ.get("MKL_NUM_THREADS", "-"), torch.get_num_threads())
END
cat >"$folder/Snakefile" <<END
rule all:
    input: "exported.txt", "written.txt"
rule exported:
    output: "exported.txt"
    threads: 2
    shell: "$folder/venv/bin/python ask.py > {output}"
rule written:
    output: "written.txt"
    threads: 2
    shell: "OMP_NUM_THREADS=1 $folder/venv/bin/python ask.py > {output}"
END
cd "$folder"
export OMP_NUM_THREADS=1
unset MKL_NUM_THREADS
echo "snakemake $(venv/bin/snakemake --version), torch $(venv/bin/python -c 'import torch; print(torch.__version__)' 2>/dev/null)"
venv/bin/python ask.py >plain.txt
venv/bin/snakemake --cores 2 --quiet all >snakemake.log 2>&1 || { cat snakemake.log; exit 1; }
echo "OMP_NUM_THREADS, MKL_NUM_THREADS, threads of torch; 1 was exported:"
for file in plain exported written; do echo "  $file: $(cat $file.txt)"; done
[ "$(cat plain.txt)" = "1 - 1" ] || { echo "torch alone does not follow OMP_NUM_THREADS"; exit 1; }
[ "$(cat exported.txt) $(cat written.txt)" = "2 2 2 1 2 2" ] || { echo "CHANGED: a job follows the user"; exit 1; }
