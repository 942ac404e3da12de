"""What a GPU makes of the networks: questions a second, in evaluation and in training, and its share of what it can do.

The yardstick is measured in the same process: a product of two large matrices in the same number format.
`python -m tests.gpu.throughput FILE` writes the table anew with every row: who stops it has those that were measured.
"""

import contextlib
import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from fsslib.blocks.backbones import build_backbone
from fsslib.files import write_atomically
from fsslib.reproduction.environment import device_name, package_versions
from fsslib.training.pieces import step_in_pieces
from fsslib.training.recipe import Recipe
from tests.benchmarks.networks import NETWORKS, Network, batch_of, cost

GOAL = 0.3
"""Share of the matrix product's rate that the evaluation's backbone is to reach."""


def seconds_of(work: Callable[[], object], device: str, turns: int) -> float:
    """The median of some turns, after two that do not count."""
    times = []
    for _ in range(turns + 2):
        start = time.perf_counter()
        work()
        if device == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return statistics.median(times[2:])


def product_rate(device: str, dtype: torch.dtype, side: int, turns: int) -> float:
    """Operations a second in the product of two square matrices; a multiplication and an addition are two."""
    a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    return 2 * side**3 / seconds_of(lambda: a @ b, device, turns)


def backbone_rate(name: str, device: str, dtype: torch.dtype, size: int, batch: int, turns: int) -> tuple[float, float]:
    """Images and operations a second of a backbone in evaluation, channels last."""
    with torch.device("meta"):
        empty = build_backbone(name).eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        empty(torch.empty(1, 3, size, size, device="meta"))
    backbone = build_backbone(name).eval().to(device, memory_format=torch.channels_last)
    images = torch.rand(batch, 3, size, size, device=device).to(memory_format=torch.channels_last)

    def work() -> None:
        with torch.inference_mode(), torch.autocast(device, dtype):
            backbone(images)

    rate = batch / seconds_of(work, device, turns)
    return rate, rate * counter.get_total_flops()


def training_rate(network: Network, device: str, dtype: torch.dtype, size: int, batch: int, turns: int) -> float:
    """Episodes, or pairs of images, a second in training on one batch that is there already."""
    method = network.build().to(device, memory_format=torch.channels_last).train()
    method.compute_dtype = dtype
    questions = batch_of(type(method), size, batch).to(device)
    optimizers = Recipe.load(network.method).optimizers_of(0, method)

    def work() -> None:
        step_in_pieces(method, (questions, questions) if method.adapts else questions, optimizers, 1)
        with torch.no_grad():
            method.after_step()

    return batch / seconds_of(work, device, turns)


def report(file: Path, device: str, *, tiny: bool = False) -> dict[str, Any]:
    """The whole table, a line of it each; `tiny` is for trying out."""
    dtype, turns = torch.bfloat16, 1 if tiny else 5
    size, batch, side, backbone = (32, 2, 64, "tiny") if tiny else (400, 16, 8192, "resnet50")
    torch.backends.cudnn.benchmark = True
    peak = product_rate(device, dtype, side, turns)
    print(f"matrix product: {peak / 1e12:.3g} TFLOP/s", flush=True)
    images, operations = backbone_rate(backbone, device, dtype, size, 4 * batch, turns)
    print(
        f"{backbone} at {size} px: {images:.0f} images/s, {operations / 1e12:.3g} TFLOP/s, {operations / peak:.0%} "
        f"of that (goal {GOAL:.0%})",
        flush=True,
    )
    table = {
        "schema_version": 1,
        "device": device_name(device),
        "dtype": "bfloat16",
        "size": size,
        "product_operations_per_second": peak,
        "backbone": {"name": backbone, "images_per_second": images, "share": operations / peak, "goal": GOAL},
        "networks": [],
        "versions": package_versions(("torch", "torchvision", "numpy")),
    }
    for network in NETWORKS:
        keep = network.backbone.startswith("resnet") and not tiny
        here = replace(network, backbone=backbone, options=network.options if keep else {})
        row = asdict(cost(here, size, batch=batch, turns=turns, device=device, dtype=dtype, channels_last=True))
        row |= {"share": 2 * row["macs"] * row["per_second"] / peak}
        row |= {"trained_per_second": training_rate(here, device, dtype, size, 8 if not tiny else 2, turns)}
        table["networks"].append(row)
        write_atomically(file, json.dumps(table, indent=1) + "\n")
        print(
            f"{row['title']:12} {row['per_second']:8.1f} {row['per']}s/s, {row['share']:.0%} of the product's rate; "
            f"training {row['trained_per_second']:.1f} {row['per']}s/s",
            flush=True,
        )
    return table


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        report(Path(sys.argv[1]), "cpu" if "--tiny" in sys.argv else "cuda", tiny="--tiny" in sys.argv)
