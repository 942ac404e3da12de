"""`make bench`: what is fast, by how much, and what it takes of memory. Writes results/bench.json.

A case compares two ways of doing the same thing. They take turns in one run, so that whatever else the machine does
meets both, and the figure to read is the ratio: the median over the turns. Memory is that of a process of its own which
does one of the two and nothing else: what the work takes at its peak beyond what was held before (Linux only).
"""

import atexit
import json
import multiprocessing
import re
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from fsslib import paths
from fsslib.blocks.backbones import build_backbone
from fsslib.data import open_task
from fsslib.data.images import ImageClasses, LabelledImageSet, read_image, read_label_map
from fsslib.data.toyworld import DOMAINS, ToyWorld
from fsslib.files import write_atomically
from fsslib.methods import build_method
from fsslib.reproduction.environment import cpu_cores, cpu_name, package_versions, peak_memory_bytes
from fsslib.training.recipe import Recipe
from tests.benchmarks.evaluating import Evaluating, Repeating, Squeezing, Work
from tests.benchmarks.networks import costs


@dataclass(frozen=True)
class Case:
    """Two ways of doing `count` pieces of the same work. `make` prepares both and is called in the process that
    measures.

    `goal` says which ratio is wanted, None where there is none to want on this machine.
    """

    name: str
    unit: str
    baseline: str
    contender: str
    count: int
    goal: str | None
    make: Callable[[], tuple[Work, Work]]
    memory: bool = False


@dataclass(frozen=True)
class Measured:
    """Pieces of work a second each way, and how many times faster the contender is; peak memory in bytes."""

    name: str
    unit: str
    baseline: str
    contender: str
    goal: str | None
    baseline_per_second: float
    contender_per_second: float
    ratio: float
    ratio_range: tuple[float, float]
    baseline_peak_bytes: int | None = None
    contender_peak_bytes: int | None = None


def measure(case: Case, *, turns: int = 3) -> Measured:
    """Let the two take turns, after one round that does not count."""
    ways = case.make()
    seconds: tuple[list[float], list[float]] = ([], [])
    for turn in range(turns + 1):
        for way, times in zip(ways, seconds):
            start = time.perf_counter()
            way()
            if turn:
                times.append(time.perf_counter() - start)
    ratios = [first / second for first, second in zip(*seconds)]
    rates = [case.count / statistics.median(times) for times in seconds]
    peaks = [_peak_of(case, index) for index in (0, 1)] if case.memory else [None, None]
    return Measured(
        case.name,
        case.unit,
        case.baseline,
        case.contender,
        case.goal,
        *rates,
        statistics.median(ratios),
        (min(ratios), max(ratios)),
        *peaks,
    )


def _peak_of(case: Case, index: int) -> int | None:
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_run_alone, case, index).result()


def _run_alone(case: Case, index: int) -> int | None:
    work, status = case.make()[index], Path("/proc/self/status")
    if not status.exists():
        return None
    held = 1024 * int(re.search(r"VmRSS:\s*(\d+) kB", status.read_text())[1])
    work()
    return peak_memory_bytes("cpu")["host"] - held


# Drawing the toy world


def toy_ids(count: int) -> list[str]:
    return [f"c{1001 + number % 25}-{number:06d}" for number in range(count)]


@dataclass(frozen=True)
class Drawing:
    """The same pictures one by one and in one batch, in this process."""

    domain: str
    count: int

    def __call__(self) -> tuple[Work, Work]:
        world, ids = ToyWorld(self.domain), toy_ids(self.count)
        return (lambda: [world.images([image_id]) for image_id in ids]), (lambda: world.images(ids))


def drawing_rate(domain: str, count: int, turns: int = 3) -> float:
    """Images a second when every core draws, each in a worker process with one thread, as training with workers does.

    The best of some turns: what the machine can do, since what disturbs only ever slows down.
    """
    cores = cpu_cores()
    with ProcessPoolExecutor(
        cores, multiprocessing.get_context("spawn"), initializer=torch.set_num_threads, initargs=(1,)
    ) as pool:
        rates = []
        for _ in range(turns + 1):
            start = time.perf_counter()
            list(pool.map(_draw, [(domain, count)] * cores))
            rates.append(cores * count / (time.perf_counter() - start))
    return max(rates[1:])


