"""Error rates, their order, and their intervals."""

import functools
import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import nn

from advlib import attacks, bounds, evaluation, exact, models
from advlib.exact.branch_and_bound import branch_and_bound

MODEST = settings(deadline=None, max_examples=60, derandomize=True, database=None)


class Threshold(nn.Module):
    """Class 1 if the one pixel is above 0.5, else class 0."""

    def forward(self, x):
        """Logits (N, 2) of images (N, 1)."""
        return torch.cat([0.5 - x, x - 0.5], 1)


MODEL = Threshold().eval()
X = torch.tensor([[0.1], [0.2], [0.4], [0.6], [0.7], [0.9]])
Y = torch.tensor([0, 1, 0, 1, 0, 1])  # wrong as they are: images 1 and 4


def shift(model, x, y, by: float):
    """Push every image by ``by`` towards the other class of its label."""
    return (by * torch.where(y == 0, 1.0, -1.0))[:, None].clamp(-x, 1 - x)


def counts():
    """(wrong, n) with 1 <= n <= 2000."""
    return st.integers(1, 2000).flatmap(
        lambda n: st.tuples(st.integers(0, n), st.just(n))
    )


# ---------------------------------------------------------------------- ErrorRate


@given(counts())
@MODEST
def test_interval_is_clopper_pearson(pair):
    """By the beta quantiles, and by its definition: each tail has probability 2.5 %."""
    wrong, n = pair
    low, high = evaluation.ErrorRate(wrong, n).interval
    beta = stats.beta.ppf
    assert low == pytest.approx(beta(0.025, wrong, n - wrong + 1) if wrong else 0.0)
    assert high == pytest.approx(
        beta(0.975, wrong + 1, n - wrong) if wrong < n else 1.0
    )
    assert low <= wrong / n <= high
    if wrong:
        assert stats.binom.sf(wrong - 1, n, low) == pytest.approx(0.025, rel=1e-4)
    if wrong < n:
        assert stats.binom.cdf(wrong, n, high) == pytest.approx(0.025, rel=1e-4)


def test_rate_and_text():
    """The share, and a text with the interval and n."""
    error = evaluation.ErrorRate(30, 120)
    assert error.rate == 0.25
    low, high = error.interval
    assert str(error) == f"0.25 [{low:.2g}, {high:.2g}] (n = 120)"
    assert error == evaluation.ErrorRate(30, 120)


@pytest.mark.parametrize(("wrong", "n"), [(-1, 5), (6, 5), (0, 0), (0, -1), (1, 0)])
def test_impossible_counts_are_refused(wrong, n):
    """0 <= wrong <= n and n >= 1."""
    with pytest.raises(ValueError, match="wrong"):
        evaluation.ErrorRate(wrong, n)


# -------------------------------------------------------------------- clean error


def test_wrong_and_clean_error_by_hand():
    """Images 1 and 4 stand on the wrong side of 0.5."""
    assert evaluation.wrong(MODEL, X, Y).tolist() == [False, True, False] * 2
    assert evaluation.clean_error(MODEL, X, Y) == evaluation.ErrorRate(2, 6)


@pytest.mark.parametrize("batch_size", [1, 4, 6, 1000])
def test_batches_do_not_matter(batch_size):
    """Also a last batch that is smaller."""
    found = evaluation.wrong(MODEL, X, Y, batch_size)
    assert torch.equal(found, evaluation.wrong(MODEL, X, Y))


def test_measuring_builds_no_graph():
    """The model runs without gradients, and keeps none."""
    model = models.seeded(models.linear, (1, 1, 1), 2, seed=0)
    flags = []
    model.register_forward_hook(lambda m, i, out: flags.append(out.requires_grad))
    evaluation.clean_error(model, X.view(6, 1, 1, 1), Y)
    assert flags == [False]


class Broken(nn.Module):
    """NaN for images above 0.8."""

    def forward(self, x):
        """Logits (N, 2) of images (N, 1)."""
        return torch.cat([x, x], 1).where(x < 0.8, torch.nan)


