"""Any torch module as a graph: it is run once, and what runs is written down.

``graph_of`` runs the module on one sample whose tensor records every operator of torch
that touches it (``tracing``), so that its own ``forward``, hooks, functional calls,
shared modules and remade weights are read as they run. ``torch.export`` and ``fx`` were
tried, too. On a CNN of four convolutions export takes 0.36 s of CPU time, the first
time 3.3 s; the recording takes 0.012 s, the first time 1.2 s (torch loads what it needs
for such tensors), and sees the numbers that the module itself computes with. ``fx``
takes 0.008 s, but needs a rule for every kind of module and every way to call one.

Then the graph is compared with the module on batches of inputs of all sizes: a module
that mixes the samples of a batch, draws random numbers or changes with its input in a
way that the record does not show is refused.
"""

import copy
import math

import torch
from torch import Tensor, nn
from torch.nn.modules.lazy import LazyModuleMixin

from advlib._check import check_model, model_dtype, modules_of, tensors_of
from advlib.networks.gate import ROUNDINGS, refuse_coarse
from advlib.networks.graph import Affine, Graph, Op, Sum, Unit, evaluate
from advlib.networks.maps import Pick, Reshape, Shape
from advlib.networks.tracing import Tape, Traced, record

SIZES = (None, 0.1, 1.0, 10.0, 100.0)  # of compared inputs; None: uniform in [0, 1]
EACH = 1  # so many inputs of each size
SHAKEN = 2  # so many runs with random roundings


def graph_of(model: nn.Module, shape: Shape, *, logits: bool = False) -> Graph:
    """Return ``model`` as a graph of affine maps, ReLUs and smooth units, in float64.

    ``shape`` of one input, without batch. ``model`` in eval mode takes (N, *shape) and
    returns one tensor (N, ...). ``logits``: if its last operator is a softmax or
    log-softmax, leave that out: the classes keep their order, the numbers do not. The
    graph speaks of real numbers: its softplus has no threshold (torch's is at most
    2.1e-9 / beta below it).

    The two are compared on random inputs, in the dtype of ``model`` and, if a copy of
    it runs so, in float64; they may differ by thirty times what rounding does (see
    ``rounding``). Raises ``TypeError`` for what is no module or computes more coarsely
    than in float32, and ``ValueError``: train mode, NaN among the weights, an operator
    that is neither piecewise linear nor a known unit, products of two values that
    depend on the input, control flow that does, several inputs or outputs, a model that
    changes its own tensors, and one from which the graph differs.
    """
    check_model(model)
    _refuse(model)
    before = _versions(model)
    x = _inputs(tuple(int(n) for n in shape))
    with torch.inference_mode(False), torch.no_grad(), torch.random.fork_rng([]):
        own = x.to(*_kind(model))
        tape, out, node = _recorded(model, own[:1], logits)
        graph, tail = tape.builder.graph(node), out.store.tail
        unit = max(torch.finfo(dtype).eps for dtype in tape.dtypes)
        have, error = rounding(graph, x, unit, tail)
        _compare(_answers(model, own, have), have, error, unit)
        twin = None if tape.remade else _twin(model, x, logits)
        if twin is not None:
            fine = torch.finfo(torch.float64).eps
            want, small = _answers(twin, x, have), error * fine / unit
            if not _close(want, have, small, fine):  # not all errors are so small
                _compare(want, *rounding(graph, x, fine, tail), fine)
    if _versions(model) != before:
        raise ValueError(
            "the model changes its own parameters or buffers when it is run: it is no "
            "function of its input alone"
        )
    return graph


def _recorded(model: nn.Module, x: Tensor, logits: bool) -> tuple[Tape, Traced, int]:
    """Return what ``record`` does, and its errors of torch as ``ValueError``."""
    try:
        return record(model, x, logits=logits)
    except (RuntimeError, TypeError) as error:
        raise ValueError(
            f"the model does not run on one input {tuple(x.shape)}, or not on one that "
            f"records what happens to it: {error}"
        ) from error


def _refuse(model: nn.Module) -> None:
    """Refuse a ``model`` whose numbers are coarse, missing or NaN."""
    layers = modules_of(model)
    refuse_coarse(layers)
    for layer in layers:
        if isinstance(layer, LazyModuleMixin) and layer.has_uninitialized_params():
            raise ValueError(
                f"a {type(layer).__name__} has no weights yet: run the model once"
            )
        if hasattr(layer, "_orig_mod"):
            raise ValueError(
                "the model is made by torch.compile: give the network that was "
                "compiled, its _orig_mod"
            )
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if tensor.is_floating_point() and tensor.isnan().any():
            raise ValueError(f"the weights hold NaN: {name}")


def _versions(model: nn.Module) -> list[tuple[int, int]]:
    """Return how often each tensor was written to, which inference tensors hide."""
    tensors = tensors_of(modules_of(model))
    return [(id(t), -1 if t.is_inference() else t._version) for t in tensors]


def _kind(model: nn.Module) -> tuple[torch.device, torch.dtype]:
    """Return where and in which dtype ``model`` computes."""
    tensors = tensors_of(modules_of(model))
    devices = [t.device for t in tensors] or [torch.device("cpu")]
    return devices[0], model_dtype(model) or torch.float32


