#!/usr/bin/env bash
# torch: a training loop inside one `with torch.autocast(...)` block never sees its own updates.
#
# Within a block autocast keeps the low-precision copies of the weights that it made, so as not to make them twice. An
# optimiser's step does not throw them away. The parameters move, the loss of every further step is that of the first:
# it stands still to the last digit, the gradient too, and nothing warns. With the block around each step, or with
# `cache_enabled=False`, the same code learns. The documentation says in passing that autocast "should wrap only the
# forward pass(es)"; that a loop within it trains on its first weights it does not say.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.15.0 numpy==2.4.6
"$folder/venv/bin/python" - <<'END'
from contextlib import nullcontext

import torch

print("torch", torch.__version__)


def train(around_all, around_each):
    torch.manual_seed(0)
    network, inputs = torch.nn.Linear(4, 1), torch.randn(64, 4)
    optimizer, losses = torch.optim.SGD(network.parameters(), lr=0.1), []
    before = network.weight.detach().clone()
    with around_all():
        for _ in range(6):
            with around_each():
                loss = ((network(inputs) - inputs.sum(1, keepdim=True)) ** 2).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(round(loss.item(), 4))
    return losses, (network.weight - before).abs().max().item()


def low(**options):
    return lambda: torch.autocast("cpu", dtype=torch.bfloat16, **options)


cases = {
    "one block around the loop": train(low(), nullcontext),
    "the same, cache_enabled=False": train(low(cache_enabled=False), nullcontext),
    "a block around each forward pass": train(nullcontext, low()),
}
for name, (losses, moved) in cases.items():
    print(f"  {name}: losses {losses}, weights moved by up to {moved:.2f}")
(stuck, moved), *others = cases.values()
assert moved > 0.5 and all(losses[-1] < losses[0] / 4 for losses, _ in others)
assert len(set(stuck)) == 1, "CHANGED: the loop learns"
END
