"""The training loop: plain PyTorch over a recipe's phases, interruptible at any moment and resumed to the bit.

Everything that changes between steps is in the checkpoint, and a batch is a function of the step, so on a CPU a run
that was stopped and resumed ends in exactly the weights of one that was not.
"""

import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor
from tqdm.auto import tqdm

from fsslib.data.streams import ImageSet, ahead
from fsslib.methods.base import Method, TrainingDiverged
from fsslib.training.checkpoint import CheckpointError, load_checkpoint, save_checkpoint
from fsslib.training.evaluate import mean_loss
from fsslib.training.pieces import check_pieces, step_in_pieces
from fsslib.training.recipe import Recipe


@runtime_checkable
class Stream(Protocol):
    """Where a phase's batches come from: batch number `step`, the same one whenever it is asked for."""

    def batch(self, step: int) -> Any: ...


@dataclass
class History:
    """What was logged: for every step its number over all phases, its phase and the method's values.

    `seconds` is the time of the training, `earlier` the part of it that earlier calls took, before an interruption.
    `best` is there where images were held out: the step after which the loss on them was lowest, that loss, and the
    method's state at that moment.
    """

    rows: list[dict[str, int | float]] = field(default_factory=list)
    seconds: float = 0.0
    best: dict[str, Any] | None = None
    earlier: float = 0.0

    def series(self, name: str) -> list[float]:
        """One value over the steps that have it, for instance `history.series("segmentation")`."""
        return [row[name] for row in self.rows if name in row]


def fit(
    method: Method,
    recipe: Recipe,
    data: Mapping[str, Stream],
    *,
    classes: Sequence[int] = (),
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    accumulate: int = 1,
    compile: bool = False,
    prepare_ahead: int | None = None,
    seed: int = 0,
    checkpoint: Path | str | None = None,
    checkpoint_every: int = 0,
    identity: str = "",
    held_out: ImageSet | None = None,
    log_every: int = 100,
    progress: bool | None = None,
) -> History:
    """Train `method` in place and return what was logged.

    `data` maps the names that phases use to streams. `classes` is the ordered table of training classes. With
    `dtype=torch.bfloat16` forward passes run under autocast, and convolutions keep their weights with channels last.
    With a `checkpoint` path the run continues from that file if it is there (and `identity` agrees), saves it every
    `checkpoint_every` steps (0: only at phase ends), at the end, and when it is interrupted: the step under way is
    finished first, a second Ctrl-C stops at once. On images `held_out` from the source the loss is taken as often; the
    method keeps its last weights, `History.best` the best ones. Progress is a bar on a terminal, otherwise a line every
    `log_every` steps; `progress=False` is silent.

    `accumulate` computes each batch in so many pieces, one after the other, to save memory: see
    `fsslib.training.pieces` for where that is the same as the whole batch at once. `compile` has torch.compile
    translate the backbone's stages; what it cannot translate runs as it is. `prepare_ahead` batches are made by a
    thread meanwhile; none: 2 on a GPU, 0 on a CPU, which has enough to do.

    Raises TrainingDiverged, before any weight is touched, when a loss is not a finite number; ValueError for a phase
    whose data is missing, and for pieces that cannot be; CheckpointError for a checkpoint that cannot be used.
    """
    if missing := sorted({p.data for p in recipe.phases} - set(data)):
        raise ValueError(f"The recipe needs data named {', '.join(missing)}; given are {', '.join(data) or 'none'}.")
    device = torch.device(device)
    method.to(device).train()
    method.compute_dtype = dtype
    if dtype == torch.bfloat16:
        method.to(memory_format=torch.channels_last)
    method.prepare(classes)
    torch.manual_seed(seed)

    history, first_phase, first_step, loaded = History(), 0, 0, None
    if checkpoint is not None and Path(checkpoint).exists():
        loaded = load_checkpoint(checkpoint, identity=identity)
        first_phase, first_step = loaded["phase"], loaded["step"]
        history = History(loaded["history"], loaded["seconds"], loaded.get("best"), earlier=loaded["seconds"])
        _restore(method, loaded["method"], checkpoint)

    started = time.perf_counter() - history.seconds
    total = sum(p.steps for p in recipe.phases)
    if len(history.rows) < total:
        check_pieces(method, accumulate)
        if compile:
            torch._dynamo.config.suppress_errors = True  # what cannot be translated runs as it is, with a warning
            for stage in method.backbone.network.children():
                stage.compile()  # in place: the names of the state dict stay
    report = _Report(total, len(history.rows), log_every, progress)
    if prepare_ahead is None:
        prepare_ahead = 2 if device.type == "cuda" else 0
    with _stop_requested() as stop, ahead(data, prepare_ahead, total - 1) as (data, rest):
        for number in range(first_phase, len(recipe.phases)):
            phase = recipe.phases[number]
            optimizers = recipe.optimizers_of(number, method)
            begin = 0
            if loaded is not None and number == first_phase:
                begin = first_step
                for name, optimizer in optimizers.items():
                    optimizer.load_state_dict(loaded["optimizers"][name])
                _restore_rng(loaded["rng"], device)

            def save(step: int, phase_number: int = number, current: dict = optimizers) -> None:
                history.seconds = time.perf_counter() - started
                if checkpoint is not None:
                    save_checkpoint(checkpoint, _state(method, current, phase_number, step, history, identity, device))

            for step in range(begin, phase.steps):
                # 1. learning rates for this step; 2. a batch; 3. the method's own update; 4. what it does after it
                for optimizer in optimizers.values():
                    for group in optimizer.param_groups:
                        group["lr"] = group["base_lr"] * phase.schedule.factor(step, phase.steps)
                overall = sum(p.steps for p in recipe.phases[:number]) + step
                batch = method.draw_batch(data[phase.data], overall)
                try:
                    values = step_in_pieces(method, _to(batch, device), optimizers, accumulate)
                except TrainingDiverged as error:
                    raise TrainingDiverged(
                        f"Training diverged in phase {phase.name!r} at step {step}: {error}. No weight was changed by "
                        "this step. Lower the learning rate, or look at the batch: "
                        f"data[{phase.data!r}].batch({overall})."
                    ) from error
                with torch.no_grad():
                    method.after_step()

                history.rows.append({"step": overall, "phase": number, **values})
                report.step(phase.name, values)
                due = step + 1 == phase.steps or bool(checkpoint_every and (step + 1) % checkpoint_every == 0)
                if due:
                    rest()
                    _keep_best(history, method, held_out)
                if stop():
                    save(step + 1)
                    report.close()
                    where = f"; it is saved in {checkpoint}, run the same again to go on" if checkpoint else ""
                    raise KeyboardInterrupt(f"Training stopped after step {overall + 1} of {total}{where}.")
                if due and step + 1 < phase.steps:
                    save(step + 1)
            save(phase.steps)
    report.close()
    history.seconds = time.perf_counter() - started
    return history


