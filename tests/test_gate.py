"""The gate's second half: the canonical form is compared with the model itself.

And what a class, a label or a margin is: two logits or more, finite, labels among them.
Which functions refuse which networks is the table in test_same_function.py.
"""

import math

import pytest
import torch
from strange import NegatedNumbers
from torch import Tensor, nn
from torch.nn.utils import parametrize

from advlib import bounds, branch_and_bound, exact, lipschitz, models, training
from advlib.bounds import plan
from advlib.networks import canonical, gate

SHAPE = (1, 2, 2)


def small(seed: int = 0, classes: int = 3) -> nn.Sequential:
    """A network of six units."""
    return models.seeded(models.mlp, SHAPE, [6], classes, seed=seed)


def images(n: int = 3) -> Tensor:
    """Random images."""
    return torch.rand(n, *SHAPE, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def runs(monkeypatch) -> list[int]:
    """The comparisons that were made."""
    made, compare = [], gate._compare

    def counted(*given: object) -> None:
        made.append(1)
        compare(*given)

    monkeypatch.setattr(gate, "_compare", counted)
    return made


def test_one_comparison_serves_until_something_changes(runs):
    """Parameters by an optimiser, by loading, by another tensor; buffers; the shape."""
    conv = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU())
    model = nn.Sequential(*conv, nn.AvgPool2d(2), nn.ReLU()).eval()
    low = torch.zeros(1, 1, 6, 6)

    def ask(x: Tensor = low) -> int:
        before = len(runs)
        bounds.interval_bounds(model, x, x + 0.1)
        return len(runs) - before

    assert (ask(), ask(), ask()) == (1, 0, 0)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    assert (ask(), ask()) == (1, 0)
    model.load_state_dict(model.state_dict())
    assert (ask(), ask()) == (1, 0)
    model[0].weight = nn.Parameter(model[0].weight.detach().clone())
    assert (ask(), ask()) == (1, 0)
    model[1].running_mean += 1
    assert (ask(), ask()) == (1, 0)
    assert (ask(torch.zeros(2, 1, 6, 6)), ask(torch.zeros(2, 1, 8, 8))) == (0, 1)
    model[4] = nn.Identity().eval()
    assert (ask(), ask()) == (1, 0)


def test_a_loss_compares_once_a_training(runs):
    """Every update changes the parameters; the layers are the same."""
    x, y = images(40), torch.arange(40) % 3
    objective = training.IntervalLoss(0.01, training.Ramp(0))
    model = small()
    training.fit(model, x, y, epochs=3, lr=0.1, batch_size=10, objective=objective)
    assert len(runs) == 1
    bounds.interval_margins(model, x, y, 0.01)
    assert len(runs) == 2


class Jittered(nn.Module):
    """A weight that is another one at each call."""

    def forward(self, weight: Tensor) -> Tensor:
        return weight + 0.1 * torch.randn_like(weight)


def test_a_weight_that_changes_by_itself_is_no_weight():
    """No hook and no forward of its own: only the comparison sees it."""
    model = small()
    parametrize.register_parametrization(model[1], "weight", Jittered())
    model.eval()
    x = images()
    with pytest.raises(ValueError, match="not the network that runs: at image 0"):
        bounds.crown_margins(model, x, torch.zeros(3).long(), 0.01)
    with pytest.raises(ValueError, match="not the network that runs"):
        exact.milp_robust(model, x, torch.zeros(3).long(), 0.01)


