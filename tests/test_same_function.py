"""The network that is bounded is the network that runs: the same function, or refused.

A table: every way in which the two could differ, crossed with every public function
that bounds, proves or reads weights. Where the network computes anything outside its
layers' class forward and stored parameters, the function refuses it, with an error of
its own that names what and what to do. Where it is the same function in another dress,
it is accepted, and the result is that of the plain network.
"""

import copy
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.nn import utils
from torch.nn.modules.module import register_module_forward_hook
from torch.nn.utils import parametrizations, prune

from advlib import (
    activations,
    bounds,
    certificates,
    exact,
    linear,
    lipschitz,
    models,
    relaxations,
    training,
)
from advlib import branch_and_bound as bb

SHAPE, EPS = (1, 2, 2), 0.05
X = torch.rand(3, *SHAPE, generator=torch.Generator().manual_seed(0))


def plain(kind: str) -> nn.Sequential:
    """A network of each kind that the functions below ask for."""

    def build() -> nn.Sequential:
        if kind == "linear":
            return nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
        if kind == "residual":
            body = nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 6))
            block = [models.Residual(body), nn.ReLU(), nn.Linear(6, 3)]
            return nn.Sequential(nn.Flatten(), nn.Linear(4, 6), nn.ReLU(), *block)
        if kind == "convolution":
            convs = [nn.Conv2d(1, 4, 2, padding=1), nn.ReLU()]
            return nn.Sequential(*convs, nn.Flatten(), nn.Linear(36, 3))
        return models.mlp(SHAPE, [6], 3)

    return models.seeded(build, seed=1)


# ----------------------------------------------------------------- the functions


@dataclass(frozen=True)
class Asked:
    """A public function: what it returns for a model of one of ``kinds``."""

    call: Callable[[nn.Module, Tensor, Tensor], object]
    kinds: tuple[str, ...] = ("dense", "residual", "convolution")


def ends(model: nn.Module, x: Tensor) -> list:
    """Bounds before each ReLU by intervals, as other functions take them."""
    return bounds.relu_bounds(model, *bounds.input_box(x, EPS), method="interval")


