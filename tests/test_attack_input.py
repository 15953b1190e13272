"""What attacks and error rates are asked about: outputs, labels, steps, dtypes, modes.

Each situation is tried on every attack and on every error rate, not on one of them.
"""

import math
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from advlib import attacks, bounds, evaluation, models, training

X = torch.rand(12, 1, 4, 4, generator=torch.Generator().manual_seed(0))
NET = models.seeded(models.mlp, (1, 4, 4), [16], 3, seed=0).requires_grad_(False)
Y = NET(X).argmax(1)


def seeded() -> torch.Generator:
    """The same draws each time."""
    return torch.Generator().manual_seed(0)


def other(y: Tensor) -> Tensor:
    """A target that is not the label."""
    return (y + 1) % 3


def restarted(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Two random starts."""
    one = partial(attacks.pgd_linf, model, x, y, 0.1, alpha=0.05, num_steps=2)
    return attacks.best_of(lambda g: one(generator=g), model, x, y, num_restarts=2)


STEPS = {"alpha": 0.05, "num_steps": 3}
ATTACKS = {
    "input_gradient": attacks.input_gradient,
    "fgsm": partial(attacks.fgsm, eps=0.1),
    "pgd_linf": partial(attacks.pgd_linf, eps=0.1, **STEPS),
    "pgd_linf, dropping": partial(attacks.pgd_linf, eps=0.1, drop_fooled=True, **STEPS),
    "pgd_linf, no step": partial(attacks.pgd_linf, eps=0.1, alpha=0.1, num_steps=0),
    "pgd_l2": partial(attacks.pgd_l2, eps=0.5, **STEPS),
    "pgd_l1": partial(attacks.pgd_l1, eps=1.0, **STEPS),
    "apgd": partial(attacks.apgd, eps=0.1, num_steps=4),
    "apgd l2": partial(attacks.apgd, eps=0.5, norm="l2", num_steps=4),
    "square": lambda m, x, y: attacks.square(
        m, x, y, 0.1, generator=seeded(), num_queries=5
    ),
    "strong_attack": partial(
        attacks.strong_attack, eps=0.1, num_restarts=4, num_steps=2, num_queries=3
    ),
    "best_of": restarted,
    "boundary_l2": lambda m, x, y: attacks.boundary_l2(m, x, y, other(y), num_steps=3),
    "carlini_wagner_l2": lambda m, x, y: (
        attacks.carlini_wagner_l2(m, x, other(y), num_searches=2, num_steps=4).delta
    ),
    "minimal_pgd_l2": lambda m, x, y: (
        attacks.minimal_pgd_l2(m, x, other(y), num_radii=2, num_steps=3).delta
    ),
    "lbfgs": lambda m, x, y: (
        attacks.lbfgs(m, x, other(y), num_bisections=1, max_iter=4).delta
    ),
}
FGSM, INTERVAL = ATTACKS["fgsm"], partial(bounds.interval_margins, eps=0.01)
TARGETED = ("boundary_l2", "carlini_wagner_l2", "minimal_pgd_l2", "lbfgs")
RATES = {
    "wrong": evaluation.wrong,
    "clean_error": evaluation.clean_error,
    "attacked": lambda m, x, y: evaluation.attacked(m, x, y, [FGSM]),
    "attacked_error": lambda m, x, y: evaluation.attacked_error(m, x, y, FGSM),
    "both_sides": lambda m, x, y: evaluation.both_sides(m, x, y, {"f": FGSM}, {}),
    "masking_checks": partial(
        evaluation.masking_checks, eps=0.05, num_steps=2, num_queries=2
    ),
}
ALL = ATTACKS | RATES


class Ends(nn.Module):
    """``NET`` with its logits turned into something else."""

    def __init__(self, turn) -> None:
        super().__init__()
        self.net, self.turn = NET, turn

    def forward(self, x):
        """What ``turn`` makes of the logits."""
        return self.turn(self.net(x))


# ------------------------------------------------------------------ outputs, labels

OUTPUTS = {
    "one logit": (lambda z: z[:, :1], ValueError, "TwoLogits"),
    "a row": (lambda z: z[:, 0], ValueError, "TwoLogits"),
    "a map": (lambda z: z[:, :, None, None], ValueError, "Flatten"),
    "a tuple": (lambda z: (z, z), TypeError, "tuple"),
    "a dictionary": (lambda z: {"logits": z}, TypeError, "dict"),
    "integers": (lambda z: z.round().long(), TypeError, "int64"),
    "NaN": (lambda z: z * torch.tensor([1.0, math.nan, 1.0]), ValueError, "NaN"),
    "infinity": (lambda z: z - torch.tensor([0, math.inf, 0]), ValueError, "infinity"),
    "one row less": (lambda z: z[1:], ValueError, "each of"),
}


@pytest.mark.parametrize("kind", OUTPUTS)
@pytest.mark.parametrize("name", ALL)
def test_what_is_no_row_of_logits_is_refused(name, kind):
    """Labels of class 0 alone, as a batch of a one-logit network would have."""
    turn, error, text = OUTPUTS[kind]
    with pytest.raises(error, match=text):
        ALL[name](Ends(turn).eval(), X, torch.zeros_like(Y))


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("label", [3, 4, -1])
def test_labels_are_classes(name, label):
    """1 .. K instead of 0 .. K - 1; one such label among good ones is enough."""
    y = Y.clone()
    y[5] = label
    if name in TARGETED[1:]:
        return  # their targets are what other() makes, which is a class
    with pytest.raises(ValueError, match=r"label"):
        ALL[name](NET, X, y)


def test_targets_are_classes():
    """As labels are."""
    bad = torch.full_like(Y, 3)
    for attack in (attacks.carlini_wagner_l2, attacks.minimal_pgd_l2, attacks.lbfgs):
        with pytest.raises(ValueError, match="3 classes"):
            attack(NET, X, bad)
    with pytest.raises(ValueError, match="3 classes"):
        attacks.boundary_l2(NET, X, Y, 3)


def test_a_label_that_a_random_target_would_hide():
    """(y + shift) % K is a class for every y."""
    aimed = training.toward_random_target(attacks.boundary_l2, 3)
    with pytest.raises(ValueError, match="3 classes"):
        aimed(NET, X, torch.full_like(Y, 3))


# -------------------------------------------------- what is not finite, further away


class Cliff(nn.Module):
    """``NET``, but some logits are ``beyond`` at every image that is not in ``known``.

    The slope is that of ``NET``.
    """

    def __init__(self, beyond: float, column: int = 0) -> None:
        super().__init__()
        self.net, self.beyond, self.column = NET, beyond, column

    def forward(self, x):
        """Logits with ``beyond`` in one column where an image has been moved."""
        z = self.net(x.to(next(self.net.parameters()).dtype))
        moved = ~torch.isin((x.double() * 2**20).round(), (X.double() * 2**20).round())
        moved = moved.flatten(1).any(1)
        fill = torch.full_like(z, 0.0)
        fill[moved, self.column] = self.beyond
        return z + fill


@pytest.mark.parametrize("beyond", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("column", [0, 1, 2])
@pytest.mark.parametrize("name", ATTACKS)
def test_logits_that_are_not_finite_at_a_moved_point_never_count(name, beyond, column):
    """They raise; where no moved point is asked about, the step is NET's own."""
    model = Cliff(beyond, column).eval()
    if name in ("input_gradient", "fgsm", "pgd_linf, no step"):
        assert torch.equal(ATTACKS[name](model, X, Y), ATTACKS[name](NET, X, Y))
        return
    with pytest.raises((ValueError, FloatingPointError), match=r"NaN|infinity|finite"):
        ATTACKS[name](model, X, Y)


@pytest.mark.parametrize("beyond", [math.nan, math.inf])
def test_errors_at_points_without_an_answer(beyond):
    """No error is counted, in either direction."""
    model = Cliff(beyond).eval()
    for look in (RATES["attacked"], RATES["both_sides"], RATES["masking_checks"]):
        with pytest.raises(ValueError, match="NaN or infinity"):
            look(model, X, Y)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_wins_no_comparison(bad):
    """best_of and apgd: the points with a number win, and no point is NaN."""

    def loss(logits: Tensor, y: Tensor) -> Tensor:
        margin = attacks.margin_loss(logits, y)
        return torch.where(margin > worst, margin * 0 + bad, margin)

    worst = float(attacks.margin_loss(NET(X), Y).median())
    deltas = iter([0.01 * torch.ones_like(X), 0.02 * torch.ones_like(X)])
    found = attacks.best_of(lambda _: next(deltas), NET, X, Y, num_restarts=2)
    assert found.isfinite().all()
    for delta in (
        attacks.best_of(
            lambda g: attacks.pgd_linf(NET, X, Y, 0.1, generator=g, **STEPS),
            NET, X, Y, num_restarts=3, loss=loss,
        ),
        attacks.apgd(NET, X, Y, 0.1, num_steps=5, loss=loss),
    ):  # fmt: skip
        assert delta.isfinite().all()
        value, right = loss(NET(X + delta), Y), NET(X + delta).argmax(1) == Y
        start = loss(NET(X), Y)
        assert (value.isfinite() | ~start.isfinite() | (delta == 0).flatten(1).all(1))[
            right
        ].all()


class Root(nn.Module):
    """Infinite or NaN slopes at black pixels, and an affine network behind."""

    def __init__(self, trap: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer, self.trap = nn.Linear(16, 3), trap

    def forward(self, x):
        """Logits of the roots; with ``trap`` the backward pass makes inf times 0."""
        root = torch.where(x > 0, x.sqrt(), 0 * x) if self.trap else x.sqrt()
        return self.layer(root.flatten(1))


@pytest.mark.parametrize("trap", [False, True])
def test_one_bad_entry_does_not_silence_an_l2_step(trap):
    """The step has its length, goes up, and along the finite entries as they are."""
    with torch.random.fork_rng():
        model = Root(trap).eval().requires_grad_(False)
    x = X.clone()
    x[:, 0, 1, 2] = 0
    y = model(x).argmax(1)
    gradient = attacks.input_gradient(model, x, y)
    bad = ~gradient.isfinite()
    assert bad.flatten(1).sum(1).tolist() == [1] * len(x)
    step = attacks.pgd_l2(model, x, y, 1.0, alpha=0.01, num_steps=1, box=False)
    free = partial(attacks.pgd_l2, eps=1.0, alpha=0.05, num_steps=4)
    rest = torch.where(bad, 0.0, gradient)
    top = rest.flatten(1).abs().amax(1).view(-1, 1, 1, 1)
    wanted = rest if trap else torch.where(bad, gradient.sign() * top, gradient)
    wanted = 0.01 * wanted / wanted.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    assert torch.allclose(step, wanted, rtol=1e-5, atol=1e-8)
    loss = attacks.cross_entropy(model(x), y)
    for attack in (
        free,
        partial(attacks.apgd, eps=0.5, norm="l2", num_steps=5),
        partial(attacks.pgd_l1, eps=1.0, alpha=0.3, num_steps=4, share=0.5),
        partial(attacks.pgd_linf, eps=0.1, **STEPS),
        partial(attacks.fgsm, eps=0.1),
        partial(attacks.apgd, eps=0.1, num_steps=5),
        partial(attacks.strong_attack, eps=0.1, num_restarts=4, num_queries=2),
    ):
        delta = attack(model, x, y)
        assert delta.isfinite().all()
        assert (attacks.cross_entropy(model(x + delta), y) > loss).all()
    for name in ("boundary_l2", "minimal_pgd_l2"):
        with pytest.raises((ValueError, FloatingPointError), match=r"NaN|finite"):
            ATTACKS[name](model, x, y)


def test_steepest_directions_of_bad_slopes_by_hand():
    """NaN as 0; infinity first in l1, as large as the largest in l2, a sign in linf."""
    slope = torch.tensor([[3.0, math.nan, -math.inf, 1.0], [math.nan] * 4])
    steepest = attacks.steepest_direction
    assert steepest(slope).tolist() == [[1, 0, -1, 1], [0] * 4]
    assert steepest(slope, "l1").tolist() == [[0, 0, -1, 0], [0] * 4]
    half = steepest(slope, "l1", share=0.5)
    assert half.tolist() == [[0.5, 0, -0.5, 0], [0] * 4]
    l2 = torch.tensor([[3.0, 0, -3, 1], [0] * 4]) / math.sqrt(19)
    assert torch.allclose(steepest(slope, "l2"), l2)
    lone = torch.tensor([[math.inf, 0.0, -math.inf]])
    assert torch.allclose(steepest(lone, "l2"), lone.sign() / math.sqrt(2))


# ----------------------------------------------------------- models that work in place


class InPlace(nn.Module):
    """Normalises the images that it is handed, where they lie."""

    def __init__(self) -> None:
        super().__init__()
        self.net = NET

    def forward(self, x):
        """Logits; ``x`` is another one afterwards."""
        return self.net(x.sub_(0.2).div_(0.5))


class Aside(InPlace):
    """The same, leaving ``x`` alone."""

    def forward(self, x):
        """Logits."""
        return self.net((x - 0.2) / 0.5)


def same(first, second) -> bool:
    """Whether two answers are equal, tensor by tensor."""
    if isinstance(first, evaluation.BothSides):
        first, second = first.errors, second.errors
        return all(torch.equal(first[k], second[k]) for k in first)
    if isinstance(first, Tensor):
        return torch.equal(first, second)
    return first == second


@pytest.mark.parametrize("name", ALL)
def test_a_model_that_works_in_place(name):
    """The images stay, twice is the same, and so is the model that works aside."""
    y, x = Aside()(X).argmax(1), X.clone()
    first, again = (ALL[name](InPlace().eval(), x, y) for _ in range(2))
    assert torch.equal(x, X)
    assert same(first, again)
    assert same(first, ALL[name](Aside().eval(), X, y))


def test_training_on_a_model_that_works_in_place():
    """TRADES: clean and moved images are those that it was given."""
    y, found = Aside()(X).argmax(1), []
    for model in (InPlace().eval(), Aside().eval()):
        x = X.clone()
        loss = training.TradesLoss(0.1, alpha=0.05, num_steps=2, beta=1.0)
        found.append(loss(model, x, y))
        assert torch.equal(x, X)
    assert torch.equal(*found)


# ------------------------------------------------------------------- inference mode


@pytest.mark.parametrize("name", ALL)
def test_inference_mode(name):
    """Inside, and outside on images made inside: the answer is that of no_grad."""
    with torch.no_grad():
        right = ALL[name](NET, X, Y)
    with torch.inference_mode():
        x, y = X.clone(), Y.clone()
        inside = ALL[name](NET, x, y)
        here = ALL[name](NET, X, Y)
        assert same(inside, right)
        assert same(here, right)
    assert x.is_inference()
    assert same(ALL[name](NET, x, y), right)


def test_weights_made_in_inference_mode():
    """They take part in no gradient, and the error says so; a copy does."""
    with torch.inference_mode():
        model = models.seeded(models.mlp, (1, 4, 4), [16], 3, seed=0)
    for attack in (FGSM, ATTACKS["pgd_l2"], ATTACKS["strong_attack"]):
        with pytest.raises(ValueError, match=r"inference_mode.*deepcopy"):
            attack(model, X, Y)
    assert not evaluation.wrong(model, X, Y).any()
    with torch.inference_mode():
        target = other(Y)
    loss = partial(attacks.targeted_loss, target=target)
    with pytest.raises(ValueError, match="inference_mode"):
        attacks.pgd_linf(NET, X, Y, 0.1, loss=loss, **STEPS)


# ---------------------------------------------------------------------------- dtypes


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("kind", [torch.float64, torch.float16, torch.bfloat16])
def test_images_and_weights_of_two_dtypes(name, kind):
    """Refused, naming both; a model that converts for itself is asked as it is."""
    with pytest.raises(TypeError, match=rf"{kind}.*torch.float32.*x.to"):
        ALL[name](NET, X.to(kind), Y)


class Converts(nn.Module):
    """A network that takes any floating dtype."""

    def __init__(self) -> None:
        super().__init__()
        self.net = NET

    def forward(self, x):
        """Logits in float32."""
        return self.net(x.float())


def test_a_model_that_converts_is_asked():
    """float64 images, float32 weights, and no complaint."""
    y = Converts()(X.double()).argmax(1)
    for name in set(ALL) - {"lbfgs"}:  # which makes a copy in float64
        ALL[name](Converts().eval(), X.double(), y)


@pytest.mark.parametrize("kind", [torch.float64, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", ATTACKS)
def test_one_dtype_throughout(name, kind):
    """Any one will do: what comes back has it, is finite and stays in the box."""
    model = models.seeded(models.mlp, (1, 4, 4), [16], 3, seed=0).to(kind)
    x = X.to(kind)
    y = model(x).argmax(1)
    delta = ATTACKS[name](model, x, y)
    assert delta.dtype == kind
    assert delta.isfinite().all()
    if name != "input_gradient":
        assert 0 <= (x + delta).min() <= (x + delta).max() <= 1
        assert len(evaluation.wrong(model, x + delta, y)) == len(x)


@pytest.mark.parametrize("kind", [torch.float64, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("eps", [8 / 255, 0.1, 0.3])
def test_the_ball_has_the_radius_that_was_asked_for(kind, eps):
    """To the nearest number of a coarse dtype it would be up to 0.4 % larger."""
    model = models.seeded(models.mlp, (1, 4, 4), [16], 3, seed=0).to(kind)
    x = (X / 2 + 0.25).to(kind)
    y = model(x).argmax(1)
    for delta in (
        attacks.fgsm(model, x, y, eps),
        attacks.pgd_linf(model, x, y, eps, alpha=eps / 4, num_steps=6),
        attacks.apgd(model, x, y, eps, num_steps=6),
        attacks.strong_attack(model, x, y, eps, num_restarts=2, num_queries=20),
    ):
        assert float(delta.abs().max()) <= eps


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
def test_minimal_attacks_in_half_precision(kind):
    """They succeed about as often and with about the length of float32."""
    model = models.seeded(models.mlp, (1, 4, 4), [16], 3, seed=0).to(kind)
    x = X.to(kind)
    y = model(x).argmax(1)
    for attack in (
        partial(attacks.carlini_wagner_l2, num_searches=6, num_steps=60),
        partial(attacks.minimal_pgd_l2, num_radii=8, num_steps=20),
    ):
        found = attack(model, x, other(y))
        single = attack(NET, X, other(y))
        assert (model(x + found.delta).argmax(1) == other(y))[found.success].all()
        both = found.success & single.success
        assert both.sum() >= 0.8 * single.success.sum()
        assert torch.allclose(found.l2[both], single.l2[both], rtol=0.1)


def test_ratios_with_ties_in_half_precision():
    """Equal logits: the ratio is 0, not 0 / 0."""
    for kind in (torch.float16, torch.bfloat16, torch.float32):
        ties = torch.ones(2, 5, dtype=kind)
        y = torch.zeros(2, dtype=torch.int64)
        assert attacks.dlr_loss(ties, y).tolist() == [0, 0]
        assert attacks.targeted_dlr_loss(ties, y, 1).tolist() == [0, 0]


def test_double_precision_as_the_default():
    """Nothing takes torch's default dtype."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        deltas = {name: attack(NET, X, Y) for name, attack in ATTACKS.items()}
        for look in RATES.values():
            look(NET, X, Y)
    finally:
        torch.set_default_dtype(before)
    assert {delta.dtype for delta in deltas.values()} == {torch.float32}


@pytest.mark.parametrize("name", ATTACKS)
def test_images_that_take_a_gradient_themselves(name):
    """They get none, and what comes back hangs on no graph."""
    x = X.clone().requires_grad_()
    delta = ATTACKS[name](NET, x, Y)
    assert not delta.requires_grad
    assert x.grad is None
    assert torch.equal(delta, ATTACKS[name](NET, X, Y))


def test_a_gradient_that_repeats_one_number():
    """The sum of the pixels: its gradient is one number, expanded."""

    class Total(nn.Module):
        def forward(self, x):
            total = x.flatten(1).sum(1)
            return torch.stack([total, -total], 1)

    y = torch.zeros_like(Y)
    for name in ("pgd_linf", "strong_attack", "apgd"):
        assert (ATTACKS[name](Total().eval(), X, y) <= 0).all()


# ---------------------------------------------------------------------------- steps

COUNTS = [-1, 2.5, math.nan, None, "3"]


@pytest.mark.parametrize("alpha", [math.nan, -0.1, math.inf, -math.inf])
@pytest.mark.parametrize("name", ["pgd_linf", "pgd_l2", "pgd_l1"])
def test_lengths_of_steps(name, alpha):
    """Finite and not negative; 0 is a length."""
    attack = partial(getattr(attacks, name), NET, X, Y, 0.1)
    for num_steps in (0, 2):
        with pytest.raises(ValueError, match="alpha"):
            attack(alpha=alpha, num_steps=num_steps)
    assert (attack(alpha=0, num_steps=2) == 0).all()


@pytest.mark.parametrize("bad", COUNTS)
def test_numbers_of_steps_and_queries(bad):
    """Whole numbers, not negative; the error names the argument."""
    step = {"alpha": 0.1, "num_steps": bad}
    search = {"generator": seeded(), "num_queries": bad}
    for name, call in [
        *[("num_steps", partial(getattr(attacks, n), eps=0.1, **step)) for n in
          ("pgd_linf", "pgd_l2", "pgd_l1")],
        ("num_steps", partial(attacks.apgd, eps=0.1, num_steps=bad)),
        ("num_queries", partial(attacks.square, eps=0.1, **search)),
        *[(n, partial(attacks.strong_attack, eps=0.1, **{n: bad})) for n in
          ("num_restarts", "num_steps", "num_queries")],
        *[(n, partial(attacks.boundary_l2, target=other(Y), **{n: bad})) for n in
          ("num_steps", "num_halvings")],
    ]:  # fmt: skip
        with pytest.raises(ValueError, match=name):
            call(NET, X, Y)
    for names, attack in (
        (("num_searches", "num_steps"), attacks.carlini_wagner_l2),
        (("num_radii", "num_steps"), attacks.minimal_pgd_l2),
        (("num_bisections", "max_iter"), attacks.lbfgs),
    ):
        for name in names:
            with pytest.raises(ValueError, match=name):
                attack(NET, X, other(Y), **{name: bad})
    with pytest.raises(ValueError, match="num_steps"):
        training.TradesLoss(0.1, alpha=0.1, num_steps=bad, beta=1.0)


@pytest.mark.parametrize("bad", [0, *COUNTS])
def test_restarts_and_batches_are_at_least_one(bad):
    """For nothing would be attacked, or nothing counted."""
    with pytest.raises(ValueError, match="num_restarts"):
        attacks.best_of(lambda _: X, NET, X, Y, num_restarts=bad)
    for x, search in ((X, False), (X.flatten(1), True)):  # and so no search either
        with pytest.raises(ValueError, match="num_restarts"):
            attacks.strong_attack(NET, x, Y, 0.1, num_restarts=bad, search=search)
    for call in (
        partial(evaluation.wrong, NET, X, Y),
        partial(evaluation.attacked, NET, X, Y, FGSM),
        partial(evaluation.attacked_error, NET, X, Y, FGSM),
        partial(evaluation.uncertified, NET, X, Y, INTERVAL),
        partial(evaluation.certified_error, NET, X, Y, INTERVAL),
        partial(evaluation.masking_checks, NET, X, Y, 0.1),
    ):
        with pytest.raises(ValueError, match="batch_size"):
            call(batch_size=bad)


@pytest.mark.parametrize("share", [-0.1, 1.5, math.nan])
def test_shares(share):
    """Of pixels, of the image: without a step, too."""
    with pytest.raises(ValueError, match="share"):
        attacks.pgd_l1(NET, X, Y, 1.0, alpha=0.1, num_steps=0, share=share)
    with pytest.raises(ValueError, match="share"):
        attacks.square(NET, X, Y, 0.1, generator=seeded(), share=share)


@pytest.mark.parametrize("bad", [0.0, -1.0, math.nan, math.inf])
def test_lengths_and_weights_are_finite(bad):
    """Infinity would give NaN."""
    with pytest.raises(ValueError, match="length"):
        training.shortened(FGSM, bad)
    with pytest.raises(ValueError, match="need c and lr"):
        attacks.carlini_wagner_l2(NET, X, other(Y), lr=bad)
    if bad != 0:
        with pytest.raises(ValueError, match="beta"):
            training.TradesLoss(0.1, alpha=0.1, num_steps=1, beta=bad)


# --------------------------------------------------------------------------- rescale


def scaled_by_bisection(x: Tensor, delta: Tensor, rms: float) -> Tensor:
    """The rms of ``clip(s * delta)`` for the s that comes nearest to ``rms``: (N,)."""
    x, delta, found = x.double(), delta.double(), []
    for image, d in zip(x, delta, strict=True):
        low, high = -200.0, 200.0
        for _ in range(100):
            middle = (low + high) / 2
            clipped = (math.exp(middle) * d).clamp(-image, 1 - image)
            got = float(clipped.square().mean().sqrt())
            low, high = (middle, high) if got < rms else (low, middle)
        found.append(got)
    return torch.tensor(found).double()


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("rms", [0.0, 0.01, 0.2, 0.5, 1.0])
def test_rescale_reaches_what_the_box_allows(kind, rms):
    """However small some entries are, and in half precision too."""
    x = X.to(kind)
    delta = torch.randn(X.shape, generator=seeded())
    delta[0] *= 1e-3
    delta[1].flatten()[1:] *= 1e-7
    delta[2].flatten()[1:] = 0
    delta[3] = 0
    delta = delta.to(kind)
    found = attacks.rescale(x, delta, rms)
    assert found.dtype == kind
    assert (found * delta >= 0).all()
    assert 0 <= (x + found).min() <= (x + found).max() <= 1
    got = found.double().square().flatten(1).mean(1).sqrt()
    rounding = max(1e-5, 2 * torch.finfo(kind).eps)
    assert torch.allclose(got, scaled_by_bisection(x, delta, rms), rtol=rounding)