@pytest.mark.parametrize("bug", ["bias", "order", "scale"])
def test_a_bug_in_the_canonical_form_is_found(bug, monkeypatch):
    """Planted in what the bounds are built on, and found before any bound."""
    proper = canonical._own

    def wrong(layer: nn.Module, goal: object) -> nn.Module:
        layer = proper(layer, goal)
        weight, bias = layer.weight, layer.bias
        if bug == "bias":
            return models.with_weights(layer, weight, None)
        if bug == "order":
            return models.with_weights(layer, weight.flip(0), bias)
        return models.with_weights(layer, weight * 1.0001, bias)

    monkeypatch.setattr(canonical, "_own", wrong)
    x, y = images(), torch.zeros(3).long()
    for call in (
        bounds.interval_margins,
        exact.milp_robust,
        lipschitz.lipschitz_margins,
    ):
        with pytest.raises(ValueError, match="not the network that runs"):
            call(small(), x, y, 0.01)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_rounding_is_no_difference(dtype):
    """Batch-norms with odd statistics, deep and wide, sums that cancel: accepted."""
    generator = torch.Generator().manual_seed(0)
    for seed in range(20):
        torch.manual_seed(seed)
        layers: list[nn.Module] = [models.Normalize([0.1307], [0.3081])]
        width = 1
        for wider in (8, 16, 16):
            layers += [nn.Conv2d(width, wider, 3, padding=1), nn.BatchNorm2d(wider)]
            layers += [nn.ReLU()]
            width = wider
        layers += [nn.AvgPool2d(2), nn.Flatten(), nn.Linear(16 * 16, 5)]
        model = nn.Sequential(*layers).eval().to(dtype)
        for norm in (layer for layer in layers if isinstance(layer, nn.BatchNorm2d)):
            norm.running_mean.normal_(0, 30, generator=generator)
            norm.running_var.uniform_(1e-4, 30, generator=generator)
        x = torch.rand(8, 1, 8, 8, generator=generator).to(dtype)
        bounds.interval_margins(model, x, model(x).argmax(1), 0.001)
        big_weights = 10.0 ** float(torch.randint(-12, 13, (1,), generator=generator))
        with torch.no_grad():
            layers[1].weight.mul_(big_weights)
        bounds.interval_margins(model, x, model(x).argmax(1), 0.001)


def test_errors_name_the_module_the_reason_and_the_way_out():
    """What a user needs in order to go on."""
    x, y = images(), torch.zeros(3).long()
    hooked = nn.Sequential(small(), nn.Identity()).eval()
    hooked[0][1].register_forward_hook(lambda module, args, out: out)
    with pytest.raises(TypeError, match=r"Linear '0\.1' has a forward hook.*remove"):
        bounds.crown_margins(hooked, x, y, 0.1)
    own = small()
    own.forward = own.forward
    with pytest.raises(TypeError, match="the model itself has its own forward"):
        bounds.crown_margins(own, x, y, 0.1)
    other = nn.Sequential(nn.Conv2d(1, 3, 2, dilation=(1, 2), padding=1), nn.Flatten())
    with pytest.raises(TypeError, match=r"Conv2d '0': dilation=\(1, 2\)"):
        bounds.interval_bounds(other.eval(), x, x)
    unknown = nn.Sequential(nn.Flatten(), nn.Tanh(), nn.Linear(4, 3)).eval()
    with pytest.raises(TypeError, match=r"no bound rule for Tanh '1'.*there are rules"):
        bounds.crown_margins(unknown, x, y, 0.1)
    with pytest.raises(TypeError, match=r"a function, no nn\.Module"):
        bounds.crown_margins(lambda z: z, x, y, 0.1)


# --------------------------------------------------------- logits, labels, dtypes

MARGINS = {
    "interval": bounds.interval_margins,
    "crown": bounds.crown_margins,
    "dual": bounds.wong_kolter_margins,
    "alpha": bounds.alpha_crown_margins,
    "lipschitz": lipschitz.lipschitz_margins,
    "milp": exact.milp_robust,
    "search": branch_and_bound.branch_and_bound,
}


@pytest.mark.parametrize("name", MARGINS)
def test_one_logit_has_no_margin(name):
    """Not one image of label 0 is certified: the error says what to do."""
    model, x = small(classes=1), images()
    for labels in (torch.zeros(3).long(), torch.tensor([0, 1, 1])):
        with pytest.raises(ValueError, match="TwoLogits"):
            MARGINS[name](model, x, labels, 1.0)


@pytest.mark.parametrize("name", MARGINS)
def test_labels_are_below_the_number_of_classes(name):
    """Classes numbered from one: refused, whatever the others are."""
    with pytest.raises(ValueError, match="not below the 3 classes"):
        MARGINS[name](small(), images(), torch.tensor([1, 2, 3]), 0.1)


