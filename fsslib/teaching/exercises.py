"""The checker of all exercises, `fss.exercises.check_NAME(your_function)`, and `progress()`, which counts them.

An exercise is data beside its lesson, in notebooks/lessons/nNN.py: cases, and a function from a case to the right
result and to what each usual slip gives instead, under the hint that corrects it.
"""

import copy
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from types import EllipsisType
from typing import Any, Literal

import torch
from torch import Tensor

from fsslib.teaching import lesson, lessons

Answer = Callable[..., Any] | EllipsisType  # a reader's function, or `...` in its place


class Refused(AssertionError):
    """An answer that cannot be compared; the message says why."""


class Open(Exception):
    """There is no answer yet: the function is `...`, does nothing, or returns `...`."""


class Parts(dict[str, Any]):
    """What a function gave, in named parts that are compared in their order."""


@dataclass(frozen=True)
class Exercise:
    """What a reader's function is held against; decorates `results`, whose docstring says what is asked.

    `cases` gives each case in words and its arguments. Of these `results` gives the "right" result and that of each
    slip under its hint, or a function of nothing that gives it. `passed` ends the line that is printed, `hint` is for
    what no slip explains. `seen` turns a function into one that shows more of it, in `Parts`. The result's gradient for
    the arguments at the places `gradients` is compared as well. `every` sets `number`, as in 10.2.
    """

    cases: Callable[[], Iterable[tuple]]
    passed: str
    difficulty: Literal["easy", "medium", "hard"]
    minutes: int
    hint: str = ""
    seen: Callable[[Answer], Answer] = lambda function: function
    gradients: tuple[int, ...] = ()
    results: Answer = dict
    number: str = ""

    def __call__(self, results: Answer) -> "Exercise":
        return replace(self, results=results)

    def slips(self) -> list[str]:
        """The hints; `function` of one is the wrong function that it corrects."""
        return list(self.results(*copy.deepcopy(next(iter(self.cases()))[1:])))[1:]

    def function(self, name: str = "right") -> Answer:
        return lambda *given: found() if callable(found := self.results(*given)[name]) else found


SOLVED: dict[str, bool] = {}  # by the number of each exercise checked in this kernel: was the last answer right?


def every(numbers: Iterable[int] | None = None) -> Iterator[tuple[str, Exercise]]:
    """The exercises of lessons, of all by default, with their names; a lesson is loaded when its turn comes."""
    for number in lessons() if numbers is None else numbers:
        found = [(name, one) for name, one in vars(lesson(number)).items() if isinstance(one, Exercise)]
        yield from ((name, replace(one, number=f"{number:02}.{n}")) for n, (name, one) in enumerate(found, start=1))


def __getattr__(name: str) -> Callable[[Answer], None]:
    # Python itself asks for names such as __path__ while a lesson imports this module.
    for asked, one in every() if name.startswith("check_") else ():
        if name == f"check_{asked}":
            checker = partial(check, asked, one)
            checker.__name__, checker.__doc__ = name, f"Check your_function{one.results.__doc__}."
            return checker
    raise AttributeError(f"There is no exercise {name!r}; dir(fss.exercises) lists the checks.")


def __dir__() -> list[str]:
    return ["progress", *(f"check_{name}" for name, _ in every())]


def progress() -> None:
    """Print what is solved and what is open, of the lessons whose exercises were checked in this kernel."""
    if not SOLVED:
        print("No exercise was checked in this kernel yet.")
    for number in sorted({int(one[:2]) for one in SOLVED}):
        told = [(SOLVED.get(one.number, False), one, name) for name, one in every([number])]
        print(f"notebook {number:02}: {sum(solved for solved, *_ in told)} of {len(told)} exercises solved")
        for solved, one, name in told:
            print(
                f"  {one.number} {'solved' if solved else 'open  '}  {name} ({one.difficulty}, {one.minutes} minutes)"
            )


def check(name: str, exercise: Exercise, yours: Answer) -> None:
    """Print one line when the function is right, or open. Raises AssertionError with a hint when it is wrong.

    The right results are there first, and every function gets copies: a change in place cannot make a wrong answer
    right, and is told. What the function itself raises is passed on, unless an earlier case is wrong already.
    """
    cases = [(case, given) for case, *given in exercise.cases()]
    wanted = [_ask(exercise, exercise.function(), given)[0] for _, given in cases]
    found, changed, wrong = [], set(), None
    SOLVED[exercise.number] = False
    for place, (case, given) in enumerate(cases):
        try:
            parts, touched = _ask(exercise, yours, given)
        except Open:
            return print(f"exercise {exercise.number} is open ({exercise.difficulty}, {exercise.minutes} minutes)")
        except Exception as error:
            if wrong:
                break
            if isinstance(error, Refused):
                raise AssertionError(f"{case}: {error}") from None
            error.add_note(f"This came from your function, asked about: {case}.")
            raise
        found.append(parts)
        changed |= touched
        wrong = wrong or next(
            ((place, part) for part in wanted[place] if _wrong(parts[part], wanted[place][part])), None
        )

    numbers = " and ".join(f"argument {n + 1}" for n in sorted(changed))
    remark = numbers and f" Your function also changed {numbers} in place: work on a copy."
    if not wrong:
        passed = exercise.passed.format(cases=", ".join(case for case, _ in cases))
        SOLVED[exercise.number] = True
        return print(f"passed: {name} {passed}{remark and '.'}{remark}")
    place, part = wrong
    slips = {hint: partial(_ask, exercise, exercise.function(hint)) for hint in exercise.slips()}
    alike = [hint for hint, slip in slips.items() if not _wrong(found[place][part], slip(cases[place][1])[0][part])]
    if len(alike) > 1:  # in one case; then the one that explains most of what was found

        def explained(hint: str) -> int:
            told = zip(found, [slips[hint](given)[0] for _, given in cases])
            return sum(not _wrong(ours[key], theirs[key]) for ours, theirs in told for key in ours)

        alike.sort(key=explained, reverse=True)
    words = alike[0] if alike else None
    if words is None and part == "gradient" and not found[place][part].any():
        words = "no gradient comes back at all. What is detached, or a plain number, teaches nothing."
    elif words is None:
        words = _wrong(found[place][part], wanted[place][part])
        asked = not exercise.hint or "the shape is" in words
        words += f" Asked is {exercise.results.__doc__}." if asked else f" Hint: {exercise.hint}."
    raise AssertionError(f"{', '.join(filter(None, (cases[place][0], part)))}: {words}{remark}")