def _inputs(shape: Shape) -> Tensor:
    """Return inputs (N, *shape) to compare at, in float64 with numbers of float32."""
    generator, x = torch.Generator().manual_seed(0), []
    for size in SIZES:
        if size is None:
            x.append(torch.rand(EACH, *shape, generator=generator))
        else:
            x.append(size * torch.randn(EACH, *shape, generator=generator))
    return torch.cat(x).double()


def _twin(model: nn.Module, x: Tensor, logits: bool) -> nn.Module | None:
    """Return a copy of ``model`` that computes in float64, or None if there is none."""
    if _kind(model) == (torch.device("cpu"), torch.float64):
        return None
    try:
        twin = copy.deepcopy(model).cpu().double()
        tape, *_ = record(twin, x[:1], logits=logits)
    except (RuntimeError, TypeError, ValueError):
        return None
    return twin if tape.dtypes == {torch.float64} else None


def _answers(model: nn.Module, x: Tensor, like: Tensor) -> Tensor:
    """Return what ``model`` answers at ``x``, in float64; refuse another shape."""
    want = model(x.clone())
    if not isinstance(want, Tensor) or want.shape != like.shape:
        shape = tuple(getattr(want, "shape", ()))
        raise ValueError(
            f"the model returns {shape} for {len(x)} inputs, {tuple(like.shape)} were "
            "expected from what it does to one: it must treat each input alike"
        )
    want = want.cpu().double()
    if not want.isfinite().all():
        raise ValueError("the model returns NaN or infinity: look at the weights")
    return want


def _tolerance(have: Tensor, error: Tensor, unit: float) -> Tensor:
    """Return how far each entry may be off: as far as the worst of its output."""
    most = torch.maximum(error, unit * have.abs()).reshape(len(have), -1)
    return ROUNDINGS * most.amax(1).reshape(-1, *[1] * (have.dim() - 1))


def _close(want: Tensor, have: Tensor, error: Tensor, unit: float) -> bool:
    """Return whether rounding explains what is between ``want`` and ``have``."""
    return bool(((want - have).abs() <= _tolerance(have, error, unit)).all())


def _compare(want: Tensor, have: Tensor, error: Tensor, unit: float) -> None:
    """Refuse a graph's outputs ``have`` that are not ``want``, except for rounding."""
    if not _close(want, have, error, unit):
        gap, most = (want - have).abs(), _tolerance(have, error, unit)
        raise ValueError(
            "the graph is not the network that runs: at random inputs their outputs "
            f"differ by {float(gap.max()):.3g}, where rounding explains "
            f"{float(most.max()):.3g}; a model that mixes the inputs of a batch, draws "
            "random numbers or changes with the size of its input cannot be read"
        )


def rounding(
    graph: Graph, x: Tensor, unit: float, tail: tuple | None = None
) -> tuple[Tensor, Tensor]:
    """Return outputs of ``graph`` at ``x`` (N, ...), and how far rounding moves them.

    Both (N, *outside), float64. Some runs are shaken: after each node every entry moves
    at random by up to ``unit`` times the sum of the absolute terms that it is made of,
    as rounding would move it. The largest distance from the run without is returned
    (Parker 1997, Monte Carlo arithmetic). ``tail``: a function and its axis with batch,
    applied to the outputs.
    """
    n, found = len(x), []
    generator = torch.Generator().manual_seed(0)
    for node in graph.nodes:
        inputs = [found[i] for i in node.inputs]
        value = evaluate(node, inputs, x.repeat(SHAKEN + 1, *[1] * (x.dim() - 1)))
        terms = _terms(node.op, [v[:n] for v in inputs], value[:n], unit)
        if terms is not None:
            noise = torch.rand(value[n:].shape, generator=generator, dtype=x.dtype)
            noise = (2 * noise - 1) * terms.repeat(SHAKEN, *[1] * (terms.dim() - 1))
            value = torch.cat([value[:n], value[n:] + noise])
        found.append(value)
    if tail is not None:
        value = tail[0](value, tail[1])
    clean, shaken = value[:n], value[n:].unflatten(0, (SHAKEN, n))
    return clean, (shaken - clean).abs().amax(0)


def _terms(op: Op, inputs: list[Tensor], value: Tensor, unit: float) -> Tensor | None:
    """Return the rounding of one ``op``, each entry's, or None if it makes none."""
    if isinstance(op, Sum):
        return unit * sum(v.abs() for v in inputs)
    if isinstance(op, Affine):
        if isinstance(op.map, Pick | Reshape) and op.bias is None:
            return None
        terms = op.map.absolute().push(inputs[0].abs())
        return unit * (terms if op.bias is None else terms + op.bias.abs())
    if isinstance(op, Unit) and op.name != "relu":
        # the tails of some are differences of two numbers as large as z or 1
        terms = unit * (value.abs() + inputs[0].abs().clamp(max=8))
        if op.name == "softplus":  # and torch cuts this one
            terms = terms + math.exp(-20) / op.options[0]
        return terms
    return None
