"""Lines and ranges of units: proved by interval arithmetic, on whole segments."""

import itertools
import math
from fractions import Fraction
from functools import cache

import mpmath
import pytest
import torch
from mpmath import iv, mp

from advlib.bounds.bends import CURVES, ROUNDING, curve_of
from advlib.bounds.curves import Lines, first_at, unit_lines, unit_range
from advlib.networks.units import UNITS

CASES = [
    ("sigmoid",),
    ("tanh",),
    ("gelu",),
    ("gelu_tanh",),
    ("silu",),
    ("softplus", 1.0),
    ("softplus", 7.5),
    ("elu", 1.0),
    ("elu", 0.3),
    ("elu", 1.6732632423543772),
    ("elu", -0.7),
    ("elu", 0.0),
]
IDS = ["-".join(map(str, case)) for case in CASES]


@pytest.fixture(autouse=True)
def _precise():
    """140 bits, so that what is proved is decided far below float64's rounding."""
    before = mp.prec, iv.prec
    mp.prec = iv.prec = 140
    yield
    mp.prec, iv.prec = before


# ------------------------------------------------ units in interval arithmetic
# each returns F, F', F'' on an interval: three intervals that hold all their values


def rising(function, z):
    """The values on ``z`` of a function that rises."""
    low = function(iv.mpf(z.a))
    return low if z.a == z.b else iv.mpf([low.a, function(iv.mpf(z.b)).b])


def logistic(z):
    return rising(lambda t: 1 / (1 + iv.exp(-t)), z)


def less_one(z):  # exp(z) - 1, also where z is tiny
    def one(t):
        if abs(t.a) < mpmath.mpf(2) ** -40:
            return t + t * t / 2 + t * t * t / 6 * iv.mpf([0, 2])
        return iv.exp(t) - 1

    return rising(one, z)


def normal(z):  # mpmath's erfc is good to its precision; 20 bits are left as margin
    def one(t):
        value = mp.erfc(-mp.mpf(t.a) / mp.sqrt(2)) / 2
        return iv.mpf(
            [value * (1 - mp.mpf(2) ** -100), value * (1 + mp.mpf(2) ** -100)]
        )

    return rising(one, z)


def tanh_of(z):
    return rising(
        lambda t: (
            1 - 2 / (less_one(2 * t) + 2)
            if abs(t.a) > 1
            else less_one(2 * t) / (less_one(2 * t) + 2)
        ),
        z,
    )


def sigmoid(z):
    s, r = logistic(z), logistic(-z)
    return s, s * r, s * r * (r - s)


def tanh(z):
    t = tanh_of(z)
    slope = 4 * logistic(2 * z) * logistic(-2 * z)
    return t, slope, -2 * t * slope


def gelu(z):
    p = iv.exp(-z * z / 2) / iv.sqrt(2 * iv.pi)
    below = normal(z)
    return z * below, below + z * p, p * (2 - z**2)


def silu(z):
    s, r = logistic(z), logistic(-z)
    return z * s, s * (1 + z * r), s * r * (2 - z * tanh_of(z / 2))


def gelu_tanh(z):
    d, c = iv.mpf(44715) / 10**6, 2 * iv.sqrt(2 / iv.pi)
    y = rising(lambda t: c * (t + d * t**3), z)
    rise, v = c * (1 + 3 * d * z**2), d * z**2
    s, r = logistic(y), logistic(-y)
    q = rising(lambda v: 1 + 9 * v**2 / (1 + 6 * v), v) * z * tanh_of(y / 2) * c / 2
    return z * s, s * (1 + z * rise * r), s * r * 2 * c * (1 + 6 * v) * (1 - q)


def softplus(z, beta):
    s, r = logistic(beta * z), logistic(-beta * z)
    value = rising(lambda t: iv.log(1 + iv.exp(beta * t)) / beta, z)
    return value, s, beta * s * r


def elu(z, alpha):
    """Left of 0, or right of it; at 0 the slope is that from the left."""
    if z.b > 0:
        assert z.a >= 0
        return z, iv.mpf(1), iv.mpf(0)
    e = iv.exp(z)
    return alpha * less_one(z), alpha * e, alpha * e


TRUE = {f.__name__: f for f in (sigmoid, tanh, gelu, silu, gelu_tanh, softplus, elu)}
# where segments are cut at first, a hint that nothing relies on
HINTS = {"gelu": 2**0.5, "silu": 2.39935728051547, "gelu_tanh": 1.41850400879083}


