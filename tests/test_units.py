"""Directions in feature space against counting by hand, explicit matrices, theorems."""

import ast
import importlib
import itertools
import math
from pathlib import Path

import matplotlib as mpl
import nbformat
import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from advlib import data, models, results, units, zoo
from advlib._vision import torchvision


def generator(seed: int = 0) -> torch.Generator:
    """A fresh source of random numbers."""
    return torch.Generator().manual_seed(seed)


def matrix(rows: int, columns: int, seed: int = 0) -> torch.Tensor:
    """Gaussian features with unequal, correlated columns."""
    g = generator(seed)
    phi = torch.randn(rows, columns, generator=g, dtype=torch.float64)
    return phi @ torch.randn(columns, columns, generator=g, dtype=torch.float64) + 3


# ----------------------------------------------------------------- purity, entropy


def test_purity_and_entropy_by_hand():
    """8 equal labels; 6 and 2; four pairs."""
    labels = torch.tensor([[7] * 8, [1, 1, 1, 1, 1, 1, 0, 0], [0, 0, 1, 1, 2, 2, 3, 3]])
    assert units.purity(labels).tolist() == [1.0, 0.75, 0.25]
    six = -(0.75 * math.log2(0.75) + 0.25 * math.log2(0.25))
    assert units.entropy(labels).tolist() == pytest.approx([0.0, six, 2.0])


@pytest.mark.parametrize("sizes", [[3, 2, 4], [1, 1, 1, 5], [6]])
@pytest.mark.parametrize("k", [1, 2, 3, 5])
def test_chance_by_counting_every_set(sizes, k):
    """All sets of k images, each as likely as the others."""
    y = [c for c, size in enumerate(sizes) for _ in range(size)]
    sets = torch.tensor([list(s) for s in itertools.combinations(y, k)])
    purity, entropy = units.chance(sizes, k)
    assert purity == pytest.approx(float(units.purity(sets).mean()))
    assert entropy == pytest.approx(float(units.entropy(sets).mean()), abs=1e-12)


def test_chance_of_ten_classes_by_simulation():
    """Ten classes of 1000, eight images: about 0.30."""
    y = torch.arange(10).repeat(1000)
    g = generator()
    sets = torch.stack([y[torch.randperm(10000, generator=g)[:8]] for _ in range(4000)])
    purity, entropy = units.chance([1000] * 10, 8)
    for exact, found in (
        (purity, units.purity(sets)),
        (entropy, units.entropy(sets)),
    ):
        assert abs(exact - found.mean()) < 4 * found.std() / 4000**0.5


# ------------------------------------------------------------------------ top images


def test_top_images_by_hand():
    """Best first; ties by position; a unit is a column."""
    phi = torch.tensor([[1.0, 0.0], [3.0, 0.0], [2.0, 5.0], [3.0, 0.0]])
    top = units.top_images(phi, torch.eye(2), 3)
    assert top.tolist() == [[1, 3, 2], [2, 0, 1]]
    assert units.top_images(phi, torch.tensor([[-1.0, 0.1]]), 1).tolist() == [[0]]


def test_top_images_against_a_stable_sort_of_all():
    """Many ties, 600 directions (more than one chunk), any k."""
    phi = torch.randint(0, 3, (40, 4), generator=generator()).double()
    v = torch.randint(-1, 2, (600, 4), generator=generator(1)).double()
    v[:, 0] = 1
    for k in (1, 7, 40):
        expected = np.argsort(-(v @ phi.T).numpy(), axis=1, kind="stable")[:, :k]
        assert (units.top_images(phi, v, k).numpy() == expected).all()


def test_what_a_ranking_does_not_see():
    """A positive factor, a shift of all features, z-scores of a unit."""
    phi, v = matrix(200, 6), units.random_directions(50, 6, generator=generator())
    top = units.top_images(phi, v, 9)
    assert torch.equal(top, units.top_images(phi + torch.arange(6.0), 7 * v, 9))
    eye = torch.eye(6).double()
    scored = units.fit_transform(phi, "z-scored")(phi)
    assert torch.equal(units.top_images(phi, eye, 9), units.top_images(scored, eye, 9))


