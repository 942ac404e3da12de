"""A batch computed in pieces, one after the other, to save memory.

The optimisers get the mean of the pieces' gradients, which is the gradient of the whole batch where a loss is a mean
over episodes of equal weight. It is another number where void pixels leave a piece with fewer to count than another,
where a loss compares the samples of a batch with one another (RtD's contrast), and where batch norm learns its
statistics from the batch: each piece then knows itself alone.
"""

from typing import Any

import torch

from fsslib.methods.base import Method, Optimizers


def check_pieces(method: Method, accumulate: int) -> None:
    """Raise ValueError when a training cannot be done in pieces."""
    if accumulate > 1 and type(method).after_step is not Method.after_step:
        raise ValueError(
            f"{type(method).__name__} keeps something of all samples of a step, and pieces show it only the last ones; "
            f"found accumulate {accumulate}. Leave it at 1, or take a smaller batch_size."
        )


def step_in_pieces(method: Method, batch: Any, optimizers: Optimizers, pieces: int) -> dict[str, float]:
    """A method's training step on each piece of the batch; the optimisers move once, at the end.

    Works for every `training_step` that clears gradients, runs backward and steps, in this order, in however many
    phases. Raises ValueError for a batch that does not fall into equal pieces.
    """
    if pieces == 1:
        return method.training_step(batch, optimizers)
    values = []
    for number in range(pieces):
        held = {
            name: _Held(optimizer, number == 0, number == pieces - 1, pieces) for name, optimizer in optimizers.items()
        }
        values.append(method.training_step(_piece(batch, number, pieces), held))
    return {name: sum(value[name] for value in values) / pieces for name in values[0]}


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
            torch._foreach_div_(gradients, self.pieces)
        self.optimizer.step()


def _piece(batch: Any, number: int, pieces: int) -> Any:
    if isinstance(batch, tuple):
        return tuple(_piece(part, number, pieces) for part in batch)
    size, rest = divmod(len(batch), pieces)
    if rest or not size:
        raise ValueError(f"A batch of {len(batch)} does not fall into {pieces} equal pieces; take a multiple of that.")
    return batch[number * size : (number + 1) * size]