def proved(case, sign, slope, offset, left, right):
    """Whether sign (F(z) - slope z - offset) >= 0 on [left, right], in real arithmetic.

    True if proved, False if refuted, None if neither. All numbers are taken as they
    are, exact. The segment is halved until each part is decided.
    """
    name, *options = case

    def gap(z):
        z = iv.mpf(z)
        f, df, ddf = TRUE[name](z, *map(iv.mpf, options))
        line = iv.mpf(slope) * z + iv.mpf(offset)
        return sign * (f - line), sign * (df - iv.mpf(slope)), sign * ddf

    hint, tiny = HINTS.get(name, 0.0), mp.mpf(10) ** -12
    cuts = [s * hint + e for s in (1, -1) for e in (tiny, -tiny)] if hint else [0]
    left, right = mp.mpf(left), mp.mpf(right)
    knots = sorted([left, right, *(mp.mpf(c) for c in cuts if left < c < right)])
    for a, b in itertools.pairwise(knots):
        line = name == "elu" and a == 0 < b  # there both ends suffice
        for part in [(a, a), (b, b)] if line else [(a, b)]:
            verdict = halved(cache(gap), *part)
            if not verdict:
                return verdict
    return True


def halved(gap, a, b):
    """What ``decided`` says of [a, b] or of all of its parts, of at most 2000."""
    parts = [(a, b)]
    for _ in range(2000):
        if not parts:
            return True
        a, b = parts.pop()
        verdict = decided(gap, a, b)
        if verdict is None:
            middle = (a + b) / 2
            parts += [(a, middle), (middle, b)]
        elif not verdict:
            return False
    return None


def decided(gap, a, b):
    """Whether the first of the three intervals that ``gap`` returns is >= 0 on [a, b].

    Where the third, the second derivative, has one sign, the slope has its range at the
    ends: so the least value is at an end, or above two tangents. Else the mean value
    theorem may decide. None if it is not decided.
    """
    ends = gap(a)[0], gap(b)[0]
    if min(e.b for e in ends) < 0:
        return False
    if min(e.a for e in ends) < 0:
        return None
    wide, middle = gap((a, b)), (a + b) / 2
    if wide[0].a >= 0 or wide[2].b <= 0:
        return True
    if (gap(middle)[0] - abs(wide[1]) * (b - a) / 2).a >= 0:
        return True
    if wide[2].a < 0:
        return None
    if gap(a)[1].a >= 0 or gap(b)[1].b <= 0:
        return True
    z = middle
    for _ in range(8):  # Newton: the tangent at z, seen at both ends
        f, df, ddf = gap(z)
        if f.b < 0:
            return False
        if min((f + df * (a - z)).a, (f + df * (b - z)).a) >= 0:
            return True
        step = mp.mpf(df.mid) / mp.mpf(ddf.mid) if ddf.mid != 0 else 0
        z = min(max(z - step, a), b)
    return None


def segments(name, count, seed=0):
    """Segments of all scales, at zero, at the unit's special places and anywhere."""
    special = [HINTS.get(name, 0.0), -HINTS.get(name, 0.0), -1.2785, -0.7518, 0.0]
    found = [
        (0.0, 0.0), (-0.0, 5e-324), (-1e-310, 1e-310), (1e-310, 3e-309),
        (-2e-305, 0.0), (-1e-20, 1e-30), (0.0, 1e-8), (-1e-8, 0.0), (-1e-8, 1e-8),
        (-1.0, 1e-300), (-1e-300, 1.0), (0.0, 1.0), (-1.0, 0.0), (-5.0, 0.0),
        (-1e3, 1e3), (-1e3, 1.0), (-0.5, 1e3), (-1e3, -999.0), (999.0, 1e3),
        (-1e3, -1.0), (-1e5, 1e6), (-40.0, -30.0), (-7e2, -1.4), (-750.0, -700.0),
        (3.0, 3.0), (-1.5, -1.5), (-2.0, 3.0), (-3.0, 2.0), (-10.0, -0.9),
    ]  # fmt: skip
    generator = torch.Generator().manual_seed(seed)

    def normals():
        return torch.randn(2, generator=generator, dtype=torch.float64).tolist()

    scales = [1e-12, 1e-8, 1e-4, 1e-2, 0.3, 1.0, 3.0, 10.0, 300.0]
    for k in itertools.count():
        if len(found) >= count:
            return found[:count]
        scale, (a, b) = scales[k % len(scales)], normals()
        place = special[k % 5] if k % 3 else 3 * normals()[0]
        found.append(tuple(sorted((place + scale * a, place + scale * b))))


