"""What the checkers share: calling an answer, reading it, knowing a mistake."""

import copy
import inspect
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from advlib.networks import models

Case = tuple  # the arguments of one call
Value = np.ndarray
Reader = Callable[[object, Case], Value]


class NotYet(Exception):  # noqa: N818 (no error of the program)
    """The answer is not right yet; the text says why."""


def last_line(error: BaseException) -> str:
    """Return the last line of the traceback of ``error``, shortened to one line."""
    lines = traceback.format_exception_only(error)[-1].strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__


def place(error: BaseException) -> str:
    """Return where the reader's code stopped for ``error``: the innermost line there.

    The frames of this package and of installed ones are passed over.
    """
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if not _installed(f.filename)]
    return f" in the line `{own[-1].line.strip()}`" if own and own[-1].line else ""


def _installed(filename: str) -> bool:
    return any(part in filename for part in ("site-packages", "advlib/", "advlib\\"))


def call(answer: object, takes: str, *arguments: object) -> object:
    """Return ``answer(*arguments)``, with copies, so that nothing is changed.

    ``takes`` names the arguments, as "(model, x, y)". Raises ``NotYet`` if ``answer``
    cannot be called so, if it raises an error, and if it changes what it was given.
    """
    if not callable(answer):
        raise NotYet(f"hand in the function of {takes} itself, not {shown(answer)}")
    if isinstance(answer, nn.Module):
        raise NotYet(f"hand in a function of {takes}, not a network")
    try:
        inspect.signature(answer).bind(*arguments)
    except TypeError as error:
        said = f"it is called as f{takes}, by position, and Python says: {error}"
        raise NotYet(said) from error
    except ValueError:
        pass  # a built-in without a signature
    given = [copy.deepcopy(a) for a in arguments]
    before = [copy.deepcopy(_numbers(a)) for a in given]
    try:
        result = answer(*given)
    except NotYet:
        raise
    except Exception as error:
        said = f"your code raised {last_line(error)}{place(error)}"
        raise NotYet(said) from error
    for one, name, old in zip(given, _names(takes), before, strict=False):
        if old and not all(
            _equal(a, b) for a, b in zip(old, _numbers(one), strict=True)
        ):
            raise NotYet(f"it changes its argument {name} in place: work on a copy")
    return result


def _names(takes: str) -> list[str]:
    return [name.strip() for name in takes.strip("()").split(",")]


def _numbers(value: object) -> list[object]:
    if isinstance(value, Tensor | np.ndarray):
        return [value]
    if isinstance(value, nn.Module):
        return [p.detach() for p in value.parameters()]
    return []


def _equal(first: object, second: object) -> bool:
    return np.array_equal(array(first), array(second), equal_nan=True)


def array(value: object) -> np.ndarray:
    """Return ``value``, a tensor, array, number or list of these, as float64."""
    if isinstance(value, Tensor):
        return value.detach().cpu().double().numpy()
    if isinstance(value, list | tuple):
        return np.array([array(one) for one in value], dtype=float)
    return np.asarray(value, dtype=float)


def shaped(value: object, shape: Sequence[int], what: str) -> np.ndarray:
    """Return ``value`` as float64 of this ``shape``; ``what`` names it in a complaint.

    Raises ``NotYet`` for another type or shape, and for NaN and infinity.
    """
    if value is None:
        raise NotYet(f"it returns None: return {what}")
    if isinstance(value, Mapping):
        raise NotYet(f"it returns a dictionary: return {what}")
    try:
        found = array(value)
    except (TypeError, ValueError) as error:
        raise NotYet(f"it returns {shown(value)}: return {what}") from error
    shape = tuple(shape)
    if found.shape != shape and found.size == 1 and int(np.prod(shape)) == 1:
        found = found.reshape(shape)
    if found.shape != shape:
        kind = "one number" if found.shape == () else f"shape {found.shape}"
        asked = "one number" if shape == () else f"shape {shape}"
        raise NotYet(f"it returns {kind} where {what}, {asked}, is asked for")
    if not np.isfinite(found).all():
        raise NotYet(f"{what} is not finite: it holds NaN or infinity")
    return found


def numbers(count: int | None, what: str) -> Reader:
    """Return a reader of ``count`` numbers, of one number for None.

    ``what`` names them in a complaint.
    """
    shape = () if count is None else (count,)
    return lambda value, case: shaped(value, shape, what)


def shown(value: object) -> str:
    """Return ``value`` in a few words: a number, a short list, or type and shape."""
    if isinstance(value, nn.Module):
        return "a network"
    if isinstance(value, Tensor | np.ndarray):
        if value.ndim == 0:
            return f"{float(value):.4g}"
        if array(value).size <= 6:
            return str([float(f"{v:.4g}") for v in array(value).ravel()])
        return f"{type(value).__name__} of shape {tuple(value.shape)}"
    if isinstance(value, float | np.floating):
        return f"{value:.4g}"
    if isinstance(value, str | int | bool) or value is None:
        return repr(value)[:60]
    if isinstance(value, list | tuple) and len(value) <= 6:
        return "(" + ", ".join(shown(v) for v in value) + ")"
    return f"a {type(value).__name__}"