def test_turning_features_and_directions_together_changes_nothing():
    """<Q phi, Q v> = <phi, v>: the set of all directions has no favourite."""
    phi, v = matrix(200, 6), units.random_directions(50, 6, generator=generator())
    q = units.random_rotation(6, generator=generator(3))
    turned = units.top_images(phi @ q.T, v @ q.T, 9)
    assert torch.equal(units.top_images(phi, v, 9), turned)
    before, after = units.spectrum(phi), units.spectrum(phi @ q.T)
    assert torch.allclose(before, after)


def test_overlap_by_hand():
    """Pairs of rows have 2, 1 and 0 images of 2 in common."""
    assert units.overlap(torch.tensor([[4, 9], [9, 4]])) == 1.0
    assert units.overlap(torch.tensor([[4, 9], [4, 9], [9, 1]])) == pytest.approx(2 / 3)
    assert units.overlap(torch.tensor([[1, 2], [3, 4]])) == 0.0


def test_live_units():
    """Dead: constant, or above its floor on too few images."""
    phi = torch.zeros(200, 3)
    phi[:10, 1], phi[0, 2] = 1.0, 1.0
    assert units.live_units(phi).tolist() == [False, True, False]
    assert units.live_units(phi, share=0.005).tolist() == [False, True, True]


# ------------------------------------------------------------------------ directions


def test_gaussian_directions_are_uniform_on_the_sphere():
    """Length 1; mean 0; second moment I / n."""
    v = units.random_directions(40000, 5, generator=generator())
    assert torch.allclose(v.norm(dim=1), torch.ones(40000).double())
    assert v.mean(0).abs().max() < 0.015
    assert (v.T @ v / 40000 - torch.eye(5) / 5).abs().max() < 0.01


def test_uniform_vectors_are_nearly_one_direction():
    """Cosine with (1, ..., 1): sqrt(3) / 2; with each other: 3 / 4."""
    v = units.random_directions(200, 1000, generator=generator(), kind="uniform")
    ones = torch.ones(1000).double() / 1000**0.5
    assert float((v @ ones).mean()) == pytest.approx(3**0.5 / 2, abs=0.005)
    pairs = (v @ v.T).sum() - 200
    assert float(pairs / (200 * 199)) == pytest.approx(0.75, abs=0.005)
    assert v.min() >= 0


def test_principal_directions_against_the_svd():
    """Same lines, same variances; one feature alone works, too."""
    phi = matrix(300, 5)
    _, s, vt = torch.linalg.svd(phi - phi.mean(0), full_matrices=False)
    found = units.pca_directions(phi, 5)
    assert torch.allclose((found * vt).sum(1).abs(), torch.ones(5).double())
    assert torch.allclose(units.spectrum(phi), s**2 / 300)
    assert torch.allclose(found @ found.T, torch.eye(5).double(), atol=1e-12)
    assert units.pca_directions(phi[:, :1], 1).tolist() == [[1.0]]


def test_one_feature_and_one_image():
    """One column has its variance as spectrum; one row has none in any direction."""
    phi = matrix(300, 1)
    variance = float(((phi - phi.mean()) ** 2).mean())
    assert units.spectrum(phi).tolist() == pytest.approx([variance])
    assert units.effective_dimension(units.spectrum(phi)) == 1
    row = matrix(1, 4)
    assert units.spectrum(row).tolist() == [0.0] * 4
    assert torch.allclose(
        units.pca_directions(row, 4).abs().sum(1), torch.ones(4).double()
    )
    for kind in units.KINDS:
        assert units.fit_transform(phi, kind)(phi).shape == (300, 1)
        assert units.fit_transform(row, kind)(phi.expand(300, 4)).isfinite().all()
    scored = units.fit_transform(phi, "whitened")(phi)
    assert torch.allclose(scored.square().mean(), torch.tensor(1.0).double())
    one = torch.ones(1, 1).double()
    assert units.top_images(phi, one, 300)[0].tolist() == (
        phi[:, 0].sort(descending=True, stable=True).indices.tolist()
    )
    assert units.live_units(phi).tolist() == [True]
    assert units.live_units(row).tolist() == [False] * 4
    rest = models.seeded(nn.Linear, 1, 2, seed=0).double().requires_grad_(False)
    y = rest(phi).argmax(1)
    without = (rest(0 * phi).argmax(1) == y).double().mean()
    found = units.ablated_accuracy(rest, phi, y, one, [0, 1])
    assert found == [1.0, float(without)]
    assert units.random_rotation(1, generator=generator()).abs().tolist() == [[1.0]]