def given_lower(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """One backward walk between bounds that were made by hand, not by ``bounds``."""
    width = [(len(x), *s) for s in relu_shapes(model)]
    pre = [(torch.full(w, -9.0), torch.full(w, 9.0)) for w in width]
    spec = bounds.margin_spec(y, 3)
    return bounds.linear_lower(model, spec, *bounds.input_box(x, EPS), pre)


def relu_shapes(model: nn.Module) -> list[tuple[int, ...]]:
    """Of what enters each ReLU of the plain networks, whatever stands around them."""
    if any(isinstance(m, nn.Conv2d) for m in model.modules()):
        return [(4, 3, 3)]
    residual = any(isinstance(m, models.Residual) for m in model.modules())
    return [(6,)] * (3 if residual else 1)


def verdicts(found: list) -> list:
    """Status and bound of each verdict, the bound where it proves something."""
    return [(v.status, v.bound if v.status == "certified" else 0.0) for v in found]


def proven(model: nn.Module, x: Tensor, y: Tensor, of: nn.Module) -> list[float]:
    """Exact margins by a certificate that was proposed for the plain network ``of``."""
    made = certificates.make_certificate(of, x[0], int(y[0]), 0.001)
    key = certificates.question(model, x[0], int(y[0]), 0.001)
    made = replace(made, question=key)
    found = certificates.check_certificate(model, x[0], int(y[0]), 0.001, made)
    return [float(m) for m in found]


DENSE = ("dense", "convolution")
box = partial(bounds.input_box, eps=EPS)
ASKED = {
    "canonical": Asked(lambda m, x, y: models.canonical(m, SHAPE)(x)),
    "interval_bounds": Asked(lambda m, x, y: bounds.interval_bounds(m, *box(x))[-1]),
    "relu_bounds": Asked(lambda m, x, y: bounds.relu_bounds(m, *box(x))),
    "interval_margins": Asked(lambda m, x, y: bounds.interval_margins(m, x, y, EPS)),
    "crown_margins": Asked(lambda m, x, y: bounds.crown_margins(m, x, y, EPS)),
    "wong_kolter_margins": Asked(
        lambda m, x, y: bounds.wong_kolter_margins(m, x, y, EPS)
    ),
    "alpha_crown_margins": Asked(
        lambda m, x, y: bounds.alpha_crown_margins(m, x, y, EPS, num_steps=2)
    ),
    "linear_lower": Asked(given_lower),
    "lp_margins": Asked(lambda m, x, y: relaxations.lp_margins(m, x, y, EPS)),
    "lp_bounds": Asked(lambda m, x, y: relaxations.lp_bounds(m, *box(x))),
    "sdp_margin": Asked(
        lambda m, x, y: relaxations.sdp_margin(
            m, x[0], int(y[0]), int(1 - y[0]) % 3, EPS
        ),
        ("dense",),
    ),
    "lipschitz_bound": Asked(lambda m, x, y: lipschitz.lipschitz_bound(m, SHAPE)),
    "layer_norms": Asked(
        lambda m, x, y: [v for _, v in lipschitz.layer_norms(m, SHAPE)]
    ),
    "lipschitz_margins": Asked(
        lambda m, x, y: lipschitz.lipschitz_margins(m, x, y, EPS)
    ),
    "big_m_bounds": Asked(lambda m, x, y: exact.big_m_bounds(m, x, EPS)),
    "milp_margin": Asked(
        lambda m, x, y: exact.milp_margin(m, x[:1], y[:1], int(y[0] + 1) % 3, EPS).bound
    ),
    "milp_robust": Asked(lambda m, x, y: verdicts(exact.milp_robust(m, x, y, EPS))),
    "branch_and_bound": Asked(
        lambda m, x, y: verdicts(bb.branch_and_bound(m, x, y, EPS))
    ),
    "minimal_margin": Asked(
        lambda m, x, y: [v.margin for v in bb.minimal_margin(m, x, y, EPS)]
    ),
    "exact_error": Asked(lambda m, x, y: bb.exact_error(m, x, y, EPS).upper),
    "breakpoints": Asked(
        lambda m, x, y: exact.breakpoints(m, x[0], x[1]), ("dense", "convolution")
    ),
    "segment_max": Asked(
        lambda m, x, y: exact.segment_max(m, x[0], x[1], 0), ("dense", "convolution")
    ),
    "make_certificate": Asked(
        lambda m, x, y: certificates.make_certificate(m, x[0], int(y[0]), 0.001).lower,
        DENSE,
    ),
    "check_certificate": Asked(
        lambda m, x, y: proven(m, x, y, plain(kind_of(m))), DENSE
    ),
    "exact_logits": Asked(
        lambda m, x, y: [float(z) for z in certificates.exact_logits(m, x[0])], DENSE
    ),
    "forward_error_bound": Asked(
        lambda m, x, y: certificates.forward_error_bound(m, x, x), ("dense",)
    ),
    "IntervalLoss": Asked(
        lambda m, x, y: training.IntervalLoss(EPS, training.Ramp(0))(m, x, y)
    ),
    "CrownIntervalLoss": Asked(
        lambda m, x, y: training.CrownIntervalLoss(EPS, lambda: 0.5)(m, x, y)
    ),
    "parameters": Asked(lambda m, x, y: linear.parameters(m), ("linear",)),
    "pairwise_margins": Asked(
        lambda m, x, y: linear.pairwise_margins(m, x, y, EPS), ("linear",)
    ),
    "robustly_wrong": Asked(
        lambda m, x, y: linear.robustly_wrong(m, x, y, EPS).double(), ("linear",)
    ),
    "cross_entropy_bound": Asked(
        lambda m, x, y: linear.cross_entropy_bound(m, x, y, EPS), ("linear",)
    ),
    "shortest_linear": Asked(
        lambda m, x, y: exact.shortest_linear(m, x, (y + 1) % 3), ("linear",)
    ),
    "affine_matrix": Asked(lambda m, x, y: models.affine_matrix(m, SHAPE), ("linear",)),
    "affine_matrix of a layer": Asked(
        lambda m, x, y: models.affine_matrix(m[1], (4,)), ("linear",)
    ),
    "operator_norm": Asked(
        lambda m, x, y: lipschitz.operator_norm(m[1], (4,)), ("linear",)
    ),
    "power_norm": Asked(lambda m, x, y: lipschitz.power_norm(m[1], (4,)), ("linear",)),
    "with_gradient": Asked(
        lambda m, x, y: activations.with_gradient(m, smooth=True)(x)
    ),
}


def kind_of(model: nn.Module) -> str:
    """Which of the plain networks ``model`` is a dress of."""
    if any(isinstance(m, nn.Conv2d) for m in model.modules()):
        return "convolution"
    sizes = [m.out_features for m in model.modules() if isinstance(m, nn.Linear)]
    return "residual" if len(sizes) > 2 else "dense" if len(sizes) == 2 else "linear"


def numbers(found: object) -> list[float]:
    """All numbers in what a function returned."""
    if isinstance(found, Tensor):
        return found.detach().double().flatten().tolist()
    if isinstance(found, (list, tuple)):
        return [v for part in found for v in numbers(part)]
    if isinstance(found, str):
        return [float(sum(map(ord, found)))]
    return [float(v) for v in torch.as_tensor(found).double().flatten()]


# ---------------------------------------------------------------- another function


def first_affine(model: nn.Sequential) -> nn.Module:
    """The first Linear or Conv2d."""
    return next(m for m in model.modules() if isinstance(m, (nn.Linear, nn.Conv2d)))


def last(model: nn.Sequential) -> nn.Module:
    """The last layer."""
    return model[-1]


def hook(model: nn.Sequential) -> nn.Module:
    last(model).register_forward_hook(lambda module, args, out: 5 * out)
    return model


def hook_with_kwargs(model: nn.Sequential) -> nn.Module:
    def double(module: nn.Module, args: tuple, kwargs: dict, out: Tensor) -> Tensor:
        return 2 * out

    first_affine(model).register_forward_hook(double, with_kwargs=True)
    return model


def pre_hook(model: nn.Sequential) -> nn.Module:
    last(model).register_forward_pre_hook(lambda module, args: (args[0] - 0.5,))
    return model


def outer_hook(model: nn.Sequential) -> nn.Module:
    model.register_forward_hook(lambda module, args, out: out.flip(1))
    return model


def outer_pre_hook(model: nn.Sequential) -> nn.Module:
    model.register_forward_pre_hook(lambda module, args: ((args[0] - 0.5) / 0.25,))
    return model


def nested_hook(model: nn.Sequential) -> nn.Module:
    outer = nn.Sequential(nn.Sequential(*model)).eval()
    outer[0].register_forward_hook(lambda module, args, out: -out)
    return outer


def hook_inside_residual(model: nn.Sequential) -> nn.Module:
    block = next(m for m in model if isinstance(m, models.Residual))
    block.body[1].register_forward_hook(lambda module, args, out: out + 1)
    return model


def hook_on_residual(model: nn.Sequential) -> nn.Module:
    block = next(m for m in model if isinstance(m, models.Residual))
    block.shortcut.register_forward_hook(lambda module, args, out: 3 * out)
    return model


def hook_on_relu(model: nn.Sequential) -> nn.Module:
    relu = next(m for m in model.modules() if isinstance(m, nn.ReLU))
    relu.register_forward_hook(lambda module, args, out: out.clamp(max=0.1))
    return model


def instance_forward(model: nn.Sequential) -> nn.Module:
    layer = last(model)
    forward = layer.forward
    layer.forward = lambda x: 3 * forward(x)
    return model


def instance_forward_of_the_model(model: nn.Sequential) -> nn.Module:
    forward = model.forward
    model.forward = lambda x: forward((x - 0.5) / 0.25)
    return model


class Normed(nn.Sequential):
    """Normalises in its own forward."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward((x - 0.5) / 0.25)


class Tripled(nn.Linear):
    """Scales its outputs."""

    def forward(self, x: Tensor) -> Tensor:
        return 3 * super().forward(x)


class Standardised(nn.Conv2d):
    """Standardises its kernels, deep inside: forward is the parent's."""

    def _conv_forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return super()._conv_forward(x, weight - weight.mean((1, 2, 3), True), bias)


class Reversed(nn.Sequential):
    """Shows its layers in another order than it runs them."""

    def __iter__(self) -> Iterator[nn.Module]:
        layers = list(super().__iter__())
        return iter([*layers[:-1], nn.Linear(layers[-1].in_features, 3)])


class LeakyRelu(nn.ReLU):
    """A ReLU that is none."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) - 0.1 * (-x).relu()


def subclass_forward(model: nn.Sequential) -> nn.Module:
    return Normed(*model).eval()


def in_place_of(model: nn.Sequential, old: nn.Module, new: nn.Module) -> nn.Module:
    """The model with one layer replaced by another with its parameters."""
    new.load_state_dict(old.state_dict(), strict=False)
    layers = [new if layer is old else layer for layer in model]
    return nn.Sequential(*layers).eval()


def linear_subclass(model: nn.Sequential) -> nn.Module:
    old = last(model)
    return in_place_of(model, old, Tripled(old.in_features, old.out_features))


def conv_subclass(model: nn.Sequential) -> nn.Module:
    return in_place_of(model, model[0], Standardised(1, 4, 2, padding=1))


def relu_subclass(model: nn.Sequential) -> nn.Module:
    relu = next(m for m in model if isinstance(m, nn.ReLU))
    return in_place_of(model, relu, LeakyRelu())


def shown_otherwise(model: nn.Sequential) -> nn.Module:
    return Reversed(*model).eval()


def circular(model: nn.Sequential) -> nn.Module:
    new = nn.Conv2d(1, 4, 2, padding=1, padding_mode="circular")
    return in_place_of(model, model[0], new)


def reflecting(model: nn.Sequential) -> nn.Module:
    new = nn.Conv2d(1, 4, 2, padding=1, padding_mode="reflect")
    return in_place_of(model, model[0], new)


def stale(wrap: Callable[[nn.Module], nn.Module]) -> Callable:
    """The usual way to load: built again, then the trained state put in."""

    def way(model: nn.Sequential) -> nn.Module:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of torch: the old forms are deprecated
            wrap(first_affine(model))
        for name, parameter in model.named_parameters():
            if name.endswith(("_g", "_orig")):
                with torch.no_grad():
                    parameter.mul_(4.0)
        return model.eval()

    return way


@contextmanager
def global_hook() -> Iterator[None]:
    """A hook that torch calls after every module."""
    handle = register_module_forward_hook(lambda module, args, out: out)
    try:
        yield
    finally:
        handle.remove()


ANOTHER = {
    "hook": hook,
    "hook with keywords": hook_with_kwargs,
    "pre-hook": pre_hook,
    "hook on the model": outer_hook,
    "pre-hook on the model": outer_pre_hook,
    "hook on a nested model": nested_hook,
    "hook inside Residual": hook_inside_residual,
    "hook on a Residual's shortcut": hook_on_residual,
    "hook on a ReLU": hook_on_relu,
    "forward of an instance": instance_forward,
    "forward of the model's instance": instance_forward_of_the_model,
    "subclass of Sequential": subclass_forward,
    "subclass of Linear": linear_subclass,
    "subclass of Conv2d": conv_subclass,
    "subclass of ReLU": relu_subclass,
    "Sequential that shows other layers": shown_otherwise,
    "circular padding": circular,
    "reflecting padding": reflecting,
    "old weight_norm": stale(utils.weight_norm),
    "old spectral_norm": stale(utils.spectral_norm),
    "prune": stale(lambda m: prune.random_unstructured(m, "weight", 0.3)),
}
ONLY = {  # ways that need a layer which not every network has
    "hook inside Residual": ("residual",),
    "hook on a Residual's shortcut": ("residual",),
    "hook on a ReLU": ("dense", "residual", "convolution"),
    "subclass of Conv2d": ("convolution",),
    "subclass of ReLU": ("dense", "residual", "convolution"),
    "circular padding": ("convolution",),
    "reflecting padding": ("convolution",),
}
OF_ONE_LAYER = {"affine_matrix of a layer", "operator_norm", "power_norm"}
SHIFTED = ("nested", "a second Flatten", "Dropout", "Identity")  # no layer 1 to ask
OUTSIDE = {  # what happens around the layers is no matter of one layer
    "hook on the model", "pre-hook on the model", "hook on a nested model",
    "forward of the model's instance", "subclass of Sequential",
    "Sequential that shows other layers",
}  # fmt: skip
SMOOTHED = {  # attacks through the copy see these: they are part of the copy
    "subclass of Sequential", "subclass of Linear", "subclass of Conv2d",
    "subclass of ReLU", "Sequential that shows other layers", "circular padding",
    "reflecting padding",
}  # fmt: skip


def rows(ways: dict) -> list:
    """All pairs of a way and a function that can meet, with the network."""
    found = []
    for way in ways:
        for name, asked in ASKED.items():
            if name in OF_ONE_LAYER and way in OUTSIDE:
                continue
            if name == "with_gradient" and way in SMOOTHED:
                continue
            if name in OF_ONE_LAYER and way in SHIFTED:
                continue
            kinds = [k for k in asked.kinds if k in ONLY.get(way, asked.kinds)]
            kinds = kinds if way in ("hook", "deep copy") else kinds[:1]
            found += [pytest.param(way, name, k, id=f"{way}-{name}-{k}") for k in kinds]
    return found


def refusal(call: Callable[[], object]) -> Exception:
    """The error of advlib's own with which ``call`` ends."""
    with pytest.raises((TypeError, ValueError)) as caught:
        call()
    last_frame = traceback.extract_tb(caught.value.__traceback__)[-1]
    assert "/advlib/" in last_frame.filename.replace("\\", "/"), str(caught.value)
    return caught.value


def labels(model: nn.Module) -> Tensor:
    """What the network that runs says."""
    with torch.no_grad():
        return model(X.clone()).argmax(1)


@pytest.mark.parametrize(("way", "name", "kind"), rows(ANOTHER))
def test_another_function_is_refused(way, name, kind):
    """The error is of this package, says what is wrong, and nothing is computed."""
    model = ANOTHER[way](plain(kind))
    y = labels(plain(kind))
    error = refusal(lambda: ASKED[name].call(model, X, y))
    assert len(str(error)) > 20


@pytest.mark.parametrize("name", [n for n in ASKED if n != "with_gradient"])
def test_a_global_hook_is_refused(name):
    """torch calls it after every layer: it may change what each returns."""
    kind = ASKED[name].kinds[0]
    model = plain(kind)
    y = labels(model)
    with global_hook():
        refusal(lambda: ASKED[name].call(model, X, y))
    ASKED[name].call(model, X, y)


# ------------------------------------------------------------- the same function


class Named(nn.Sequential):
    """A subclass that only builds."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__(*layers)
        self.trained_for = 3

    def describe(self) -> str:
        return "a network with a name"


class Verbose(nn.Linear):
    """A subclass that only prints more."""

    def extra_repr(self) -> str:
        return "verbose, " + super().extra_repr()


def parametrised(wrap: Callable[[nn.Module], nn.Module]) -> Callable:
    """A layer whose weight is computed, with the plain network's weight inside."""

    def way(model: nn.Sequential) -> nn.Module:
        layer = first_affine(model)
        weight = layer.weight.detach().clone()
        wrap(layer)
        layer.weight = weight  # right inverse: the same weight, computed
        return model.eval()

    return way


class Doubled(nn.Module):
    """The weight is twice what is stored."""

    def forward(self, stored: Tensor) -> Tensor:
        return 2 * stored

    def right_inverse(self, weight: Tensor) -> Tensor:
        return weight / 2


def removed_hooks(model: nn.Sequential) -> nn.Module:
    for layer in model:
        layer.register_forward_hook(lambda module, args, out: 2 * out).remove()
        layer.register_forward_pre_hook(lambda module, args: None).remove()
    return model


def backward_hook(model: nn.Sequential) -> nn.Module:
    last(model).register_full_backward_hook(lambda module, inner, outer: None)
    return model


def made_permanent(wrap: Callable, unwrap: Callable) -> Callable:
    def way(model: nn.Sequential) -> nn.Module:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            layer = wrap(first_affine(model))
            unwrap(layer)
        return model.eval()

    return way


def shared_relu(model: nn.Sequential) -> nn.Module:
    one = nn.ReLU()
    layers = [one if isinstance(layer, nn.ReLU) else layer for layer in model]
    return nn.Sequential(*layers).eval()


def neutral_batch_norm(model: nn.Sequential) -> nn.Module:
    layer = first_affine(model)
    convolution = isinstance(layer, nn.Conv2d)
    norm = (nn.BatchNorm2d if convolution else nn.BatchNorm1d)(len(layer.weight), eps=0)
    place = list(model).index(layer) + 1
    return nn.Sequential(*model[:place], norm, *model[place:]).eval()


def verbose(model: nn.Sequential) -> nn.Module:
    old = last(model)
    return in_place_of(model, old, Verbose(old.in_features, old.out_features))


def between(layer: Callable[[], nn.Module]) -> Callable:
    return lambda model: nn.Sequential(*model[:-1], layer(), model[-1]).eval()


def nested(model: nn.Sequential) -> nn.Module:
    return nn.Sequential(nn.Sequential(*model[:1]), nn.Sequential(*model[1:])).eval()


SAME = {
    "deep copy": copy.deepcopy,
    "frozen": lambda m: m.requires_grad_(False),
    "nested": nested,
    "Identity": between(nn.Identity),
    "Dropout": between(lambda: nn.Dropout(0.5)),
    "a second Flatten": lambda m: nn.Sequential(
        *(m if isinstance(m[0], nn.Conv2d) else [nn.Flatten(), *m])
    ).eval(),
    "removed hooks": removed_hooks,
    "backward hook": backward_hook,
    "weight_norm": parametrised(parametrizations.weight_norm),
    "a parametrisation": parametrised(
        lambda layer: utils.parametrize.register_parametrization(
            layer, "weight", Doubled()
        )
    ),
    "old weight_norm, removed": made_permanent(
        utils.weight_norm, utils.remove_weight_norm
    ),
    "prune, removed": made_permanent(
        lambda m: prune.random_unstructured(m, "weight", 0.0),
        lambda m: prune.remove(m, "weight"),
    ),
    "a shared ReLU": shared_relu,
    "batch-norm in eval mode": neutral_batch_norm,
    "a subclass that builds": lambda m: Named(*m).eval(),
    "a subclass that prints": verbose,
    "strides of memory": lambda m: m.to(memory_format=torch.channels_last),
}  # fmt: skip
UNMET = {  # these functions ask for fewer kinds of layer, and say so
    ("batch-norm in eval mode", name)
    for name in ("check_certificate", "make_certificate", "exact_logits")
}
UNMET |= {("batch-norm in eval mode", "forward_error_bound")}
UNMET |= {
    ("batch-norm in eval mode", n) for n, a in ASKED.items() if a.kinds == ("linear",)
}
UNMET |= {("Dropout", "affine_matrix"), ("Identity", "affine_matrix")}


@pytest.mark.parametrize(
    ("way", "name", "kind"), [r for r in rows(SAME) if tuple(r.values[:2]) not in UNMET]
)
def test_the_same_function_is_accepted_with_equal_bounds(way, name, kind):
    """A refusal here would be a fault, and so would another number."""
    model, like = SAME[way](plain(kind)), plain(kind)
    y = labels(like)
    assert torch.allclose(model(X.clone()), like(X.clone()), atol=1e-6)
    found = numbers(ASKED[name].call(model, X, y))
    want = numbers(ASKED[name].call(like, X, y))
    if name == "layer_norms":  # a second Flatten or Dropout is no entry
        assert len(found) == len(want)
    assert found == pytest.approx(want, rel=1e-4, abs=1e-5)


@pytest.mark.parametrize(("way", "name"), sorted(UNMET))
def test_what_a_function_does_not_take_it_refuses_clearly(way, name):
    """Fewer kinds of layer: an error of this package, or the same numbers."""
    kind = ASKED[name].kinds[0]
    model, like = SAME[way](plain(kind)), plain(kind)
    y = labels(like)
    try:
        found = numbers(ASKED[name].call(model, X, y))
    except (TypeError, ValueError) as error:
        last_frame = traceback.extract_tb(error.__traceback__)[-1]
        assert "/advlib/" in last_frame.filename.replace("\\", "/")
    else:
        want = numbers(ASKED[name].call(like, X, y))
        assert found == pytest.approx(want, rel=1e-4, abs=1e-5)