def same(first: Value, second: Value, tolerance: float) -> bool:
    """Whether ``first`` and ``second`` agree to ``tolerance``, relative or absolute."""
    return first.shape == second.shape and bool(
        np.allclose(first, second, rtol=tolerance, atol=tolerance)
    )


def _plain(value: object, case: Case) -> Value:
    return array(value)


@dataclass(frozen=True)
class Task:
    """An exercise that asks for a function, and how to compare it with ``truth``.

    ``takes`` names the arguments; ``truth(*case)`` is the right value of a case and
    each of the ``mistakes`` that of a known mistake, under the sentence that names it;
    ``read(value, case)`` turns an answer into numbers, ``view(value, case)`` into what
    is compared, named by ``what``; ``broken(value, case)`` says what is wrong with it
    by itself, or None. What a function of ``also`` returns is right as well.
    """

    takes: str
    truth: Callable[..., object]
    read: Reader
    mistakes: Mapping[str, Callable[..., object]] = field(default_factory=dict)
    view: Reader = _plain
    broken: Callable[[Value, Case], str | None] = lambda value, case: None
    tolerance: float = 1e-6
    what: str = ""
    also: tuple[Callable[..., object], ...] = ()

    def judge(self, answer: object, cases: Sequence[Case]) -> None:
        """Compare ``answer`` with the truth on all ``cases``; the smallest comes first.

        Raises ``NotYet``: a mistake that explains every case is named; else what is
        wrong by itself; else the first case that differs is shown.
        """
        found = [self.read(call(answer, self.takes, *case), case) for case in cases]
        seen = [self.view(f, c) for f, c in zip(found, cases, strict=True)]
        truth = [self._value(self.truth, case) for case in cases]
        pairs = list(zip(seen, truth, strict=True))
        faults = [self.broken(f, c) for f, c in zip(found, cases, strict=True)]
        bad = [not same(*pair, self.tolerance) for pair in pairs]
        if not any(bad) and not any(faults):
            return
        if any(self._agrees(seen, other, cases) for other in self.also):
            return
        for message, wrong in self.mistakes.items():
            if self._agrees(seen, wrong, cases):
                raise NotYet(message)
        raise NotYet(self._counterexample(cases, pairs, faults, bad))

    def _agrees(
        self,
        seen: Sequence[Value],
        function: Callable[..., object],
        cases: Sequence[Case],
    ) -> bool:
        """Whether ``function`` gives what was seen, in every case."""
        pairs = (
            (s, self._value(function, c)) for s, c in zip(seen, cases, strict=True)
        )
        return all(same(*pair, self.tolerance) for pair in pairs)

    def _value(self, function: Callable[..., object], case: Case) -> Value:
        return self.view(array(function(*case)), case)

    def _counterexample(
        self,
        cases: Sequence[Case],
        pairs: Sequence[tuple[Value, Value]],
        faults: Sequence[str | None],
        bad: Sequence[bool],
    ) -> str:
        for fault in faults:
            if fault:
                return fault
        k = bad.index(True)
        found, expected = pairs[k]
        share = f"{sum(bad)} of {len(bad)} hidden cases differ; the smallest: "
        given = ", ".join(
            f"{name} = {shown(value)}"
            for name, value in zip(_names(self.takes), cases[k], strict=False)
        )
        name = f"{self.what} = " if self.what else ""
        return f"{share}{given}: expected {name}{_most(expected, found)}"


def _most(expected: Value, found: Value) -> str:
    """Both values if they are short, else the entry that differs most."""
    if expected.shape != found.shape or expected.size <= 4:
        return f"{shown(expected)}, found {shown(found)}"
    at = np.unravel_index(np.abs(expected - found).argmax(), expected.shape)
    entry = tuple(int(i) for i in at)
    return f"{expected[at]:.4g} at entry {entry}, found {found[at]:.4g}"


def network(
    rng: np.random.Generator, sizes: Sequence[int], scale: float = 1.5
) -> nn.Sequential:
    """Return a ReLU network in float64 with ``sizes`` = (pixels, hidden ..., classes).

    It takes images (N, 1, 1, pixels); its weights, ``scale`` times the usual size, are
    drawn from ``rng``.
    """
    net = models.mlp((1, 1, sizes[0]), list(sizes[1:-1]), sizes[-1]).double().eval()
    for layer in net:
        if isinstance(layer, nn.Linear):
            size = scale / np.sqrt(layer.in_features)
            layer.weight.data = torch.from_numpy(
                size * rng.standard_normal(tuple(layer.weight.shape))
            )
            layer.bias.data = torch.from_numpy(
                0.3 * rng.standard_normal(layer.out_features)
            )
    return net.requires_grad_(False)


def pictures(rng: np.random.Generator, n: int, pixels: int) -> Tensor:
    """Return ``n`` images (n, 1, 1, pixels), float64, a third black or white.

    Drawn from ``rng``; ``pixels`` is the number of pixels of one.
    """
    x = rng.random((n, 1, 1, pixels))
    kind = rng.random(x.shape)
    x[kind < 0.2] = 0.0
    x[kind > 0.87] = 1.0
    return torch.from_numpy(x)