def _draw(what: tuple[str, int]) -> None:
    domain, count = what
    ToyWorld(domain).images(toy_ids(count))


# Reading photographs


@dataclass(frozen=True)
class Reading:
    """Pictures as large as VOC's (500 x 375, JPEG and PNG) brought to 256 pixels, and the same out of the cache."""

    count: int

    def __call__(self) -> tuple[Work, Work]:
        folder = Path(tempfile.mkdtemp())
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        (drawn, _), labels = ToyWorld("photo", size=256).images(toy_ids(self.count)), np.zeros((375, 500), np.uint8)
        labels[100:300, 100:400] = 1
        files = {}
        for number, image in enumerate(drawn):
            picture = Image.fromarray((255 * image).byte().permute(1, 2, 0).numpy()).resize((500, 375))
            files[str(number)] = (folder / f"{number}.jpg", folder / f"{number}.png")
            picture.save(files[str(number)][0], quality=90)
            Image.fromarray(labels).save(files[str(number)][1])
        images = LabelledImageSet(
            {image_id: ImageClasses(frozenset({1}), frozenset({1})) for image_id in files},
            lambda image_id: (read_image(files[image_id][0]), read_label_map(files[image_id][1])),
            {1: "object"},
            name="bench",
            domain="photo",
            size=256,
            files_of=files.__getitem__,
        )
        pixels = images.cached(folder)._pixels
        return tuple(
            lambda read=read: [read(i) for i in images.ids] for read in (images._load_resized, pixels.__getitem__)
        )


# Training


@dataclass(frozen=True)
class Training:
    """Steps of RtD or PixDA on batches drawn beforehand, with one set of its switches and with another."""

    method: str
    baseline: dict[str, str | bool]
    contender: dict[str, str | bool]
    steps: int

    def __call__(self) -> tuple[Work, Work]:
        if self.method == "pixda":
            task = open_task("streets", source="game", targets=("meadow",), size=48)
            stream = task.streams(batch_size=4, shots=5)["both"]
        else:
            task = open_task("toy", fold=0)
            stream = task.streams(batch_size=8)["source"]
        batches = [stream.batch(number) for number in range(4)]
        return tuple(
            self._work(batches, switches | task.method_options) for switches in (self.baseline, self.contender)
        )

    def _work(self, batches: list[Any], switches: dict[str, Any]) -> Work:
        weights = "none" if self.method == "pixda" else "tiny-toy-fold0.pt"
        method = build_method(self.method, weights=weights, **switches).train()
        optimizers = Recipe.load(self.method).optimizers_of(0, method)

        def train() -> None:
            for number in range(self.steps):
                method.training_step(batches[number % len(batches)], optimizers)
                with torch.no_grad():
                    method.after_step()

        return train


# Number formats


def has_bf16_instructions() -> bool:
    """Whether the processor multiplies bfloat16 itself; without, torch converts and nothing is won."""
    flags = Path("/proc/cpuinfo")
    return flags.exists() and any(name in flags.read_text() for name in ("avx512_bf16", "amx_bf16", " bf16"))


@dataclass(frozen=True)
class Formats:
    """ResNet-50 to layer4 in float32 NCHW, and in bfloat16 with channels last."""

    images: int
    size: int

    def __call__(self) -> tuple[Work, Work]:
        backbone = build_backbone("resnet50").eval()
        pictures = torch.rand(self.images, 3, self.size, self.size)

        def plain() -> None:
            with torch.inference_mode():
                backbone(pictures)

        other = build_backbone("resnet50").eval().to(memory_format=torch.channels_last)
        rearranged = pictures.to(memory_format=torch.channels_last)

        def bfloat16() -> None:
            with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
                other(rearranged)

        return plain, bfloat16


def image_size(scale: float) -> int:
    """The side of the images that networks of the papers' size are given."""
    return max(96, round(400 * scale))