@pytest.mark.parametrize(
    ("model", "x", "y", "kind"),
    [
        (Threshold().train(), X, Y, ValueError),
        (MODEL, X, Y[:5], ValueError),
        (MODEL, X, Y[:, None], ValueError),
        (MODEL, X, Y - 1, ValueError),
        (MODEL, X, Y.int(), TypeError),
        (MODEL, X, Y.float(), TypeError),
        (Broken().eval(), X, Y, ValueError),
    ],
    ids=["train", "few y", "column y", "y = -1", "int32", "float", "NaN"],
)
def test_bad_input_is_refused(model, x, y, kind):
    """By ``wrong`` and by all that rests upon it."""
    for function in (
        evaluation.wrong,
        evaluation.clean_error,
        lambda *a: evaluation.attacked(*a, []),
        lambda *a: evaluation.attacked_error(*a, []),
    ):
        with pytest.raises(kind):
            function(model, x, y)


@pytest.mark.parametrize(
    ("x", "kind"),
    [(X * 255, ValueError), (X * math.nan, ValueError), (X.byte(), TypeError)],
    ids=["0-255", "NaN", "uint8"],
)
def test_images_out_of_range_are_refused(x, kind):
    """``wrong`` may look at any input; an error rate speaks of images."""
    with pytest.raises(kind):
        evaluation.clean_error(MODEL, x, Y)
    with pytest.raises(kind):
        evaluation.attacked(MODEL, x, Y, [])


# ----------------------------------------------------------------- attacked error


def test_attacked_error_by_hand():
    """Pushed by 0.15, images 2 and 3 cross 0.5 as well; by 0.45 all but none stand."""
    for by, expected in ((0.0, 2), (0.15, 4), (0.45, 6)):
        attack = functools.partial(shift, by=by)
        assert evaluation.attacked_error(MODEL, X, Y, attack).wrong == expected
    fallen = evaluation.attacked(MODEL, X, Y, [functools.partial(shift, by=0.15)])
    assert fallen.tolist() == [False, True, True, True, True, False]


def test_an_attack_that_repairs_does_not_lower_the_error():
    """An image that is wrong as it is counts, whatever the attack makes of it."""
    helper = functools.partial(shift, by=-0.45)
    assert not evaluation.wrong(MODEL, X + helper(MODEL, X, Y), Y).any()
    assert evaluation.attacked_error(MODEL, X, Y, helper).wrong == 2


@pytest.mark.parametrize("batch_size", [1, 2, 4, 1000])
def test_attacks_see_only_images_that_still_stand(batch_size):
    """Each attack gets what the images and the attacks before it have left."""
    seen = {}

    def spy(name, by):
        def attack(model, x, y):
            assert 0 < len(x) <= batch_size
            seen.setdefault(name, []).extend(
                zip(x[:, 0].tolist(), y.tolist(), strict=True)
            )
            return shift(model, x, y, by)

        return attack

    fallen = evaluation.attacked(
        MODEL,
        X,
        Y,
        [spy("first", 0.15), spy("second", 0.45), spy("third", 0.45)],
        batch_size=batch_size,
    )
    pairs = list(zip(X[:, 0].tolist(), Y.tolist(), strict=True))
    assert seen["first"] == [pairs[i] for i in (0, 2, 3, 5)]
    assert seen["second"] == [pairs[i] for i in (0, 5)]
    assert "third" not in seen  # all have fallen: not even an empty call
    assert fallen.all()