@pytest.mark.parametrize("value", [0.1, 1 / 3, 7.7])
@pytest.mark.parametrize("rows", [7, 50])
def test_constant_features_have_no_variance(value, rows):
    """Not even that of rounding, which whitening would blow up to 1."""
    phi = torch.full((rows, 3), value, dtype=torch.float64)
    assert units.spectrum(phi).tolist() == [0.0, 0.0, 0.0]
    with pytest.raises(ValueError, match="no eigenvalue"):
        units.effective_dimension(units.spectrum(phi))
    for kind in ("z-scored", "whitened"):
        assert units.fit_transform(phi, kind)(phi).abs().max() == 0


def test_effective_dimension():
    """r equal eigenvalues count r; one dominating counts 1."""
    assert units.effective_dimension(torch.tensor([2.0, 2, 2, 0])) == pytest.approx(3)
    assert units.effective_dimension(torch.tensor([1.0, 1e-9])) == pytest.approx(1)


# ------------------------------------------------------------------------ transforms


def test_transforms_make_what_they_promise():
    """Means, variances, covariance; new features are mapped by the old fit."""
    phi = matrix(400, 5)
    made = {kind: units.fit_transform(phi, kind)(phi) for kind in units.KINDS}
    assert torch.equal(made["raw"], phi)
    for kind in units.KINDS[1:]:
        assert made[kind].mean(0).abs().max() < 1e-10
    ones, eye = torch.ones(5).double(), torch.eye(5).double()
    assert torch.allclose(made["z-scored"].var(0, correction=0), ones)
    assert torch.allclose(torch.cov(made["whitened"].T, correction=0), eye)
    single = units.fit_transform(phi, "whitened")(phi[:1])
    assert torch.allclose(single, made["whitened"][:1])


def test_whitening_is_the_symmetric_one():
    """The matrix is symmetric and positive: the nearest whitened features."""
    phi = matrix(400, 5)
    w = units.fit_transform(phi, "whitened").matrix
    assert torch.allclose(w, w.T)
    assert torch.linalg.eigvalsh(w).min() > 0
    assert torch.allclose(w @ torch.cov(phi.T, correction=0) @ w, torch.eye(5).double())


@pytest.mark.parametrize("kind", units.KINDS)
def test_a_dead_unit_does_no_harm(kind):
    """A constant column becomes 0, or stays; no NaN."""
    phi = torch.cat([matrix(100, 3), torch.zeros(100, 1)], dim=1)
    out = units.fit_transform(phi, kind)(phi)
    assert out.isfinite().all()
    assert out[:, 3].abs().max() < 1e-9


# ---------------------------------------------------------------- groups, verdicts


def test_mean_difference_covers_at_its_rate():
    """Of 400 intervals between two known means about 95 % hold the difference."""
    rng, hits = np.random.default_rng(0), 0
    for trial in range(400):
        a, b = rng.normal(1, 1, 60), rng.normal(0.5, 2, 200)
        mean, low, high = units.mean_difference(a, b, seed=trial)
        assert mean == pytest.approx(a.mean() - b.mean())
        hits += low <= 0.5 <= high
    assert 0.91 < hits / 400 < 0.98


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (-0.02, 0.03, "no difference"),
        (0.01, 0.03, "negligible"),  # not 0, but within the tolerance
        (-0.03, -0.01, "negligible"),
        (0.0, 0.03, "no difference"),
        (0.01, 0.08, "difference"),
        (-0.2, -0.1, "difference"),
        (-0.01, 0.05, "undecided"),
        (-0.3, 0.4, "undecided"),
    ],
)
def test_verdict(low, high, expected):
    """With the tolerance 0.05."""
    assert units.verdict(low, high, 0.05) == expected