def cases(scale: float = 1.0) -> list[Case]:
    """All cases; `scale` below 1 shrinks the work, for trying out."""

    def scaled(number: int) -> int:
        return max(2, round(number * scale))

    found = [
        Case(
            f"toy drawing, {domain}",
            "images",
            "one by one",
            "in a batch",
            scaled(128),
            None,
            Drawing(domain, scaled(128)),
        )
        for domain in DOMAINS
    ]
    found.append(
        Case(
            "reading photographs at 256 px",
            "images",
            "decoded each time",
            "cache on disk",
            scaled(64),
            "5 or more",
            Reading(scaled(64)),
        )
    )
    for resize, family in (("features", "features resized"), ("mask", "mask resized")):
        for drawing, goal in ((True, "5 or more"), (False, "1.2 or more")):
            name = f"evaluation {'with' if drawing else 'without'} drawing, {family}"
            count = scaled(100)
            work = Evaluating(resize, drawing, count)
            found.append(Case(name, "episodes", "one by one", "batches of 25", count, goal, work, memory=True))
    count, work = scaled(60), Repeating(scaled(60), scaled(7))
    name = "evaluation, images that repeat"
    found.append(Case(name, "episodes", "encoded each time", "kept", count, None, work, memory=True))
    size = image_size(scale)
    for whole, part in ((False, "first blocks"), (True, "learner")):
        name, goal = f"HSNet, 4 pairs at {size} px, correlation and {part}", "1.5 or more, or memory 0.5"
        work = Squeezing(size, 4, whole)
        found.append(Case(name, "pairs", "whole, copied", "in pieces", 4, goal, work, memory=True))
    rtd_baseline = {"contrast": False, "source": "none", "target": "none"}
    narrow = {"select": False, "discriminator_width": 16}
    for name, method, first, contender, second, goal in (
        ("RtD", "rtd", "all of it", "its baseline", ({}, rtd_baseline), None),
        (
            "RtD's memory, as many passes",
            "rtd",
            "memory",
            "mixing samples",
            ({"target": "none"}, {"source": "mix", "target": "none"}),
            "1.1 or less",
        ),
        ("PixDA", "pixda", "A*S*B", "joint, stylised", (narrow, narrow | {"adversary": "none"}), None),
    ):
        count, work = scaled(20), Training(method, *second, scaled(20))
        found.append(Case(f"training, {name}", "steps", first, contender, count, goal, work, True))
    goal = "1.5 or more" if has_bf16_instructions() else None
    return [
        *found,
        Case(
            f"ResNet-50 at {size} px",
            "images",
            "float32, NCHW",
            "bfloat16, channels last",
            scaled(2),
            goal,
            Formats(scaled(2), size),
            memory=True,
        ),
    ]


def report(scale: float = 1.0) -> dict:
    """Measure everything; a line of progress each."""
    measured = []
    for case in cases(scale):
        measured.append(measure(case))
        print(f"{case.name}: {measured[-1].contender} {measured[-1].ratio:.2f} x {measured[-1].baseline}", flush=True)
    drawing = {}
    for domain in DOMAINS:
        drawing[domain] = drawing_rate(domain, max(2, round(2048 * scale)))
        print(f"toy drawing, {domain}, all cores: {drawing[domain]:.0f} images/s", flush=True)
    size = image_size(scale)
    networks = costs(size)
    for network in networks:
        print(f"{network.title} at {size} px: {network.per_second:.2f} {network.per}s/s", flush=True)
    return {
        "schema_version": 2,
        "command": "make bench",
        "processor": cpu_name(),
        "cores": cpu_cores(),
        "threads": torch.get_num_threads(),
        "bf16_instructions": has_bf16_instructions(),
        "versions": package_versions(("torch", "torchvision", "numpy")),
        "cases": [asdict(m) for m in measured],
        "drawing_images_per_second": drawing,
        "network_size": size,
        "networks": [asdict(network) for network in networks],
    }


if __name__ == "__main__":
    target = paths.project_root() / "results" / "bench.json"
    write_atomically(target, json.dumps(report(float(sys.argv[1]) if len(sys.argv) > 1 else 1.0), indent=1) + "\n")
    print(target)
