"""Reading the counts that lie beside a result, to hold its scores against them."""

import hashlib
from pathlib import Path

import numpy as np
import torch

from fsslib.metrics import FewShotMeter, SegmentationMeter, protocol_named
from fsslib.reproduction.experiment import Meter
from fsslib.reproduction.result import read_result


def read_meter(path: Path, domain: str) -> Meter:
    """A domain's counts, question by question, from the file beside a result, which must be the one it names."""
    result = read_result(path)
    stated, rule = result["scores"][domain]["counts"], protocol_named(result["config"]["protocol"])
    file = path.with_name(stated["file"])
    assert hashlib.sha256(file.read_bytes()).hexdigest() == stated["sha256"]
    counts = dict(np.load(file))
    if "names" in counts:
        meter = SegmentationMeter(dict(enumerate(counts.pop("names").tolist())))
    else:
        meter = FewShotMeter(counts.pop("class_ids").tolist(), rule.absent)
    vars(meter).update({name: torch.from_numpy(values) for name, values in counts.items()})
    return meter