def lines_of(case, ends, dtype=torch.float64, at=None):
    name, *options = case
    left, right = torch.tensor(ends, dtype=dtype).T
    lines = unit_lines(name, left, right, *options, at=at)
    assert all(line.dtype == dtype for line in lines)
    assert all(torch.isfinite(line).all() for line in lines)
    rows = torch.stack([left, right, *lines], 1).double().tolist()
    return [(row[0], row[1], row[2:4], row[4:6]) for row in rows]


def check(case, rows):
    """All lines are proved."""
    for left, right, below, above in rows:
        assert proved(case, 1, *below, left, right) is True, (left, right, below)
        assert proved(case, -1, *above, left, right) is True, (left, right, above)


each = pytest.mark.parametrize("case", CASES, ids=IDS)


@each
def test_lines_are_sound_on_the_whole_segment(case):
    check(case, lines_of(case, segments(case[0], 50)))


@each
def test_lines_are_sound_at_every_choice(case):
    ends = segments(case[0], 50, seed=1)[8::6]
    for share in (-1.0, 0.1, 0.6, 1.0):
        at = torch.full((len(ends),), share, dtype=torch.float64)
        check(case, lines_of(case, ends, at=at))


@each
def test_lines_are_sound_in_float32(case):
    check(case, lines_of(case, segments(case[0], 60, seed=2)[6::4], torch.float32))


@each
def test_lines_touch_the_unit_and_the_check_can_fail(case):
    """Moved by 1e-9 they are refuted: so they were within 1e-9 of the best offset."""
    ends = [e for e in segments(case[0], 60, seed=3) if max(map(abs, e)) < 1e3]
    for at in (None, torch.full((len(ends[::5]),), 0.3, dtype=torch.float64)):
        for left, right, below, above in lines_of(case, ends[::5], at=at):
            up, down = below[1] + 1e-9, above[1] - 1e-9
            assert proved(case, 1, below[0], up, left, right) is False, (left, right)
            assert proved(case, -1, above[0], down, left, right) is False, (left, right)


@each
def test_ranges_are_sound_and_tight(case):
    name, *options = case
    ends = segments(name, 60, seed=4)[::5]
    for dtype, room in ((torch.float64, 1e-9), (torch.float32, 1e-4)):
        left, right = torch.tensor(ends, dtype=dtype).T
        low, high = unit_range(name, left, right, *options)
        assert low.dtype == high.dtype == dtype
        for a, b, c, d in torch.stack([left, right, low, high], 1).double().tolist():
            assert proved(case, 1, 0.0, c, a, b) is True, (a, b, c)
            assert proved(case, -1, 0.0, d, a, b) is True, (a, b, d)
            if max(-a, b) < 1e3:
                assert proved(case, 1, 0.0, c + room, a, b) is False
                assert proved(case, -1, 0.0, d - room, a, b) is False


