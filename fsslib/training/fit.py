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

    history, first_phase, loaded = History(), 0, None
    if checkpoint is not None and Path(checkpoint).exists():
        loaded = load_checkpoint(checkpoint, identity=identity)
        first_phase = loaded["phase"]
        history = History(loaded["history"], loaded["seconds"], loaded.get("best"), earlier=loaded["seconds"])
        try:
            method.load_state_dict(loaded["method"])
        except RuntimeError as error:
            raise CheckpointError(
                f"{checkpoint} holds the weights of another network: {str(error).splitlines()[-1].strip()} "
                "Use another output folder, or build the method as it was."
            ) from error

    started = time.perf_counter() - history.seconds
    total = sum(p.steps for p in recipe.phases)
    if len(history.rows) < total:
        check_pieces(method, accumulate)
        if compile:
            torch._dynamo.config.suppress_errors = True  # what cannot be translated runs as it is, with a warning
            for stage in method.backbone.network.children():
                stage.compile()  # in place: the names of the state dict stay
    if prepare_ahead is None:
        prepare_ahead = 2 if device.type == "cuda" else 0
    watched = sys.stderr.isatty() if progress is None else progress
    bar = tqdm(total=total, initial=len(history.rows), unit="step", leave=False, disable=not watched)
    with bar, _stop_requested() as stop, ahead(data, prepare_ahead, total - 1) as (data, rest):
        for number in range(first_phase, len(recipe.phases)):
            phase, begin = recipe.phases[number], 0
            optimizers = recipe.optimizers_of(number, method)
            if loaded is not None:
                begin = loaded["step"]
                for name, optimizer in optimizers.items():
                    optimizer.load_state_dict(loaded["optimizers"][name])
                torch.set_rng_state(loaded["rng"]["cpu"])
                if device.type == "cuda" and "cuda" in loaded["rng"]:
                    torch.cuda.set_rng_state(loaded["rng"]["cuda"], device)
                loaded = None

            def save(step: int, phase_number: int = number, current: Mapping = optimizers) -> None:
                history.seconds = time.perf_counter() - started
                if checkpoint is None:
                    return
                rng = {"cpu": torch.get_rng_state()}
                if device.type == "cuda":
                    rng["cuda"] = torch.cuda.get_rng_state(device)
                where = {"identity": identity, "phase": phase_number, "step": step, "rng": rng}
                logged = {"history": history.rows, "seconds": history.seconds, "best": history.best}
                states = {name: optimizer.state_dict() for name, optimizer in current.items()}
                save_checkpoint(checkpoint, where | logged | {"method": method.state_dict(), "optimizers": states})

            for step in range(begin, phase.steps):
                # 1. learning rates for this step; 2. a batch; 3. the method's own update; 4. what it does after it
                for optimizer in optimizers.values():
                    for group in optimizer.param_groups:
                        group["lr"] = group["base_lr"] * phase.schedule.factor(step, phase.steps)
                overall = sum(p.steps for p in recipe.phases[:number]) + step
                batch = method.draw_batch(data[phase.data], overall)
                batch = tuple(b.to(device) for b in batch) if isinstance(batch, tuple) else batch.to(device)
                try:
                    values = step_in_pieces(method, batch, optimizers, accumulate)
                except TrainingDiverged as error:
                    raise TrainingDiverged(
                        f"Training diverged in phase {phase.name!r} at step {step}: {error}. No weight was changed by "
                        "this step. Lower the learning rate, or look at the batch: "
                        f"data[{phase.data!r}].batch({overall})."
                    ) from error
                with torch.no_grad():
                    method.after_step()

                history.rows.append({"step": overall, "phase": number, **values})
                done, text = overall + 1, "  ".join(f"{name} {value:.4f}" for name, value in values.items())
                bar.update()
                if done % 10 == 0:
                    bar.set_postfix_str(text)
                if not watched and progress is None and log_every > 0 and (done % log_every == 0 or done == total):
                    print(f"{phase.name}  step {done}/{total}  {text}", flush=True)
                due = step + 1 == phase.steps or bool(checkpoint_every and (step + 1) % checkpoint_every == 0)
                if due:
                    rest()
                    _keep_best(history, method, held_out)
                if stop:
                    save(step + 1)
                    where = f"; it is saved in {checkpoint}, run the same again to go on" if checkpoint else ""
                    raise KeyboardInterrupt(f"Training stopped after step {done} of {total}{where}.")
                if due and step + 1 < phase.steps:
                    save(step + 1)
            save(phase.steps)
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


@contextmanager
def _stop_requested() -> Iterator[list[int]]:
    """Filled when Ctrl-C or SIGTERM comes; the second one acts at once. Only the main thread listens."""
    came: list[int] = []
    here = threading.current_thread() is threading.main_thread()
    before = {s: signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)} if here else {}

    def as_before(*came_now: Any) -> None:
        came.extend(came_now[:1])
        for s, handler in before.items():
            signal.signal(s, handler)

    for s in before:
        signal.signal(s, as_before)
    try:
        yield came
    finally:
        as_before()