def test_plain_bounds_take_any_number_of_outputs():
    """One output, a map: bounds of them are meant, not a class."""
    x = images()
    for model in (small(classes=1), nn.Sequential(nn.Conv2d(1, 1, 2)).eval()):
        low, high = bounds.interval_bounds(model, x, x + 0.1)[-1]
        with torch.no_grad():
            out = model(x + 0.05)
        assert ((low <= out) & (out <= high)).all()
        assert len(bounds.relu_bounds(model, x, x + 0.1)) in (0, 1)
    pre = bounds.relu_bounds(small(classes=1), x, x + 0.1)
    one = bounds.linear_lower(small(classes=1), torch.ones(3, 1, 1), x, x + 0.1, pre)
    assert one.shape == (3, 1)


def test_two_logits_of_a_binary_network():
    """(0, z): the margin of class 1 is z, that of class 0 is -z, in every method."""
    inner, x = small(seed=3, classes=1), images(6)
    model = models.TwoLogits(inner).eval()
    with torch.no_grad():
        z = inner(x)[:, 0]
    assert torch.equal(model(x)[:, 1], z)
    assert (model(x)[:, 0] == 0).all()
    y = (z > 0).long()
    sign = torch.where(y == 1, 1.0, -1.0)
    rows = sign.view(-1, 1, 1)
    for eps in (0.0, 0.1):
        low, high = bounds.input_box(x, eps)
        pre = bounds.relu_bounds(inner, low, high)
        want = bounds.linear_lower(inner, rows, low, high, pre)[:, 0]
        margins = bounds.crown_margins(model, x, y, eps, intersect=False)
        other = margins.gather(1, 1 - y[:, None])[:, 0]
        assert torch.allclose(other, want, atol=1e-6)
    found = branch_and_bound.minimal_margin(model, x, y, 0.1)
    grid = torch.rand(4000, *SHAPE, generator=torch.Generator().manual_seed(1))
    for i, margin in enumerate(found):
        points = (x[i] + 0.1 * (2 * grid - 1).round()).clamp(0, 1)
        with torch.no_grad():
            sampled = (sign[i] * inner(points)[:, 0]).min()
        assert margin.bound <= sampled + 1e-5
    for wrong in (models.TwoLogits(small()), models.TwoLogits(nn.Flatten())):
        with pytest.raises(ValueError, match="one logit for each image"):
            wrong(x)


def test_certified_looks_at_finite_margins_of_two_classes():
    """NaN and infinity prove nothing, and one column has no rival."""
    y = torch.zeros(4).long()
    rows = torch.tensor([[0.0, 1.0], [0, math.nan], [0, math.inf], [math.nan, 1]])
    assert bounds.certified(rows, y).tolist() == [True, False, False, True]
    with pytest.raises(ValueError, match="TwoLogits"):
        bounds.certified(rows[:, :1], y)
    with pytest.raises(ValueError, match="not below the 2 classes"):
        bounds.certified(rows, y + 2)
    for margins, labels in ((rows[0], y[:1]), (rows, y[:2]), (rows[:, :, None], y)):
        with pytest.raises(ValueError, match="need margins"):
            bounds.certified(margins, labels)


def test_logits_that_are_not_finite_are_refused():
    """At the very images, whatever the bound would be."""
    model, x = small(), images()
    with torch.no_grad():
        model[1].weight.mul_(1e30)
        model[3].weight.mul_(1e30)
    for bound in (bounds.interval_margins, bounds.crown_margins):
        with pytest.raises(ValueError, match="NaN or infinity"):
            bound(model, x, torch.zeros(3).long(), 0.1)


def overflowing() -> nn.Sequential:
    """Finite logits at x = 0.5; a little further its margin is 1 - 1e39."""
    values = [[[1e20]], [-0.5e20], [[1e20]], [0.0], [[0.0], [1.0]], [1.0, 0.0]]
    layers = [nn.Linear(1, 1), nn.ReLU(), nn.Linear(1, 1), nn.ReLU(), nn.Linear(1, 2)]
    model = nn.Sequential(*layers).eval()
    with torch.no_grad():
        for parameter, value in zip(model.parameters(), values, strict=True):
            parameter.copy_(torch.tensor(value))
    return model


