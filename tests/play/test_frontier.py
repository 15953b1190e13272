"""The Gaussian world in the page: closed forms, the barrier, where training ends."""

import numpy as np
import pytest
from hands import stage
from playwright.sync_api import Page
from scipy import optimize, special, stats

from advlib.play.figures import frontier

D = 100
WORLDS = [
    {"p": 0.95, "eta": 0.2, "eps": 0.4},
    {"p": 0.95, "eta": 0.2, "eps": 0.1},
    {"p": 0.8, "eta": 0.15, "eps": 0.15},
    {"p": 0.7, "eta": 0.1, "eps": 0.16},
    {"p": 0.99, "eta": 0.3, "eps": 0.75},
    {"p": 0.6, "eta": 0.4, "eps": 0.3},
    {"p": 0.9, "eta": 0.2, "eps": 0.21},
]


def world(page: Page, state: dict, at: list[float] = ()) -> dict:
    """Return what the page says of a world, and its barrier ``at`` clean errors."""
    script = """([state, at]) => {
      const w = document.querySelector('.sides').stage.world(state);
      return {...w, low: at.map(w.lowest)};
    }"""
    return page.evaluate(script, [state, list(at)])


def linear_error(w: np.ndarray, p: float, eta: float, eps: float) -> float:
    """Return the closed form of the chapter, from the weights themselves."""
    lean, spread = eta * w[1:].sum() - eps * np.abs(w).sum(), np.linalg.norm(w[1:])
    right, wrong = (special.ndtr(-(r * w[0] + lean) / spread) for r in (1, -1))
    return p * right + (1 - p) * wrong


def weights(share: float, eta: float) -> np.ndarray:
    """Return all 101 weights of a linear classifier."""
    return np.r_[1 - share, np.full(D, share / (D * eta))]


def test_points_are_the_closed_forms(opened) -> None:
    """Standard training is Bayes's rule; adversarial training the convex minimum."""
    page = opened("frontier")
    for state in WORLDS:
        points_agree(state, world(page, state))


def points_agree(state: dict, found: dict) -> None:
    """Hold the page's points against the weights' closed form and a minimiser."""
    p, eta, eps = state.values()
    odds = np.log(p / (1 - p)), 2 * eta**2 * D
    best = weights(odds[1] / sum(odds), eta)
    expected = [linear_error(best, p, eta, radius) for radius in (0, eps)]
    assert found["standard"] == pytest.approx(expected, abs=1e-9)
    assert found["least"] == pytest.approx(expected[0], abs=1e-9)

    z, chance = np.polynomial.hermite_e.hermegauss(80)
    chance = chance / chance.sum()

    def loss(v: np.ndarray) -> float:
        total = 0.0
        for r, part in ((1, p), (-1, 1 - p)):
            margin = r * v[0] + v[1] * (eta + z / np.sqrt(D)) - eps * np.abs(v).sum()
            total += part * (np.logaddexp(0, -margin) @ chance)
        return total

    inside = [(0, None), (0, None)]
    fit = optimize.minimize(loss, [0.7, 0.4], bounds=inside, method="L-BFGS-B",
                            options={"ftol": 1e-15, "gtol": 1e-10}).x  # fmt: skip
    if eps >= max(eta, 2 * p - 1):
        assert found["trained"] is None
        assert np.abs(fit).max() < 1e-4
        return
    share = eta * fit[1] / (eta * fit[1] + fit[0])
    assert found["share"] == pytest.approx(share, abs=2e-4)
    if found["share"] == 0:
        assert found["trained"] == pytest.approx([1 - p, 1 - p], abs=1e-12)
    else:
        w = weights(found["share"], eta)
        ends = [linear_error(w, p, eta, radius) for radius in (0, eps)]
        assert found["trained"] == pytest.approx(ends, abs=1e-9)
        way = np.array([w[0], w[1:].sum()])
        least = optimize.minimize_scalar(lambda k: loss(k * way), (0.1, 5)).fun
        assert least <= loss(fit) + 1e-9


def test_the_chapters_world(opened) -> None:
    """At radius 0 both trainings agree; the printed half computes the same."""
    page = opened("frontier")
    none = world(page, {"p": 0.95, "eta": 0.2, "eps": 0})
    assert none["share"] == pytest.approx(none["best"], abs=1e-7)
    for radius in (0.0, 0.1, 0.15, 0.2, 0.4):
        found = world(page, {"p": 0.95, "eta": 0.2, "eps": radius})
        assert found["share"] == pytest.approx(frontier.trained(radius), abs=1e-5)
        for c in (0.1, found["best"]):
            line = frontier.error(c, radius, gated=False)
            assert line == pytest.approx(linear_error(weights(c, 0.2), 0.95, 0.2,
                                                      radius))  # fmt: skip
        count = len(found["reach"])  # the last of 240 shares
        for k in range(0, count, 20):
            c = 0.002 + (240 - count + k) / 239 * (found["best"] - 0.002)
            pair = [frontier.error(c, r, gated=True) for r in (0, radius)]
            assert found["reach"][k] == pytest.approx(pair, abs=1e-9)