def among(*names: str) -> Callable[[Answer], Answer]:
    """See a function that returns some of these names, in any kind of collection, as a yes or no to each of them."""

    def shown(function: Answer, *given: Any) -> Parts:
        found = function(*given)
        found = [f"the text {found!r}"] if isinstance(found, str) else list(found)
        if unknown := ", ".join(sorted(map(str, set(found) - set(names)))):
            raise Refused(f"the answer is a collection of names, of {', '.join(names)}; found unknown {unknown}.")
        return Parts({name.replace("_", " "): name in found for name in names})

    return lambda function: partial(shown, function)


def _ask(exercise: Exercise, function: Answer, given: list) -> tuple[dict[str, Tensor], set[int]]:
    """The parts of a function's answer to copies of its arguments, and the places of those that it changed."""
    handed = copy.deepcopy(given)
    leaves = {place: handed[place].requires_grad_() for place in exercise.gradients}
    handed = [leaves[place].clone() if place in leaves else value for place, value in enumerate(handed)]
    value = exercise.seen(partial(_answer, function))(*handed)
    parts = {name: _numbers(part) for name, part in (value if isinstance(value, Parts) else {"": value}).items()}
    if leaves:
        slopes = [torch.zeros_like(leaf) for leaf in leaves.values()]
        if isinstance(value, Tensor) and value.requires_grad:
            incoming = torch.arange(value.numel()).to(value).cos().reshape(value.shape)
            slopes = torch.autograd.grad(value, [*leaves.values()], incoming, allow_unused=True, materialize_grads=True)
        parts["gradient"] = torch.cat([slope.flatten().double() for slope in slopes])
    pairs = [pair for pair in enumerate(zip(given, handed)) if isinstance(pair[1][0], Tensor | dict | list)]
    return parts, {n for n, (a, b) in pairs if (not torch.equal(a, b) if isinstance(a, Tensor) else a != b)}


def _answer(function: Answer, *handed: Any) -> Any:
    code, empty = getattr(function, "__code__", None), (lambda: None).__code__
    untouched = code and code.co_code[::2] == empty.co_code[::2] and code.co_consts[-1] is None
    if (found := ... if function is ... or untouched else function(*handed)) is ...:
        raise Open
    if found is None:
        raise Refused("your function returned None. Is a return missing?")
    return found


def _numbers(value: Any) -> Tensor:
    """Numbers of any kind, in arrays, lists or alone, as a tensor of doubles; a complex one has an axis more."""
    try:
        plain = not isinstance(value, list | tuple) or all(isinstance(one, int | float) for one in value)
        found = torch.as_tensor(value if plain else torch.stack([*map(_numbers, value)])).detach().cpu()
    except (TypeError, ValueError, RuntimeError):
        raise Refused(f"your function returned {value!r:.80}, which is no array of numbers.") from None
    return (torch.view_as_real(found) if found.is_complex() else found).double()


def _wrong(found: Tensor, right: Tensor) -> str:
    """What is wrong, in words; nothing but rounding or another eps is "". For one number an array of one will do."""
    found = found.reshape(()) if right.dim() == 0 and found.numel() == 1 else found
    if found.shape != right.shape:
        return f"the shape is {(*found.shape,)}; expected {(*right.shape,)}."
    near = torch.isclose(found, right, rtol=1e-4, atol=1e-5, equal_nan=True)
    if near.all():
        return ""
    if not found.isfinite().all():
        kind = "NaN (0 / 0?)" if found.isnan().any() else "infinite"
        return f"{(~found.isfinite()).sum()} values are {kind}. Keep the denominator above zero."
    worst = (found - right).abs().argmax()
    is_, ought = found.flatten()[worst], right.flatten()[worst]
    if right.dim() == 0:
        return f"found {is_:.6g}, expected {ought:.6g}."
    return f"{(~near).sum()} of {near.numel()} values differ; the worst is {is_:.5g} instead of {ought:.5g}."