def _keep_best(history: History, method: Method, held_out: ImageSet | None) -> None:
    """Note the method's state if the loss on the held-out images is the lowest so far."""
    if held_out is None:
        return
    loss = mean_loss(method, held_out)
    if history.best is None or loss < history.best["loss"]:
        state = {name: value.detach().clone() for name, value in method.state_dict().items()}
        history.best = {"step": len(history.rows), "loss": loss, "state": state}


def _to(batch: Any, device: torch.device) -> Any:
    return tuple(b.to(device) for b in batch) if isinstance(batch, tuple) else batch.to(device)


def _state(
    method: Method, optimizers: Mapping, phase: int, step: int, history: History, identity: str, device: torch.device
) -> dict[str, Any]:
    rng: dict[str, Tensor] = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        rng["cuda"] = torch.cuda.get_rng_state(device)
    return {
        "identity": identity,
        "phase": phase,
        "step": step,
        "method": method.state_dict(),
        "optimizers": {name: optimizer.state_dict() for name, optimizer in optimizers.items()},
        "rng": rng,
        "history": history.rows,
        "seconds": history.seconds,
        "best": history.best,
    }


def _restore(method: Method, state: Mapping[str, Tensor], path: Path | str) -> None:
    try:
        method.load_state_dict(state)
    except RuntimeError as error:
        raise CheckpointError(
            f"{path} holds the weights of another network: {str(error).splitlines()[-1].strip()} "
            "Use another output folder, or build the method as it was."
        ) from error


def _restore_rng(rng: Mapping[str, Tensor], device: torch.device) -> None:
    torch.set_rng_state(rng["cpu"])
    if device.type == "cuda" and "cuda" in rng:
        torch.cuda.set_rng_state(rng["cuda"], device)


@contextmanager
def _stop_requested() -> Iterator:
    """A function that tells whether Ctrl-C or SIGTERM came; the second acts at once. Only the main thread listens."""
    came: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    before = {s: signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)}

    def note(number, frame):
        came.append(number)
        for s, handler in before.items():
            signal.signal(s, handler)

    for s in before:
        signal.signal(s, note)
    try:
        yield lambda: bool(came)
    finally:
        for s, handler in before.items():
            signal.signal(s, handler)


class _Report:
    """Progress for people: a bar where one can be drawn, else a line every so many steps."""

    def __init__(self, total: int, done: int, every: int, wanted: bool | None):
        bar = sys.stderr.isatty() if wanted is None else wanted
        self.lines = not bar and wanted is None and every > 0
        self.bar = tqdm(total=total, initial=done, unit="step", leave=False) if bar else None
        self.total, self.done, self.every = total, done, every

    def step(self, phase: str, values: Mapping[str, float]) -> None:
        self.done += 1
        text = "  ".join(f"{name} {value:.4f}" for name, value in values.items())
        if self.bar is not None:
            self.bar.update()
            if self.done % 10 == 0:
                self.bar.set_postfix_str(text)
        elif self.lines and (self.done % self.every == 0 or self.done == self.total):
            print(f"{phase}  step {self.done}/{self.total}  {text}", flush=True)

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()
