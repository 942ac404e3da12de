#!/usr/bin/env bash
# safetensors and pycocotools: a mask decoded from COCO and saved with safetensors.numpy is read back as another picture.
#
# pycocotools gives its masks column by column (Fortran order). NumPy hides that: equality, sums, slices and np.save are
# right. safetensors.numpy writes the bytes as they lie in memory under the shape of rows, so that the file holds a
# scrambled mask of the right shape, type and number of ones. The note is in the docstring of `save`: "Tensors need to be
# contiguous and dense", which such an array is. The PyTorch side of the same package refuses what is not in rows.
# np.ascontiguousarray before saving is enough.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check numpy==2.4.6 pycocotools==2.0.11 safetensors==0.8.0
"$folder/venv/bin/python" - <<'END'
import io
from importlib.metadata import version

import numpy as np
from pycocotools import mask as coco
from safetensors.numpy import load, save

print("safetensors", version("safetensors"), "pycocotools", version("pycocotools"), "numpy", np.__version__)
drawn = np.zeros((4, 6), np.uint8)
drawn[1, 1:5] = 1
mask = coco.decode(coco.encode(np.asfortranarray(drawn)))
assert (mask == drawn).all()
back = load(save({"mask": mask}))["mask"]
mended = load(save({"mask": np.ascontiguousarray(mask)}))["mask"]
buffer = io.BytesIO()
np.save(buffer, mask)
numpys = np.load(io.BytesIO(buffer.getvalue()))
print("decoded from COCO:", *mask, sep="\n  ")
print("read back:", *back, sep="\n  ")
print("equal:", (back == mask).all(), " by np.save:", (numpys == mask).all(), " in rows first:", (mended == mask).all())
assert (numpys == mask).all() and (mended == mask).all()
assert back.shape == mask.shape and back.sum() == mask.sum()
assert not (back == mask).all(), "CHANGED: the mask comes back as it was"
END
