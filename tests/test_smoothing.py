"""Randomised smoothing against closed forms: linear classifiers, binomial sums."""

import math

import pytest
import torch
from scipy import stats
from torch import Tensor, nn

from advlib import smoothing


def half_plane(w: list[float], b: float) -> nn.Sequential:
    """A binary linear classifier: class 0 where w x + b > 0."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(len(w), 2))
    row = torch.tensor(w)
    model[1].weight.data = torch.stack([row, -row])
    model[1].bias.data = torch.tensor([b, -b])
    return model.eval()


def seeded(seed: int = 0) -> torch.Generator:
    """A generator of its own."""
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(("k", "n"), [(1, 1), (5, 10), (99, 100), (100, 100), (3, 50)])
@pytest.mark.parametrize("alpha", [0.001, 0.1])
def test_lower_confidence_inverts_the_binomial_tail(k, n, alpha):
    """At that p, k successes or more have probability alpha."""
    p = smoothing.lower_confidence(k, n, alpha)
    tail = math.fsum(
        math.comb(n, i) * p**i * (1 - p) ** (n - i) for i in range(k, n + 1)
    )
    assert tail == pytest.approx(alpha, rel=1e-6)
    assert smoothing.lower_confidence(0, n, alpha) == 0


def test_lower_confidence_covers():
    """Exactly, by summing over all outcomes: false at most alpha of the time."""
    n, alpha = 40, 0.05
    bounds = [smoothing.lower_confidence(k, n, alpha) for k in range(n + 1)]
    for p in (0.1, 0.5, 0.77, 0.95):
        wrong = sum(stats.binom.pmf(k, n, p) for k in range(n + 1) if bounds[k] > p)
        assert wrong <= alpha


def test_a_linear_classifier_has_a_known_radius():
    """The smoothed boundary is the boundary: 300 certificates, false at most alpha."""
    model = half_plane([3.0, 4.0], -2.0)
    x = torch.full((300, 1, 1, 2), 0.6)
    true = (0.6 * 7 - 2) / 5
    found = smoothing.certify(
        model, x, 0.5, n0=20, n=200, alpha=0.1, generator=seeded()
    )
    assert (found.labels[found.radii > 0] == 0).all()
    wrong = int((found.radii > true).sum())
    assert wrong <= stats.binom.ppf(0.9999, 300, 0.1)
    assert wrong > 0  # alpha = 0.1 is spent, not hidden by slack
    assert float(found.radii.median()) > 0.7 * true
    many = smoothing.certify(
        model, x[:1], 0.5, n=100_000, alpha=0.001, generator=seeded()
    )
    assert 0.97 * true < float(many.radii) <= true


def test_votes_have_the_normal_probability():
    """Within 5 standard errors of Phi(margin / sigma |w|); each draw is counted."""
    model = half_plane([1.0, -2.0], 0.3)
    x = torch.tensor([[[[0.4, 0.5]]], [[[0.9, 0.1]]]])
    n, sigma = 20_000, 0.7
    counts = smoothing.votes(model, x, sigma, n=n, generator=seeded(), batch_size=999)
    assert (counts.sum(1) == n).all()
    margin = (x.flatten(1) @ torch.tensor([1.0, -2.0]) + 0.3) / math.sqrt(5)
    p = stats.norm.cdf(margin.numpy() / sigma)
    error = (p * (1 - p) / n) ** 0.5
    assert (abs(counts[:, 0].numpy() / n - p) < 5 * error).all()


def test_abstains_on_the_boundary():
    """Where the two classes tie, neither function decides, but for chance alpha."""
    model = half_plane([1.0, 1.0], -1.0)
    x = torch.full((200, 1, 1, 2), 0.5)
    alpha = 0.05
    labels = smoothing.predict(model, x, 0.5, n=400, alpha=alpha, generator=seeded())
    decided = int((labels != smoothing.ABSTAIN).sum())
    assert decided <= stats.binom.ppf(0.9999, 200, alpha)
    found = smoothing.certify(
        model, x, 0.5, n0=20, n=400, alpha=alpha, generator=seeded()
    )
    assert (found.radii[found.labels == smoothing.ABSTAIN] == 0).all()
    assert int((found.radii > 0).sum()) <= stats.binom.ppf(0.9999, 200, alpha)


def test_predicts_far_from_the_boundary():
    """And the result depends on the generator alone."""
    model = half_plane([10.0, 0.0], -5.0)
    x = torch.tensor([[[[0.9, 0.5]]], [[[0.1, 0.5]]]])
    first, again = (
        smoothing.certify(model, x, 0.2, n=500, generator=seeded(3)) for _ in "ab"
    )
    assert first.labels.tolist() == [0, 1]
    torch.testing.assert_close(first.radii, again.radii, rtol=0, atol=0)
    labels = smoothing.predict(model, x, 0.2, n=500, generator=seeded())
    assert labels.tolist() == [0, 1]


@pytest.mark.parametrize("function", [smoothing.predict, smoothing.certify])
def test_bad_input_is_refused(function):
    """Model, images, sigma, alpha, sample sizes."""
    model, x = half_plane([1.0, 1.0], 0.0), torch.full((1, 1, 1, 2), 0.5)

    def call(model: nn.Module = model, x: Tensor = x, sigma: float = 0.5, **more):
        return function(model, x, sigma, generator=seeded(), **more)

    for arguments in [
        {"x": x + 1}, {"x": x * math.nan}, {"sigma": 0.0}, {"sigma": math.nan},
        {"alpha": 0.0}, {"alpha": 0.5}, {"n": 0}, {"batch_size": 0},
    ]:  # fmt: skip
        with pytest.raises(ValueError, match=r"image|sigma|alpha|sample"):
            call(**arguments)
    with pytest.raises(TypeError, match="floating"):
        call(x=x.long())
    with pytest.raises(ValueError, match="train mode"):
        call(model=half_plane([1.0, 1.0], 0.0).train())
    for k, n, alpha in [(3, 2, 0.1), (-1, 2, 0.1), (0, 0, 0.1), (1, 2, 1.5)]:
        with pytest.raises(ValueError, match="confidence"):
            smoothing.lower_confidence(k, n, alpha)


class Logarithm(nn.Module):
    """The logarithms of pixels: NaN for noisy images that leave [0, 1]."""

    def forward(self, x: Tensor) -> Tensor:
        """Three logits."""
        return x.flatten(1)[:, :3].log()


class Returns(nn.Module):
    """A linear classifier whose logits ``change`` turns into something else."""

    def __init__(self, change) -> None:
        super().__init__()
        self.linear, self.change = nn.Linear(4, 3), change

    def forward(self, x: Tensor) -> object:
        """Whatever ``change`` makes of the logits."""
        return self.change(self.linear(x.flatten(1)))


@pytest.mark.parametrize("name", ["votes", "predict", "certify"])
def test_nothing_but_finite_logits_has_a_vote(name):
    """NaN is no class, nor is one logit, a map, a tuple; nor NaN under noise alone."""
    x, function = torch.rand(2, 1, 2, 2, generator=seeded()), getattr(smoothing, name)
    for model, error, words in [
        (Logarithm(), ValueError, "NaN or infinity"),
        (Returns(lambda z: z / 0), ValueError, "NaN or infinity"),
        (Returns(lambda z: z * math.nan), ValueError, "NaN or infinity"),
        (Returns(lambda z: z[:, :1]), ValueError, "TwoLogits"),
        (Returns(lambda z: z[:, 0]), ValueError, "TwoLogits"),
        (Returns(lambda z: z[:, :, None, None]), ValueError, "one row of logits"),
        (Returns(lambda z: (z, z)), TypeError, "tuple"),
        (Returns(lambda z: {"logits": z}), TypeError, "dict"),
        (Returns(lambda z: z.argmax(1)), TypeError, "int64"),
    ]:
        with pytest.raises(error, match=words):
            function(model.eval(), x, 0.25, n=50, generator=seeded())
    with pytest.raises(TypeError, match="float64"):
        function(half_plane([1.0] * 4, 0.0), x.double(), 0.25, n=9, generator=seeded())
    with pytest.raises(TypeError, match="Generator"):
        function(half_plane([1.0] * 4, 0.0), x, 0.25, n=9, generator=None)


@pytest.mark.parametrize("name", ["votes", "predict", "certify"])
def test_images_stay_as_they_are(name):
    """A model that works in place on its input gets the noisy copy."""

    class InPlace(Returns):
        """Normalises in place."""

        def forward(self, x: Tensor) -> object:
            """Logits."""
            return super().forward(x.sub_(0.5).div_(0.25))

    function, x = getattr(smoothing, name), torch.rand(2, 1, 2, 2, generator=seeded())
    before, model = x.clone(), InPlace(lambda z: z).eval()
    first = function(model, x, 0.1, n=30, generator=seeded())
    assert torch.equal(x, before)
    second = function(model, x, 0.1, n=30, generator=seeded())
    assert str(first) == str(second)
    with torch.inference_mode():
        third = function(model, x.clone(), 0.1, n=30, generator=seeded())
    assert str(first) == str(third)