# ------------------------------------------------------------------------- rotations


def two_layers(middle: nn.Module) -> nn.Sequential:
    """Linear, something, Linear, in float64."""

    def build() -> nn.Sequential:
        return nn.Sequential(nn.Linear(7, 6), middle, nn.Linear(6, 3))

    return models.seeded(build, seed=0).double().requires_grad_(False)


def turned(model: nn.Sequential, q: torch.Tensor) -> nn.Sequential:
    """The same with the middle features turned by ``q``."""
    first, last = units.rotate(model[0], model[2], q)
    return nn.Sequential(first, model[1], last).eval()


def test_a_rotation_is_orthogonal_and_random():
    """Q Q^T = I; entries of mean 0, variance 1 / n; both determinants occur."""
    qs = [units.random_rotation(4, generator=generator(i)) for i in range(300)]
    for q in qs:
        assert torch.allclose(q @ q.T, torch.eye(4).double())
    stack = torch.stack(qs)
    assert stack.mean(0).abs().max() < 4 * 0.5 / 300**0.5
    assert (stack.square().mean(0) - 0.25).abs().max() < 0.08
    assert len({round(float(torch.det(q))) for q in qs}) == 2


def test_rotation_keeps_the_function_of_a_linear_boundary():
    """To rounding: W2 Q^T (Q W1 x + Q b1) + b2; the given layers are left alone."""
    model, x = two_layers(nn.Identity()), matrix(20, 7)
    before = [p.clone() for p in model.parameters()]
    q = units.random_rotation(6, generator=generator())
    assert torch.allclose(model(x), turned(model, q)(x), atol=1e-10)
    pairs = zip(before, model.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    hidden = model[0](x)
    assert torch.allclose(turned(model, q)[0](x), hidden @ q.T)


@pytest.mark.parametrize("middle", [nn.ReLU(), nn.Sigmoid(), nn.Tanh()])
def test_elementwise_functions_break_the_symmetry(middle):
    """A rotation changes the function, a permutation does not."""
    model, x = two_layers(middle), matrix(20, 7) / 5
    q = units.random_rotation(6, generator=generator())
    assert (model(x) - turned(model, q)(x)).abs().max() > 0.05
    order = torch.eye(6).double()[torch.randperm(6, generator=generator())]
    assert torch.allclose(model(x), turned(model, order)(x), atol=1e-10)


# -------------------------------------------------------------------------- ablation


def problem() -> tuple[nn.Sequential, torch.Tensor, torch.Tensor]:
    """A readout of 5 features that is right on all 200 rows."""
    rest = models.seeded(nn.Linear, 5, 4, seed=0).double().requires_grad_(False)
    phi = matrix(200, 5) - 3
    return rest, phi, rest(phi).argmax(1)


@pytest.mark.parametrize("centred", [False, True])
def test_ablation_against_explicit_projectors(centred):
    """P = I - A (A^T A)^-1 A^T for the first k directions, none or all included."""
    rest, phi, y = problem()
    v = units.random_directions(5, 5, generator=generator())
    center = phi.mean(0) if centred else None
    c = phi.mean(0) if centred else torch.zeros(5).double()
    found = units.ablated_accuracy(rest, phi, y, v, range(6), center=center)
    for k in range(6):
        a = v[:k].T
        p = torch.eye(5) - a @ torch.linalg.inv(a.T @ a) @ a.T
        expected = (rest((phi - c) @ p + c).argmax(1) == y).double().mean()
        assert found[k] == pytest.approx(float(expected))
    assert found[0] == 1.0
    constant = rest(c).argmax()
    assert found[5] == pytest.approx(float((y == constant).double().mean()))


def test_ablating_units_is_setting_them_to_zero():
    """As a mask does."""
    rest, phi, y = problem()
    order = [3, 0, 4]
    found = units.ablated_accuracy(rest, phi, y, torch.eye(5)[order], [0, 1, 2, 3])
    for k in range(4):
        masked = phi.clone()
        masked[:, order[:k]] = 0
        assert found[k] == float((rest(masked).argmax(1) == y).double().mean())


def test_ablation_in_the_coordinates_of_a_turned_layer():
    """Ablating Q v from turned features is ablating v from the others."""
    rest, phi, y = problem()
    v = units.random_directions(5, 5, generator=generator())
    q = units.random_rotation(5, generator=generator(1))
    _, other = units.rotate(nn.Linear(1, 5).double(), rest, q)
    one = units.ablated_accuracy(rest, phi, y, v, range(6))
    assert units.ablated_accuracy(other, phi @ q.T, y, v @ q.T, range(6)) == one


# -------------------------------------------------------------------------- features


def test_features_are_the_layers_output():
    """Any layer, counted from either end, flattened, whatever the batches."""
    model = models.seeded(models.cnn_deep, (1, 8, 8), seed=0)
    x = torch.rand(23, 1, 8, 8, generator=generator())
    for layer in (0, 3, -2, len(model) - 1):
        with torch.no_grad():
            expected = model[: layer % len(model) + 1](x).flatten(1).double()
        found = units.features(model, x, layer, batch_size=7)
        assert torch.allclose(found, expected, atol=1e-6)
    assert units.features(model, x, -2).shape == (23, 100)


@pytest.mark.parametrize("build", [models.cnn_shallow, models.cnn_deep])
@pytest.mark.parametrize("shape", [(1, 8, 8), (1, 28, 28), (3, 32, 32)])
def test_the_two_architectures_have_a_hundred_units(build, shape):
    """And the same sizes behind the first layer, for every shape of image."""
    model = models.seeded(build, shape, seed=0)
    grey = models.seeded(build, (1, 28, 28), seed=0)
    pairs = list(zip(model.parameters(), grey.parameters(), strict=True))
    assert all(a.shape == b.shape for a, b in pairs[1:])
    assert model[-1].in_features == 100


# ------------------------------------------------------------------------- bad input


PHI, V = torch.rand(10, 4, generator=generator()), torch.eye(4)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: units.top_images(PHI, V, 11), "1 <= k <= 10"),
        (lambda: units.top_images(PHI, V, 0), "1 <= k <= 10"),
        (lambda: units.top_images(PHI, torch.eye(3), 2), "3 columns, not 4"),
        (lambda: units.top_images(PHI, torch.zeros(1, 4), 2), "direction is 0"),
        (lambda: units.top_images(PHI * torch.nan, V, 2), "NaN"),
        (lambda: units.top_images(PHI, V / 0, 2), "NaN"),
        (lambda: units.top_images(PHI[0], V, 2), "must be a matrix"),
        (lambda: units.purity(torch.tensor([1, 2])), "shape"),
        (lambda: units.purity(torch.tensor([[1, -2]])), ">= 0"),
        (lambda: units.chance([3, 3], 7), "1 <= k <= 6"),
        (lambda: units.chance([], 1), "1 <= k <= 0"),
        (lambda: units.overlap(torch.tensor([[1, 2]])), "two rows"),
        (lambda: units.overlap(torch.tensor([[1, 1], [1, 2]])), "twice"),
        (lambda: units.random_directions(0, 4, generator=generator()), "num and n"),
        (
            lambda: units.random_directions(2, 4, generator=generator(), kind="box"),
            "gaussian",
        ),
        (lambda: units.random_rotation(0, generator=generator()), "n >= 1"),
        (lambda: units.pca_directions(PHI, 5), "1 <= num <= 4"),
        (lambda: units.effective_dimension(torch.zeros(3)), "positive"),
        (lambda: units.fit_transform(PHI, "rotated"), "none of"),
        (lambda: units.fit_transform(PHI, "raw")(PHI[:, :2]), "2 columns"),
        (lambda: units.mean_difference([1.0], [1.0, 2.0]), "two or more"),
        (lambda: units.mean_difference([1.0, np.nan], [1.0, 2.0]), "finite"),
        (lambda: units.verdict(0.2, 0.1, 0.05), "low <= high"),
        (lambda: units.verdict(0.1, 0.2, 0.0), "tolerance > 0"),
        (lambda: units.rotate(nn.Linear(2, 3), nn.Linear(4, 2), torch.eye(3)), "fit"),
        (
            lambda: units.rotate(nn.Linear(2, 3), nn.Linear(3, 2), 2 * torch.eye(3)),
            "orthogonal",
        ),
    ],
)
def test_bad_input_raises(call, message):
    """ValueError that names the fault."""
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize(
    "call",
    [
        lambda: units.top_images(PHI.long(), V, 2),
        lambda: units.purity(torch.ones(2, 2)),
        lambda: units.features(nn.Linear(4, 2).eval(), PHI, 0),
    ],
)
def test_wrong_types_raise(call):
    """TypeError."""
    with pytest.raises(TypeError):
        call()


