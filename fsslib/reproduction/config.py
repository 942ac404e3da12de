"""The parameters of one run: a frozen, strict model, the only thing that the command line, YAML and the notebook share.

Inside, every value has its type: `steps="400"` or `fold=True` is refused. Text becomes typed at one place only, in
`parse`, by the type of the field it is for: YAML 1.1 reads `1e-3` as text, the command line knows nothing but text.
"""

import contextlib
import difflib
import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator, model_validator

from fsslib import paths
from fsslib.blocks import STAGE_STRIDES
from fsslib.data import DATA_SETS, SPELLINGS
from fsslib.methods import METHODS, adapts, method_class
from fsslib.protocols import PROTOCOLS

_KNOWN = {"method": METHODS, "backbone": STAGE_STRIDES, "protocol": PROTOCOLS, "data": DATA_SETS}
"""The names that a parameter can have, from the packages that own them: to know them takes no torch."""


class ConfigError(ValueError):
    """Parameters that cannot be a run; one line for each thing that is wrong, with what was found."""


def _names(value: Any) -> Any:
    """YAML, JSON and papermill know lists only; a name alone would be taken apart into letters."""
    if isinstance(value, str):
        raise ValueError(f"a list of names is wanted, such as [night, sketch]; found {value!r}")
    return tuple(value) if isinstance(value, list) else value


def _scalar(value: Any) -> Any:
    if not isinstance(value, bool | int | float | str):
        raise ValueError(f"an option is a number, true or false, or text; found {value!r}")
    return value


Names = Annotated[tuple[str, ...], BeforeValidator(_names)]
Option = Annotated[bool | int | float | str, BeforeValidator(_scalar)]

_CAME_LATER = {"recipe", "draw", "accumulate", "compile", "source_parts", "target_parts", "keep_features"}


