"""What every attack and bound refuses, and how a model is asked, in one place."""

import itertools
import math
import operator
from collections.abc import Callable, Iterable
from functools import wraps
from numbers import Real
from typing import ParamSpec, TypeVar

import torch
from torch import Tensor, nn

NORMS = ("linf", "l2", "l1")

P = ParamSpec("P")
R = TypeVar("R")


def check_eps(eps: float, norm: str = "linf") -> None:
    """Refuse a radius that is negative, not finite or no number of pixels.

    Raises ``ValueError``: unknown ``norm``, or not 0 <= eps (<= 1 for ``linf``), and
    ``TypeError`` for what is no one number.
    """
    one = isinstance(eps, Real) or (isinstance(eps, Tensor) and eps.dim() == 0)
    if not one or isinstance(eps, bool):
        raise TypeError(f"eps is one number for all images, not {eps!r}")
    if norm not in NORMS:
        raise ValueError(f"norm {norm!r} is none of {NORMS}")
    if not (0 <= eps < math.inf) or (norm == "linf" and eps > 1):
        raise ValueError(f"eps = {eps}: pixels live in [0, 1], so write 8 / 255, not 8")


def check_images(x: Tensor) -> None:
    """Refuse ``x`` if it is no batch of images: dtype, range, NaN.

    Raises ``TypeError`` for what is no tensor and a dtype that is not floating,
    ``ValueError`` for values outside [0, 1], NaN included, and for an empty batch.
    """
    if not isinstance(x, Tensor):
        raise TypeError(
            f"images are a {type(x).__name__}: give a tensor, torch.as_tensor(x)"
        )
    if not x.is_floating_point():
        raise TypeError(f"images must be floating point in [0, 1], not {x.dtype}")
    if x.dim() < 2 or len(x) == 0:
        raise ValueError(f"images must be (N, ...) with N >= 1, not {tuple(x.shape)}")
    if not (x.min() >= 0 and x.max() <= 1):  # written so that NaN fails
        raise ValueError("images must lie in [0, 1] and hold no NaN")


def check_labels(x: Tensor, y: Tensor) -> None:
    """Refuse labels ``y`` that are not int64 of shape (N,), one per image of ``x``.

    Raises ``TypeError`` for what is no tensor and the dtype, ``ValueError`` for the
    shape or y < 0.
    """
    if not isinstance(y, Tensor):
        raise TypeError(
            f"labels are a {type(y).__name__}: give a tensor, torch.as_tensor(y)"
        )
    if y.dtype != torch.int64:
        raise TypeError(f"labels must be int64, not {y.dtype}")
    if y.shape != x.shape[:1] or not (y >= 0).all():
        raise ValueError(f"need one label >= 0 per image: {tuple(y.shape)}")


def modules_of(model: nn.Module) -> list[nn.Module]:
    """Return ``model`` and all modules inside, a shared one as often as it is named.

    Those that it holds, whatever its class makes of ``modules``; one that holds itself
    ends, too.
    """
    found, opened = [model], set()
    for layer in found:  # which grows meanwhile
        if layer not in opened:
            opened.add(layer)
            found += [inner for inner in layer._modules.values() if inner is not None]
    return found


def tensors_of(modules: Iterable[nn.Module]) -> list[Tensor]:
    """Return the parameters and buffers of ``modules``, one after the other."""
    return [
        tensor
        for module in modules
        for held in (module._parameters, module._buffers)
        for tensor in held.values()
        if tensor is not None
    ]


def model_dtype(model: nn.Module) -> torch.dtype | None:
    """Return the dtype that ``model`` computes in, or None if it has no numbers.

    That of the weight of its first Linear or Conv2d layer, else of its first parameter,
    else of its first buffer.
    """
    layers = (m for m in model.modules() if isinstance(m, (nn.Linear, nn.Conv2d)))
    weights = (layer.weight for layer in layers)
    tensors = itertools.chain(weights, model.parameters(), model.buffers())
    return next((t.dtype for t in tensors if t.is_floating_point()), None)


