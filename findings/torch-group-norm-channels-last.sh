#!/usr/bin/env bash
# torch on a CPU: the same group norm of the same numbers, a thousand times less exact with channels last.
#
# The memory format is a matter of speed and should not decide about digits. For a map of 650 x 650 places whose mean is
# some times its deviation, as activations before a norm often are, group norm is exact to a millionth when the channels
# come first in memory, and off by a thousandth when they come last: there the places are added up one by one in float32.
# Smaller maps hide it. fsslib, which squeezes large maps with the channels last, takes the means itself.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.15.0 numpy==2.4.6
cat >"$folder/ask.py" <<'END'
import sys

import torch
import torch.nn.functional as F

torch.set_num_threads(1)
errors = {}
for side in (65, 650):
    x = 3 + 0.5 * torch.randn(1, 16, side, side, generator=torch.Generator().manual_seed(0))
    exact = F.group_norm(x.double(), 4)
    for layout in (torch.contiguous_format, torch.channels_last):
        errors[side, layout] = (F.group_norm(x.contiguous(memory_format=layout), 4).double() - exact).abs().max().item()
        print(f"{side} x {side}, {str(layout).removeprefix('torch.'):18} off by at most {errors[side, layout]:.0e}")
print("torch", torch.__version__)
if not errors[650, torch.contiguous_format] < 1e-5 < 2e-4 < errors[650, torch.channels_last]:
    sys.exit("CHANGED: the two layouts are about as exact")
END
"$folder/venv/bin/python" -W ignore "$folder/ask.py"
