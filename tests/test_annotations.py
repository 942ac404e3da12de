"""Shapes in annotations that the checker of the tests can hold to account, read from the source. 2 s.

Of a container of any number of arrays beartype looks at one item, at random, and of what a generator yields at none. An
axis named there and nowhere else in the signature says that all items share it, and nothing ever finds that they do
not. So such an axis is `_`, or has its name from an array that is looked at.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import jaxtyping
import pytest
import torch

from fsslib.episodes import LabelledImages
from fsslib.methods.base import Prediction

ROOT = Path(__file__).resolve().parents[1]
ALL_LOOKED_AT = ("Annotated", "Optional", "Union")


def axes_of(annotation: ast.AST, loose: bool) -> Iterator[tuple[bool, str]]:
    """Each named axis of the arrays in an annotation, and whether its array is one of any number."""
    if not isinstance(annotation, ast.Subscript):
        for part in ast.iter_child_nodes(annotation):
            yield from axes_of(part, loose)
        return
    name = getattr(annotation.value, "attr", getattr(annotation.value, "id", ""))
    parts = getattr(annotation.slice, "elts", [annotation.slice])
    constants = [part.value for part in parts if isinstance(part, ast.Constant)]
    if issubclass(getattr(jaxtyping, name, object), jaxtyping.AbstractDtype):
        yield from ((loose, axis) for axis in re.findall(r"[A-Za-z]\w*", constants[-1]))
    else:
        loose |= name not in ALL_LOOKED_AT and (name != "tuple" or Ellipsis in constants)
        for part in parts:
            yield from axes_of(part, loose)


def unchecked(source: str) -> dict[str, set[str]]:
    """The axes of each function and class that nothing checks."""
    found = {}
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef):
            given = node.args
            one = [*given.posonlyargs, *given.args, *given.kwonlyargs]
            annotations = [(a.annotation, False) for a in one] + [(node.returns, False)]
            annotations += [(a.annotation, True) for a in (given.vararg, given.kwarg) if a]
        elif isinstance(node, ast.ClassDef):
            annotations = [(field.annotation, False) for field in node.body if isinstance(field, ast.AnnAssign)]
        else:
            continue
        axes = {axis for annotation, loose in annotations if annotation for axis in axes_of(annotation, loose)}
        if free := {name for loose, name in axes if loose} - {name for loose, name in axes if not loose}:
            found[node.name] = free
    return found


@pytest.mark.parametrize(
    ("annotations", "free"),
    [
        ('images: Float[Tensor, "B 3 H W"]) -> list[Float[Tensor, "B L C h w"]]', {"L", "C", "h", "w"}),
        ('images: Float[Tensor, "B 3 H W"]) -> list[Float[Tensor, "B _ _ _ _"]]', set()),
        ('x: Float[Tensor, "B C"]) -> tuple[Float[Tensor, "B D"], Int[Tensor, "D"]]', set()),
        ('x: Float[Tensor, "B C"]) -> tuple[Float[Tensor, "B D"], ...] | None', {"D"}),
        ('levels: Mapping[str, Sequence[Float[np.ndarray, "2 n"]]]) -> int', {"n"}),
        ('*x: Float[Tensor, "*lead C"]) -> Float[Tensor, "*lead"]', {"C"}),
        ('x: Float[Tensor, "B"] | None) -> Iterator[jaxtyping.Bool[Tensor, "B m+1"]]', {"m"}),
        ('x: list[Tensor], f: Literal["B", "C"]) -> dict[str, Tensor]', set()),
    ],
)
def test_axes_that_nothing_checks_are_found(annotations, free):
    assert unchecked(f"def f({annotations}: ...") == ({"f": free} if free else {})
    fields = 'class A:\n    size: Int[Tensor, "B"]\n    maps: list[Float[Tensor, "B h"]]'
    assert unchecked(fields) == {"A": {"h"}}


@pytest.mark.parametrize("path", sorted((ROOT / "fsslib").rglob("*.py")), ids=lambda p: p.relative_to(ROOT).as_posix())
def test_no_axis_of_the_library_goes_unchecked(path):
    assert unchecked(path.read_text(encoding="utf-8")) == {}


@pytest.mark.parametrize(
    ("made_of", "first", "second"),
    [(Prediction, (2, 4, 4), (3, 1)), (LabelledImages, (2, 3, 4, 4), (2, 4, 5))],
)
def test_fields_of_a_data_class_are_checked_together(made_of, first, second):
    kinds = {Prediction: (torch.int64, torch.bool), LabelledImages: (torch.float32, torch.int64)}[made_of]
    with pytest.raises(jaxtyping.TypeCheckError):
        made_of(*(torch.zeros(shape, dtype=kind) for shape, kind in zip((first, second), kinds)))
