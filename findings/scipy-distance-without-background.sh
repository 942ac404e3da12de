#!/usr/bin/env bash
# SciPy: the distance transform of a mask that fills its picture is the distance to a point beside the picture.
#
# Boundary losses, weights near edges and the Hausdorff distance ask for the distance to the nearest pixel outside of the
# object. An object that fills a crop has none. `distance_transform_edt` then gives plausible numbers, lowest in the upper
# left: the distance to (-1, 0), row above the first, column 0, which `return_indices` admits. Its siblings do otherwise:
# `distance_transform_cdt` gives -1 everywhere, OpenCV about 3.4e38. Turning the picture turns the object but not the answer.
# `np.pad(mask, 1)` before and a crop after makes the picture's border the edge.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    numpy==2.4.6 scipy==1.17.1 opencv-python-headless==5.0.0.93
"$folder/venv/bin/python" - <<'END'
import cv2
import numpy as np
import scipy
from scipy import ndimage

print("scipy", scipy.__version__, "opencv", cv2.__version__)
mask = np.ones((3, 4), np.uint8)
distances, (row, column) = ndimage.distance_transform_edt(mask, return_indices=True)
print("a mask of 3 x 4 ones, its distances:", *distances.round(2), sep="\n  ")
print("nearest background:", {(int(r), int(c)) for r, c in zip(row.flat, column.flat)})
print("cdt:", np.unique(ndimage.distance_transform_cdt(mask)), " OpenCV:", np.unique(cv2.distanceTransform(mask, cv2.DIST_L2, 5)))
print("with a border of background:", *ndimage.distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1], sep="\n  ")
expected = np.hypot(*(np.indices(mask.shape) + np.array([1, 0]).reshape(2, 1, 1)))
assert np.allclose(distances, expected), "CHANGED: a mask without background has other distances"
END