def some_classifier(rng, p: float, eta: float) -> tuple[float, object]:
    """Return a random answer to (sign of x1, mean): clean error; error when moved."""
    spots = {s: np.sort(rng.normal(size=rng.integers(1, 5)) * eta * 1.5)
             for s in (1, -1)}  # fmt: skip
    first = {s: int(rng.choice([s, -s])) for s in (1, -1)}

    def says_plus(s: int, mean: float) -> float:
        ends = stats.norm.cdf((np.r_[-np.inf, spots[s], np.inf] - mean) * np.sqrt(D))
        plus = (np.arange(len(ends) - 1) % 2 == 0) == (first[s] > 0)
        return float(np.diff(ends) @ plus)

    def error(shift: float) -> float:
        total = 0.0
        for y in (1, -1):
            for s in (1, -1):
                plus = says_plus(s, y * (eta - shift))
                wrong = 1 - plus if y == 1 else plus
                total += 0.5 * (p if s == y else 1 - p) * wrong
        return total

    return error(0), error


def test_nobody_is_below_the_barrier(opened) -> None:
    """Random classifiers, thresholds among them; the theorem; tight where exact."""
    page = opened("frontier")
    for state in WORLDS:
        barrier_holds(page, state)


def barrier_holds(page: Page, state: dict) -> None:
    """Hold the page's barrier against random classifiers and the attained curve."""
    p, eta, eps = state.values()
    rng = np.random.default_rng(3)
    clean, robust = [], []
    for _ in range(100):
        first, error = some_classifier(rng, p, eta)
        clean.append(first)
        shifts = {0, min(eps, eta), min(eps, 2 * eta)}
        robust.append(max(error(shift) for shift in shifts))
    found = world(page, state, clean)
    assert (np.array(found["low"]) <= np.array(robust) + 1e-7)[
        np.array(clean) >= found["least"]
    ].all()
    assert min(clean) >= found["least"] - 1e-9
    grid = np.linspace(found["least"] + 1e-6, 0.5, 40)
    low = np.array(world(page, state, grid.tolist())["low"])
    assert (low >= grid - 1e-12).all()
    if eps >= 2 * eta:
        assert (low >= np.minimum(1 - p / (1 - p) * grid, 1) - 1e-9).all()
    reach = np.array(found["reach"])[::6]
    low = np.array(world(page, state, reach[:, 0].tolist())["low"])
    assert (low <= reach[:, 1] + 1e-9)[reach[:, 0] >= found["least"]].all()
    if eps <= eta or eps == 2 * eta:
        far = reach[:, 0] > found["least"] + 1e-4
        assert np.abs(low - reach[:, 1])[far].max(initial=0) < 3e-3


def test_sliding(opened) -> None:
    """By keys: the theorem stops holding, training lands elsewhere, words follow."""
    page = opened("frontier")
    badge, words = page.locator(".verdict b"), page.locator("[role=status]")
    assert "theorem" in badge.inner_text()
    page.wait_for_timeout(600)
    before = words.inner_text()
    eps, eta, p = page.get_by_role("slider").all()
    eps.focus()
    page.keyboard.press("ArrowLeft")
    page.wait_for_timeout(80)
    assert stage(page, "s.get().eps") == 0.39
    assert "theorem" not in badge.inner_text()
    eps.fill("0.1")
    page.wait_for_timeout(700)
    assert "from weak features" in page.locator(".verdict span").inner_text()
    assert words.inner_text() != before
    label = page.locator(".sides svg[role=img]").get_attribute("aria-label")
    assert "attained curve" in label
    eps.fill("0.5")
    p.fill("0.6")
    page.wait_for_timeout(80)
    assert "nothing is learnt" in page.locator(".verdict span").inner_text()
    eta.fill("0.4")
    eps.fill("0.8")
    page.wait_for_timeout(80)
    assert "theorem" in badge.inner_text()


def test_corners(opened) -> None:
    """All ends of all sliders: finite numbers, within 50 ms, on a phone as well."""
    page = opened("frontier", width=390, mode="dark")
    times = []
    for p in (0.55, 0.99):
        for eta in (0.05, 0.4):
            for eps in (0, 0.05, 0.4, 0.8):
                state = {"p": p, "eta": eta, "eps": eps}
                page.evaluate("v => document.querySelector('.sides').stage.set(v)",
                              state)  # fmt: skip
                times.append(
                    page.evaluate(
                        """v => {
                  const begin = performance.now();
                  document.querySelector('.sides').stage.world(v);
                  return performance.now() - begin;
                }""",
                        state,
                    )
                )
                found = world(page, state, [0.1, 0.4])
                flat = [*found["low"], *found["standard"], *np.ravel(found["reach"])]
                assert np.isfinite(flat).all()
                assert 0 <= min(flat) <= max(flat) <= 1
    assert np.median(times) <= 50
