"""The command line: `fsslib tutorial`, `run`, `reproduce`, `doctor`, `data list`, `data get`, `data check`, `segment`;
flags come from the typed models.

Exit codes: 0 done, 1 something failed, 2 the command or a parameter is wrong, 130 interrupted, 141 nobody reads on.
"""

import os
import re
import sys
from pathlib import Path
from typing import Literal, get_args
from urllib.parse import quote, unquote_to_bytes

from pydantic import AliasChoices, BaseModel, Field, ValidationError, create_model
from pydantic_settings import BaseSettings, CliApp, CliPositionalArg, CliSubCommand, CliVariadicArg, SettingsError

from fsslib.files import DataError
from fsslib.reproduction import result
from fsslib.reproduction.config import ConfigError, Names, RunConfig, explain, load, parse, suggestion
from fsslib.reproduction.result import RunError

# What takes its time to import, as torch and papermill do, is imported where it is used: `fsslib --help` needs neither.

# The fields of RunConfig with their types and defaults, without its checks: those are for all parameters together,
# after the flags have been laid over a YAML file.
RunFlags = create_model(
    "RunFlags",
    **{
        name: (field.annotation, Field(field.default, description=field.description))
        for name, field in RunConfig.model_fields.items()
    },
)


class Run(RunFlags):
    """Train and evaluate once: parameters from a YAML file, flags over it, defaults for the rest; or from a plan."""

    config: CliPositionalArg[Path | None] = Field(None, description="YAML file of parameters; with --index, a plan.")
    targets: CliVariadicArg[Names] = RunFlags.model_fields["targets"]
    index: int | None = Field(None, ge=0, description="Carry out the run of the plan with this number, from 0.")
    force: bool = Field(False, description="Start afresh, whatever the output folder holds of this or another run.")
    show: bool = Field(False, description="Show what the notebook prints while it runs.")
    wait: bool = Field(False, description="Wait where another process is at this run; with --index that is so.")

    def cli_cmd(self) -> None:
        from fsslib.reproduction import plans

        given = {name: getattr(self, name) for name in RunConfig.model_fields if name in self.model_fields_set}
        if given.get("output"):
            given["output"] = str(Path(given["output"]).absolute())
        if self.index is None:
            config = parse((load(self.config) if self.config else {}) | given)
        elif self.config and not given:
            config = plans.Plan.load(self.config).at(self.index)
        else:
            raise ConfigError("--index takes the name of a plan and no other parameters: fsslib run laptop --index 3")
        from fsslib.reproduction.run import run

        if plans.recorded(config) and not self.force:
            print("This run was finished before; --force repeats it.")
        # Two tasks of a job array never meet, but one that was started again may find the first at its end.
        path = run(config, force=self.force, wait=self.wait or self.index is not None, log_output=self.show)
        print(result.score_table(result.read_result(path)["scores"]), path, sep="\n")


class Tutorial(BaseModel):
    """Run the teaching notebooks and one small training, and write report/index.html. What is up to date is kept."""

    def cli_cmd(self) -> None:
        from fsslib.reproduction import tutorial

        raise SystemExit(tutorial.main())


class Reproduce(BaseModel):
    """Make a table of results: carry out the runs of a plan that are not finished, and gather results/PLAN.json."""

    plan: CliPositionalArg[str] = Field(description="A plan of the package, such as smoke or laptop, or a YAML file.")
    jobs: int | None = Field(None, ge=1, description="Runs at a time; none: 2, or what the profile says.")
    cores: int | None = Field(None, ge=1, description="Cores for all runs; none: all. OMP_NUM_THREADS goes first.")
    profile: Path | None = Field(None, description="Folder of a Snakemake profile, for a cluster: docs/cluster.md.")
    dry_run: bool = Field(False, description="Show what is done, what would run and how long that takes, and stop.")

    def cli_cmd(self) -> None:
        from fsslib.reproduction import plans

        plan = plans.Plan.load(self.plan)
        print(plans.forecast(plan, jobs=plans.at_a_time(self.jobs, self.cores)), flush=True)
        if self.dry_run:
            return
        if failures := plans.carry_out(plan, jobs=self.jobs, cores=self.cores, profile=self.profile):
            raise RunError("\n".join([f"{len(failures)} runs failed:", *failures]))
        print(plan.results_file)


