"""A batch computed in pieces: one after the other to save memory, or side by side in the processes of torchrun.

Either way the optimisers get the mean of the pieces' gradients, which is the gradient of the whole batch where a loss
is a mean over episodes of equal weight. It is another number where void pixels leave a piece with fewer to count than
another, where a loss compares the samples of a batch with one another (RtD's contrast), and where batch norm learns its
statistics from the batch: each piece then knows itself alone.
"""

from collections.abc import Iterable
from typing import Any

import torch
import torch.distributed as distributed
from torch import Tensor

from fsslib.methods.base import Method, Optimizers


def process_count() -> int:
    """How many processes train together; 1 outside of torch.distributed."""
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


def process_rank() -> int:
    """Which of them this one is, from 0."""
    return distributed.get_rank() if process_count() > 1 else 0


def check_pieces(method: Method, accumulate: int, processes: int) -> None:
    """Raise ValueError when a training cannot be done in this way, or by as many processes as there are here."""
    if accumulate > 1 and type(method).after_step is not Method.after_step:
        raise ValueError(
            f"{type(method).__name__} keeps something of all samples of a step, and pieces show it only the last ones; "
            f"found accumulate {accumulate}. Leave it at 1, or take a smaller batch_size or several processes."
        )
    if processes > 1 and getattr(method, "select", False):
        raise ValueError(
            f"{type(method).__name__} selects its source images as it learns, and {processes} processes could come to "
            "select different ones. Train it by one process, with accumulate in place of more, or with select=False."
        )
    if processes != process_count():
        raise ValueError(
            f"This run is to be trained by {processes} processes together, and here is {process_count()}. Train it "
            f"with `torchrun --nproc-per-node {processes} -m fsslib.reproduction.distributed FILE`, FILE being its "
            "run-config.yaml; then the same call as now finds the finished checkpoint and goes on to the test."
        )


def step_in_pieces(method: Method, batch: Any, optimizers: Optimizers, accumulate: int) -> dict[str, float]:
    """A method's training step on each of this process's pieces of the batch; the optimisers move once, at the end.

    Works for every `training_step` that clears gradients, runs backward and steps, in this order, in however many
    phases. Raises ValueError for a batch that does not fall into equal pieces.
    """
    pieces = accumulate * process_count()
    if pieces == 1:
        return method.training_step(batch, optimizers)
    own, values = range(process_rank() * accumulate, (process_rank() + 1) * accumulate), []
    for number in own:
        held = {
            name: _Held(optimizer, number == own[0], number == own[-1], pieces)
            for name, optimizer in optimizers.items()
        }
        values.append(method.training_step(_piece(batch, number, pieces), held))
    names = list(values[0])
    device = next(method.parameters()).device
    total = torch.tensor([[value[name] for name in names] for value in values], device=device).double().sum(0)
    if process_count() > 1:
        distributed.all_reduce(total)
        share(method.buffers())
    return dict(zip(names, (total / pieces).tolist()))


def share(tensors: Iterable[Tensor]) -> None:
    """Give process 0's values to all processes."""
    if process_count() == 1 or not (tensors := [t.detach() for t in tensors]):
        return
    # Every number that a state dict holds, float32 or a count, is itself in float64; one message is faster than many.
    flat = torch.cat([t.flatten().double() for t in tensors])
    distributed.broadcast(flat, 0)
    for tensor, values in zip(tensors, flat.split([t.numel() for t in tensors])):
        tensor.copy_(values.view(tensor.shape))


def any_process(flag: bool, device: torch.device) -> bool:
    """Whether the flag is set in one of the processes."""
    if process_count() == 1:
        return flag
    flags = torch.tensor(int(flag), device=device)
    distributed.all_reduce(flags, distributed.ReduceOp.MAX)
    return bool(flags)


class _Held:
    """An optimiser as one piece of a batch sees it: the first clears the gradients, the last moves the weights."""

    def __init__(self, optimizer: torch.optim.Optimizer, first: bool, last: bool, pieces: int):
        self.optimizer, self.first, self.last, self.pieces = optimizer, first, last, pieces

    def zero_grad(self, set_to_none: bool = True) -> None:
        if self.first:
            self.optimizer.zero_grad(set_to_none)

    @torch.no_grad()
    def step(self) -> None:
        if not self.last:
            return
        parameters = (p for group in self.optimizer.param_groups for p in group["params"])
        if gradients := [p.grad for p in parameters if p.grad is not None]:
            if process_count() > 1:
                flat = torch.cat([g.flatten() for g in gradients])
                distributed.all_reduce(flat)
                for gradient, values in zip(gradients, flat.split([g.numel() for g in gradients])):
                    gradient.copy_(values.view(gradient.shape))
            torch._foreach_div_(gradients, self.pieces)
        self.optimizer.step()


def _piece(batch: Any, number: int, pieces: int) -> Any:
    if isinstance(batch, tuple):
        return tuple(_piece(part, number, pieces) for part in batch)
    size, rest = divmod(len(batch), pieces)
    if rest or not size:
        raise ValueError(f"A batch of {len(batch)} does not fall into {pieces} equal pieces; take a multiple of that.")
    return batch[number * size : (number + 1) * size]
