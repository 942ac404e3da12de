#!/usr/bin/env bash
# Pillow: a 16-bit grey picture that is turned with BILINEAR or BICUBIC comes back as noise, without an error.
#
# X-rays, depth and label pictures are 16-bit PNGs, which Pillow opens in mode "I;16". NEAREST turns them rightly, and
# `resize` works with every filter; `filter` and `reduce` refuse the mode ("image has wrong mode"). `rotate` and
# `transform` with BILINEAR or BICUBIC do neither: from values around 24,000 they make values below 256. And `paste` of a
# number writes its low byte twice: 5 becomes 1285, 1000 becomes 59624, while `ImageDraw` and `putpixel` write 1000.
# The manual's list of modes says only that there is "limited support" for I;16. Mode "F" or "I" does all this rightly.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check numpy==2.4.6 pillow==13.0.0
"$folder/venv/bin/python" - <<'END'
import io

import numpy as np
import PIL
from PIL import Image

print("Pillow", PIL.__version__)
png = io.BytesIO()
Image.fromarray(np.full((8, 8), 24_000, np.uint16)).save(png, "PNG")
picture = Image.open(png)
print("an even grey of 24000, mode", picture.mode)
centre = {}
for name in ("NEAREST", "BILINEAR", "BICUBIC"):
    how = Image.Resampling[name]
    turned = {mode: np.asarray(picture.convert(mode).rotate(10, how)) for mode in ("I;16", "F")}
    resized = np.asarray(picture.resize((5, 5), how))
    centre[name] = int(turned["I;16"][4, 4])
    print(f"  {name:8} turned by 10 degrees: {centre[name]:5} (as mode F {turned['F'][4, 4]:.0f}), resized {resized[2, 2]}")
    assert abs(turned["F"][4, 4] - 24_000) < 1 and resized[2, 2] == 24_000
picture.paste(1000, (0, 0, 2, 2))
pasted = picture.getpixel((0, 0))
picture.putpixel((5, 5), 1000)
print("  paste(1000, box) wrote", pasted, "and putpixel(..., 1000)", picture.getpixel((5, 5)))
assert centre["NEAREST"] == 24_000
assert centre["BILINEAR"] == 182 and centre["BICUBIC"] < 256, "CHANGED: 24000 is turned into another value"
assert pasted == 59_624, "CHANGED: paste writes another number"
END