def check_model(model: nn.Module) -> None:
    """Refuse a model in train mode: dropout and batch-norm would move under us.

    Raises ``TypeError`` for what is no ``nn.Module``, ``ValueError`` for train mode.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"the model is a {type(model).__name__}, no nn.Module")
    if any(module.training for module in modules_of(model)):
        raise ValueError("the model is in train mode: call model.eval() first")


def check_logits(logits: object, n: int) -> Tensor:
    """Return what a model answered for ``n`` images if it is (n, K) logits, K >= 2.

    Raises ``TypeError`` for a tuple, a dictionary or integers as ``logits``,
    ``ValueError`` for another shape, a single logit, and NaN or infinity, which would
    decide in silence.
    """
    kind = type(logits).__name__
    if not isinstance(logits, Tensor):
        raise TypeError(
            f"the model returns a {kind}, not (N, K) logits: wrap it in a module whose "
            "forward returns the logits alone"
        )
    if not logits.is_floating_point():
        raise TypeError(f"the model returns {logits.dtype}, not (N, K) logits")
    if logits.shape[1:] == (1,) or logits.shape == (n,):
        raise ValueError(
            f"the model returns {tuple(logits.shape)}, one logit for each image: wrap "
            "it in models.TwoLogits, which returns (0, z), with labels 0 and 1"
        )
    if logits.dim() != 2 or len(logits) != n:
        raise ValueError(
            f"the model returns {tuple(logits.shape)}, not one row of logits for each "
            f"of {n} images: (N, K); end a map with Flatten or a mean over its pixels"
        )
    if not math.isfinite(logits.detach().sum()) and not logits.isfinite().all():
        raise ValueError("the logits hold NaN or infinity: look at the weights")
    return logits


def check_classes(y: Tensor, num_classes: int) -> None:
    """Refuse labels ``y`` that are none of ``num_classes`` classes, and one class.

    Raises ``ValueError``.
    """
    if num_classes < 2:
        raise ValueError(
            "one logit is no choice of a class: wrap the model in models.TwoLogits, "
            "which returns (0, z), with labels 0 and 1"
        )
    if not ((y >= 0) & (y < num_classes)).all():
        raise ValueError(
            f"a label is not below the {num_classes} classes, 0 .. {num_classes - 1}"
        )


def check_all(
    model: nn.Module, x: Tensor, y: Tensor, eps: float, norm: str = "linf"
) -> None:
    """Check ``model``, ``x``, ``y``, ``eps`` and ``norm``: all of the above."""
    check_model(model)
    check_images(x)
    check_labels(x, y)
    check_eps(eps, norm)


def check_counts(least: int, **counts: int) -> None:
    """Refuse ``counts`` that are no whole numbers, at least ``least``.

    Raises ``ValueError``, which names the one.
    """
    for name, value in counts.items():
        try:
            fits = operator.index(value) >= least
        except TypeError:
            fits = False
        if not fits:
            at = "at least one" if least == 1 else f"at least {least}"
            raise ValueError(f"need a whole number of {name}, {at}, not {value!r}")


def check_limits(
    *, time_limit: float | None = None, total_time: float | None = None,
    max_nodes: int = 1, total_nodes: int | None = None,
) -> None:  # fmt: skip
    """Refuse a limit of time below 0 or NaN, and one of subproblems below 1.

    ``time_limit``, ``total_time`` in seconds, ``max_nodes``, ``total_nodes`` numbers;
    None is no limit. Raises ``ValueError`` that names the argument.
    """
    for name, limit in (("time_limit", time_limit), ("total_time", total_time)):
        if limit is not None and not limit >= 0:  # refuses NaN, too
            raise ValueError(
                f"need max_nodes >= 1 and time_limit >= 0: {name} = {limit}"
            )
    for name, limit in (("max_nodes", max_nodes), ("total_nodes", total_nodes)):
        if limit is not None and not limit >= 1:
            raise ValueError(
                f"need max_nodes >= 1 and time_limit >= 0: {name} = {limit}"
            )


def check_steps(num_steps: int, alpha: float = 0.0) -> None:
    """Refuse ``num_steps`` that are no number of steps, and a length ``alpha``.

    Raises ``ValueError`` unless ``num_steps`` is a whole number >= 0 and ``alpha`` in
    [0, inf): a negative step goes down, NaN and infinity go nowhere.
    """
    check_counts(0, num_steps=num_steps)
    if not 0 <= alpha < math.inf:
        raise ValueError(f"alpha = {alpha}: a step has a length in [0, inf)")


def check_delta(delta: object, x: Tensor) -> Tensor:
    """Return what an attack gave for the images ``x`` if it is one ``delta`` for each.

    Raises ``TypeError`` for anything but a tensor that keeps the dtype of ``x`` when it
    is added, ``ValueError`` for another shape, NaN and infinity.
    """
    if not isinstance(delta, Tensor):
        raise TypeError(
            f"the attack returns a {type(delta).__name__}, not a tensor delta: wrap it "
            "in a function that returns the perturbation alone"
        )
    if torch.promote_types(delta.dtype, x.dtype) != x.dtype:
        raise TypeError(f"delta is {delta.dtype}, the images are {x.dtype}")
    if delta.shape != x.shape:
        raise ValueError(
            f"delta is {tuple(delta.shape)}, the images are {tuple(x.shape)}: an "
            "attack returns one perturbation for each image"
        )
    delta = delta.detach()
    if not math.isfinite(delta.sum()) and not delta.isfinite().all():
        raise ValueError("delta holds NaN or infinity")
    return delta


def check_no_images(delta: Tensor, x: Tensor) -> None:
    """Refuse a ``delta`` that looks like the images ``x``, as if it were x + delta.

    Raises ``ValueError``.
    """
    if _resembles(delta, x):
        raise ValueError(
            "delta looks like the images: an attack returns delta, not x + delta (if "
            "it is meant so, evaluate wrong(model, x + delta, y))"
        )


def _resembles(delta: Tensor, x: Tensor) -> bool:
    """Return whether ``delta`` is rather ``x`` and a small step than a step.

    Nowhere negative, nearer to ``x`` than half its own length, and with the same light
    and dark pixels (correlation above 0.9): no rule of an attack, so with few numbers,
    where chance could do it, the answer is no.
    """
    if x.numel() < 16 or delta.min() < 0:
        return False
    d, z = delta.double().flatten(), x.double().flatten()
    if not (d - z).norm() < d.norm() / 2:
        return False
    d, z = d - d.mean(), z - z.mean()
    return bool(d @ z > 0.9 * d.norm() * z.norm())


def check_dtype(model: nn.Module, x: Tensor) -> None:
    """Refuse images ``x`` of a dtype that none of the weights of ``model`` has.

    Raises ``TypeError``.
    """
    kinds = {p.dtype for p in model.parameters() if p.is_floating_point()}
    if kinds and x.dtype not in kinds:
        weights = " and ".join(sorted(map(str, kinds)))
        raise TypeError(
            f"the images are {x.dtype}, the model's weights {weights}: convert the "
            "images with x.to(...), or a copy of the model"
        )


def run_model(model: nn.Module, x: Tensor) -> Tensor:
    """Return ``model(x)``; torch's own errors become what a user can act on.

    ``x`` is handed over as it is: a model that works in place changes it. Raises what
    ``check_dtype`` and ``explain`` raise.
    """
    try:
        return model(x)
    except RuntimeError as error:
        check_dtype(model, x)
        explain(error)
        raise


def explain(error: RuntimeError) -> None:
    """Raise ``ValueError`` if ``error`` comes of a tensor of ``inference_mode``."""
    if "nference tensor" in str(error):
        raise ValueError(
            "weights or other tensors made inside torch.inference_mode take part in "
            "no gradient: make them outside of it, or take copy.deepcopy(model) there"
        ) from error


def ask(model: nn.Module, x: Tensor, delta: Tensor | None = None) -> Tensor:
    """Return the logits (N, K) of ``model`` at ``x``, or ``x + delta``, checked.

    Without a gradient; the model gets its own copy, so that one which works in place
    does not change the caller's images. Raises what ``check_logits`` and ``run_model``
    raise.
    """
    with torch.no_grad():
        logits = run_model(model, x.clone() if delta is None else x + delta)
    return check_logits(logits, len(x))


def outside_inference(function: Callable[P, R]) -> Callable[P, R]:
    """Return ``function``, which differentiates, for use in ``inference_mode``, too.

    Inside of ``torch.inference_mode``, and for tensors made there, it runs outside of
    it and on copies: the result is that under ``torch.no_grad``.
    """

    @wraps(function)
    def plain(*args: P.args, **kwargs: P.kwargs) -> R:
        given = [v for v in (*args, *kwargs.values()) if isinstance(v, Tensor)]
        if not torch.is_inference_mode_enabled():
            if not any(v.is_inference() for v in given):
                return function(*args, **kwargs)
        with torch.inference_mode(False):
            copies = [_own(v) for v in args]
            return function(*copies, **{k: _own(v) for k, v in kwargs.items()})

    return plain


def _own(value: object) -> object:
    made_inside = isinstance(value, Tensor) and value.is_inference()
    return value.clone() if made_inside else value