def test_bad_models_and_layers_raise():
    """Train mode, a layer that is not there, images out of range."""
    model = models.seeded(models.small, (1, 2, 2), seed=0)
    x = torch.rand(3, 1, 2, 2, generator=generator())
    with pytest.raises(ValueError, match="no layer 9"):
        units.features(model, x, 9)
    with pytest.raises(ValueError, match="0, 1"):
        units.features(model, x * 255, -2)
    with pytest.raises(ValueError, match="train mode"):
        units.features(model.train(), x, -2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"directions": torch.ones(2, 5)}, "independent"),
        ({"directions": torch.rand(6, 5)}, "independent"),
        ({"counts": [6]}, "0..5"),
        ({"y": torch.zeros(3).long()}, "one label"),
        ({"phi": torch.full((200, 5), torch.nan)}, "NaN"),
        ({"directions": torch.eye(4)}, "4 columns"),
    ],
)
def test_bad_ablations_raise(change, message):
    """ValueError that names the fault."""
    rest, phi, y = problem()
    given = {"phi": phi, "y": y, "directions": torch.eye(5), "counts": [1]} | change
    with pytest.raises(ValueError, match=message):
        units.ablated_accuracy(rest, **given)
    with pytest.raises(ValueError, match="train mode"):
        units.ablated_accuracy(rest.train(), phi, y, torch.eye(5), [1])