class Doctor(BaseModel):
    """Print what a bug report needs: versions, device, data sets, weights. Fails on a broken torch or torchvision."""

    def cli_cmd(self) -> None:
        from fsslib import doctor

        raise SystemExit(doctor.main())


class DataList(BaseModel):
    """Say which data sets are there, and how to get the others."""

    def cli_cmd(self) -> None:
        from fsslib.data import catalogue

        print(catalogue.report())


class DataGet(BaseModel):
    """Download a data set from where it is published, check it and unpack it; or say how to get it by hand."""

    name: CliPositionalArg[str] = Field(description="A name out of `fsslib data list`.")

    def cli_cmd(self) -> None:
        from fsslib.data import catalogue

        catalogue.get(self.name)


class DataCheck(BaseModel):
    """Read every file of a data set, count what is there, and draw some of it to look at."""

    name: CliPositionalArg[str] = Field(description="A name out of `fsslib data list`.")
    full: bool = Field(False, description="Hold numbers and lists against the published ones: for complete data sets.")
    sheet: Path | None = Field(None, description="The PNG with pictures; none: report/data/NAME.png.")

    def cli_cmd(self) -> None:
        from fsslib import paths
        from fsslib.data import SPELLINGS, check

        images, damaged = check.open_set(self.name)
        sheet = self.sheet or paths.project_root() / "report" / "data" / f"{SPELLINGS.get(self.name, self.name)}.png"
        report = check.check(images, damaged, sheet=sheet)
        print(report)
        if self.full:
            print(check.hold_against_published(self.name, len(images.ids)))
        if report.damaged:
            raise SystemExit(1)


class Data(BaseModel):
    """The data sets of this machine."""

    list: CliSubCommand[DataList]
    get: CliSubCommand[DataGet]
    check: CliSubCommand[DataCheck]

    def cli_cmd(self) -> None:
        CliApp.run_subcommand(self)


class Segment(BaseModel):
    """Find what one or a few masks mark in every picture of a folder: masks, overlays and a contact sheet."""

    support: CliVariadicArg[list[Path]] = Field(
        description="A picture and its mask (white on black, on a transparent layer, a label map, LabelMe's or COCO's "
        "JSON, or a folder of masks), and more such pairs."
    )
    query: Path = Field(description="The folder of pictures to segment.")
    out: Path = Field(description="The folder to write to, another than those that are read.")
    weights: str = Field(
        "auto", description="auto: those of ImageNet found on this machine, else of the toy world; imagenet; or a file."
    )
    backbone: str = Field("auto", description="The network; auto: the one that the weights belong to.")
    size: int = Field(256, ge=32, description="Side in pixels at which the network sees a picture.")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="Where to compute; auto: a GPU if there is one.")
    colour: str | None = Field(
        None,
        validation_alias=AliasChoices("colour", "class"),
        description="Which class of a mask is meant, by its name, its number or '#rrggbb'; none: all of them as one.",
    )

    def cli_cmd(self) -> None:
        if len(self.support) % 2:
            raise ConfigError(f"--support takes pairs, a picture and its mask each; found {len(self.support)} files.")
        from fsslib.reproduction.environment import choose_device
        from fsslib.training.segment import segment

        files = [Path(os.fsdecode(unquote_to_bytes(str(file)))) for file in self.support]
        pairs = list(zip(files[::2], files[1::2], strict=True))
        options = {"backbone": self.backbone, "weights": self.weights, "size": self.size, "choose": self.colour}
        try:
            done = segment(pairs, self.query, self.out, progress=True, device=choose_device(self.device), **options)
        except ValueError as error:
            raise ConfigError(str(error)) from error
        print("\n".join(done.notes[len(done.understood) :]))  # those were printed before the work began
        print(f"{len(done.masks)} masks and overlays in {self.out}; look at {done.sheet}")
        if done.damaged:
            raise DataError("\n".join(["Not segmented:", *done.damaged.values()]))


