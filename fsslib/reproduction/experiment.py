"""One run from its parameters to its record: what notebook 90 shows step by step, and every launcher executes."""

import time
from functools import cached_property
from pathlib import Path

import torch

from fsslib.data import open_task
from fsslib.data.tasks import AdaptationTask, FewShotTask
from fsslib.methods import build_method
from fsslib.methods.base import Method
from fsslib.reproduction.config import RunConfig
from fsslib.reproduction.environment import choose_device
from fsslib.reproduction.record import Exam, Meter, write_result
from fsslib.reproduction.result import CHECKPOINT
from fsslib.training.evaluate import evaluate, evaluate_best, questions_at_once
from fsslib.training.fit import History, fit
from fsslib.training.recipe import Recipe


class Experiment:
    """A run that these parameters stand for: `.train()`, then `.test()`, then `.record()`.

    The task, the exams and the method are made when they are first asked for, and then stay. None depends on the order
    in which that happens. `history`, `at_once` and `meters` are there after `train` and `test`.
    """

    def __init__(self, config: RunConfig):
        self._started = time.perf_counter()
        self.config, self.device = config, choose_device(config.device)
        self._how = {"device": self.device, "dtype": getattr(torch, config.dtype)}

    @cached_property
    def task(self) -> FewShotTask | AdaptationTask:
        """What is learnt from and asked for. Raises DataError and ValueError as `open_task`."""
        c = self.config
        return open_task(c.data, fold=c.fold, source=c.source, targets=c.targets, size=c.image_size, device=self.device)

    @cached_property
    def exams(self) -> dict[str, Exam]:
        """The questions by domain, fixed before anything is trained."""
        c = self.config
        return self.task.exams(c.episodes, ways=c.ways, shots=c.shots, seed=c.test_seed, protocol=c.protocol)

    @cached_property
    def method(self) -> Method:
        """The network; the seed fixes its initial weights."""
        c, options = self.config, {**self.task.method_options, **self.config.method_options}
        torch.manual_seed(c.seed)
        return build_method(c.method, backbone=c.backbone, weights=c.start_weights, **options)

    def train(self) -> History:
        """Train for the fixed number of steps, on from the folder's checkpoint where there is one; as `fit`."""
        c = self.config
        self.history = fit(
            self.method,
            Recipe.load(c.recipe or c.method).with_changes(steps=c.steps, learning_rate=c.learning_rate),
            self.task.streams(batch_size=c.batch_size, ways=c.ways, shots=c.shots, seed=c.seed),
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
        """Test the weights that were best on held-out images too, if any were; write `result.json`, return its path."""
        best = evaluate_best(self.method, self.history.best, self.exams, self.config.protocol, **self._how)
        seconds = self.history.earlier + time.perf_counter() - self._started
        return write_result(self, best=best, seconds=seconds)
