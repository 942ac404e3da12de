#!/usr/bin/env bash
# torch on a CPU: a 1x1 convolution of few images with one thread is the slow one, and a dilation makes it fast.
#
# To a kernel of one place a dilation means nothing, so `dilation=2` should change nothing. But torch keeps 1x1
# convolutions from oneDNN while it has one thread and fewer than 16 images, and takes its own column by column path;
# a dilated one goes to oneDNN as every 3x3 convolution does. A bottleneck ResNet is mostly 1x1 convolutions: with one
# thread and the one or two images of an episode the whole of ResNet-50 gains a quarter to a third by it.
# Which of the two was taken is read off the profiler: no timing is compared here.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.15.0 numpy==2.4.6
cat >"$folder/ask.py" <<'END'
import sys

import torch
import torch.nn.functional as F
from torch.profiler import profile

if not torch.backends.mkldnn.is_available():
    sys.exit("The torch for this machine is built without oneDNN: nothing of this can be seen here.")
found = {}
for threads, images, kernel, dilation in (
    (1, 1, 1, 1), (1, 1, 1, 2), (1, 1, 3, 1), (1, 15, 1, 1), (1, 16, 1, 1), (2, 1, 1, 1)
):
    torch.set_num_threads(threads)
    x, weight = torch.rand(images, 64, 20, 20), torch.rand(64, 64, kernel, kernel)
    with torch.inference_mode(), profile() as seen:
        F.conv2d(x, weight, padding=dilation * (kernel // 2), dilation=dilation)
    names = " ".join(event.key for event in seen.key_averages())
    found[threads, images, kernel, dilation] = "oneDNN" if "mkldnn_convolution" in names else "slow"
    assert ("_slow_conv2d" in names) == (found[threads, images, kernel, dilation] == "slow")
    print(f"{threads} thread(s), {images:2} image(s), {kernel}x{kernel}, dilation {dilation}: {list(found.values())[-1]}")
x, weight = torch.rand(1, 64, 20, 20).double(), torch.rand(64, 64, 1, 1).double()
same = torch.equal(F.conv2d(x, weight), F.conv2d(x, weight, dilation=2))
print("torch", torch.__version__, "- the same numbers:", same)
if list(found.values()) != ["slow", "oneDNN", "oneDNN", "slow", "oneDNN", "oneDNN"] or not same:
    sys.exit("CHANGED: another choice, or other numbers")
END
"$folder/venv/bin/python" -W ignore "$folder/ask.py" 2>"$folder/errors" || { tail -5 "$folder/errors"; exit 1; }
