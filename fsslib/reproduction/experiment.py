"""One run from its parameters to its record: what notebook 90 shows step by step, and every launcher executes."""

import csv
import hashlib
import io
import json
import time
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch

from fsslib.blocks.backbones import tensors_sha256
from fsslib.data import open_task
from fsslib.data.keep import keep_features
from fsslib.data.streams import ImageSet
from fsslib.data.tasks import AdaptationTask, FewShotTask
from fsslib.episodes import EpisodeSet
from fsslib.files import write_atomically
from fsslib.methods import build_method
from fsslib.methods.base import Method
from fsslib.metrics import FewShotMeter, SegmentationMeter
from fsslib.reproduction import environment
from fsslib.reproduction.config import RunConfig
from fsslib.reproduction.result import CHECKPOINT, FILE, SCHEMA_VERSION
from fsslib.training.evaluate import evaluate, evaluate_best, mark_every_object, questions_at_once
from fsslib.training.fit import History, fit
from fsslib.training.pretrain import make_weights
from fsslib.training.recipe import Recipe

Exam = EpisodeSet | ImageSet
Meter = FewShotMeter | SegmentationMeter

LOSSES = "metrics.csv"
TAIL = 50
"""Steps over which the final losses are averaged: single steps are noisy."""


class Experiment:
    """A run that these parameters stand for: `.train()`, then `.test()`, then `.record()`.

    The task, the exams and the method are made when they are first asked for, and then stay. None depends on the order
    in which that happens. `history`, `at_once` and `meters` are there after `train` and `test`.
    """

    def __init__(self, config: RunConfig):
        self._started = time.perf_counter()
        self.config, self.device = config, environment.choose_device(config.device)
        self._kept: dict[str, bool] = {}
        self._how = {"device": self.device, "dtype": getattr(torch, config.dtype)}

    @cached_property
    def task(self) -> FewShotTask | AdaptationTask:
        """What is learnt from and asked for. Raises DataError and ValueError as `open_task`."""
        c = self.config
        where = {"fold": c.fold, "source": c.source, "targets": c.targets, "size": c.image_size, "device": self.device}
        return open_task(c.data, **where, draw=c.draw, source_parts=c.source_parts, target_parts=c.target_parts)

    @cached_property
    def exams(self) -> dict[str, Exam]:
        """The questions by domain, fixed before anything is trained."""
        c = self.config
        return self.task.exams(c.episodes, ways=c.ways, shots=c.shots, seed=c.test_seed, protocol=c.protocol)

    @cached_property
    def method(self) -> Method:
        """The network; the seed fixes its initial weights."""
        c, options = self.config, {**self.task.method_options, **self.config.method_options}
        if c.made_weights:
            make_weights(c.data, c.fold)
        torch.manual_seed(c.seed)
        return build_method(c.method, backbone=c.backbone, weights=c.start_weights, **options)

    def train(self) -> History:
        """Train for the fixed number of steps, on from the folder's checkpoint where there is one; as `fit`."""
        c = self.config
        streams = self.task.streams(batch_size=c.batch_size, ways=c.ways, shots=c.shots, seed=c.seed)
        if c.keep_features:
            plain, streams = streams, {n: keep_features(self.method.to(self.device), s) for n, s in streams.items()}
            self._kept = {"features_kept": streams != plain}
        self.history = fit(
            self.method,
            Recipe.load(c.recipe or c.method).with_changes(steps=c.steps, learning_rate=c.learning_rate),
            streams,
            classes=self.task.train_classes,
            **self._how,
            accumulate=c.accumulate,
            compile=c.compile,
            seed=c.seed,
            checkpoint=c.folder / CHECKPOINT,
            checkpoint_every=c.checkpoint_every,
            identity=c.sha256,
            held_out=self.task.held_out,
        )
        return self.history

    def test(self) -> dict[str, Meter]:
        """Put every question to the network, as many at once as there is room for, and return the counts by domain."""
        self.at_once = {d: questions_at_once(self.method, exam, self.device) for d, exam in self.exams.items()}
        self.meters = {
            domain: evaluate(self.method, exam, self.config.protocol, batch_size=self.at_once[domain], **self._how)
            for domain, exam in self.exams.items()
        }
        return self.meters

    def record(self) -> Path:
        """Test the weights that were best on held-out images too, if any were; write `result.json`, return its path.

        It is written last and whole. Beside it go `metrics.csv` with the losses of every step and `counts-DOMAIN.npz`
        with the counts of every question, named by their hashes. `seconds` are the run's, earlier calls' training too.
        """
        config, history, folder = self.config, self.history, self.config.folder
        best = evaluate_best(self.method, history.best, self.exams, config.protocol, **self._how)
        seconds = history.earlier + time.perf_counter() - self._started
        folder.mkdir(parents=True, exist_ok=True)
        losses = list(dict.fromkeys(name for row in history.rows for name in row if name not in ("step", "phase")))
        with (folder / LOSSES).open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, ["step", "phase", *losses])
            writer.writeheader()
            writer.writerows(history.rows)
        content = {
            "schema_version": SCHEMA_VERSION,
            "run_id": config.run_id,
            "config": config.model_dump(mode="json", exclude={"output"}),
            "config_sha256": config.sha256,
            "classes": _classes(self.task),
            "scores": {
                domain: _score(self.exams[domain], meter)
                | {"manifest_sha256": self.exams[domain].sha256, "counts": _counts(folder, domain, meter)}
                for domain, meter in self.meters.items()
            },
            "at_once": self.at_once,
            "best": best
            and {
                "step": best.step,
                "held_out_loss": best.loss,
                "scores": {domain: _score(self.exams[domain], meter) for domain, meter in best.meters.items()},
            },
            **({"measures": measures} if (measures := self.method.eval().measures(self.exams)) else {}),
            "floors": _floors(self.exams, self.meters, config.source),
            "training": {
                "steps": len(history.rows),
                "seconds": round(history.seconds, 2),
                "final": {name: fmean(history.series(name)[-TAIL:]) for name in losses},
                "tail": history.rows[-10:],
                **self._kept,
            },
            "weights": {
                "start": asdict(self.method.backbone.weights),
                "end_sha256": tensors_sha256(self.method.state_dict()),
            },
            "seconds": round(seconds, 2),
            "peak_memory_bytes": environment.peak_memory_bytes(self.device),
            "environment": {
                "device": self.device,
                "device_name": environment.device_name(self.device),
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
        return {which: list(task.source.class_names.values()) for which in ("train", "test")}
    named = {domain: [images.class_names[c] for c in task.classes_in(domain)] for domain, images in task.tests.items()}
    learnt = {"train": [task.train.class_names[c] for c in task.train_classes], "test": next(iter(named.values()))}
    return learnt | ({"test_in": {d: named[d] for d in task.target_classes}} if task.target_classes else {})


def _score(exam: Exam, meter: Meter) -> dict[str, Any]:
    """The scores of some counts, classes by name."""
    score, names = asdict(meter.compute()), exam.source.class_names
    return score | {"per_class": {str(names.get(c, c)): iou for c, iou in score["per_class"].items()}}


def _counts(folder: Path, domain: str, meter: Meter) -> dict[str, str]:
    """The name and the hash of the file that holds a domain's counts, written here."""
    if isinstance(meter, SegmentationMeter):
        named, counted = {"names": np.array(meter.class_names)}, ("confusion", "images")
    else:
        named, counted = {"class_ids": np.array(meter.class_ids, dtype=np.int64)}, ("ways", "binary", "exact")
    np.savez_compressed(buffer := io.BytesIO(), **named, **{name: getattr(meter, name).numpy() for name in counted})
    file = folder / f"counts-{domain}.npz"
    file.write_bytes(buffer.getvalue())
    return {"file": file.name, "sha256": hashlib.sha256(buffer.getvalue()).hexdigest()}


def _floors(exams: dict[str, Exam], meters: dict[str, Meter], source: str) -> dict[str, Any]:
    """What answers that ignore the support would score: everything marked; of episodes in the source every object.

    Where nothing is asked in the source (CD-FSS), the first domain takes its place.
    """
    by_domain = {domain: meter.without_looking() for domain, meter in meters.items()}
    home = source if source in exams else next(iter(exams))
    if isinstance(exams[home], ImageSet):
        return {"by_domain": by_domain}
    objects = mark_every_object(exams[home])
    every_object = objects.compute().miou if objects else None
    return {"by_domain": by_domain, "everything": by_domain[home], "every_object": every_object}
