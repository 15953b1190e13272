"""Exact certificates: the arithmetic, the proofs, and every way to be refused."""

import dataclasses
import hashlib
import json
import time
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load as load_bytes
from safetensors.numpy import save as save_bytes
from torch import nn

import advlib
from advlib import bounds, certificates, data, models, zoo
from advlib.proof import checker
from advlib.proof.certificates import (
    Exact,
    RejectedError,
    check_certificate,
    exact_logits,
    forward_error_bound,
    make_certificate,
)

MODEST = settings(deadline=None, max_examples=40, derandomize=True, database=None)
COMMITTED = Path(advlib.__file__).parent / "results/mnist-certificates.safetensors"


def dense(*widths: int, seed: int = 0, scale: float = 1.0) -> nn.Sequential:
    """A ReLU network from inputs (1, widths[0]), weights times ``scale``."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        layers = [nn.Flatten()]
        for i, o in pairwise(widths):
            layers += [nn.Linear(i, o), nn.ReLU()]
        net = nn.Sequential(*layers[:-1]).requires_grad_(False).eval()
        for p in net.parameters():
            p *= scale
    return net


def convolutional(seed: int = 0) -> nn.Sequential:
    """Two convolutions with padding and stride, then a dense layer: (1, 6, 6) to 3."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(1, 3, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(3, 4, 2, stride=2, bias=False),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(36, 3),
        ).eval()


def image(net: nn.Sequential, *shape: int, seed: int = 0) -> tuple[torch.Tensor, int]:
    """A random image and the class that the network gives it."""
    x = torch.rand(shape, generator=torch.Generator().manual_seed(seed))
    return x, int(net(x[None]).argmax())


def largest_radius(net: nn.Sequential, x: torch.Tensor, y: int) -> float:
    """A radius with unstable units at which CROWN still certifies, by bisection."""
    low, high = 0.0, 1.0
    for _ in range(12):
        eps = (low + high) / 2
        margins = bounds.crown_margins(net, x[None], torch.tensor([y]), eps)
        good = bool(bounds.certified(margins, torch.tensor([y])))
        low, high = (eps, high) if good else (low, eps)
    return low * 0.8


def case(seed: int = 0) -> tuple[nn.Sequential, torch.Tensor, int, float]:
    """A network 7-9-8-4, an image, its class, a radius."""
    net = dense(7, 9, 8, 4, seed=seed, scale=2.5)
    x, y = image(net, 1, 7, seed=seed)
    return net, x, y, largest_radius(net, x, y)


# ------------------------------------------------------------------- arithmetic

floats = st.floats(-8, 8, width=32) | st.sampled_from([0.0, 2.0**-120, -(2.0**20)])
matrices = st.lists(st.lists(floats, min_size=3, max_size=3), min_size=3, max_size=3)


@given(matrices, matrices)
@MODEST
def test_exact_is_what_fractions_say(a, b):
    """Sums, products, matrix products, comparisons and cuts, against ``Fraction``."""
    a, b = np.array(a), np.array(b)
    first, second = Exact.of(a), Exact.of(b)
    slow = [[[Fraction(v) for v in row] for row in m] for m in (a, b)]
    for i in range(3):
        pairs = list(zip(slow[0][i], slow[1][i], strict=True))
        assert (first + second)[i].fractions() == [p + q for p, q in pairs]
        assert (first * second)[i].fractions() == [p * q for p, q in pairs]
        assert list((first <= second).astype(bool)[i]) == [p <= q for p, q in pairs]
        product = [
            sum(slow[0][i][k] * slow[1][k][j] for k in range(3)) for j in (0, 1, 2)
        ]
        assert (first @ second)[i].fractions() == product
        cut = [min(max(v, Fraction(0)), Fraction(1)) for v in slow[0][i]]
        assert first.clip(0, 1)[i].fractions() == cut


def test_no_number_is_refused():
    """NaN and infinity are no rationals."""
    for value in (np.nan, np.inf, -np.inf):
        with pytest.raises(RejectedError):
            Exact.of(np.array([1.0, value]))


def test_integers_beat_fractions():
    """The docstring's factor of about 30 (34 when measured), with room for noise."""
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(8, 50)), rng.normal(size=(50, 100))
    as_fraction = np.vectorize(Fraction, otypes=[object])
    slow_a, slow_b = as_fraction(a), as_fraction(b)
    fast_a, fast_b = Exact.of(a), Exact.of(b)
    began = time.process_time()
    slow = np.dot(slow_a, slow_b)
    middle = time.process_time()
    fast = fast_a @ fast_b
    end = time.process_time()
    assert fast[0].fractions() == list(slow[0])
    assert middle - began > 8 * (end - middle)