# ----------------------------------------------------------------------- devices

MAKERS = {"zeros", "ones", "full", "empty", "eye", "arange", "linspace"}
MAKERS |= {"rand", "randn", "randint", "randperm", "tensor"}


def test_what_is_made_stands_where_the_input_is():
    """A tensor from nothing would be on the CPU, and meet features of a GPU."""
    tree = ast.parse(Path(units.__file__).read_text("utf-8"))
    made = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in (
            "draw",  # random_directions' name for two of them
            *(f"torch.{name}" for name in MAKERS),
        ):
            made.append(node.lineno)
            keywords = {keyword.arg for keyword in node.keywords}
            assert "device" in keywords, f"units.py:{node.lineno}"
    assert len(made) >= 4


# --------------------------------------------------------- AlexNet and a folder


@pytest.fixture
def random_alexnet(monkeypatch, tmp_path):
    """Let torchvision build AlexNet with random weights, a stand-in in the cache."""
    kinds = torchvision().models
    build = kinds.alexnet
    name = Path(kinds.AlexNet_Weights.IMAGENET1K_V1.url).name
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / name).touch()

    def alexnet(*, weights):
        assert weights is kinds.AlexNet_Weights.IMAGENET1K_V1
        with torch.random.fork_rng():
            torch.manual_seed(0)
            return build(weights=None)

    monkeypatch.setattr(kinds, "alexnet", alexnet)
    return alexnet


@pytest.fixture
def photos(tmp_path):
    """A folder of 12 generated pictures, three classes, odd sizes, one of them grey."""
    rng = np.random.default_rng(0)
    for i in range(12):
        folder = tmp_path / "photos" / f"class_{i % 3}"
        folder.mkdir(parents=True, exist_ok=True)
        sides = (40, 61) if i == 5 else (50 + i, 43, 3)
        picture = Image.fromarray(rng.integers(256, size=sides, dtype=np.uint8))
        picture.save(folder / f"{i:02}.{'png' if i % 2 else 'JPEG'}")
    (tmp_path / "photos" / "class_0" / "notes.txt").touch()
    return tmp_path / "photos"