class RunConfig(BaseModel):
    """Everything that decides the outcome of one run, and nothing else but where it runs and where its files go."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)

    method: str = Field(
        "sg_one", description="What is trained: a name out of fsslib.methods, or your own package.module:Class."
    )
    method_options: dict[str, Option] = Field(
        default={}, description='Options of the method: name=value, or name="a,b" for a text with commas.'
    )
    backbone: str = Field("tiny", description="The network that makes features: a name out of fsslib.blocks.backbones.")
    weights: str = Field(
        "auto",
        description="Weights the backbone starts from: none (random), imagenet, or a file; auto: for tiny on toy and "
        "toy_splits those trained on the fold's base classes, else none.",
    )
    recipe: str = Field("", description="How it is trained: a recipe's name or YAML file; empty: the method's own.")
    data: str = Field("toy", description="The data set: a name out of fsslib.data.")
    source: str = Field("photo", description="The domain that is trained in.")
    targets: Names = Field(
        ("underwater", "night", "sketch"), description="Domains to test in beside the source, such as night,sketch."
    )
    fold: int = Field(0, description="The fold whose classes are held out for the test.")
    ways: int = Field(1, ge=1, description="Classes asked for in one episode.")
    shots: int = Field(
        1, ge=0, description="Labelled example images per class; per city in domain adaptation, where 0 is none."
    )
    image_size: int = Field(64, ge=16, description="Side of the square images, in pixels; the height of streets.")
    steps: int = Field(300, ge=0, description="Training steps; 0 tests the untrained network.")
    batch_size: int = Field(8, ge=1, description="Episodes per training step, or images of each domain.")
    learning_rate: float | None = Field(None, gt=0, description="Peak learning rate; none: the recipe's own.")
    episodes: int = Field(500, ge=1, description="Test episodes per domain, or test images.")
    draw: int = Field(0, ge=0, description="Which draw of test episodes, or of parts: another number, other questions.")
    source_parts: int = Field(1, ge=1, description="Disjoint parts that the source's images are cut into.")
    target_parts: int = Field(1, ge=1, description="Disjoint parts that each target's images are cut into.")
    protocol: str = Field("toy", description="The rules of scoring: a name out of fsslib.protocols.")
    seed: int = Field(0, ge=0, lt=2**31, description="Seed of the initial weights and of the training episodes.")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="Where to compute; auto: a GPU if there is one.")
    dtype: Literal["float32", "bfloat16"] = Field("float32", description="Number format of the forward pass.")
    accumulate: int = Field(1, ge=1, description="Pieces each batch is computed in, one after the other: saves memory.")
    compile: bool = Field(False, description="Translate the backbone by torch.compile, where this machine can.")
    keep_features: bool = Field(False, description="Keep on disk what frozen stages give of images, and train on that.")
    checkpoint_every: int = Field(100, ge=1, description="Steps between two checkpoints.")
    output: str = Field("", description="Folder of the run's files; empty: runs/ and the run's id.")

    @model_validator(mode="before")
    @classmethod
    def _only_known_names(cls, values: Any) -> Any:
        if isinstance(values, Mapping):
            for name in values:
                if name not in cls.model_fields:
                    raise ValueError(f"{name!r} is no parameter of a run{suggestion(name, cls.model_fields)}")
        return values

    @field_validator("method", "backbone", "data", "protocol")
    @classmethod
    def _exists(cls, name: str, info) -> str:
        known = _KNOWN[info.field_name]
        if info.field_name == "method" and ":" in name:
            method_class(name)
        elif name not in known:
            raise ValueError(f"unknown {info.field_name} {name!r}; there are {', '.join(map(str, known))}")
        return name

    @model_validator(mode="after")
    def _fits_the_data(self) -> "RunConfig":
        facts = DATA_SETS[self.data]
        if self.fold not in facts.folds:
            raise ValueError(f"unknown fold {self.fold} of {self.data}; there are {', '.join(map(str, facts.folds))}")
        if facts.adapts and (len(self.targets) != 1 or self.ways != 1):
            raise ValueError(
                f"{self.data} is for domain adaptation, with one target and no ways; found targets "
                f"{', '.join(self.targets) or 'none'} and ways {self.ways}"
            )
        if not self.shots and not facts.adapts:
            raise ValueError(f"an episode of {self.data} shows at least one example; found shots 0")
        cut = self.source_parts > 1 or self.target_parts > 1
        if cut and not facts.has_parts:
            raise ValueError(f"{self.data} has no files to cut into parts; leave source_parts and target_parts out")
        fixed = f"{self.data} has fixed test images" if facts.adapts and not cut else ""
        if self.draw and PROTOCOLS[self.protocol].episodes != "own":
            fixed = f"protocol {self.protocol} has fixed test episodes"
        if self.draw and fixed:
            raise ValueError(f"{fixed} and nothing to draw; found draw {self.draw}")
        if adapts(self.method) != facts.adapts:
            kind = "a domain adaptation" if facts.adapts else "a few-shot"
            able = ", ".join(name for name in METHODS if adapts(name) == facts.adapts)
            raise ValueError(f"{self.data} needs {kind} method, found {self.method!r}; there are {able}")
        if self.steps and not facts.trainable:
            raise ValueError(f"{self.data} leaves no class to train on, found steps {self.steps}; give steps 0")
        for domain, known in ((self.source, facts.sources), *((target, facts.targets) for target in self.targets)):
            if SPELLINGS.get(domain, domain) not in known:
                there = ", ".join(known) or "no domain beside its source"
                raise ValueError(f"unknown domain {domain!r} of {self.data}; there are {there}")
        if self.batch_size % self.accumulate:
            raise ValueError(
                f"batch_size {self.batch_size} does not fall into {self.accumulate} equal pieces (accumulate); take a "
                "multiple of that"
            )
        if len({SPELLINGS.get(domain, domain) for domain in (self.source, *self.targets)}) <= len(self.targets):
            raise ValueError(
                f"the source and the targets must differ, found source {self.source!r} and targets "
                f"{', '.join(self.targets)}; every run is tested in its source, so leave that out of the targets"
            )
        return self

    @property
    def start_weights(self) -> str:
        """`weights` with "auto" resolved."""
        if self.weights != "auto":
            return self.weights
        shipped = f"tiny-toy-fold{self.fold}.pt" if (self.data, self.backbone) == ("toy", "tiny") else "none"
        return str(self.made_weights or shipped)

    @property
    def made_weights(self) -> Path | None:
        """The start weights that are not shipped but made when first wanted, by a job of the plan or by the run."""
        if (self.weights, self.data, self.backbone) != ("auto", "toy_splits", "tiny"):
            return None
        from fsslib.training.pretrain import weights_file  # it needs torch

        return weights_file(self.data, self.fold)

    @property
    def sha256(self) -> str:
        """Hash of all that can change a number: every parameter but `output` and `device`, as canonical JSON.

        A parameter that came later counts only where it is set, so that the hashes of earlier results stay theirs; so
        does the number of the protocol's rule, from 2 on.
        """
        content = self.model_dump(mode="json", exclude={"output", "device"})
        defaults = {name: type(self).model_fields[name].default for name in _CAME_LATER}
        content = {name: value for name, value in content.items() if value != defaults.get(name, ...)}
        if (rule := PROTOCOLS[self.protocol].rule) > 1:
            content["protocol"] += f", rule {rule}"
        return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()

    @property
    def run_id(self) -> str:
        """A name for people with a hash for certainty: equal exactly for configs that ask for the same numbers."""
        method = self.method.replace(":", ".")
        setting = f"{self.data}-{method}-{self.backbone}-fold{self.fold}-{self.ways}way{self.shots}shot"
        return f"{setting}-seed{self.seed}-{self.sha256[:8]}"

    @property
    def folder(self) -> Path:
        """Where the run's files go; a relative `output` is below the project's root, wherever a kernel was started."""
        return paths.project_root() / (self.output or Path("runs", self.run_id))

    @property
    def test_seed(self) -> str:
        """Seed of the test episodes: the same questions for all methods, options and seeds."""
        draw = f"-draw{self.draw}" if self.draw else ""
        return f"test-{self.data}-fold{self.fold}-{self.ways}way-{self.shots}shot{draw}"


def parse(values: Mapping[str, Any]) -> RunConfig:
    """A config from values of which some are still text, as YAML and the command line give them.

    Text for a number or a switch becomes one where it looks like one ("none" where there may be none); so do a method's
    options, whose types only the method knows. A data set that is named without source or targets brings its own.
    Raises ConfigError, naming all that is wrong.
    """
    kinds = {name: field.annotation for name, field in RunConfig.model_fields.items()}
    typed = {name: _read(value, _WORDS_FOR.get(kinds.get(name))) for name, value in values.items()}
    if isinstance(options := values.get("method_options"), Mapping):
        typed["method_options"] = {name: _read(value, _SWITCH) for name, value in options.items()}
    if facts := DATA_SETS.get(str(values.get("data"))):
        typed = {"source": facts.sources[0], "targets": facts.default_targets} | typed
    try:
        return RunConfig(**typed)
    except ValidationError as error:
        raise ConfigError("\n".join(explain(error))) from error


_SWITCH = {"true": True, "false": False}
_WORDS_FOR = {int: {}, bool: _SWITCH, float | None: {"none": None}}
"""The types that text is read for, and the words that they know."""


def _read(value: Any, words: Mapping[str, Any] | None) -> Any:
    """Text as the number or the word that it looks like; as it is where it looks like none, or no words are given."""
    if words is None or not isinstance(value, str):
        return value
    for kind in (int, float):
        with contextlib.suppress(ValueError):
            return kind(value)
    return words.get(value.lower(), value)


def load(path: Path | str) -> dict[str, Any]:
    """The parameters that a YAML file sets, not yet checked. Raises ConfigError when it is no mapping of names."""
    try:
        values = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}. Name a YAML file of run parameters.") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not YAML: {error}") from error
    if not isinstance(values, dict) or not all(isinstance(name, str) for name in values):
        raise ConfigError(f"{path} should hold lines such as 'method: sg_one'; found {str(values)[:80]!r}.")
    return values


def explain(error: ValidationError) -> list[str]:
    """What a ValidationError says, one line for each wrong value, for people."""
    lines = []
    for item in error.errors(include_url=False):
        said = str(item["ctx"]["error"]) if item["type"] == "value_error" else f"{item['msg']}; found {item['input']!r}"
        name = ".".join(str(part) for part in item["loc"] if part in RunConfig.model_fields)
        told = f"{name}: {said}" if name else said
        lines.append(f"--{item['loc'][-1]} is missing" if item["type"] == "missing" else told)
    return lines


def suggestion(name: str, known: Iterable[str]) -> str:
    """`; did you mean 'method'?` for a misspelt name, or nothing."""
    close = difflib.get_close_matches(str(name), list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""