@given(st.integers(-(2**22), 2**22), st.integers(0, 2**23), st.integers(0, 256))
@MODEST
def test_lines_hold_on_the_interval(low, width, slope):
    """Both lines around a ReLU, at the ends, at 0 and between, in exact numbers."""
    ends = [np.array([v], dtype=object) for v in (low, low + width)]
    line = checker._exact_line(*ends, np.array([[slope]]))
    below, above = line.lower[0].fractions()[0], line.upper.fractions()[0]
    offset = line.offset.fractions()[0]
    for step in [low, low + width, *(low + width * k // 7 for k in range(8)), 0]:
        if low <= step <= low + width:
            z = Fraction(step, 2**certificates.GRID)
            assert below * z <= max(z, 0) <= above * z + offset


# ------------------------------------------------------------------------ proofs


@pytest.mark.parametrize("seed", range(8))
def test_exact_and_float_margins_agree(seed):
    """The torch walk, in float64, with the same intervals and slopes."""
    net, x, y, eps = case(seed)
    certificate = make_certificate(net, x, y, eps)
    proved = np.array(
        [float(m) for m in check_certificate(net, x, y, eps, certificate)]
    )
    ends = zip(certificate.lower, certificate.upper, strict=True)
    pre = [tuple(torch.from_numpy(e)[None] / 2.0**16 for e in pair) for pair in ends]
    pre = [(low.double(), up.double()) for low, up in pre]
    slopes = [torch.from_numpy(s).double()[None] / 256 for s in certificate.slopes]
    labels, wide = torch.tensor([y]), dense(7, 9, 8, 4, seed=seed, scale=2.5).double()
    spec = bounds.margin_spec(labels, 4).double()
    box = bounds.input_box(x[None].double(), eps)
    same = bounds.linear_lower(wide, spec, *box, pre, slopes=slopes)[0]
    inner = [end.relu() for end in pre[-1]]
    rows, shift = spec @ wide[-1].weight, spec @ wide[-1].bias
    plain = rows.clamp(min=0) @ inner[0][0] + rows.clamp(max=0) @ inner[1][0] + shift
    same = same.maximum(plain[0])
    assert np.abs(proved - same.numpy()).max() < 1e-6
    assert 0 < eps < 0.5
    assert any(((low < 0) & (up > 0)).any() for low, up in pre)


@pytest.mark.parametrize("seed", range(4))
def test_no_exact_point_is_below_a_proved_margin(seed):
    """150 points and corners of the ball, evaluated without rounding."""
    net, x, y, eps = case(seed)
    proved = check_certificate(net, x, y, eps, make_certificate(net, x, y, eps))
    generator = torch.Generator().manual_seed(seed)
    for i in range(150):
        step = 2 * torch.rand(x.shape, generator=generator) - 1
        step = step if i % 2 else step.sign()
        point = (x.double() + eps * step.double()).clamp(0, 1)
        if (point - x.double()).abs().max() > eps:  # rounding left the ball
            point = x.double() + (point - x.double()) * (1 - 1e-12)
        logits = exact_logits(net, point)
        for j, bound in enumerate(proved):
            assert logits[y] - logits[j] >= bound


def test_margins_equal_a_slow_walk_in_fractions():
    """One hidden layer, written out again with fractions and loops."""
    net = dense(3, 4, 2, seed=5)
    x, y = image(net, 1, 3, seed=5)
    eps = largest_radius(net, x, y)
    certificate = make_certificate(net, x, y, eps)
    proved = check_certificate(net, x, y, eps, certificate)
    as_f = np.vectorize(lambda v: Fraction(float(v)), otypes=[object])
    w1, b1, w2, b2 = (as_f(p.numpy()) for p in net.parameters())
    radius, pixels = Fraction(eps), as_f(x.flatten().numpy())
    total = plain = b2[y] - b2[1 - y]
    rows = [Fraction(0)] * 3
    for k in range(4):
        low = Fraction(int(certificate.lower[0][k]), 2**16)
        up = Fraction(int(certificate.upper[0][k]), 2**16)
        weight = w2[y][k] - w2[1 - y][k]
        plain += min(weight * max(low, 0), weight * max(up, 0))
        if up <= 0:
            continue
        slope = Fraction(int(certificate.slopes[0][1 - y][k]), 2**8)
        chord = Fraction(-(-up * 2**30 // (up - low)), 2**30)
        slope, chord, offset = (1, 1, 0) if low >= 0 else (slope, chord, -chord * low)
        used = slope if weight > 0 else chord
        total += weight * used * b1[k] + (weight * offset if weight < 0 else 0)
        rows = [r + weight * used * v for r, v in zip(rows, w1[k], strict=True)]
    for r, pixel in zip(rows, pixels, strict=True):
        ends = max(pixel - radius, Fraction(0)), min(pixel + radius, Fraction(1))
        total += min(r * ends[0], r * ends[1])
    assert proved[1 - y] == max(total, plain)


def test_convolutions():
    """Padding, stride, no bias: the same proof through the dense matrix."""
    net = convolutional().requires_grad_(False)
    x, y = image(net, 1, 6, 6)
    eps = largest_radius(net, x, y)
    proved = check_certificate(net, x, y, eps, make_certificate(net, x, y, eps))
    found = bounds.crown_margins(net, x[None], torch.tensor([y]), eps)[0]
    assert np.abs(np.array([float(p) for p in proved]) - found.numpy()).max() < 2e-3
    logits = [float(v) for v in exact_logits(net, x)]
    assert logits == pytest.approx(net(x[None])[0].tolist(), abs=1e-5)


def test_better_slopes_prove_more():
    """Ascent on the slopes never lowers a margin by more than the grid, and helps."""
    gains = []
    for seed in range(6):
        net, x, y, eps = case(seed)
        plain = make_certificate(net, x, y, eps)
        better = make_certificate(net, x, y, eps, num_steps=15)
        pair = [check_certificate(net, x, y, eps, c) for c in (plain, better)]
        gains += [float(b - a) for a, b in zip(*pair, strict=True)]
    assert min(gains) > -1e-3
    assert max(gains) > 0.01


def test_the_ball_is_cut_to_the_pixels():
    """At a corner of the unit cube half of each side is cut off, which helps."""
    net = dense(7, 9, 8, 4, seed=3, scale=2.5)
    x = torch.ones(1, 7)
    y = int(net(x[None]).argmax())
    eps = largest_radius(net, x, y)
    assert all(
        m > 0 or j == y
        for j, m in enumerate(
            check_certificate(net, x, y, eps, make_certificate(net, x, y, eps))
        )
    )
    free = bounds.crown_margins(net, x[None], torch.tensor([y]), eps, box=False)
    assert not bounds.certified(free, torch.tensor([y]))


# ------------------------------------------------------------------ what is refused


def changed(certificate, part: str, k: int, index, by: int):
    """A copy with one number of one part moved."""
    arrays = [a.copy() for a in getattr(certificate, part)]
    arrays[k][index] += by
    return dataclasses.replace(certificate, **{part: tuple(arrays)})


NET, IMAGE, LABEL, EPS = case(1)
GOOD = make_certificate(NET, IMAGE, LABEL, EPS)


def refused(reason: str, certificate, net=NET, x=IMAGE, y=LABEL, eps=EPS) -> None:
    """Assert that the check raises ``RejectedError`` and says ``reason``."""
    with pytest.raises(RejectedError, match=reason):
        check_certificate(net, x, y, eps, certificate)


def forged(certificate, net=NET, x=IMAGE, y=LABEL, eps=EPS):
    """The same numbers, with label and digest as if made for this question."""
    asked = certificates.question(net, x, y, eps)
    return dataclasses.replace(certificate, question=asked, label=y, eps=eps)


@pytest.mark.parametrize("unit", range(9))
@pytest.mark.parametrize(("part", "by"), [("lower", 66), ("upper", -66)])
def test_a_bound_tightened_is_refused(unit, part, by):
    """By a thousandth, at every unit of the first layer: the interval was the best."""
    refused("not implied|swapped", changed(GOOD, part, 0, unit, by))


@pytest.mark.parametrize(("part", "by"), [("lower", 1), ("upper", -1)])
def test_a_bound_tightened_deep_inside_is_refused(part, by):
    """In the second layer, by a tenth: more than the interval's own looseness."""
    for unit in range(8):
        refused("not implied|swapped", changed(GOOD, part, 1, unit, by * 6554))


def test_slopes_outside_the_unit_interval_are_refused():
    """1.1 and -0.1 are no slopes below a ReLU, in any row."""
    for row in range(4):
        refused("slope", changed(GOOD, "slopes", 1, (row, 0), 282))
        refused("slope", changed(GOOD, "slopes", 0, (row, 3), -282))


def test_another_slope_inside_is_sound():
    """Any slopes in [0, 1] give a true bound: at worst one that proves nothing."""
    rng = np.random.default_rng(0)
    for _ in range(10):
        slopes = tuple(rng.integers(0, 257, s.shape) for s in GOOD.slopes)
        other = dataclasses.replace(GOOD, slopes=slopes)
        try:
            proved = check_certificate(NET, IMAGE, LABEL, EPS, other)
        except RejectedError:
            continue
        logits = exact_logits(NET, IMAGE)
        pairs = zip(logits, proved, strict=True)
        assert all(logits[LABEL] - z >= m for z, m in pairs)


def test_another_question_is_refused():
    """Another image, label, radius or weight: by the digest, down to the last bit."""
    other = image(NET, 1, 7, seed=9)[0]
    refused("another image", GOOD, x=other)
    refused("another", GOOD, y=(LABEL + 1) % 4)
    refused("another", GOOD, eps=EPS * 1.01)
    net = dense(7, 9, 8, 4, seed=1, scale=2.5)
    one = net[1].weight[0, 0]
    one.copy_(one.nextafter(torch.tensor(9.0)))
    refused("other weights", GOOD, net=net)


def test_a_forged_digest_does_not_help():
    """The numbers themselves prove nothing about another question."""
    other = image(NET, 1, 7, seed=9)[0]
    refused("not implied", forged(GOOD, x=other), x=other)
    refused("not implied", forged(GOOD, eps=EPS * 1.01), eps=EPS * 1.01)
    net = dense(7, 9, 8, 4, seed=1, scale=2.5)
    net[1].bias += 1e-3
    refused("not implied", forged(GOOD, net=net), net=net)
    net = dense(7, 9, 8, 4, seed=1, scale=2.5)
    net[-1].bias[LABEL] -= 10
    refused("margin", forged(GOOD, net=net), net=net)
    label = (LABEL + 1) % 4
    refused("margin", forged(GOOD, y=label), y=label)


def test_another_form_is_refused():
    """Missing layers, swapped ends, floats, wrong widths, a label that is no class."""
    refused("every ReLU", dataclasses.replace(GOOD, lower=GOOD.lower[:1]))
    swapped = dataclasses.replace(GOOD, lower=GOOD.upper, upper=GOOD.lower)
    refused("swapped", swapped)
    halves = tuple(low + 0.5 for low in GOOD.lower)
    refused("integers", dataclasses.replace(GOOD, lower=halves))
    cut = tuple(s[:, :-1] for s in GOOD.slopes)
    refused("another network", dataclasses.replace(GOOD, slopes=cut))
    refused("another label", dataclasses.replace(GOOD, label=3 - LABEL))


def test_too_large_a_radius_is_refused():
    """The proposal is honest, and the margin is what fails."""
    x, y = image(NET, 1, 7, seed=1)
    refused("margin", make_certificate(NET, x, y, 0.9), x=x, y=y, eps=0.9)


def test_bad_input():
    """Layers without an exact rule, images and radii out of range."""
    x = torch.rand(1, 6, 6)
    odd = nn.Sequential(models.Normalize((0.1,), (0.3,)), *convolutional()).eval()
    with pytest.raises(TypeError, match="Normalize"):
        make_certificate(odd, x, 0, 0.1)
    with pytest.raises(TypeError, match="ReLU between"):
        make_certificate(nn.Sequential(nn.Flatten()).eval(), x, 0, 0.1)
    twice = nn.Sequential(nn.Flatten(), nn.Linear(36, 4), nn.Linear(4, 2)).eval()
    with pytest.raises(TypeError, match="ReLU between"):
        make_certificate(twice, x, 0, 0.1)
    for bad_x, eps in [(x + 1, 0.1), (x, -0.1), (x, 25.0), (x * np.nan, 0.1)]:
        with pytest.raises(ValueError, match=r"pixels|images"):
            make_certificate(convolutional(), bad_x, 0, eps)
    with pytest.raises(ValueError, match="train mode"):
        make_certificate(convolutional().train(), x, 0, 0.1)


# -------------------------------------------------------------------------- files


def test_a_file_keeps_everything(tmp_path):
    """Written and read again: the same numbers, the same notes."""
    certificates.save([GOOD, GOOD], tmp_path / "two.safetensors", why="a test")
    again, notes = certificates.load(tmp_path / "two.safetensors")
    assert notes == {"why": "a test"}
    assert len(again) == 2
    check_certificate(NET, IMAGE, LABEL, EPS, again[1])
    for part in ("lower", "upper", "slopes"):
        pairs = zip(getattr(again[0], part), getattr(GOOD, part), strict=True)
        assert all((a == b).all() for a, b in pairs)


def test_truncated_and_altered_files_are_refused(tmp_path):
    """Any cut, and any flipped bit behind the header."""
    path = tmp_path / "one.safetensors"
    certificates.save([GOOD], path)
    content = path.read_bytes()
    for size in (0, 7, 40, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:size])
        with pytest.raises(RejectedError):
            certificates.load(path)
    for place in (len(content) - 1, len(content) - 200, content.index(b"0x")):
        flipped = bytearray(content)
        flipped[place] ^= 1
        path.write_bytes(bytes(flipped))
        with pytest.raises(RejectedError):
            certificates.load(path)


def stored(certificate, path: Path) -> tuple[dict, dict]:
    """Tensors and record of a file with ``certificate``, which a test may change."""
    certificates.save([certificate], path)
    content = path.read_bytes()
    size = int.from_bytes(content[:8], "little")
    metadata = json.loads(content[8 : 8 + size])["__metadata__"]
    return load_bytes(content), json.loads(metadata["record"])


def forge(tensors: dict, record: object, path: Path) -> None:
    """Write a file whose own SHA-256 is right, whatever it holds."""
    text = json.dumps(record, sort_keys=True)
    digest = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        array = np.ascontiguousarray(tensors[name])
        digest.update(f"{name} {array.dtype} {array.shape}".encode() + array.tobytes())
    metadata = {"record": text, "sha256": digest.hexdigest()}
    path.write_bytes(save_bytes(tensors, metadata))


def test_every_cut_is_refused(tmp_path):
    """No prefix of a file is a file."""
    path = tmp_path / "one.safetensors"
    certificates.save([GOOD], path)
    content = path.read_bytes()
    for size in range(len(content)):
        path.write_bytes(content[:size])
        with pytest.raises(RejectedError, match="no safetensors file"):
            certificates.load(path)


def test_flipped_bits_are_refused(tmp_path):
    """A thousand of them, most in the header: never another error, never accepted."""
    path = tmp_path / "one.safetensors"
    certificates.save([GOOD], path, why="a test")
    content, rng = path.read_bytes(), np.random.default_rng(0)
    places = [*rng.integers(0, len(content), 400), *rng.integers(0, 900, 600)]
    for place in places:
        flipped = bytearray(content)
        flipped[place] ^= 1 << int(rng.integers(0, 8))
        path.write_bytes(bytes(flipped))
        try:
            again, notes = certificates.load(path)
        except RejectedError:
            continue
        assert notes == {"why": "a test"}  # white space of the header, or such
        assert check_certificate(NET, IMAGE, LABEL, EPS, again[0])


def test_what_is_no_file_of_certificates(tmp_path):
    """Folders, empty files, JSON, texts, tensors of something else."""
    path = tmp_path / "file"
    with pytest.raises(RejectedError, match="folder"):
        certificates.load(tmp_path)
    nested = b"[" * 100_000
    size = len(nested).to_bytes(8, "little")
    foreign = save_bytes({"a": np.zeros(3)})
    unsigned = save_bytes({"a": np.zeros(3)}, {"record": "{}", "sha256": ""})
    texts = b"", b"{}", b'{"certificates": []}', b"\x80\x04.", b"\xff" * 64
    for content in (*texts, size + nested, foreign, unsigned):
        path.write_bytes(content)
        with pytest.raises(RejectedError):
            certificates.load(path)
    with pytest.raises(FileNotFoundError):
        certificates.load(tmp_path / "none")


HEADS = [
    [[True, "0x1p-4", "q"]], [["0", "0x1p-4", "q"]], [[1.0, "0x1p-4", "q"]],
    [[-1, "0x1p-4", "q"]], [[4, "0x1p-4", "q"]], [[None, "0x1p-4", "q"]],
    [[0, "nan", "q"]], [[0, "inf", "q"]], [[0, "-0x1p-4", "q"]], [[0, "0x1p9", "q"]],
    [[0, 0.1, "q"]], [[0, "tenth", "q"]], [[0, "0x1p99999", "q"]], [[0, "0x1p-4", 7]],
    [[0, "0x1p-4"]], [], [[0, "0x1p-4", "q"]] * 2, {}, None, 3, ["abc"],
]  # fmt: skip


@pytest.mark.parametrize("head", HEADS, ids=repr)
def test_forged_heads_are_refused(head, tmp_path):
    """Labels, radii and questions that are none, though the file's digest is right."""
    path = tmp_path / "forged.safetensors"
    tensors, record = stored(GOOD, path)
    forge(tensors, {**record, "certificates": head}, path)
    with pytest.raises(RejectedError):
        certificates.load(path)


def test_forged_records_are_refused(tmp_path):
    """Parts of the record that are missing or of another kind."""
    path = tmp_path / "forged.safetensors"
    tensors, record = stored(GOOD, path)
    forge(tensors, record, path)
    assert certificates.load(path)[0]
    for other in ([], None, {}, {"certificates": record["certificates"]},
                  {**record, "notes": 3}, {**record, "notes": "abc"}):  # fmt: skip
        forge(tensors, other, path)
        with pytest.raises(RejectedError):
            certificates.load(path)


def test_forged_tensors_are_refused(tmp_path):
    """Missing, renamed, of another type or shape: by ``load``."""
    path = tmp_path / "forged.safetensors"
    tensors, record = stored(GOOD, path)
    for name, array in tensors.items():
        others = [
            {k: v for k, v in tensors.items() if k != name},
            {(k if k != name else "lower.7"): v for k, v in tensors.items()},
            {**tensors, "more": array},
            *[{**tensors, name: array.astype(kind)} for kind in
              (np.float32, np.float64, np.uint32, np.int64, np.int8, bool)],
            *[{**tensors, name: other} for other in
              (array[..., :-1], array[None], array[0], array[:0], array.reshape(-1),
               np.concatenate([array, array]), np.zeros((), array.dtype))],
        ]  # fmt: skip
        for other in others:
            forge(other, record, path)
            with pytest.raises(RejectedError):
                certificates.load(path)


def test_whatever_is_loaded_is_refused_or_proved(tmp_path):
    """Random numbers in the arrays of a file: the check refuses, or tells a truth."""
    path, rng, proved = tmp_path / "forged.safetensors", np.random.default_rng(0), 0
    tensors, record = stored(GOOD, path)
    logits = exact_logits(NET, IMAGE)
    for _ in range(150):
        name = sorted(tensors)[rng.integers(len(tensors))]
        other = tensors[name].copy()
        size = 2 ** rng.integers(0, 8 * other.itemsize - 1)
        place = rng.integers(other.size)
        other.flat[place] = rng.integers(-size, size)
        forge({**tensors, name: other}, record, path)
        try:
            margins = check_certificate(
                NET, IMAGE, LABEL, EPS, certificates.load(path)[0][0]
            )
        except RejectedError:
            continue
        proved += 1
        assert all(logits[LABEL] - z >= m for z, m in zip(logits, margins, strict=True))
    assert 0 < proved < 150


def each(change, part: str):
    """GOOD with every array of ``part`` changed."""
    return dataclasses.replace(GOOD, **{part: tuple(map(change, getattr(GOOD, part)))})


NO_CERTIFICATES = {
    "none": None,
    "a string": "abc",
    "a tuple": (),
    "no part": dataclasses.replace(GOOD, lower=None),
    "a list": dataclasses.replace(GOOD, lower=list(GOOD.lower)),
    "numbers": dataclasses.replace(GOOD, lower=(1, 2)),
    "no parts": dataclasses.replace(GOOD, lower=(), upper=(), slopes=()),
    "unsigned": each(lambda a: a.astype(np.uint16), "slopes"),
    "objects": each(lambda a: a.astype(object), "lower"),
    "masked": each(lambda a: np.ma.array(a, mask=True), "lower"),
    "a dimension more": each(lambda a: a[None], "lower"),
    "a dimension less": each(lambda a: a[0], "slopes"),
    "scalars": each(lambda a: np.int64(a[0]), "upper"),
    "one class": each(lambda a: a[:1], "slopes"),
    "a label as text": dataclasses.replace(GOOD, label=str(LABEL)),
    "no label": dataclasses.replace(GOOD, label=None),
    "an eps that is no number": dataclasses.replace(GOOD, eps=float("nan")),
    "no eps": dataclasses.replace(GOOD, eps=None),
    "no question": dataclasses.replace(GOOD, question=None),
}


@pytest.mark.parametrize("other", NO_CERTIFICATES.values(), ids=NO_CERTIFICATES)
def test_what_is_no_certificate(other):
    """Of another type, or with parts of another type: a clear refusal."""
    with pytest.raises(
        (RejectedError, TypeError), match=r"[Cc]ertificate|,|every|another"
    ):
        check_certificate(NET, IMAGE, LABEL, EPS, other)


def test_what_is_not_saved(tmp_path):
    """None at all, or of two networks: nothing is written."""
    path, net = tmp_path / "file", dense(7, 9, 8, 3, seed=1)
    y = int(net(IMAGE[None]).argmax())
    other = make_certificate(net, IMAGE, y, 1e-3)
    for several, reason in ([], "no certificates"), ([GOOD, other], "several networks"):
        with pytest.raises(ValueError, match=reason):
            certificates.save(several, path)
    with pytest.raises(TypeError, match="need a Certificate"):
        certificates.save([GOOD, "abc"], path)
    with pytest.raises(TypeError, match="JSON"):
        certificates.save([GOOD], path, where=Path())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "change",
    [{"eps": float("nan")}, {"eps": -1.0}, {"eps": 8.0}, {"label": 7}, {"label": -1}],
)
def test_what_would_not_be_loaded_is_not_saved(change, tmp_path):
    """One bad certificate must not cost the good ones of the same file."""
    path = tmp_path / "file"
    certificates.save([GOOD], path)
    before = path.read_bytes()
    with pytest.raises(RejectedError, match=r"is no class|radius of the file"):
        certificates.save([GOOD, dataclasses.replace(GOOD, **change)], path)
    assert path.read_bytes() == before
    (kept,), _ = certificates.load(path)
    assert kept.question == GOOD.question


def test_a_network_without_relu_has_certificates_too(tmp_path):
    """Nothing to propose, and a file with no tensors."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(7, 4)).eval()
    x, y = image(net, 1, 7)
    certificates.save([make_certificate(net, x, y, 1e-4)], tmp_path / "file")
    (again,), _ = certificates.load(tmp_path / "file")
    assert check_certificate(net, x, y, 1e-4, again)[y] == 0


def test_a_process_that_dies_leaves_the_old_file(tmp_path, monkeypatch):
    """Killed before the new name is given: the old certificates are there, alone."""
    path = tmp_path / "kept.safetensors"
    certificates.save([GOOD], path, number=1)

    def die(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("os.replace", die)
    with pytest.raises(KeyboardInterrupt):
        certificates.save([GOOD, GOOD], path, number=2)
    again, notes = certificates.load(path)
    assert (len(again), notes) == (1, {"number": 1})
    assert list(tmp_path.iterdir()) == [path]


def test_too_wide_an_interval_is_not_stored(tmp_path):
    """What does not fit 32 bits is refused, never wrapped."""
    huge = changed(GOOD, "upper", 0, 0, 2**40)
    with pytest.raises(OverflowError):
        certificates.save([huge], tmp_path / "huge.safetensors")


def committed() -> tuple[list, dict, nn.Sequential, torch.Tensor, torch.Tensor]:
    """The committed certificates, their notes, the network and the test images."""
    found, notes = certificates.load(COMMITTED)
    dataset = data.load("mnist")
    return found, notes, zoo.load(notes["network"], dataset), *dataset.test


def check_committed(picks: range) -> None:
    """Prove the certificates ``picks`` again, and for the float program, too."""
    found, notes, net, x, y = committed()
    assert len(found) == len(notes["images"]) >= 100
    for k in picks:
        i = notes["images"][k]
        label = int(y[i])
        proved = check_certificate(net, x[i], label, notes["eps"], found[k])
        box = bounds.input_box(x[i : i + 1], notes["eps"])
        error = forward_error_bound(net, *box)[0]
        assert certificates.holds_in_floats(proved, error, label)


def test_five_committed_certificates():
    """Spread over the file."""
    try:
        check_committed(range(0, 100, 20))
    except FileNotFoundError as error:
        pytest.skip(f"MNIST is not there: {error}")


# -------------------------------------------------------- the program in floats


def absorbing(floor: float = 0.5) -> nn.Sequential:
    """Logits ``floor`` and ReLU(h - 2^24) for h = ReLU(2^24 x_0 + x_1)."""
    first, second, last = nn.Linear(2, 1), nn.Linear(1, 1), nn.Linear(1, 2)
    with torch.no_grad():
        first.weight.copy_(torch.tensor([[2.0**24, 1.0]]))
        first.bias.zero_()
        second.weight.fill_(1.0)
        second.bias.fill_(-(2.0**24))
        last.weight.copy_(torch.tensor([[0.0], [1.0]]))
        last.bias.copy_(torch.tensor([floor, 0.0]))
    return nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), last).eval()


def test_float32_and_exact_disagree_and_the_bound_knows():
    """At (1, 1) the real network says class 1, the float32 program class 0."""
    net, x = absorbing(), torch.ones(2)
    exact = exact_logits(net, x)
    assert exact == [Fraction(1, 2), 1]
    assert net(x[None]).tolist() == [[0.5, 0.0]]
    error = forward_error_bound(net, x[None], x[None])[0]
    assert float(error[1]) >= 1
    assert not certificates.holds_in_floats(
        [exact[1] - exact[0], Fraction(0)], error, 1
    )


@pytest.mark.parametrize(
    "method",
    [bounds.interval_margins, bounds.crown_margins, bounds.alpha_crown_margins],
)
def test_float32_bounds_certify_falsely_and_the_checker_refuses(method):
    """Jia and Rinard 2021 in small: certified in float32, broken in exact numbers."""
    net, x, y, eps = absorbing(0.6), torch.tensor([1.0, 0.5]), 0, 0.25
    labels = torch.tensor([y])
    assert bool(bounds.certified(method(net, x[None], labels, eps), labels))
    corner = torch.tensor([1.0, 0.75])
    assert (corner - x).abs().max() <= eps
    logits = exact_logits(net, corner)
    assert logits[0] < logits[1]
    low, high = bounds.input_box(x[None], eps)
    claimed = bounds.relu_bounds(net, low, high)
    steps = [[(b[0] * 2**16).long().numpy() for b in pair] for pair in claimed]
    lower, upper = zip(*steps, strict=True)
    slopes = tuple(np.ones((2, 1), dtype=np.int16) for _ in claimed)
    asked = certificates.question(net, x, y, eps)
    wrong = certificates.Certificate(y, eps, asked, lower, upper, slopes)
    refused("not implied", wrong, net=net, x=x, y=y, eps=eps)
    honest = make_certificate(net, x, y, eps)
    refused("margin", honest, net=net, x=x, y=y, eps=eps)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("scale", [1.0, 30.0])
def test_forward_errors_stay_within_their_bound(dtype, scale):
    """Float logits against unrounded ones on 60 points of a ball, several networks."""
    shares = []
    for seed in range(6):
        net = dense(40, 60, 30, 5, seed=seed, scale=scale).to(dtype)
        x = torch.rand(1, 40, generator=torch.Generator().manual_seed(seed)).to(dtype)
        low, high = bounds.input_box(x, 0.1)
        allowed = forward_error_bound(net, low, high)[0]
        share = torch.rand(10, 40, generator=torch.Generator().manual_seed(9))
        points = (low + share.to(dtype) * (high - low)).clamp(low, high)
        for point in points:
            real, said = exact_logits(net, point), net(point[None])[0]
            off = [abs(Fraction(float(v)) - r) for v, r in zip(said, real, strict=True)]
            assert all(o <= a for o, a in zip(off, allowed.tolist(), strict=True))
            shares += [float(o) / a for o, a in zip(off, allowed.tolist(), strict=True)]
    assert max(shares) > 1e-4  # rounding is there, and the bound is not absurd


def test_forward_errors_of_any_order_of_summation():
    """One dot product summed in float32 in 200 orders stays within the bound."""
    net = dense(50, 1, seed=0, scale=100.0)
    x = torch.rand(1, 50, generator=torch.Generator().manual_seed(1))
    allowed = float(forward_error_bound(net, x, x))
    terms = net[1].weight[0].numpy() * x[0].numpy()
    real = exact_logits(net, x[0])[0]
    rng = np.random.default_rng(0)
    for _ in range(200):
        total = np.float32(0)
        for term in rng.permutation(np.append(terms, net[1].bias.numpy())):
            total = np.float32(total + term)
        assert abs(Fraction(float(total)) - real) <= allowed


def test_forward_errors_refuse_convolutions():
    """Transforms such as Winograd's round otherwise."""
    x = torch.rand(1, 1, 6, 6)
    with pytest.raises(TypeError, match="Linear"):
        forward_error_bound(convolutional(), x, x)
