"""pytest plugin that makes ``pytest notebooks --nbval`` a strict regression test of the committed notebooks.

nbval runs each code cell and compares its output with the stored one. On top of it, for every notebook:

- an item ``rules`` holds the notebook against ``lint.py``; one that is not wholly executed fails there and is not run,
  since nbval passes whatever has no stored output; train and report notebooks are held to the rules and never run;
- decimals may differ by one unit of their last printed digit, all other text must be equal (`NumericText`);
- the first cell that fails ends its notebook: the rest is skipped, so that one cause is one failure;
- under xdist a notebook stays whole on one worker, since its cells share a kernel;
- the kernel is this environment's python, and does not see the variables of `HIDDEN_VARIABLES`.

nbval offers no hook for any of this. Its two classes are therefore derived and take the place of the originals in what
nbval collects; nothing of nbval is patched. Without ``--nbval`` the plugin does nothing.
"""

import json
import re
from decimal import Decimal

import pytest
from nbval.plugin import IPyNbCell, IPyNbFile

from tests.notebooks import lint

# The spaces before a number belong to it: printed columns move with signs and widths (0.9999 and -0.0000, 10.0000).
NUMBER = re.compile(r" *(?<![\w.])[-+]?(?:\d+(?:\.\d+)?|\.\d+)(?:[eE][-+]?\d+)?")
WHOLE_NOTEBOOK_DISTRIBUTIONS = ("no", "loadfile", "loadscope", "each")


def near(fresh: str, stored: str) -> bool:
    """Whether two printed numbers are equal: whole ones exactly, decimals to one unit of the last digit, mixed never.

    One unit, because two values closer than a unit are printed with the same last digit or with neighbours, and what
    another machine does to a number that is not trained is far less than a unit. Of two formats the finer one counts:
    a zero in scientific notation would else be near all that is small.
    """
    if any(re.fullmatch(r"\s*[-+]?\d+", number) for number in (fresh, stored)):
        return fresh.strip() == stored.strip()
    one, other = Decimal(fresh), Decimal(stored)
    return abs(one - other) <= Decimal(1).scaleb(min(one.as_tuple().exponent, other.as_tuple().exponent))


def settle(fresh: str, stored: str) -> str:
    """``fresh`` with each number that is near its counterpart in ``stored`` written as there.

    Counterparts are found by order; text that differs beside its numbers, or in how many it has, is returned as it is.
    ``nan`` and ``inf`` are text: they equal themselves only.
    """
    if NUMBER.sub("0", fresh) != NUMBER.sub("0", stored):
        return fresh
    counterparts = iter(NUMBER.findall(stored))

    def choose(match: re.Match) -> str:
        counterpart = next(counterparts)
        return counterpart if near(match.group(), counterpart) else match.group()

    return NUMBER.sub(choose, fresh)


class NumericText(str):
    """Output text that differs from another only if something but near numbers differs."""

    __slots__ = ()
    __hash__ = None

    def __eq__(self, fresh: object) -> bool:
        return isinstance(fresh, str) and settle(str(fresh), str(self)) == str(self)

    def __ne__(self, fresh: object) -> bool:
        return not self == fresh


class Rules(pytest.Item):
    """One item that holds a file against the rules."""

    def __init__(self, *, findings: list[str], **arguments):
        super().__init__(**arguments)
        self.findings = findings

    def runtest(self):
        if self.findings:
            pytest.fail("\n".join([f"{self.path.name} breaks the rules for notebooks:", *self.findings]), pytrace=False)

    def reportinfo(self):
        return self.path, None, f"{self.path.name}: rules"


class Index(pytest.File):
    """The ``index.yml`` of a folder of notebooks."""

    def collect(self):
        yield Rules.from_parent(self, name="rules", findings=lint.index_findings(self.path.parent))


class Notebook(IPyNbFile):
    """A notebook: its rules, then its cells if it is a teaching notebook that was executed."""

    stopped_by = None

    def collect(self):
        findings = lint.notebook_findings(self.path)
        yield Rules.from_parent(self, name="rules", findings=findings)
        if lint.notebook_kind(self.path) not in ("teach", "solve"):
            return
        notebook = json.loads(self.path.read_text(encoding="utf-8"))
        if lint.execution_findings(notebook, self.path):
            return
        for cell in super().collect():
            yield Cell.from_parent(self, name=cell.name, cell_num=cell.cell_num, cell=cell.cell, options=cell.options)

    def setup(self):
        """The kernel starts with the first cell: the rules need none."""

    def start_kernel(self):
        with pytest.MonkeyPatch.context() as environment:
            # Not above: what is imported before jaxtyping's hook is there is not checked.
            from fsslib.teaching.execute import HIDDEN_VARIABLES

            for name in HIDDEN_VARIABLES:
                environment.delenv(name, raising=False)
            super().setup()


class Cell(IPyNbCell):
    """A code cell, not run once an earlier one has failed."""

    def __init__(self, **arguments):
        super().__init__(**arguments)
        # nbval waits five seconds for each further message of a cell, too short on a machine with other work.
        self.output_timeout = 30

    def setup(self):
        if self.parent.stopped_by:
            pytest.skip(f"not run: {self.parent.stopped_by} failed")
        if self.parent.kernel is None:
            self.runs(self.parent.start_kernel)

    def runtest(self):
        self.runs(super().runtest)

    def runs(self, step):
        try:
            step()
        except Exception:
            self.parent.stopped_by = self.name
            raise

    def sanitize(self, s):
        """nbval passes every text through here, right before it compares stored and fresh with ``!=``."""
        text = super().sanitize(s)
        return NumericText(text) if isinstance(text, str) else text

    def format_output_compare(self, key, left, right):
        """Show the numbers and the text that differ, without the near numbers."""
        if isinstance(left, str) and isinstance(right, str):
            left, right = str(left), settle(str(right), str(left))
        super().format_output_compare(key, left, right)


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config):
    """Choose this environment's kernel, and whole notebooks per xdist worker."""
    if not config.getoption("nbval", False):
        return
    config.option.nbval_current_env = not config.option.nbval_kernel_name
    if config.getoption("dist", "no") == "load":  # what xdist makes of a plain -n
        config.option.dist = "loadfile"
    if config.getoption("dist", "no") not in WHOLE_NOTEBOOK_DISTRIBUTIONS:
        raise pytest.UsageError(
            f"--dist {config.option.dist} would spread a notebook's cells over several kernels; use --dist loadfile"
        )


@pytest.hookimpl(wrapper=True)
def pytest_collect_file(file_path, parent):
    """Put our classes in the place of nbval's, and collect the index of the notebooks."""
    collected = yield
    if not parent.config.getoption("nbval", False):
        return collected
    if file_path.name == "index.yml" and any(file_path.parent.glob("*.ipynb")):
        return [*collected, Index.from_parent(parent, path=file_path)]
    return [Notebook.from_parent(parent, path=one.path) if isinstance(one, IPyNbFile) else one for one in collected]
