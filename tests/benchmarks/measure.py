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
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from fsslib import paths
from fsslib.blocks.backbones import build_backbone
from fsslib.data import open_task
from fsslib.data.decode import fitted
from fsslib.data.images import LabelledImageSet
from fsslib.data.layouts import Layout, find
from fsslib.data.toyworld import DOMAINS, ToyWorld
from fsslib.files import write_atomically
from fsslib.methods import build_method
from fsslib.reproduction.environment import cpu_cores, cpu_name, package_versions, peak_memory_bytes
from fsslib.training.recipe import Recipe
from tests.benchmarks.evaluating import Work, evaluating, hypercorrelating, repeating
from tests.benchmarks.keeping import KEPT, keeping
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
    goal: str | None
    count: int
    make: Callable[[], tuple[Work, Work]]
    memory: bool = False


def measure(case: Case, *, turns: int = 3) -> dict[str, Any]:
    """Let the two take turns, after one round that does not count.

    Told are pieces of work a second each way, how many times faster the contender is, and peak memory in bytes.
    """
    ways = case.make()
    seconds: tuple[list[float], list[float]] = ([], [])
    for turn in range(turns + 1):
        for way, times in zip(ways, seconds):
            start = time.perf_counter()
            way()
            if turn:
                times.append(time.perf_counter() - start)
    ratios = [first / second for first, second in zip(*seconds)]
    found = {name: getattr(case, name) for name in ("name", "unit", "baseline", "contender", "goal")}
    for way, times in zip(("baseline", "contender"), seconds):
        found[f"{way}_per_second"] = case.count / statistics.median(times)
    found |= {"ratio": statistics.median(ratios), "ratio_range": (min(ratios), max(ratios))}
    for index, way in enumerate(("baseline", "contender")):
        found[f"{way}_peak_bytes"] = _peak_of(case, index) if case.memory else None
    return found


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


def drawing(domain: str, count: int) -> tuple[Work, Work]:
    """The same pictures one by one and in one batch, in this process."""
    world, ids = ToyWorld(domain), toy_ids(count)
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


# Reading photographs, training


def reading(count: int) -> tuple[Work, Work]:
    """Pictures as large as VOC's (500 x 375, JPEG and PNG) brought to 256 pixels, and the same out of the cache."""
    folder = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    (drawn, _), labels = ToyWorld("photo", size=256).images(toy_ids(count)), np.zeros((375, 500), np.uint8)
    labels[100:300, 100:400] = 1
    for number, image in enumerate(drawn):
        picture = Image.fromarray((255 * image).byte().permute(1, 2, 0).numpy()).resize((500, 375))
        picture.save(folder / f"{number}.jpg", quality=90)
        Image.fromarray(labels).save(folder / f"{number}.png")
    layout = Layout("bench", ["{name}.jpg"], ["{name}.png"], {1: "aeroplane"})
    images = LabelledImageSet(find(layout, folder).files, layout.named(), name="bench", domain="photo", size=256)
    ((cache, _), *_) = images.cached(folder)._pixels.values()
    ways = (lambda i: fitted(*images.load(i), images.shape), cache.__getitem__)
    return tuple(lambda read=read: [read(i) for i in images.ids] for read in ways)


def training(
    method: str, baseline: dict[str, str | bool], contender: dict[str, str | bool], steps: int
) -> tuple[Work, Work]:
    """Steps of RtD or PixDA on batches drawn beforehand, with one set of its switches and with another."""
    if method == "pixda":
        task = open_task("streets", source="game", targets=("meadow",), size=48)
        stream, weights = task.streams(batch_size=4, shots=5)["both"], "none"
    else:
        task = open_task("toy", fold=0)
        stream, weights = task.streams(batch_size=8)["source"], "tiny-toy-fold0.pt"
    batches = [stream.batch(number) for number in range(4)]

    def work(switches: dict[str, Any]) -> Work:
        network = build_method(method, weights=weights, **switches, **task.method_options).train()
        optimizers = Recipe.load(method).optimizers_of(0, network)

        def train() -> None:
            for number in range(steps):
                network.training_step(batches[number % len(batches)], optimizers)
                with torch.no_grad():
                    network.after_step()

        return train

    return work(baseline), work(contender)


# Number formats


def has_bf16_instructions() -> bool:
    """Whether the processor multiplies bfloat16 itself; without, torch converts and nothing is won."""
    flags = Path("/proc/cpuinfo")
    return flags.exists() and any(name in flags.read_text() for name in ("avx512_bf16", "amx_bf16", " bf16"))


