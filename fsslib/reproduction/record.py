"""Writing the record of a run: `result.json`, last and whole; the losses and all episodes' counts beside it."""

import csv
import hashlib
import io
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from fsslib.blocks.backbones import tensors_sha256
from fsslib.data.streams import ImageSet
from fsslib.data.tasks import AdaptationTask, FewShotTask
from fsslib.episodes import EpisodeSet
from fsslib.files import write_atomically
from fsslib.metrics import FewShotMeter, SegmentationMeter
from fsslib.reproduction import environment
from fsslib.reproduction.result import FILE, SCHEMA_VERSION
from fsslib.training.evaluate import Best, mark_every_object
from fsslib.training.fit import History

if TYPE_CHECKING:
    from fsslib.reproduction.experiment import Experiment

Exam = EpisodeSet | ImageSet
Meter = FewShotMeter | SegmentationMeter

LOSSES = "metrics.csv"
TAIL = 50
"""Steps over which the final losses are averaged: single steps are noisy."""


def write_result(experiment: "Experiment", *, seconds: float, best: Best | None = None) -> Path:
    """Write the files of an experiment that was trained and tested to its folder, `result.json` last; its path.

    `best` holds the counts of the weights that were best on held-out source images, where there are such; `seconds` is
    the run's wall time so far, with the training that earlier calls did (`history.earlier`). Beside it go `metrics.csv`
    with the losses of every step and `counts-DOMAIN.npz` with the meters' counts, named by their hashes.
    """
    config, history, exams, meters = experiment.config, experiment.history, experiment.exams, experiment.meters
    method, device = experiment.method, experiment.device
    folder = config.folder
    folder.mkdir(parents=True, exist_ok=True)
    _write_losses(folder / LOSSES, history)
    content = {
        "schema_version": SCHEMA_VERSION,
        "run_id": config.run_id,
        "config": config.model_dump(mode="json", exclude={"output"}),
        "config_sha256": config.sha256,
        "classes": _classes(experiment.task),
        "scores": {domain: _score(folder, domain, exams[domain], meter) for domain, meter in meters.items()},
        "at_once": experiment.at_once,
        "best": None if best is None else _best(best, exams),
        "floors": {
            "by_domain": {domain: meter.without_looking() for domain, meter in meters.items()},
            **_floors(exams[config.source], meters[config.source]),
        },
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


def _classes(task: FewShotTask | AdaptationTask) -> dict[str, Any]:
    """The names that are learnt and those that are asked for; by domain where a domain has questions of its own."""
    if isinstance(task, AdaptationTask):
        return {"train": list(task.source.class_names.values()), "test": list(task.source.class_names.values())}
    named = {domain: [images.class_names[c] for c in task.classes_in(domain)] for domain, images in task.tests.items()}
    learnt = {"train": [task.train.class_names[c] for c in task.train_classes], "test": next(iter(named.values()))}
    return learnt | ({"test_in": {d: named[d] for d in task.target_classes}} if task.target_classes else {})


def _score(folder: Path, domain: str, exam: Exam, meter: Meter) -> dict[str, Any]:
    """One domain's scores, by class name, with the hashes of its questions and of its counts, written here."""
    buffer = io.BytesIO()
    if isinstance(meter, SegmentationMeter):
        arrays = {"confusion": meter.confusion, "images": meter.images}
        named = {"names": np.array(meter.class_names)}
    else:
        arrays = {name: getattr(meter, name) for name in ("ways", "binary", "exact")}
        named = {"class_ids": np.array(meter.class_ids, dtype=np.int64)}
    np.savez_compressed(buffer, **named, **{name: values.numpy() for name, values in arrays.items()})
    file = folder / f"counts-{domain}.npz"
    file.write_bytes(buffer.getvalue())
    return _summary(exam, meter) | {
        "manifest_sha256": exam.sha256,
        "counts": {"file": file.name, "sha256": hashlib.sha256(buffer.getvalue()).hexdigest()},
    }


def _summary(exam: Exam, meter: Meter) -> dict[str, Any]:
    """The scores of some counts, classes by name."""
    summary = asdict(meter.compute())
    names = exam.source.class_names
    return summary | {"per_class": {str(names.get(c, c)): iou for c, iou in summary["per_class"].items()}}


def _best(best: Best, exams: Mapping[str, Exam]) -> dict[str, Any]:
    scores = {domain: _summary(exams[domain], meter) for domain, meter in best.meters.items()}
    return {"step": best.step, "held_out_loss": best.loss, "scores": scores}


def _floors(exam: Exam, meter: Meter) -> dict[str, float | None]:
    """What answers that ignore the support would score in the source: everything marked, every object marked."""
    if isinstance(exam, ImageSet):
        return {}
    objects = mark_every_object(exam)
    return {"everything": meter.without_looking(), "every_object": objects.compute().miou if objects else None}


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