def test_alexnet_is_the_same_network_cut_into_layers(random_alexnet):
    """Same logits as torchvision's module on images normalised by hand."""
    weights = torchvision().models.AlexNet_Weights.IMAGENET1K_V1
    model = zoo.imagenet_alexnet()
    x = torch.rand(2, 3, 224, 224, generator=generator())
    normalize = torchvision().transforms.functional.normalize
    preset = weights.transforms()
    with torch.no_grad():
        whole = random_alexnet(weights=weights).eval()
        expected = whole(normalize(x, preset.mean, preset.std))
        assert torch.allclose(model(x), expected, atol=1e-5)
    phi = units.features(model, x, -2)
    assert phi.shape == (2, 4096)
    assert phi.min() >= 0


def test_alexnet_without_weights(monkeypatch, tmp_path):
    """Nothing is downloaded unasked."""
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"alexnet.*download=True"):
        zoo.imagenet_alexnet()


def test_a_folder_of_images(photos):
    """Classes are sub-folders; other files are left out; an empty one is refused."""
    files, labels, names = data.image_folder(photos)
    assert names == ["class_0", "class_1", "class_2"]
    assert labels.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    x = data.read_images(files, 32)
    assert x.shape == (12, 3, 32, 32)
    assert 0 <= x.min() < x.max() <= 1
    with pytest.raises(FileNotFoundError, match="no images"):
        data.image_folder(photos / "class_0")


def test_the_middle_is_cut_out(tmp_path):
    """A 64 x 128 picture, dark but for its middle: scaled to 37, then 32 of it."""
    pixels = np.zeros((64, 128, 3), np.uint8)
    pixels[:, 32:96] = 255
    Image.fromarray(pixels).save(tmp_path / "wide.png")
    x = data.read_images([tmp_path / "wide.png"], 32)
    assert x.shape == (1, 3, 32, 32)
    assert x.min() == 1  # 32 of 74 columns, all within the middle half


def test_the_cell_of_the_chapter_runs(random_alexnet, photos, monkeypatch, capsys):
    """With weights and folder present it draws; without the folder it says so."""
    mpl.use("Agg")
    chapter = Path(__file__).parent.parent / "chapters/09a_units_and_directions.ipynb"
    cells = {c.id: c.source for c in nbformat.read(chapter, 4).cells}
    space: dict = {}
    exec(cells["first-cell"].split("\n\n")[0], space)
    exec(cells["alexnet"], space)
    for folder, said in ((None, "not run"), (photos, "purity")):
        if folder:
            monkeypatch.setenv("ADVLIB_IMAGENET_FOLDER", str(folder))
        exec(cells["alexnet-run"], space)
        assert said in capsys.readouterr().out


# -------------------------------------------------------------------- the record


def test_the_record_is_whole():
    """Two data sets x two architectures x three seeds, trained and not; numbers fit."""
    stored = results.load("units")["data"]
    cells = {(r["data"], r["network"], r["trained"]) for r in stored["rows"]}
    for dataset, build, seed, trained in itertools.product(
        ("mnist", "cifar10_jpeg"),
        ("cnn_shallow", "cnn_deep"),
        range(3),
        (True, False),
    ):
        assert (dataset, f"{build}_{seed}", trained) in cells
    for row in stored["rows"]:
        for found in row["kinds"].values():
            for k, numbers in found.items():
                assert all(1 / int(k) <= p <= 1 for p in numbers["purity"].values())
                mean, low, high = numbers["difference"]
                assert low < mean < high
                purity = numbers["purity"]
                assert mean == pytest.approx(
                    purity["units"] - purity["gaussian"], abs=2e-4
                )
        if "raw" in row["kinds"] and "centred" in row["kinds"]:  # the same ranking
            raw, centred = (row["kinds"][k]["8"]["purity"] for k in ("raw", "centred"))
            assert raw["units"] == centred["units"]
            assert raw["gaussian"] == pytest.approx(centred["gaussian"], abs=2e-3)
    twelve = [r for r in stored["rows"] if "ablation" in r]
    for row in twelve:
        for center in ("mean", "zero"):
            curves = np.array(row["ablation"][center]["units"])
            assert curves.shape == (10, len(row["ablation"]["shares"]))
            assert (curves[:, 0] == curves[0, 0]).all()  # nothing removed yet


