"""What to train, as data: a list of phases, each with its batches, steps, optimisers and schedule. Read from YAML."""

import inspect
import itertools
import math
from pathlib import Path
from typing import Literal

import torch
import yaml
from pydantic import BaseModel, ConfigDict, Field

from fsslib.methods.base import Method


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class OptimizerSpec(_Strict):
    """One optimiser. `group_lr` multiplies the rate of parameter groups that the method names."""

    name: Literal["sgd", "adam", "adamw"] = "adam"
    lr: float = Field(gt=0)
    momentum: float = Field(0.9, ge=0, lt=1, description="SGD only")
    weight_decay: float = Field(0.0, ge=0)
    group_lr: dict[str, float] = {}

    def build(self, groups: list[dict]) -> torch.optim.Optimizer:
        """The optimiser over a method's parameter groups. Raises ValueError for a rate whose group is not there."""
        names = {g["name"] for g in groups}
        if unknown := sorted(set(self.group_lr) - names):
            raise ValueError(
                f"group_lr names {', '.join(unknown)}; the method's groups are {', '.join(sorted(names))}."
            )
        settings = []
        for group in groups:
            rate = self.lr * (group.get("lr_scale", 1.0) * self.group_lr.get(group["name"], 1.0))
            settings.append({"weight_decay": self.weight_decay} | group | {"lr": rate, "base_lr": rate})
        kind = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[self.name]
        return _unguarded(kind)(settings, lr=self.lr, **({"momentum": self.momentum} if self.name == "sgd" else {}))


def _unguarded(kind: type[torch.optim.Optimizer]) -> type[torch.optim.Optimizer]:
    """The optimiser without its guards against being compiled, which nobody does here: they import torch._dynamo."""
    names = ("add_param_group", "zero_grad", "state_dict", "load_state_dict")
    plain = {name: inspect.unwrap(getattr(kind, name)) for name in names}
    return type(kind.__name__, (kind,), plain | {"step": torch.no_grad()(inspect.unwrap(kind.step))})


class Schedule(_Strict):
    """How the learning rates move over a phase: a factor of the base rate, a pure function of the step."""

    name: Literal["constant", "cosine", "poly"] = "constant"
    power: float = Field(0.9, gt=0, description="poly only")
    warmup: int = Field(0, ge=0, description="steps of linear rise at the start")

    def factor(self, step: int, steps: int) -> float:
        rise = min(1.0, (step + 1) / (self.warmup + 1))
        if self.name == "constant":
            return rise
        done = step / max(steps, 1)
        return rise * (0.5 * (1 + math.cos(math.pi * done)) if self.name == "cosine" else (1 - done) ** self.power)


class Phase(_Strict):
    """A stretch of training: `data` names a stream given to `fit`, `optimizers` those the method has groups for."""

    name: str
    data: str = "source"
    steps: int = Field(ge=0)
    optimizers: dict[str, OptimizerSpec]
    schedule: Schedule = Schedule()


class Recipe(_Strict):
    """The phases of a training, in order."""

    phases: tuple[Phase, ...]

    @classmethod
    def load(cls, name: str | Path) -> "Recipe":
        """A recipe of the package by name (`sg_one`), or a YAML file by path.

        A method of your own, `package.module:Class`, learns as the prototype network does.
        """
        known = {path.stem: path for path in sorted(Path(__file__).with_name("recipes").glob("*.yaml"))}
        file = known.get(str(name), Path(name))
        if not file.is_file():
            if ":" not in str(name):
                raise ValueError(f"No recipe {str(name)!r}: give a YAML file, or one of {', '.join(known)}.")
            file = known["prototype"]
        return cls.model_validate(yaml.safe_load(file.read_text(encoding="utf-8")))

    def with_changes(self, *, steps: int | None = None, learning_rate: float | None = None) -> "Recipe":
        """The recipe with its phases scaled to `steps` in all, or with another peak learning rate of the segmenter.

        A phase with a tenth of the peak keeps a tenth; other optimisers (a memory's, a discriminator's) keep theirs.
        """
        phases = self.model_dump()["phases"]
        if steps is not None:
            ends = list(itertools.accumulate(phase["steps"] for phase in phases))
            ends = [round(steps * end / max(1, *ends)) for end in ends]
            for phase, start, end in zip(phases, [0, *ends], ends):
                phase["steps"] = end - start
        if learning_rate is not None:
            if not learning_rate > 0:
                raise ValueError(f"A learning rate is above 0; found {learning_rate}.")
            segmenters = [phase["optimizers"]["segmenter"] for phase in phases if "segmenter" in phase["optimizers"]]
            peak = max((spec["lr"] for spec in segmenters), default=1.0)
            for spec in segmenters:
                spec["lr"] = learning_rate * (spec["lr"] / peak)
        return Recipe(phases=phases)

    def optimizers_of(self, phase: int, method: Method) -> dict[str, torch.optim.Optimizer]:
        """Fresh optimisers for a phase over the method's parameter groups."""
        groups = method.parameter_groups()
        wanted = self.phases[phase].optimizers
        if unknown := sorted(set(wanted) - set(groups)):
            raise ValueError(
                f"Phase {self.phases[phase].name!r} wants optimisers for {', '.join(unknown)}; "
                f"{type(method).__name__} has parameters for {', '.join(groups)}."
            )
        return {name: spec.build(groups[name]) for name, spec in wanted.items()}