def test_a_unit_whose_bounds_overflow_is_not_off():
    """Its lines are NaN, and NaN certifies nothing."""
    model, x, y = overflowing(), torch.tensor([[0.5]]), torch.tensor([0])
    box = bounds.input_box(x, 0.1)
    pre = bounds.relu_bounds(model, *box, method="interval")
    for bound in (
        bounds.interval_margins,
        bounds.crown_margins,
        bounds.wong_kolter_margins,
        bounds.alpha_crown_margins,
    ):
        assert not bounds.certified(bound(model, x, y, 0.1), y).any()
    line = bounds.relaxation(
        torch.tensor([math.nan, -1.0]), torch.tensor([1.0, math.nan])
    )
    assert line.lower.isnan().all()
    assert line.upper.isnan().all()
    for bound in (bounds.crown_margins, bounds.wong_kolter_margins):
        if any(end.isnan().any() for pair in pre for end in pair):
            with pytest.raises(ValueError, match="or NaN"):
                bound(model, x, y, 0.1, pre=pre)
        else:
            assert not bounds.certified(bound(model, x, y, 0.1, pre=pre), y).any()


BAD_PRE = {
    "swapped": lambda low, up: (up, low),
    "crossed": lambda low, up: (up + 1, low - 1),
    "NaN": lambda low, up: (low * math.nan, up * math.nan),
    "one NaN": lambda low, up: (low.index_fill(1, torch.tensor([0]), math.nan), up),
    "one crossed": lambda low, up: (low.index_fill(1, torch.tensor([1]), 99.0), up),
}


@pytest.mark.parametrize("way", BAD_PRE)
def test_bounds_before_a_relu_that_cross_are_refused(way):
    """Given by the user: never taken in silence."""
    model, x = small(), images()
    y = model(x).argmax(1)
    box = bounds.input_box(x, 0.1)
    good = bounds.relu_bounds(model, *box)
    pre = [BAD_PRE[way](*pair) for pair in good]
    for bound in (
        bounds.crown_margins,
        bounds.wong_kolter_margins,
        bounds.alpha_crown_margins,
        exact.milp_robust,
    ):
        with pytest.raises(ValueError, match="pre is no bound: before ReLU 0"):
            bound(model, x, y, 0.1, pre=pre)
        bound(model, x, y, 0.1, pre=good)
    spec = bounds.margin_spec(y, 3)
    with pytest.raises(ValueError, match="pre is no bound: before ReLU 0"):
        bounds.linear_lower(model, spec, *box, pre)


def test_dtypes_meet_or_the_error_names_both():
    """The rows of margins are exact in any dtype; images and weights must agree."""
    model, x = small(), images()
    y = model(x).argmax(1)
    double, box = small().double(), bounds.input_box(x.double(), 0.1)
    pre = bounds.relu_bounds(double, *box)
    found = bounds.linear_lower(double, bounds.margin_spec(y, 3), *box, pre)
    assert found.dtype == torch.float64
    third = bounds.margin_spec(y, 3).double() / 3
    box = bounds.input_box(x, 0.1)
    pre32 = bounds.relu_bounds(model, *box)
    with pytest.raises(TypeError, match=r"spec is torch\.float64"):
        bounds.linear_lower(model, third, *box, pre32)
    for bound in (bounds.interval_margins, bounds.crown_margins):
        with pytest.raises(TypeError, match=r"images are torch\.float64, the model"):
            bound(model, x.double(), y, 0.1)
    mixed = [pre[0][0], pre[0][1].float()]
    with pytest.raises(TypeError, match="one floating dtype"):
        plan.check_pre(plan.plan_steps(double, SHAPE), [tuple(mixed)], 3)