@each
def test_slopes_are_those_of_the_hull(case):
    """Against the hull of 401 points: its slopes at the ends, its height in the middle.

    It is least of all chords over the middle. The points miss the hull by the square of
    their distance, and its slopes by the distance.
    """
    name, *options = case
    ends = [e for e in segments(name, 80, seed=5) if 0.1 < e[1] - e[0] < 20]
    ends = [e for e in ends if not {1e-300, -1e-300} & {*e}]  # no grid sees these
    left, right = torch.tensor(ends, dtype=torch.float64).T
    grid = torch.linspace(0, 1, 401, dtype=torch.float64)[:, None]
    z = left + grid * (right - left)
    f = UNITS[name](z, *options)
    middle, step = (left + right) / 2, (right - left) / 400
    bend = step * max(1, *(abs(o) ** 2 for o in options), 1)
    for sign, side in ((1, 0), (-1, 2)):

        def line(at, sign=sign, side=side):
            found = unit_lines(name, left, right, *options, at=at)[side : side + 2]
            return sign * found[0], sign * found[1]

        zeros, y = torch.zeros_like(left), sign * f
        first, last = line(zeros), line(zeros + 1)
        chords = (y[1:] - y[0]) / (z[1:] - z[0])
        assert ((first[0] - chords.amin(0)).abs() <= bend).all()
        chords = (y[-1] - y[:-1]) / (z[-1] - z[:-1])
        assert ((last[0] - chords.amax(0)).abs() <= bend).all()
        torch.testing.assert_close(first[0] * left + first[1], y[0], atol=1e-9, rtol=0)
        torch.testing.assert_close(last[0] * right + last[1], y[-1], atol=1e-9, rtol=0)
        a, b = y[:200, None], y[None, 201:]
        share = (0.5 - grid[:200, None]) / (grid[None, 201:] - grid[:200, None])
        height = (a + share * (b - a)).flatten(0, 1).amin(0).minimum(y[200])
        slope, offset = line(None)
        missed = bend if name == "elu" else bend**2  # a corner between two points
        assert ((slope * middle + offset - height).abs() <= missed / 2 + 1e-9).all()
        again = line(first_at(name, left, right, *options)[side // 2])
        torch.testing.assert_close(
            again[0] * middle + again[1], slope * middle + offset
        )


@each
def test_gradients_flow_to_choices_and_ends(case):
    name, *options = case
    generator = torch.Generator().manual_seed(0)
    left = 2 * torch.randn(40, generator=generator, dtype=torch.float64) - 1
    right = left + 0.2 + 3 * torch.rand(40, generator=generator, dtype=torch.float64)
    at = 0.1 + 0.8 * torch.rand(40, generator=generator, dtype=torch.float64)
    parts, step = (left, right, at), 1e-6
    for lines in (
        lambda left, right, at: unit_lines(name, left, right, *options, at=at),
        lambda left, right, at: unit_lines(name, left, right, *options),
        lambda left, right, at: unit_range(name, left, right, *options),
    ):
        for k, part in enumerate(parts):

            def moved(by, lines=lines, k=k):
                return lines(*(p + by if i == k else p for i, p in enumerate(parts)))

            free = part.clone().requires_grad_()
            values = lines(*(free if i == k else p for i, p in enumerate(parts)))
            for value, more, less in zip(
                values, moved(step), moved(-step), strict=True
            ):
                want = (more - less) / (2 * step)
                found = torch.zeros_like(part)
                if value.requires_grad:
                    (found,) = torch.autograd.grad(value.sum(), free, retain_graph=True)
                torch.testing.assert_close(found, want, atol=1e-5, rtol=1e-4)


# ------------------------------------------------------- what the proofs rest on


@each
def test_bends_and_lowest_points_are_where_they_should_be(case):
    """F'' changes sign within 1e-15 of each stop, F' of the lowest point."""
    name, *options = case
    curve, near = curve_of(name, tuple(options)), mp.mpf(10) ** -15

    def true(z):
        return TRUE[name](iv.mpf(z), *map(iv.mpf, options))

    for before, after in itertools.pairwise(curve.pieces):
        assert before.stop == after.start
        for piece, z in ((before, before.stop - near), (after, after.start + near)):
            ddf = true(mp.mpf(z))[2]
            assert (ddf.a > 0) - (ddf.b < 0) == piece.bend
    assert curve.pieces[0].start == -math.inf
    assert curve.pieces[-1].stop == math.inf
    if curve.lowest is not None:
        assert true(mp.mpf(curve.lowest) - near)[1].b < 0
        assert true(mp.mpf(curve.lowest) + near)[1].a > 0
        least = true(mp.mpf(curve.lowest))[0]
        assert curve.floor <= least.a
        assert least.b - curve.floor < 3e-16


@each
def test_float64_is_as_good_as_assumed(case):
    """Values and slopes are off by at most half of what is taken from the lines."""
    name, *options = case
    curve = curve_of(name, tuple(options))
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(120, generator=generator, dtype=torch.float64)
    z = torch.cat([z * 2, z * 10, z[:40] * 100, z[:20] * 1e-9])
    value, slope = curve.value(z), curve.slope(z)
    rows = torch.stack([z, value, slope, curve.error(value)], 1).tolist()
    for place, one, other, room in rows:
        f, df, _ = TRUE[name](iv.mpf(place), *map(iv.mpf, options))
        assert abs(f - one).b <= room / 2
        assert abs(df - other).b <= ROUNDING * curve.steepest / 2
        assert abs(df).b <= curve.steepest


@pytest.mark.parametrize("name", ["exp", "expm1", "log1p", "tanh", "erfc", "sigmoid"])
def test_torch_is_within_six_units_in_the_last_place(name):
    z = torch.randn(300, generator=torch.Generator().manual_seed(0)).double() * 4
    z = z.abs() if name == "log1p" else z
    function = getattr(mp, name, lambda t: 1 / (1 + mp.exp(-t)))
    for place, value in zip(z.tolist(), getattr(torch, name)(z).tolist(), strict=True):
        assert abs(value - function(mp.mpf(place))) <= 6 * math.ulp(value)


# ------------------------------------------------------------ ReLU and refusals


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_relu_lines_are_the_triangle(dtype):
    generator = torch.Generator().manual_seed(0)
    size = 10.0 ** torch.randint(-30, 30, (2, 400), generator=generator).double()
    ends = size * torch.randn(2, 400, generator=generator, dtype=torch.float64)
    ends = torch.cat(
        [ends, torch.tensor([[0.0, -1, -5e-324, -1], [0, 0, 1, 1e-320]])], 1
    )
    left, right = ends.to(dtype).sort(dim=0).values
    at = torch.rand(404, generator=generator).to(dtype)
    low, high = unit_range("relu", left, right)
    assert torch.equal(low, left.relu())
    assert torch.equal(high, right.relu())
    for lines in (
        unit_lines("relu", left, right),
        unit_lines("relu", left, right, at=at),
    ):
        rows = torch.stack([left, right, at, *lines], 1).double().tolist()
        for a, b, share, slope, offset, steep, top in rows:
            points = [Fraction(a), Fraction(b), *([Fraction(0)] if a < 0 < b else [])]
            for z in points:
                relu = max(z, 0)
                assert Fraction(slope) * z + Fraction(offset) <= relu
                assert Fraction(steep) * z + Fraction(top) >= relu
            assert offset == 0
            if a < 0 < b:
                want = share if lines[0] is not None and at is not None else None
                best = float(Fraction(b) / (Fraction(b) - Fraction(a)))
                assert steep == pytest.approx(best, rel=1e-6, abs=1e-44)
                assert slope in (want, float(b > -a))
            else:
                assert (slope, steep, top) == (float(a >= 0), float(a >= 0), 0.0)


def test_right_of_its_corner_elu_is_the_identity_exactly():
    left = torch.tensor([0.0, 1e-9, 2.0], dtype=torch.float64)
    for line, want in zip(
        unit_lines("elu", left, 3 * left, 1.5), (1, 0, 1, 0), strict=True
    ):
        assert torch.equal(line, torch.full_like(left, want))
    assert torch.equal(unit_range("elu", left, 3 * left, 1.5)[1], 3 * left)


@pytest.mark.parametrize("name", sorted(UNITS))
def test_what_is_no_segment_proves_nothing(name):
    bad = [(math.nan, 1.0), (0.0, math.nan), (-math.inf, 1.0), (0.0, math.inf)]
    bad += [(-math.inf, math.inf), (1.0, 0.5), (-1.7e308, 1.7e308)]
    left, right = torch.tensor([(-1.0, 1.0), *bad], dtype=torch.float64).T
    for part in (*unit_lines(name, left, right), *unit_range(name, left, right)):
        assert part.isfinite().tolist() == [True] + [False] * len(bad)
    at = torch.full_like(left, math.nan)
    assert torch.isnan(unit_lines(name, left, right, at=at).lower_slope).all()
    with pytest.raises(TypeError, match="float32 or float64"):
        unit_lines(name, left, right.float())
    with pytest.raises(ValueError, match=r"options|no lines"):
        unit_range(name, left, right, 1.0, 2.0)
    empty = torch.zeros(0, 3)
    assert unit_lines(name, empty, empty).upper_offset.shape == (0, 3)


def test_each_row_may_choose_its_own_lines():
    left = torch.tensor([-1.0, 0.3, -2.0], dtype=torch.float64)
    at = torch.linspace(0, 1, 5, dtype=torch.float64)[:, None]
    for name in sorted(UNITS):
        lines = unit_lines(name, left, left + 2, at=at)
        assert isinstance(lines, Lines)
        assert lines.lower_slope.shape == lines.lower_offset.shape == (5, 3)
        for k in range(5):
            row = unit_lines(name, left, left + 2, at=at[k].expand(3))
            for line, one in zip(lines, row, strict=True):
                torch.testing.assert_close(line.expand(5, 3)[k], one)
        pair = unit_lines(name, left, left + 2, at=(at[0].expand(3), at[4].expand(3)))
        torch.testing.assert_close(pair.lower_slope, lines.lower_slope[0])
        torch.testing.assert_close(pair.upper_slope, lines.upper_slope.expand(5, 3)[4])


def test_a_choice_outside_0_and_1_is_cut():
    left = torch.tensor([-1.0, 0.3, -2.0])
    for name, (far, near) in itertools.product(
        sorted(UNITS), [(-3.0, 0.0), (7.0, 1.0)]
    ):
        lines = [
            unit_lines(name, left, left + 2, at=torch.full_like(left, at))
            for at in (far, near)
        ]
        for line, want in zip(*lines, strict=True):
            assert torch.equal(line, want)


def test_unknown_units_and_options_are_refused():
    z = torch.zeros(1)
    with pytest.raises(ValueError, match="no lines"):
        unit_lines("mish", z, z)
    for name, option in (("softplus", 0.0), ("softplus", math.nan), ("elu", math.inf)):
        with pytest.raises(ValueError, match="finite"):
            unit_lines(name, z, z, option)
    assert set(CURVES) | {"relu"} == set(UNITS)
