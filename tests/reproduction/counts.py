"""Reading the counts that lie beside a result, to hold its scores against them."""

import hashlib
import io
from pathlib import Path

import numpy as np
import torch

from fsslib.metrics import FewShotMeter, SegmentationMeter, protocol_named
from fsslib.reproduction.record import Meter
from fsslib.reproduction.result import read_result


def read_meter(path: Path | str, domain: str) -> Meter:
    """A domain's counts, question by question, from the file beside a result. Raises ValueError if it was changed."""
    result = read_result(path)
    stated, rule = result["scores"][domain]["counts"], protocol_named(result["config"]["protocol"])
    file = Path(path).parent / stated["file"]
    data = file.read_bytes()
    if hashlib.sha256(data).hexdigest() != stated["sha256"]:
        raise ValueError(f"{file} is not the file that {path} was written with: restore it, or repeat the run.")
    with np.load(io.BytesIO(data), allow_pickle=False) as counts:
        arrays = {name: torch.from_numpy(counts[name]) for name in counts.files if name not in ("class_ids", "names")}
        if "confusion" in arrays:
            meter = SegmentationMeter(dict(enumerate(counts["names"].tolist())))
        else:
            meter = FewShotMeter(counts["class_ids"].tolist(), rule.absent)
    for name, values in arrays.items():
        setattr(meter, name, values)
    return meter