@pytest.mark.parametrize("kind", gate.KNOWN)
def test_a_method_of_a_class_that_a_program_replaced(kind, monkeypatch):
    """Before or after the first comparison: the canonical form is made of them, too."""
    model, x = small(), images()
    bounds.interval_margins(model, x, model(x).argmax(1), 0.01)
    name = "__call__" if kind is nn.Module else "forward"
    own = getattr(kind, name)
    monkeypatch.setattr(kind, name, lambda self, *a: 2 * own(self, *a))
    with pytest.raises(TypeError, match=rf"replaced {kind.__name__}\.{name}"):
        bounds.interval_bounds(model, x - 0.1, x + 0.1)


@pytest.mark.parametrize("torch_is_wrong", [False, True])
def test_a_function_of_torch_that_a_program_replaced(torch_is_wrong, monkeypatch):
    """Refused by name; and what has no name is seen by the comparison."""
    relu = nn.functional.relu
    monkeypatch.setattr(nn.functional, "relu", lambda a, inplace=False: relu(a) + 1)
    error, words = TypeError, r"replaced functional\.relu"
    if torch_is_wrong:  # no method replaced, and still another function
        monkeypatch.setattr(gate, "_OWN", [])
        error, words = ValueError, "not the network that runs"
    model, x = small(), images()
    with pytest.raises(error, match=words):
        bounds.interval_margins(model, x, model(x).argmax(1), 0.01)


@pytest.mark.parametrize("name", ["linear", "conv2d", "batch_norm", "avg_pool2d"])
def test_every_function_that_a_layer_calls_is_looked_at(name, monkeypatch):
    """The comparison calls some of them itself, so it could not tell."""
    model, x = small(), images()
    own = getattr(nn.functional, name)
    monkeypatch.setattr(nn.functional, name, lambda *a, **k: own(*a, **k))
    with pytest.raises(TypeError, match=f"replaced functional.{name}"):
        bounds.interval_bounds(model, x, x + 0.1)


@pytest.mark.parametrize("widths", [[128] * 5, [512] * 4, [64] * 12])
@pytest.mark.parametrize("shift", [0.003, 0.1])
def test_the_comparison_sees_as_sharply_in_deep_networks(widths, shift, monkeypatch):
    """What rounding may explain does not grow with the product of all weights."""
    model = models.seeded(models.mlp, (1, 4, 4), widths, 3, seed=1)
    torch.manual_seed(0)
    for layer in model:
        if isinstance(layer, nn.Linear):
            nn.init.kaiming_normal_(layer.weight)
    x = torch.rand(20, 1, 4, 4)
    y = model(x).argmax(1)
    bounds.interval_margins(model, x, y, 0.0)  # the network itself is accepted
    other = models.seeded(models.mlp, (1, 4, 4), widths, 3, seed=1)
    other.load_state_dict(model.state_dict())
    relu = nn.functional.relu
    monkeypatch.setattr(gate, "_OWN", [])
    monkeypatch.setattr(nn.functional, "relu", lambda a, inplace=False: relu(a) + shift)
    with pytest.raises(ValueError, match="not the network that runs"):
        bounds.interval_margins(other, x, y, 0.0)


def test_bounds_are_not_made_in_half_precision():
    model, x = small(), images()
    y = model(x).argmax(1)
    with (
        torch.autocast("cpu", dtype=torch.bfloat16),
        pytest.raises(TypeError, match=r"torch\.autocast"),
    ):
        bounds.crown_margins(model, x, y, 0.01)


def test_a_compiled_network_is_to_be_given_as_it_was():
    model, x = small(), images()
    made = torch.compile(model, backend="eager")
    with pytest.raises(TypeError, match="_orig_mod"):
        bounds.interval_margins(made, x, model(x).argmax(1), 0.01)


@pytest.mark.parametrize("torch_is_wrong", [False, True])
def test_a_convolution_that_a_program_replaced(torch_is_wrong, monkeypatch):
    """By name in every function; without a name by the comparison."""
    run = nn.Conv2d._conv_forward
    monkeypatch.setattr(
        nn.Conv2d, "_conv_forward", lambda self, x, w, b: run(self, x, w.flip(3), b)
    )
    layers = nn.Conv2d(1, 2, 2), nn.ReLU(), nn.Flatten(), nn.Linear(2, 3)
    model, x = nn.Sequential(*layers).eval(), images()
    if not torch_is_wrong:
        with pytest.raises(TypeError, match=r"replaced Conv2d\._conv_forward"):
            lipschitz.lipschitz_bound(model, SHAPE)
    else:
        monkeypatch.setattr(gate, "_OWN", [])
        with pytest.raises(ValueError, match="not the network that runs"):
            bounds.interval_margins(model, x, model(x).argmax(1), 0.01)