@pytest.mark.skipif(
    not any((root / "MNIST/raw").is_dir() for root in data.roots()),
    reason="MNIST's files are not on disk",
)
@pytest.mark.parametrize("network", ["cnn_shallow_1", "cnn_deep_2"])
def test_a_cell_of_the_record_is_measured_again(network):
    """Purity of units and of other random directions, from the committed weights."""
    mnist, stored = data.load("mnist"), results.load("units")["data"]
    (row,) = [
        r
        for r in stored["rows"]
        if r["network"] == network and r["data"] == "mnist" and r["trained"]
    ]
    model, (x, y) = zoo.load(network, mnist), mnist.test
    live = units.live_units(units.features(model, mnist.validation[0], -2))
    phi = units.features(model, x, -2)[:, live]
    assert phi.shape[1] == row["shape"]["live"]
    v = units.random_directions(1000, phi.shape[1], generator=generator(99))
    eye = torch.eye(phi.shape[1])
    for name, d, within in (("units", eye, 0.003), ("gaussian", v, 0.03)):
        found = units.purity(y[units.top_images(phi, d, 8)]).mean()
        expected = row["kinds"]["raw"]["8"]["purity"][name]
        assert float(found) == pytest.approx(expected, abs=within)


# ------------------------------------------------- the record of the turned bases


@pytest.fixture
def turned_bases(monkeypatch):
    """The module of the experiment, which finds its neighbours by their names."""
    folder = Path(__file__).parent.parent / "tools/experiments"
    monkeypatch.syspath_prepend(str(folder))
    return importlib.import_module("units_axes")


def test_own_axes_stand_out_where_they_are_special(turned_bases, monkeypatch):
    """Classes along the axes: no turned basis is as pure. In a turned copy some are."""
    monkeypatch.setattr(turned_bases, "BASES", 19)
    y = torch.arange(6).repeat(50)
    g = generator(2)
    phi = 2 * torch.eye(6).double()[y] + torch.randn(300, 6, generator=g).double()
    found = turned_bases.own_and_others(phi, y, 0)
    assert all(o < found["purity"]["own"] for o in found["purity"]["others"])
    assert all(o > found["entropy"]["own"] for o in found["entropy"]["others"])
    spun = phi @ units.random_rotation(6, generator=generator(7)).T
    found = turned_bases.own_and_others(spun, y, 0)
    assert any(o >= found["purity"]["own"] for o in found["purity"]["others"])


def test_variance_between_the_classes_by_hand(turned_bases):
    """Two classes at -1 and 1, each with spread 1: half; none where means agree."""
    phi = torch.tensor([[-2.0], [0.0], [0.0], [2.0]])
    share = turned_bases.between_share
    assert share(phi, torch.tensor([0, 0, 1, 1])) == pytest.approx(0.5)
    assert share(phi, torch.tensor([0, 1, 1, 0])) == pytest.approx(0)


def test_the_record_of_the_turned_bases_is_whole():
    """Twelve networks, trained and not; 99 bases; the purity of units as in ``units``.

    At the logits, where a unit is a class, the axes win; at the outputs of the softmax
    the score cannot tell.
    """
    content, grid = results.load("units_axes")["data"], results.load("units")["data"]
    assert len(content["rows"]) == 24
    known = {(r["data"], r["network"], r["trained"]): r["kinds"] for r in grid["rows"]}
    for row in content["rows"]:
        kinds = known[row["data"], row["network"], row["trained"]]
        for kind, found in row["kinds"].items():
            assert len(found["purity"]["others"]) == content["bases"] == 99
            expected = kinds[kind]["8"]["purity"]["units"]
            assert found["purity"]["own"] == pytest.approx(expected, abs=2e-3)
        if row["trained"]:
            logits, outputs = row["logits"], row["softmax"]
            assert units.verdict(*logits["difference"][1:], 0.05) == "difference"
            assert abs(outputs["difference"][0]) < 0.05
            beaten = sum(
                o > logits["purity"]["own"] for o in logits["purity"]["others"]
            )
            assert beaten == 0
