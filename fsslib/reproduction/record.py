"""Writing the record of a run: `result.json`, last and whole; the losses and all episodes' counts beside it."""

import csv
import hashlib
import io
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fsslib.blocks.backbones import tensors_sha256
from fsslib.data import FewShotTask
from fsslib.episodes import EpisodeSet, write_atomically
from fsslib.methods.base import Method
from fsslib.metrics import FewShotMeter
from fsslib.reproduction import environment
from fsslib.reproduction.config import RunConfig
from fsslib.reproduction.result import FILE, SCHEMA_VERSION, read_result
from fsslib.training.evaluate import mark_every_object
from fsslib.training.fit import History

LOSSES = "metrics.csv"
TAIL = 50
"""Steps over which the final losses are averaged: single steps are noisy."""


def write_result(
    config: RunConfig,
    *,
    task: FewShotTask,
    method: Method,
    history: History,
    exams: Mapping[str, EpisodeSet],
    meters: Mapping[str, FewShotMeter],
    device: str,
    seconds: float,
) -> Path:
    """Write a finished run's files to `config.folder`, `result.json` last, and return its path.

    `exams` and `meters` hold, by domain, the test episodes and the counts that were taken on them; `seconds` is the
    whole run's wall time so far (training's own, which outlives interruptions, is in `history`). Beside it go
    `metrics.csv` with the losses of every step and `counts-DOMAIN.npz` with the meters' counts, named by their hashes.
    """
    folder = config.folder
    folder.mkdir(parents=True, exist_ok=True)
    _write_losses(folder / LOSSES, history)
    content = {
        "schema_version": SCHEMA_VERSION,
        "run_id": config.run_id,
        "config": config.model_dump(mode="json", exclude={"output"}),
        "config_sha256": config.sha256,
        "classes": {
            "train": [task.train.class_names[c] for c in task.train_classes],
            "test": [exams[config.source].source.class_names[c] for c in task.test_classes],
        },
        "scores": {domain: _score(folder, domain, exams[domain], meter) for domain, meter in meters.items()},
        "floors": _floors(exams[config.source], meters[config.source]),
        "training": {
            "steps": len(history.rows),
            "seconds": round(history.seconds, 2),
            "final": _final(history),
            "tail": history.rows[-10:],
        },
        "weights": {"start": asdict(method.backbone.weights), "end_sha256": tensors_sha256(method.state_dict())},
        "seconds": round(seconds, 2),
        "peak_memory_bytes": environment.peak_memory_bytes(device),
        "environment": {
            "device": device,
            "device_name": environment.device_name(device),
            "threads": torch.get_num_threads(),
            "git": environment.git_state(),
            "versions": environment.package_versions(),
        },
    }
    write_atomically(folder / FILE, json.dumps(content, indent=1, allow_nan=False) + "\n")
    return folder / FILE


def read_meter(path: Path | str, domain: str) -> FewShotMeter:
    """A domain's counts, episode by episode, from the file beside a result. Raises ValueError when it was changed."""
    stated = read_result(path)["scores"][domain]["counts"]
    file = Path(path).parent / stated["file"]
    data = file.read_bytes()
    if hashlib.sha256(data).hexdigest() != stated["sha256"]:
        raise ValueError(f"{file} is not the file that {path} was written with: restore it, or repeat the run.")
    with np.load(io.BytesIO(data), allow_pickle=False) as counts:
        meter = FewShotMeter(counts["class_ids"].tolist())
        meter.ways, meter.binary, meter.exact = (torch.from_numpy(counts[k]) for k in ("ways", "binary", "exact"))
    return meter


def _score(folder: Path, domain: str, exam: EpisodeSet, meter: FewShotMeter) -> dict[str, Any]:
    """One domain's scores, by class name, with the hashes of its episodes and of its counts, written here."""
    buffer = io.BytesIO()
    arrays = {name: getattr(meter, name).numpy() for name in ("ways", "binary", "exact")}
    np.savez_compressed(buffer, class_ids=np.array(meter.class_ids, dtype=np.int64), **arrays)
    file = folder / f"counts-{domain}.npz"
    file.write_bytes(buffer.getvalue())
    score = meter.compute()
    return {
        "miou": score.miou,
        "fb_iou": score.fb_iou,
        "exact_ratio": score.exact_ratio,
        "episodes": score.episodes,
        "per_class": {exam.source.class_names[c]: iou for c, iou in score.per_class.items()},
        "manifest_sha256": exam.manifest.sha256,
        "counts": {"file": file.name, "sha256": hashlib.sha256(buffer.getvalue()).hexdigest()},
    }


def _floors(exam: EpisodeSet, meter: FewShotMeter) -> dict[str, float | None]:
    """What two answers that ignore the support would score in mIoU: everything marked, and every object marked."""
    objects = mark_every_object(exam)
    return {"everything": meter.all_foreground(), "every_object": objects.compute().miou if objects else None}


def _losses(history: History) -> list[str]:
    return list(dict.fromkeys(name for row in history.rows for name in row if name not in ("step", "phase")))


def _final(history: History) -> dict[str, float]:
    """Each loss over the last TAIL steps, on average."""
    series = {name: history.series(name)[-TAIL:] for name in _losses(history)}
    return {name: sum(values) / len(values) for name, values in series.items()}


def _write_losses(path: Path, history: History) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["step", "phase", *_losses(history)])
        writer.writeheader()
        writer.writerows(history.rows)