# ---------------------------------------------------- precision, classes of tensors


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_proves_nothing(dtype):
    """Whatever bounds in the network's own arithmetic, or speaks of what it returns."""
    model, x = small().to(dtype), images().to(dtype)
    y = torch.zeros(3).long()
    for name, call in MARGINS.items():
        with pytest.raises(TypeError, match=f"weights are {dtype}.*float"):
            call(model, x, y, 0.01), name
    with pytest.raises(TypeError, match=f"weights are {dtype}"):
        lipschitz.lipschitz_bound(model, SHAPE)
    bounds.interval_margins(model.float(), x.float(), y, 0.01)


@pytest.mark.parametrize("precision", ["medium", "high"])
def test_products_of_few_bits_prove_nothing(precision):
    """A setting of the whole program; float64 is not touched by it, training may."""
    model, x = small(), images()
    y = model(x).argmax(1)
    torch.set_float32_matmul_precision(precision)
    try:
        for call in MARGINS.values():
            with pytest.raises(TypeError, match=r'precision\("highest"\)'):
                call(model, x, y, 0.01)
        bounds.interval_margins(small().double(), x.double(), y, 0.01)
        objective = training.IntervalLoss(0.01, training.Ramp(0))
        training.fit(small(), x, y, epochs=1, lr=0.1, batch_size=3, objective=objective)
    finally:
        torch.set_float32_matmul_precision("highest")
    bounds.interval_margins(model, x, y, 0.01)


@pytest.mark.parametrize("name", MARGINS)
def test_tensors_of_a_class_of_their_own(name):
    """Its stored numbers say nothing of what it computes."""
    model, x = small(), images()
    model[-1].weight = NegatedNumbers(model[-1].weight.detach())
    with pytest.raises(TypeError, match=r"weight of Linear '3' is a NegatedNumbers"):
        MARGINS[name](model, x, torch.zeros(3).long(), 0.01)


@pytest.mark.filterwarnings("ignore:Sparse CSR:UserWarning")
def test_tensors_that_are_not_dense():
    """Sparse rows, no storage at all, complex numbers."""
    x = images()
    ways = {
        "sparse_csr": lambda w: w.detach().to_sparse_csr(),
        "meta": lambda w: w.detach().to("meta"),
        "complex": lambda w: w.detach().to(torch.complex64),
    }
    for words, way in ways.items():
        model = small()
        model[1].weight = nn.Parameter(way(model[1].weight))
        with pytest.raises(TypeError, match=words):
            bounds.interval_bounds(model, x, x + 0.1)


# --------------------------------------------------------------- the same function


def test_layers_that_work_in_place_inside_a_residual():
    """Both branches see the same x; and bounds are those of the network that runs."""
    lin = nn.Linear(1, 2)
    body = nn.Sequential(nn.ReLU(inplace=True), nn.Linear(2, 2))
    head = nn.Linear(2, 2)
    model = nn.Sequential(nn.Flatten(), lin, models.Residual(body), head).eval()
    with torch.no_grad():
        for p in model.parameters():
            p.zero_()
        lin.weight.copy_(torch.tensor([[1.0], [-1.0]]))
        lin.bias.copy_(torch.tensor([-0.5, 0.6]))
        head.weight[0] = -1
        head.bias[0] = 0.15
    x, y = torch.full((1, 1, 1, 1), 0.55), torch.tensor([0])
    points = torch.linspace(0.35, 0.75, 401).view(-1, 1, 1, 1)
    with torch.no_grad():
        z = model(points.clone())
        bound = float(bounds.crown_margins(model, x, y, 0.2)[0, 1])
    least = float((z[:, 0] - z[:, 1]).min())
    assert bound <= least + 1e-6
    (found,) = branch_and_bound.minimal_margin(model, x, y, 0.2)
    assert found.margin == pytest.approx(least, abs=1e-4)