class Fsslib(
    BaseSettings,
    cli_prog_name="fsslib",
    cli_exit_on_error=False,
    cli_kebab_case=True,
    cli_avoid_json=True,
    cli_parse_none_str="none",
    cli_implicit_flags=True,
    cli_use_class_docs_for_groups=True,
):
    """Cross-domain few-shot segmentation: what it is, in notebooks; what works, in numbers."""

    tutorial: CliSubCommand[Tutorial]
    run: CliSubCommand[Run]
    reproduce: CliSubCommand[Reproduce]
    doctor: CliSubCommand[Doctor]
    data: CliSubCommand[Data]
    segment: CliSubCommand[Segment]

    @classmethod
    def settings_customise_sources(cls, settings_cls, init_settings, **_):
        """Flags only: without this, environment variables named `run` or `data` would be read as parameters."""
        return (init_settings,)

    def cli_cmd(self) -> None:
        CliApp.run_subcommand(self)


def main(arguments: list[str] | None = None) -> int:
    """Run one command and return its exit code; what went wrong is said on stderr, in words."""
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        code = _call(arguments)
        sys.stdout.flush()
    except BrokenPipeError:  # `fsslib ... | head` has seen enough; what Python still holds back for it goes nowhere
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    return code


_LISTS = {
    "--support": "pairs behind it: --support IMG MASK IMG MASK ...",
    "--targets": "names behind it: --targets night sketch",
}


def _call(arguments: list[str]) -> int:
    for flag, behind in _LISTS.items():
        if sum(argument.partition("=")[0] == flag for argument in arguments) > 1:  # the first would be forgotten
            return _fail(f"{flag} is given once, with all {behind}", 2)
    if "--support" in arguments:  # of plain names pydantic-settings splits those with commas, and unpacks brackets
        start = arguments.index("--support") + 1
        end = next((n for n in range(start, len(arguments)) if arguments[n].startswith("--")), len(arguments))
        arguments = [*arguments[:start], *(quote(os.fsencode(a)) for a in arguments[start:end]), *arguments[end:]]
    try:
        CliApp.run(Fsslib, cli_args=arguments)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 0
    except ValidationError as error:
        return _fail("\n".join(explain(error)), 2)
    except (ConfigError, SettingsError) as error:
        return _fail(_with_suggestions(str(error), arguments), 2)
    except (DataError, RunError) as error:
        return _fail(error, 1)
    except KeyboardInterrupt as interrupt:  # a run says by itself what became of it
        goes_on = " ".join(arguments).startswith(("tutorial", "reproduce", "data get"))
        then = " The next call goes on with what is missing." if goes_on else ""
        return _fail(str(interrupt) or f"Interrupted.{then}", 130)
    return 0


def _with_suggestions(message: str, arguments: list[str]) -> str:
    """argparse's message about unknown flags, with the flags of the command that were probably meant."""
    command: type[BaseModel] = Fsslib
    for argument in arguments:
        kinds = get_args(getattr(command.model_fields.get(argument), "annotation", None))
        command = next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)), command)
    known = [f"--{name.replace('_', '-')}" for name in command.model_fields]
    unknown = [flag for flag in re.findall(r"--[\w-]+", message) if flag not in known and "unrecognized" in message]
    return message.removeprefix("error parsing CLI: ") + "".join(suggestion(flag, known) for flag in unknown)


def _fail(message: object, code: int) -> int:
    print(f"fsslib: {message}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