@given(seed=st.integers(0, 10**6), eps=st.sampled_from([0.0, 0.05, 0.3]))
@MODEST
def test_clean_is_at_most_attacked_and_attacks_add_up(seed, eps):
    """clean <= one attack <= several; as sets of images, not only as numbers."""
    model = models.seeded(models.mlp, (1, 2, 2), [6], 3, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand((20, 1, 2, 2), generator=generator)
    y = torch.randint(3, (20,), generator=generator)
    one = functools.partial(attacks.fgsm, eps=eps)
    two = functools.partial(attacks.pgd_l2, eps=eps, alpha=eps, num_steps=2)
    clean = evaluation.wrong(model, x, y)
    single = evaluation.attacked(model, x, y, [one])
    several = evaluation.attacked(model, x, y, [one, two])
    assert (clean <= single).all()
    assert (single <= several).all()
    by_hand = clean.clone()
    for attack in (one, two):
        by_hand |= model(x + attack(model, x, y)).argmax(1) != y
    assert torch.equal(several, by_hand)


def test_one_attack_or_several():
    """A single attack needs no list; a tuple is as good as a list."""
    attack = functools.partial(shift, by=0.15)
    expected = evaluation.ErrorRate(4, 6)
    for given_as in (attack, [attack], (attack, attack)):
        assert evaluation.attacked_error(MODEL, X, Y, given_as) == expected
    assert evaluation.attacked_error(MODEL, X, Y, []).wrong == 2


# ---------------------------------------------------------------------- intervals

T975 = {1: 12.7062, 2: 4.30265, 4: 2.77645, 9: 2.26216}  # a printed t table


@pytest.mark.parametrize("freedom", T975)
def test_mean_interval_by_the_formula(freedom):
    """mean +- t s / sqrt(n), the quantile from a table."""
    values = np.random.default_rng(freedom).normal(3, 2, freedom + 1)
    mean = sum(values) / len(values)
    variance = sum((v - mean) ** 2 for v in values) / freedom
    half = T975[freedom] * math.sqrt(variance / len(values))
    assert evaluation.mean_interval(list(values)) == pytest.approx(
        (mean, mean - half, mean + half), abs=1e-4
    )


def test_equal_values_have_an_interval_of_no_width():
    """No spread among seeds, no spread in the interval."""
    assert evaluation.mean_interval([0.25] * 3) == (0.25, 0.25, 0.25)
    assert evaluation.bootstrap_interval([0.25] * 3) == (0.25, 0.25, 0.25)


def test_bootstrap_interval_against_all_resamples():
    """With 4 values all 256 resamples can be listed: the quantiles agree."""
    values = [0.0, 1.0, 4.0, 10.0]
    every = np.array([np.mean(p) for p in itertools.product(values, repeat=4)])
    center, low, high = evaluation.bootstrap_interval(values, np.mean)
    assert center == 3.75
    for found, share in ((low, 0.025), (high, 0.975)):
        assert np.quantile(every, share - 0.012) <= found
        assert found <= np.quantile(every, share + 0.012)


def test_bootstrap_interval_covers():
    """Of 200 samples of a known law about 95 % of the intervals hold its mean."""
    rng = np.random.default_rng(0)
    hits = 0
    for seed in range(200):
        sample = rng.exponential(1.0, 60)
        _, low, high = evaluation.bootstrap_interval(sample, np.mean, seed=seed)
        hits += low <= 1.0 <= high
    assert 0.88 <= hits / 200 <= 0.99


def test_bootstrap_is_the_same_for_a_seed():
    """Default: the median. The seed decides, the global state does not."""
    values = np.random.default_rng(3).normal(size=25)
    first = evaluation.bootstrap_interval(values)
    np.random.seed(0)
    assert evaluation.bootstrap_interval(values) == first
    assert evaluation.bootstrap_interval(values, seed=1) != first
    assert first[0] == sorted(values)[12]
    assert first[1] <= first[0] <= first[2]


@pytest.mark.parametrize("values", [[], [1.0], [[1.0, 2.0], [3.0, 4.0]], 3.0])
def test_intervals_need_two_values(values):
    """One value, none, or a table: refused by both."""
    for function in (evaluation.mean_interval, evaluation.bootstrap_interval):
        with pytest.raises(ValueError, match="two values"):
            function(values)


# ------------------------------------------------------------------ the other side


def toy(seed: int = 0):
    """A network with 6 inputs and 40 images labelled mostly by itself."""
    net = models.seeded(models.mlp, (1, 2, 3), [8, 8], 3, seed=seed).double()
    net.requires_grad_(False)[1].weight.mul_(4)
    x = torch.rand(40, 1, 2, 3, generator=torch.Generator().manual_seed(seed)).double()
    y = net(x).argmax(1)
    y[:3] = (y[:3] + 1) % 3
    return net, x, y


def sides(eps: float):
    """Attacks from weak to strong, bounds from loose to tight, the exact method."""
    pgd = functools.partial(attacks.pgd_linf, eps=eps, alpha=eps / 4, num_steps=10)
    lower = {"fgsm": functools.partial(attacks.fgsm, eps=eps / 2), "pgd": pgd}
    upper = {
        "interval": functools.partial(bounds.interval_margins, eps=eps),
        "crown": functools.partial(bounds.crown_margins, eps=eps),
    }
    return lower, upper, functools.partial(branch_and_bound, eps=eps)


def test_certified_error_counts_what_is_not_certified():
    """One bound, two bounds, against the margins; batches change nothing."""
    net, x, y = toy()
    lower, upper, _ = sides(0.05)
    loose = ~bounds.certified(bounds.interval_margins(net, x, y, 0.05), y)
    both = loose & ~bounds.certified(bounds.crown_margins(net, x, y, 0.05), y)
    found = evaluation.certified_error(net, x, y, upper["interval"])
    assert (found.wrong, found.n) == (int(loose.sum()), 40)
    left = evaluation.uncertified(net, x, y, list(upper.values()), batch_size=7)
    assert torch.equal(left, both)
    assert evaluation.attacked_error(net, x, y, lower["pgd"]).wrong <= int(both.sum())
    with pytest.raises(ValueError, match="images"):
        evaluation.certified_error(net, x + 1, y, upper["interval"])


@pytest.mark.parametrize("eps", [0.02, 0.05, 0.2])
def test_both_sides_with_and_without_the_shortcut(eps):
    """Counts never fall, nothing crosses, and each method alone says the same."""
    net, x, y = toy()
    lower, upper, search = sides(eps)
    short = evaluation.both_sides(net, x, y, lower, upper, search)
    alone = evaluation.both_sides(net, x, y, lower, upper, search, shortcut=False)
    names = ["clean", "fgsm", "pgd", "exact", "open", "crown", "interval"]
    for found in (short, alone):
        assert list(found.errors) == names
        counts = list(found.counts().values())
        assert counts[0] == 3
        assert counts == sorted(counts)
        assert found.crossings(["fgsm", "pgd"]) == []
    assert short.counts() == alone.counts()
    assert set(alone.images.values()) == {40}
    assert short.images["fgsm"] == 37
    assert short.images["exact"] == short.counts()["crown"] - short.counts()["pgd"]
    assert set(short.seconds) == set(names) - {"clean", "open"}


def test_a_lying_bound_crosses():
    """A bound that certifies everything contradicts the attacks, and is named."""
    net, x, y = toy()
    lower, _, search = sides(0.2)
    liar = {"liar": lambda model, x, y: torch.ones(len(y), 3)}
    found = evaluation.both_sides(net, x, y, lower, liar, search, shortcut=False)
    assert ("pgd", "liar") in found.crossings(["fgsm", "pgd"])
    assert ("exact", "liar") in found.crossings(["fgsm", "pgd"])


def test_what_is_unknown_stays_between_the_sides():
    """Without a verdict an image counts as error above and not below."""
    net, x, y = toy()
    lower, upper, _ = sides(0.1)

    def lazy(model, x, y):
        return [exact.Verdict("unknown", -1.0, None, 0.0)] * len(y)

    found = evaluation.both_sides(net, x, y, lower, upper, lazy)
    assert torch.equal(found.errors["exact"], found.errors["pgd"])
    assert torch.equal(found.errors["open"], found.errors["crown"])
    assert "exact" not in evaluation.both_sides(net, x, y, lower, upper).errors


# ------------------------------------------------------- two networks, one point


@given(st.integers(0, 12), st.integers(0, 12), st.integers(0, 5))
@MODEST
def test_paired_p_value_is_mcnemar(only_first, only_second, both):
    """Against the sum of binomial probabilities no larger than the observed one."""
    first = torch.tensor([1] * only_first + [0] * only_second + [1] * both + [0]).bool()
    second = torch.tensor(
        [0] * only_first + [1] * only_second + [1] * both + [0]
    ).bool()
    n = only_first + only_second
    weight = [math.comb(n, k) / 2**n for k in range(n + 1)]
    expected = sum(w for w in weight if w <= weight[only_first] * (1 + 1e-9))
    assert evaluation.paired_p_value(first, second) == pytest.approx(expected)
    with pytest.raises(ValueError, match="same images"):
        evaluation.paired_p_value(first, second[1:])


@pytest.mark.parametrize(("difference", "discordant"), [(0.05, 0.1), (0.03, 0.05)])
def test_images_needed_gives_the_power(difference, discordant):
    """2000 simulated experiments of that size: about 80 % find the difference."""
    n = evaluation.images_needed(difference, discordant)
    rng = np.random.default_rng(0)
    up, down = (discordant + difference) / 2, (discordant - difference) / 2
    draws = rng.multinomial(n, [up, down, 1 - discordant], size=2000)
    p_values = [stats.binomtest(int(a), int(a + b)).pvalue for a, b, _ in draws]
    assert 0.7 < np.mean(np.array(p_values) < 0.05) < 0.87


def test_images_needed_by_hand():
    """One point at 10 % discordant: (1.96 sqrt(.1) + .84 sqrt(.0999))^2 / .01^2."""
    assert evaluation.images_needed(0.01, 0.1) == pytest.approx(7845, abs=10)
    assert evaluation.images_needed(0.01, 0.01) < evaluation.images_needed(0.01, 0.05)
    for bad in [(0, 0.1), (0.2, 0.1), (0.1, 1.5)]:
        with pytest.raises(ValueError, match="difference"):
            evaluation.images_needed(*bad)


def test_paired_t_by_the_formula():
    """Mean over its standard error, against the t distribution; no spread at all."""
    values = [0.3, -0.1, 0.4, 0.2]
    t = np.mean(values) / (np.std(values, ddof=1) / 2)
    expected = 2 * stats.t.sf(abs(t), 3)
    assert evaluation.paired_t_p_value(values) == pytest.approx(expected)
    assert evaluation.paired_t_p_value([0.0, 0.0]) == 1
    assert evaluation.paired_t_p_value([0.5, 0.5, 0.5]) == 0
    with pytest.raises(ValueError, match="two values"):
        evaluation.paired_t_p_value([0.5])


def test_holm_by_hand():
    """The smallest times 4, the next times 3, ...; never falling, never above 1."""
    adjusted = evaluation.holm([0.03, 0.01, 0.6, 0.02])
    assert adjusted == pytest.approx([0.06, 0.04, 0.6, 0.06])
    assert evaluation.holm([0.5, 0.9]) == pytest.approx([1.0, 1.0])
    assert evaluation.holm([]) == []
    for bad in (-0.1, 1.1, math.nan):
        with pytest.raises(ValueError, match="between 0 and 1"):
            evaluation.holm([0.5, bad])


def test_holm_keeps_the_level():
    """Five true hypotheses, 4000 times: at least one rejected in 5 % or fewer."""
    draws = np.random.default_rng(0).uniform(size=(4000, 5))
    hits = [min(evaluation.holm(list(row))) <= 0.05 for row in draws]
    assert np.mean(hits) < 0.05 + 3 * math.sqrt(0.05 * 0.95 / 4000)


@pytest.mark.parametrize("seeds", [2, 3, 8])
def test_detectable_difference_by_simulation(seeds):
    """A true difference of that size is found in 80 % of simulated experiments."""
    shift = evaluation.detectable_difference(2.0, seeds)
    draws = np.random.default_rng(0).normal(shift, 2.0, size=(20000, seeds))
    found = stats.ttest_1samp(draws, 0.0, axis=1).pvalue < 0.05
    assert found.mean() == pytest.approx(0.8, abs=0.012)


def test_detectable_difference_refuses():
    """One seed, a negative spread, NaN, a power below the level."""
    assert evaluation.detectable_difference(0.0, 3) == 0
    for spread, seeds, power in [(1, 1, 0.8), (-1, 3, 0.8), (math.nan, 3, 0.8)]:
        with pytest.raises(ValueError, match="need seeds"):
            evaluation.detectable_difference(spread, seeds, power=power)
    with pytest.raises(ValueError, match="need seeds"):
        evaluation.detectable_difference(1.0, 3, power=0.01)