@pytest.mark.parametrize("where", ["body", "shortcut", "inner", "flattened"])
def test_a_residual_is_a_sum_wherever_it_works_in_place(where):
    """The same values as with layers that make a new tensor."""

    def build(inplace: bool) -> nn.Module:
        relu = nn.ReLU(inplace=inplace)
        if where == "body":
            return models.Residual(nn.Sequential(nn.Identity(), relu))
        if where == "shortcut":
            return models.Residual(nn.Sequential(), nn.Sequential(relu))
        if where == "inner":
            return models.Residual(nn.Sequential(models.Residual(nn.Sequential(relu))))
        return models.Residual(
            nn.Sequential(nn.Flatten(), relu), nn.Sequential(nn.Flatten())
        )

    x = torch.randn(5, 2, 3, 3, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(build(True)(x.clone()), build(False)(x))


def test_a_compiled_layer_is_read_and_not_run():
    """Folded into another layer, it must not run with its old weights."""
    torch.manual_seed(0)
    layers = nn.Flatten(), nn.Linear(4, 5), nn.BatchNorm1d(5), nn.ReLU()
    model = nn.Sequential(*layers, nn.Linear(5, 3)).eval()
    model[2].running_mean.normal_()
    model[2].running_var.uniform_(0.1, 2)
    x = images()
    y = model(x).argmax(1)
    want = [call(model, x, y, 0.05) for call in MARGINS.values()]
    model[1].compile(backend="eager")
    model[4].compile(backend="eager")
    for call, before in zip(MARGINS.values(), want, strict=True):
        after = call(model, x, y, 0.05)
        if isinstance(after, Tensor):
            assert torch.allclose(after, before, atol=1e-6)
        else:
            assert [v.status for v in after] == [v.status for v in before]


def changed(kind: str) -> tuple[nn.Module, nn.Module, Tensor]:
    """A network whose attributes were changed after it was made, and it made anew."""
    torch.manual_seed(0)
    conv, last = nn.Conv2d(2, 3, 3), nn.Linear(3 * 2 * 2, 3)
    x = torch.rand(3, 2, 6, 6)
    if kind == "options":
        conv.stride, conv.padding, conv.dilation = 3, 1, 1
        other = nn.Conv2d(2, 3, 3, stride=3, padding=1)
        other.load_state_dict(conv.state_dict())
        layers = [conv], [other]
    elif kind == "pool":
        pool, same = nn.AvgPool2d(2), nn.AvgPool2d(2)
        pool.stride, pool.kernel_size, pool.padding = None, (2,), [0, 0]
        layers = [conv, pool], [conv, same]
    elif kind == "pruned":
        wide = nn.Conv2d(2, 5, 3, stride=3, padding=1)
        wide.weight = nn.Parameter(wide.weight.detach()[:3].clone())
        wide.bias = nn.Parameter(wide.bias.detach()[:3].clone())
        other = nn.Conv2d(2, 3, 3, stride=3, padding=1)
        other.load_state_dict(wide.state_dict())
        layers = [wide], [other]
    elif kind == "one mean":
        one, both = (
            models.Normalize([0.5], [0.2]),
            models.Normalize([0.5] * 2, [0.2] * 2),
        )
        own = nn.Conv2d(2, 3, 3, stride=3, padding=1)
        layers = [one, own], [both, own]
    else:
        flat = {"1 to 3": nn.Flatten(1, 3), "-3": nn.Flatten(-3)}[kind]
        own = nn.Conv2d(2, 3, 3, stride=3, padding=1)
        ends = nn.Sequential(own, nn.ReLU(), flat, last).eval()
        return ends, nn.Sequential(own, nn.ReLU(), nn.Flatten(), last).eval(), x
    made = [
        nn.Sequential(*some, nn.ReLU(), nn.Flatten(), last).eval() for some in layers
    ]
    return *made, x


@pytest.mark.parametrize(
    "kind", ["options", "pool", "pruned", "one mean", "1 to 3", "-3"]
)
def test_attributes_changed_by_hand(kind):
    """The function is that of the weights and options, however they are written."""
    model, same, x = changed(kind)
    y = model(x).argmax(1)
    assert torch.equal(model(x), same(x))
    for name, call in MARGINS.items():
        found, want = call(model, x, y, 0.02), call(same, x, y, 0.02)
        if isinstance(found, Tensor):
            assert torch.allclose(found, want, atol=1e-6), name
        else:
            assert [v.status for v in found] == [v.status for v in want], name


def test_a_parameter_that_no_layer_uses():
    """Of another dtype, say: the network computes in that of its layers."""

    class Named(nn.Sequential):
        def __init__(self, *layers: nn.Module) -> None:
            super().__init__()
            self.register_parameter("temperature", nn.Parameter(torch.ones(1).double()))
            for k, layer in enumerate(layers):
                self.add_module(str(k), layer)

    inner, x = small(), images()
    model = Named(*inner).eval()
    y = inner(x).argmax(1)
    model.forward  # noqa: B018  the class's own
    for name, call in MARGINS.items():
        found, want = call(model, x, y, 0.02), call(inner, x, y, 0.02)
        same = torch.equal(found, want) if isinstance(found, Tensor) else True
        assert same, name


def test_what_cannot_be_scaled():
    """A deviation of zero, a negative variance, means that are no channels'."""
    x = images()
    norm = models.Normalize([0.5], [1.0])
    norm.std.zero_()
    flat = nn.Flatten(), nn.Linear(4, 3)
    with pytest.raises(ValueError, match=r"Normalize '0'.*deviation is zero"):
        bounds.interval_bounds(nn.Sequential(norm, *flat).eval(), x, x + 0.1)
    batch = nn.BatchNorm2d(1)
    batch.running_var.fill_(-1)
    with pytest.raises(ValueError, match=r"BatchNorm2d '0'.*zero, or none"):
        lipschitz.lipschitz_bound(nn.Sequential(batch, *flat).eval(), SHAPE)
    norm = models.Normalize([0.5, 0.5], [1.0, 1.0])
    with pytest.raises(TypeError, match="2 means are not one for each channel"):
        bounds.interval_bounds(nn.Sequential(norm, *flat).eval(), x, x + 0.1)
    flat[1].weight = nn.Parameter(torch.zeros(0, 4))
    with pytest.raises(TypeError, match="no inputs or no outputs"):
        bounds.interval_bounds(nn.Sequential(*flat).eval(), x, x + 0.1)


def test_networks_that_are_not_ready():
    """Weights that are made at the first call; a compiled script."""
    x = images()
    lazy = nn.Sequential(nn.Flatten(), nn.LazyLinear(3)).eval()
    with pytest.raises(TypeError, match="LazyLinear '1' has no weights yet: run"):
        bounds.interval_bounds(lazy, x, x + 0.1)
    lazy(x)
    bounds.interval_bounds(lazy, x, x + 0.1)


@pytest.mark.parametrize("name", MARGINS)
def test_arguments_that_are_no_tensors_or_no_number(name):
    """Arrays, lists, a radius for each image: an error that says what to give."""
    model, x, y = small(), images(), torch.zeros(3).long()
    wrong = [
        ((x.numpy(), y, 0.1), "images are a ndarray"),
        ((x, y.tolist(), 0.1), "labels are a list"),
        ((x, y.numpy(), 0.1), "labels are a ndarray"),
        ((x, y, torch.full((3,), 0.1)), "one number for all images"),
        ((x, y, True), "one number for all images"),
        ((x, y, None), "one number for all images"),
        ((x, y, "0.1"), "one number for all images"),
    ]
    for given, words in wrong:
        with pytest.raises(TypeError, match=words):
            MARGINS[name](model, *given)


def test_slopes_behind_a_backward_hook():
    """A hook that scales gradients would make a lower bound exceed the upper one."""
    model, x = small(), images()
    handle = model[1].register_full_backward_hook(lambda m, i, o: (i[0] * 100,))
    with pytest.raises(TypeError, match="Linear '1' has a backward hook"):
        lipschitz.jacobian_norms(model, x)
    handle.remove()
    lipschitz.jacobian_norms(model, x)
