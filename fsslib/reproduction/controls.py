"""Does a part work at all? What trained networks answer when the question makes that plain.

    python -m fsslib.reproduction.controls toy_splits

goes through the finished runs of a plan on this machine and adds to `results/PLAN_controls.json`, a row a run and a way
of asking, what claims need as their positive controls:

- SG-One, "wrong support": each episode with the support of another class. What it still scores, it does not owe to the
  support.
- RtD's memory, "foreign style": photographs whose features, where the memory sits, were given the statistics of another
  domain's images. Home is a style that the memory holds, and the shift is one of style alone. Asked with "no item", as
  a network without a memory in test would; with the "selected item", the most similar to what is seen; and with the
  "best item", the most similar to the style that was taken away.
"""

import json
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

import torch
from torch import Tensor

from fsslib import paths
from fsslib.blocks.memory import feature_statistics, restyle
from fsslib.episodes import Episode, EpisodeSet
from fsslib.files import write_atomically
from fsslib.methods.base import Method
from fsslib.methods.rtd import RememberTheDifference
from fsslib.methods.sg_one import SGOne
from fsslib.metrics import FewShotMeter
from fsslib.reproduction.experiment import Experiment
from fsslib.reproduction.plans import Plan, read_rows, recorded
from fsslib.reproduction.result import CHECKPOINT
from fsslib.training.checkpoint import load_checkpoint
from fsslib.training.evaluate import evaluating

AT_ONCE = 25
STYLES = 100
"""Images of a domain that foreign styles are taken from."""

Asked = tuple[str, str, float]
"""The way of asking, the domain, and the mIoU."""


def with_wrong_supports(episodes: Iterable[Episode]) -> Iterator[Episode]:
    """Each 1-way episode with the support of the next one in its batch that asks for another class, if there is one."""
    for episode in episodes:
        ids, other = episode.class_ids[:, 0].tolist(), list(range(len(episode)))
        for row in other.copy():
            following = (*range(row + 1, len(ids)), *range(row))
            other[row] = next((n for n in following if ids[n] != ids[row]), row)
        shown = {name: getattr(episode, name)[other] for name in ("support_images", "support_masks")}
        yield replace(episode, **shown)


def score(method: Method, episodes: Iterable[Episode], classes: Iterable[int]) -> float:
    """The mIoU of some episodes, 0 to 1."""
    meter = FewShotMeter(dict.fromkeys(classes))
    for episode in episodes:
        answer = method.predict(episode)
        meter.update(answer.labels, episode.query_labels, episode.class_ids, answer.presence)
    return meter.compute().miou


def sg_one(run: Experiment) -> Iterator[Asked]:
    """What is left of the score in each domain when the support shows another class."""
    for domain, exam in run.exams.items():
        asked = with_wrong_supports(exam.batches(AT_ONCE))
        yield "wrong support", domain, score(run.method, asked, run.task.classes_in(domain))


def rtd(run: Experiment) -> Iterator[Asked]:
    """The source's questions in the style of each target, without the memory and with two ways of asking it."""
    method, home = run.method, run.exams[run.config.source]
    for domain in run.config.targets:
        styles = styles_of(method, run.exams[domain])
        for item in ("no item", "selected item", "best item"):
            method._towards_home = foreign_style(method, styles, item)
            found = score(method, home.batches(AT_ONCE), run.task.classes_in(run.config.source))
            yield f"foreign style, {item}", domain, found


def styles_of(method: RememberTheDifference, exam: EpisodeSet) -> tuple[Tensor, Tensor]:
    """Mean and deviation of the first STYLES queries' features where the memory sits: [STYLES, C] each."""
    found = []
    for episode in exam.batches(STYLES):
        method.backbone(episode.query_images, {method.memory_after: lambda f: found.append(feature_statistics(f)) or f})
        return found[0]


def foreign_style(
    method: RememberTheDifference, styles: tuple[Tensor, Tensor], item: str
) -> Callable[[Tensor], Tensor]:
    """Gives features the statistics of a drawn style, and then the `item` of the memory for what they look like."""
    generator = torch.Generator().manual_seed(0)

    def change(features: Tensor) -> Tensor:
        drawn = torch.randint(len(styles[0]), (len(features),), generator=generator)
        foreign = restyle(features, *(statistic[drawn] for statistic in styles), 0.0)
        if item == "no item":
            return foreign
        known_by = feature_statistics(features if item == "best item" else foreign)
        return method.memory.enhance(foreign, method.memory.select(*known_by, "highest"), method.alpha)

    return change


CONTROLS = {SGOne: sg_one, RememberTheDifference: rtd}


def add(plan: Plan) -> int:
    """Ask what has not been asked of the plan's finished runs, a row each to its file of controls; how many runs."""
    file, added = paths.project_root() / "results" / f"{plan.name}_controls.json", 0
    rows = read_rows(file) if file.exists() else []
    for label, config in plan.order():
        checkpoint, known = config.folder / CHECKPOINT, {row["config_sha256"] for row in rows}
        if config.sha256 in known or not checkpoint.exists() or not (record := recorded(config)):
            continue
        run = Experiment(config)
        ask = CONTROLS.get(type(run.method))
        if ask is None or getattr(run.method, "target", "highest") != "highest":
            continue
        run.method.load_state_dict(load_checkpoint(checkpoint, identity=config.sha256)["method"])
        scores: dict[str, dict] = {}
        with evaluating(run.method, "cpu"), torch.inference_mode():
            for how, domain, miou in ask(run):
                scores.setdefault(f"{label}, {how}", {})[domain] = {"miou": miou}
        kept = {name: record[name] for name in ("config", "config_sha256", "environment")}
        rows += [{"label": name, "scores": found} | kept for name, found in scores.items()]
        content = {"schema_version": 1, "plan": plan.name, "command": f"python -m {__spec__.name} {plan.name}"}
        write_atomically(file, json.dumps(content | {"runs": rows}, indent=1, allow_nan=False) + "\n")
        added += 1
        print(config.run_id, {name: {d: f"{s['miou']:.3f}" for d, s in f.items()} for name, f in scores.items()})
    return added


if __name__ == "__main__":
    print(f"{add(Plan.load(sys.argv[1]))} runs were asked")
