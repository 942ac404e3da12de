"""What an answer of each method costs at one image size: parameters, multiplications, time, memory.

Weights are random, for none of this depends on them. `make bench` measures on the processor; with `device="cuda"` and
`dtype=torch.bfloat16` the same functions measure on a GPU.
"""

import multiprocessing
import statistics
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from fsslib.episodes import Episode, LabelledImages
from fsslib.methods import adapts, build_method
from fsslib.methods.base import Method
from fsslib.reproduction.environment import peak_memory_bytes


@dataclass(frozen=True)
class Network:
    """A method as its paper has it."""

    title: str
    method: str
    backbone: str
    options: Mapping[str, Any] = field(default_factory=dict)

    def build(self) -> Method:
        return build_method(self.method, backbone=self.backbone, **self.options).eval()


NETWORKS = (
    Network("prototypes", "prototype", "vgg16"),
    Network("SG-One", "sg_one", "vgg16"),
    Network("PANet", "panet", "vgg16", {"backbone_stages": "block5"}),
    Network("PFENet", "pfenet", "resnet50"),
    Network("HSNet", "hsnet", "resnet50"),
    Network("RtD", "rtd", "resnet50", {"memory_after": "layer1", "backbone_stages": "layer1,layer2,layer3"}),
    Network("PixDA", "pixda", "resnet101", {"num_classes": 19, "dilations": "6,12,18,24"}),
)


@dataclass(frozen=True)
class Cost:
    """Of answering one 1-way 1-shot episode of square images, or of segmenting one image where a method `adapts`.

    `macs` are multiplications with addition in convolutions and matrix products, those of a batch of one. `peak_bytes`
    is the most memory held: by the whole process on a processor, by tensors on a GPU.
    """

    title: str
    backbone: str
    per: str
    parameters: int
    learnable: int
    macs: int
    per_second: float
    peak_bytes: int | None


def batch_of(method: type[Method], size: int, batch: int = 1) -> Episode | LabelledImages:
    """A batch of grey noise with a square object in the support."""
    images = torch.rand(batch, 3, size, size, generator=torch.Generator().manual_seed(0))
    labels = torch.zeros(batch, size, size, dtype=torch.int64)
    labels[:, size // 4 : size // 2, size // 4 : size // 2] = 1
    if method.adapts:
        return LabelledImages(images, labels)
    return Episode(
        images[:, None, None], labels[:, None, None], images.flip(3), labels, torch.ones_like(labels[:, :1, 0])
    )


def counted(network: Network, size: int) -> dict[str, int]:
    """Parameters, those that learn, and multiplications of one answer: on the meta device, where nothing is
    calculated.
    """
    with torch.device("meta"):
        method = network.build()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        method(batch_of(type(method), size).to("meta"))
    sizes = [(p.numel(), p.requires_grad) for p in method.parameters()]
    return {
        "parameters": sum(count for count, _ in sizes),
        "learnable": sum(count for count, learns in sizes if learns),
        "macs": counter.get_total_flops() // 2,
    }


def cost(
    network: Network,
    size: int,
    *,
    batch: int = 1,
    turns: int = 2,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
    channels_last: bool = False,
) -> Cost:
    """The cost of this network in this process: the median of some turns, after one that does not count."""
    method = network.build().to(device, memory_format=torch.channels_last if channels_last else torch.preserve_format)
    method.compute_dtype = dtype
    questions = batch_of(type(method), size, batch).to(device)
    on_gpu = torch.device(device).type == "cuda"
    if on_gpu:
        torch.cuda.reset_peak_memory_stats(device)
    seconds = []
    for _ in range(turns + 1):
        start = time.perf_counter()
        with torch.inference_mode():
            method.predict(questions)
        if on_gpu:
            torch.cuda.synchronize(device)
        seconds.append(time.perf_counter() - start)
    return Cost(
        title=network.title,
        backbone=network.backbone,
        per="image" if adapts(network.method) else "episode",
        per_second=batch / statistics.median(seconds[1:]),
        peak_bytes=peak_memory_bytes(device)["device" if on_gpu else "host"],
        **counted(network, size),
    )


def costs(size: int, networks: Sequence[Network] = NETWORKS, **how: Any) -> list[Cost]:
    """The costs of all networks; `how` are options of `cost`. On a processor each has a process of its own."""
    found = []
    for network in networks:
        if how.get("device", "cpu") != "cpu":
            found.append(cost(network, size, **how))
            continue
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            found.append(pool.submit(cost, network, size, **how).result())
    return found