def formats(count: int, size: int) -> tuple[Work, Work]:
    """ResNet-50 to layer4 in float32 NCHW, and in bfloat16 with channels last."""
    pictures = torch.rand(count, 3, size, size)

    def work(layout: torch.memory_format, low: bool) -> Work:
        backbone, given = build_backbone("resnet50").eval().to(memory_format=layout), pictures.to(memory_format=layout)

        def encode() -> None:
            with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=low):
                backbone(given)

        return encode

    return work(torch.contiguous_format, False), work(torch.channels_last, True)


def image_size(scale: float) -> int:
    """The side of the images that networks of the papers' size are given."""
    return max(96, round(400 * scale))


TOLD = {
    "drawing": ("images", "one by one", "in a batch", None),
    "reading": ("images", "decoded each time", "cache on disk", "5 or more"),
    "with drawing": ("episodes", "one by one", "batches of 25", "5 or more"),
    "without drawing": ("episodes", "one by one", "batches of 25", "1.2 or more"),
    "repeating": ("episodes", "encoded each time", "kept", None),
    "RtD": ("steps", "all of it", "its baseline", None),
    "RtD's memory, as many passes": ("steps", "memory", "mixing samples", "1.1 or less"),
    "PixDA": ("steps", "A*S*B", "joint, stylised", None),
}
"""Of cases: the unit, what is compared with what, the goal."""
NARROW = {"select": False, "discriminator_width": 16}
SWITCHES = {
    "RtD": ("rtd", {}, {"contrast": False, "source": "none", "target": "none"}),
    "RtD's memory, as many passes": ("rtd", {"target": "none"}, {"source": "mix", "target": "none"}),
    "PixDA": ("pixda", NARROW, NARROW | {"adversary": "none"}),
}


def cases(scale: float = 1.0) -> list[Case]:
    """All cases; `scale` below 1 shrinks the work, for trying out."""
    images, photographs, episodes, again, few, steps, two = (
        max(2, round(number * scale)) for number in (128, 64, 100, 60, 7, 20, 2)
    )
    size = image_size(scale)
    drawn = {"with drawing": True, "without drawing": False}
    families = {"features resized": "features", "mask resized": "mask"}
    low = ("images", "float32, NCHW", "bfloat16, channels last", "1.5 or more" if has_bf16_instructions() else None)
    return [
        *(Case(f"toy drawing, {d}", *TOLD["drawing"], images, partial(drawing, d, images)) for d in DOMAINS),
        Case("reading photographs at 256 px", *TOLD["reading"], photographs, partial(reading, photographs)),
        *(
            Case(
                f"evaluation {how}, {f}",
                *TOLD[how],
                episodes,
                partial(evaluating, families[f], drawn[how], episodes),
                True,
            )
            for f in families
            for how in drawn
        ),
        Case("evaluation, images that repeat", *TOLD["repeating"], again, partial(repeating, again, few), True),
        *(
            Case(
                f"HSNet on ResNet-50 at {size} px, {what}",
                what,
                "as released",
                "here",
                f"{goal} or more, memory 0.5",
                1,
                partial(hypercorrelating, size, learning),
                True,
            )
            for what, goal, learning in (("answers", 1.6, False), ("steps", 1.8, True))
        ),
        *(
            Case(f"training, {name}", *TOLD[name], steps, partial(training, *SWITCHES[name], steps), True)
            for name in SWITCHES
        ),
        *(
            Case(f"training, {name}", "steps", "all stages", "features kept", goal, two, partial(keeping, *work, two))
            for name, (goal, *work) in KEPT.items()
        ),
        Case(f"ResNet-50 at {size} px", *low, two, partial(formats, two, size), True),
    ]


def report(scale: float = 1.0) -> dict:
    """Measure everything; a line of progress each."""
    measured = []
    for case in cases(scale):
        measured.append(measure(case))
        print("{name}: {contender} {ratio:.2f} x {baseline}".format_map(measured[-1]), flush=True)
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
        "cases": measured,
        "drawing_images_per_second": drawing,
        "network_size": size,
        "networks": [asdict(network) for network in networks],
    }


if __name__ == "__main__":
    target = paths.project_root() / "results" / "bench.json"
    write_atomically(target, json.dumps(report(float(sys.argv[1]) if len(sys.argv) > 1 else 1.0), indent=1) + "\n")
    print(target)
