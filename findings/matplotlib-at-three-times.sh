#!/usr/bin/env bash
# matplotlib: a label map drawn at exactly three times its size shows classes that are not in it.
#
# One expects of `imshow` what its documentation says: "'nearest' interpolation is used if the image is upsampled by more
# than a factor of three (i.e. the number of display pixels is at least three times the size of the data array)". The
# two halves of that sentence differ at three itself. There the values are smoothed, before they become colours: between
# class 0 and class 15 the numbers in between are drawn, and they are the colours of other classes.
# Two and four times are safe, and so is `interpolation="nearest"`, which fsslib's plots say everywhere.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check numpy==2.4.6 matplotlib==3.11.2
MPLCONFIGDIR="$folder" "$folder/venv/bin/python" - <<'END'
import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure

print("matplotlib", matplotlib.__version__)
palette = np.random.default_rng(0).integers(10, 245, (21, 3))
rows, columns = np.mgrid[:64, :64]
labels = np.where((rows - 32) ** 2 + (columns - 32) ** 2 < 400, 15, 0)


def classes_shown(times, **options):
    figure = Figure(figsize=(0.64 * times, 0.64 * times), dpi=100)
    ax = figure.add_axes((0, 0, 1, 1))
    ax.set_axis_off()
    ax.imshow(labels, cmap=ListedColormap(palette / 255), vmin=0, vmax=20, **options)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    pixels = np.asarray(canvas.buffer_rgba())[..., :3].astype(int)
    near = np.abs(pixels[..., None, :] - palette).max(-1) <= 1
    assert near.any(-1).all(), "a colour of no class"
    return np.flatnonzero(near.any((0, 1))).tolist()


print("a disc of class 15 on class 0, 64 pixels wide, 21 colours; classes in the drawn picture:")
shown = {times: classes_shown(times) for times in (1, 2, 3, 4, 5)}
for times, classes in shown.items():
    print(f"  {times} times: {classes}")
nearest = classes_shown(3, interpolation="nearest")
print("  3 times, interpolation='nearest':", nearest)
assert all(shown[times] == [0, 15] for times in (1, 2, 4, 5)) and nearest == [0, 15], "other factors changed"
assert len(shown[3]) > 4, "CHANGED: three times shows what is there"
END
