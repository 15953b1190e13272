"""What the checker reads: the right numbers, of the network that runs, or nothing."""

import ast
import copy
from collections import OrderedDict
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from strange import NegatedNumbers
from torch import nn
from torch.nn.modules.module import (
    register_module_forward_hook,
    register_module_forward_pre_hook,
)
from torch.nn.utils import parametrizations, parametrize, prune
from torch.nn.utils import spectral_norm as old_spectral_norm
from torch.utils._python_dispatch import TorchDispatchMode

import advlib
from advlib import bounds, certificates, models
from advlib.networks import canonical, gate
from advlib.proof import reading
from advlib.proof.certificates import (
    RejectedError,
    check_certificate,
    exact_logits,
    forward_error_bound,
    make_certificate,
)

PACKAGE = Path(advlib.__file__).parent
SHAPE = (1, 2, 2)
X = torch.tensor([[[0.25, 0.5], [0.75, 0.125]]])
EPS = 2.0**-10


def network(hidden: int = 5, classes: int = 3, seed: int = 0) -> nn.Sequential:
    """Flatten, Linear, ReLU, Linear on 2 x 2 pixels."""
    return models.seeded(models.mlp, SHAPE, [hidden], classes, seed=seed).eval()


def label(net: nn.Module, x: torch.Tensor = X) -> int:
    """The class that the network gives to ``x``."""
    return int(net(x[None]).argmax())


def ask(net: nn.Module) -> dict:
    """Everything here that reads the weights of a network."""
    honest = network()
    good = make_certificate(honest, X, label(honest), EPS)
    box = X[None], X[None]
    return {
        "exact_logits": lambda: exact_logits(net, X),
        "question": lambda: certificates.question(net, X, 0, EPS),
        "make_certificate": lambda: make_certificate(net, X, 0, EPS),
        "check_certificate": lambda: check_certificate(net, X, good.label, EPS, good),
        "forward_error_bound": lambda: forward_error_bound(net, *box),
    }


# --------------------------------------------------------------- the right numbers

CONVOLUTIONS = {
    "plain": ((2, 3, 3), {}),
    "stride": ((2, 3, 3), {"stride": 2}),
    "padding": ((2, 3, 3), {"padding": 1}),
    "all unequal": ((2, 4, (2, 3)), {"stride": (2, 1), "padding": (0, 2)}),
    "dilation": ((2, 2, 2), {"dilation": (2, 3), "padding": 1}),
    "groups": ((2, 4, 3), {"groups": 2, "padding": 1}),
    "depthwise": ((2, 2, 3), {"groups": 2, "stride": 2}),
    "no bias": ((2, 3, 3), {"bias": False}),
    "valid": ((2, 3, 3), {"padding": "valid"}),
    "same": ((2, 3, 3), {"padding": "same"}),
    "same, an even kernel": ((2, 3, (2, 4)), {"padding": "same"}),
    "same, dilated": ((2, 3, 2), {"padding": "same", "dilation": (1, 3)}),
    "larger than the image": ((2, 2, 7), {"padding": 2, "stride": 3}),
}


def eighths(net: nn.Module) -> nn.Module:
    """Weights on multiples of 1/8: float64 computes with them without rounding."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in net.parameters():
            p.copy_(torch.randint(-16, 17, p.shape, generator=generator) / 8)
    return net.eval()


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_a_convolution_is_gathered_right(name):
    """Equal, not close: against PyTorch where float64 does not round."""
    shape, options = CONVOLUTIONS[name]
    net = eighths(nn.Sequential(nn.Conv2d(*shape, **options), nn.Flatten()))
    generator = torch.Generator().manual_seed(1)
    x = torch.randint(0, 9, (2, 6, 5), generator=generator) / 8
    expected = copy.deepcopy(net).double()(x[None].double())[0]
    assert exact_logits(net, x) == [Fraction(v) for v in expected.tolist()]
    assert len(set(expected.tolist())) >= 4


def test_options_changed_after_the_layer_was_made():
    """What runs is read: the attributes at this moment, numbers or pairs."""
    net = eighths(nn.Sequential(nn.Conv2d(2, 3, 3), nn.Flatten()))
    x = torch.ones(2, 6, 5) / 2
    net[0].stride, net[0].padding = 2, (1,)
    assert exact_logits(net, x) == [Fraction(v) for v in net(x[None])[0].tolist()]


@pytest.mark.parametrize(
    "dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64]
)
def test_every_float_is_read_exactly(dtype):
    """The logits are the fractions' of the stored numbers, as float64 holds them."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    with torch.no_grad():
        for p in net.parameters():
            p.copy_(torch.randn(p.shape, generator=torch.Generator().manual_seed(2)))
    net, x = net.to(dtype).eval(), torch.rand(SHAPE).to(dtype)
    values = [Fraction(v) for v in x.double().flatten().tolist()]
    for k in (1, 3):
        if k > 1:
            values = [max(v, Fraction(0)) for v in values]
        rows = net[k].weight.double().tolist(), net[k].bias.double().tolist()
        values = [
            sum(
                (Fraction(w) * v for w, v in zip(row, values, strict=True)), Fraction(b)
            )
            for row, b in zip(*rows, strict=True)
        ]
    assert exact_logits(net, x) == values
    y = int(values[1] > values[0])
    proved = check_certificate(net, x, y, 1e-6, make_certificate(net, x, y, 1e-6))
    assert 0 < proved[1 - y] <= values[y] - values[1 - y]


def test_images_of_another_dtype():
    """Float64 pixels on a float32 network are numbers as any others, and their own."""
    net = network()
    y, fine = label(net), X.double() + 2.0**-40
    good = make_certificate(net, fine, y, EPS)
    assert min(m for m in check_certificate(net, fine, y, EPS, good) if m) > 0
    with pytest.raises(RejectedError, match="another image"):
        check_certificate(net, X, y, EPS, good)


class Far(torch.Tensor):
    """Numbers on another device: NumPy gets them only by way of ``cpu``."""

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        """As a tensor, but for its device and the ways to NumPy."""
        if func == torch.Tensor.device.__get__:
            return torch.device("cuda", 0)
        if func in (torch.Tensor.numpy, torch.Tensor.__array__):
            raise TypeError("can't convert cuda:0 device type tensor to numpy")
        found = super().__torch_function__(func, types, args, kwargs or {})
        return found.as_subclass(torch.Tensor) if func is torch.Tensor.cpu else found


def test_another_device():
    """Weights and images are brought to the CPU where they are read."""
    net = network()
    expected = exact_logits(net, X)
    for layer in (net[1], net[3]):
        for name in ("weight", "bias"):
            far = getattr(layer, name).detach().as_subclass(Far)
            layer._parameters[name] = nn.Parameter(far)
    assert isinstance(net[1].weight, Far)
    assert exact_logits(net, X.as_subclass(Far)) == expected


def test_a_large_convolution_is_refused():
    """Before anything is allocated; the message tells the sizes."""
    net = nn.Sequential(nn.Conv2d(3, 64, 3, padding=1), nn.Flatten()).eval()
    with pytest.raises(ValueError, match=r"65536 x 3072, too large"):
        exact_logits(net, torch.rand(3, 32, 32))


# ------------------------------------------------------------- no code is shared


def imported(module: str) -> set[str]:
    """The modules of advlib that ``module`` imports, directly or through others."""
    seen, left = set(), [module]
    while left:
        name = left.pop()
        path = PACKAGE / Path(*name.split("."))
        path = path.with_suffix(".py") if path.with_suffix(".py").exists() else None
        if name in seen or path is None:
            seen.add(name)
            continue
        seen.add(name)
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module.startswith("advlib"):
                inner = node.module.removeprefix("advlib").lstrip(".")
                whole = [f"{inner}.{a.name}".lstrip(".") for a in node.names]
                left += [inner, *whole] if inner else whole
    return {
        n for n in seen if (PACKAGE / Path(*n.split("."))).with_suffix(".py").exists()
    }


def test_the_checker_imports_nothing_of_the_proposer():
    """Neither networks nor bounds, not even through what it imports."""
    used = imported("proof.checker")
    allowed = {"_check", "files", "proof.checker", "proof.reading", "proof.arithmetic"}
    assert used == allowed | {"proof.files", "proof.questions"}
    assert "networks.canonical" in imported("proof.certificates")


class Recorder(TorchDispatchMode):
    """Notes every kernel of PyTorch that is called."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        """Call it, and keep its name."""
        self.names.add(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


def test_no_kernel_of_torch_computes():
    """Reading detaches, checking the question compares pixels; nothing multiplies."""
    net = nn.Sequential(
        nn.Conv2d(1, 2, 2, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(18, 3)
    ).eval()
    y = label(net)
    good = make_certificate(net, X, y, EPS)
    with Recorder() as seen:
        exact_logits(net, X)
    assert seen.names <= {"detach", "alias"}
    with Recorder() as seen:
        check_certificate(net, X, y, EPS, good)
    compares = {"min", "max", "ge", "lt", "le", "all", "bitwise_and", "unsqueeze"}
    reads = {"detach", "alias", "lift_fresh", "_local_scalar_dense", "_to_copy"}
    assert seen.names <= compares | reads
    assert {"mm", "addmm", "convolution"}.isdisjoint(seen.names)


def transposed(layer, shape):
    """A bug: the kernel's axes swapped."""
    other = copy.deepcopy(layer)
    if isinstance(layer, nn.Conv2d):
        other.weight.data = layer.weight.data.transpose(2, 3).contiguous()
    return RIGHT(other, shape)


def without_bias(layer, shape):
    """A bug: the bias is lost."""
    weight, bias = RIGHT(layer, shape)
    return weight, torch.zeros_like(bias)


def shifted(layer, shape):
    """A bug: every pixel taken for its neighbour."""
    weight, bias = RIGHT(layer, shape)
    return weight.roll(1, 1), bias


def halved(layer, shape):
    """A bug: the last layer's logits are half as far apart."""
    weight, bias = RIGHT(layer, shape)
    return weight / 2, bias / 2


RIGHT = canonical.affine_matrix
BUGS = [transposed, without_bias, shifted, halved]


def convolutional(seed: int) -> nn.Sequential:
    """A convolution and two dense layers on 4 x 4 pixels, with large biases."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        first = nn.Conv2d(1, 2, 3, stride=(1, 2), padding=1)
        net = nn.Sequential(first, nn.ReLU(), nn.Flatten(), nn.Linear(16, 4))
        nn.init.normal_(net[0].bias)
        nn.init.normal_(net[3].bias)
    return net.requires_grad_(False).eval()


@pytest.mark.parametrize("bug", BUGS, ids=lambda b: b.__name__)
def test_a_bug_in_what_proposes_is_caught(bug, monkeypatch):
    """Planted in the canonical form: refused, or what is proved is true all the same.

    Against the corners and random points of the ball, in float64. The radius is large
    for the network with the bug and small for the other, so that both occur.
    """
    monkeypatch.setattr(canonical, "affine_matrix", bug)
    monkeypatch.setattr(certificates, "affine_matrix", bug)
    generator, refusals = torch.Generator().manual_seed(0), 0
    for seed in range(8):
        net = convolutional(seed)
        x = torch.rand(1, 4, 4, generator=generator)
        for y in (label(net, x), (label(net, x) + 1) % 4):
            claim = make_certificate(net, x, y, 0.03)
            try:
                proved = check_certificate(net, x, y, 0.03, claim)
            except RejectedError:
                refusals += 1
                continue
            steps = 2 * torch.rand(300, 1, 4, 4, generator=generator).double() - 1
            steps[:150] = steps[:150].sign()
            z = copy.deepcopy(net).double()((x + 0.03 * steps).clamp(0, 1))
            least = (z[:, [y]] - z).amin(0)
            assert all(
                float(m) <= v + 1e-9
                for m, v in zip(proved, least.tolist(), strict=True)
            )
            assert y == label(net, x)
    assert refusals >= 8  # at least the wrong labels


def test_a_bug_in_the_convolution_of_torch_is_caught(monkeypatch):
    """The proposer runs it on unit vectors; the checker does not."""
    net, x = convolutional(0), torch.rand(1, 4, 4)
    y, logits = label(net, x), exact_logits(net, x)
    run = nn.Conv2d._conv_forward

    def wrong(self, values, weight, bias):
        return run(self, values, weight.flip(3), bias)

    monkeypatch.setattr(nn.Conv2d, "_conv_forward", wrong)
    for read in (exact_logits, make_certificate):
        with pytest.raises(TypeError, match=r"replaced Conv2d\._conv_forward"):
            read(net, x) if read is exact_logits else read(net, x, y, 0.001)
    monkeypatch.setattr(reading, "_CALLED", [])  # as if torch itself were wrong
    monkeypatch.setattr(gate, "_OWN", [])
    assert exact_logits(net, x) == logits
    with pytest.raises(RejectedError, match="not implied"):
        check_certificate(net, x, y, 0.001, make_certificate(net, x, y, 0.001))


@pytest.mark.parametrize("name", ["__call__", "_call_impl"])
def test_a_method_of_every_module_that_a_program_replaced(name, monkeypatch):
    """What runs is then not what the weights say, for the checker either."""
    net, x = network(), X
    y, own = label(net), getattr(nn.Module, name)
    claim = make_certificate(net, x, y, EPS)
    monkeypatch.setattr(nn.Module, name, lambda self, *a: -own(self, *a))
    for read in (
        lambda: check_certificate(net, x, y, EPS, claim),
        lambda: exact_logits(net, x),
        lambda: make_certificate(net, x, y, EPS),
    ):
        with pytest.raises(TypeError, match=f"replaced Module.{name}"):
            read()


def test_numbers_of_a_class_of_their_own():
    """Its stored numbers are not what it computes with."""
    net = network()
    y, claim = label(net), make_certificate(net, X, label(net), EPS)
    net[-1].weight = NegatedNumbers(net[-1].weight.detach())
    with pytest.raises(TypeError, match="are a NegatedNumbers"):
        check_certificate(net, X, y, EPS, claim)
    with pytest.raises(TypeError, match="a NegatedNumbers"):
        make_certificate(net, X, y, EPS)


# --------------------------------------------------- what runs beside the weights


class Scaled(nn.Sequential):
    """A network with a forward of its own."""

    def forward(self, x):
        """Fifty times the logits."""
        return 50 * super().forward(x)


class Cosine(nn.Linear):
    """A layer with a forward of its own."""

    def forward(self, x):
        """The cosine of features and weights."""
        return nn.functional.linear(x, nn.functional.normalize(self.weight), self.bias)


class Called(nn.Sequential):
    """A network that is called in a way of its own."""

    def __call__(self, x):
        """The negative logits."""
        return -super().__call__(x)


class Backwards(nn.Sequential):
    """A Sequential that runs its layers in another order."""

    def __iter__(self):
        """From the last to the first."""
        return reversed(list(self._modules.values()))


class Loud(nn.Linear):
    """A layer whose weight is another one each time it is asked for."""

    def __getattr__(self, name):
        """Noise for the weight."""
        found = super().__getattr__(name)
        return found + torch.randn(()) if name == "weight" else found


class Noise(nn.Module):
    """A parametrisation that draws."""

    def forward(self, weight):
        """The weight, not twice the same."""
        return weight + torch.randn(())


def tenfold(module, inputs, output):
    """A hook that changes what a layer returns."""
    return 10 * output


def with_hook(where, kind: str) -> nn.Sequential:
    """A network with a hook of ``kind`` on the module ``where(network)``."""
    net = network()
    hook = tenfold if kind == "forward_hook" else lambda m, i: (i[0] - 0.5,)
    getattr(where(net), f"register_{kind}")(hook)
    return net


def nested() -> nn.Sequential:
    """The layers of ``network`` inside two more Sequentials."""
    net = network()
    return nn.Sequential(net[0], nn.Sequential(nn.Sequential(*net[1:]))).eval()


def nested_hook() -> nn.Sequential:
    """A hook on a container inside."""
    net = nested()
    net[1][0].register_forward_hook(tenfold)
    return net


def with_layer(make) -> nn.Sequential:
    """A network whose last layer is ``make`` of it."""
    net = network()
    net[3] = make(net[3])
    return net.eval()


def set_forward(net: nn.Module) -> nn.Module:
    """A forward on the instance."""
    net.forward = lambda x: torch.zeros(len(x), 3)
    return net


def as_kind(kind):
    """The same layer as another class."""

    def make(layer):
        other = kind(*layer.weight.T.shape)
        other.load_state_dict(layer.state_dict())
        return other

    return make


def with_conv(**options) -> nn.Sequential:
    """A network that begins with a convolution."""
    layers = nn.Conv2d(1, 1, 3, padding=1, **options), nn.Flatten(), nn.ReLU()
    return nn.Sequential(*layers, nn.Linear(4, 3)).eval()


def set_conv_forward() -> nn.Sequential:
    """The inner method of a convolution on the instance."""
    net = with_conv()
    net[0]._conv_forward = lambda x, weight, bias: x
    return net


REFUSED = {
    "a hook on the model": lambda: with_hook(lambda n: n, "forward_hook"),
    "a hook on a ReLU": lambda: with_hook(lambda n: n[2], "forward_hook"),
    "a hook on the last layer": lambda: with_hook(lambda n: n[3], "forward_hook"),
    "a hook inside": nested_hook,
    "a pre-hook on the model": lambda: with_hook(lambda n: n, "forward_pre_hook"),
    "a pre-hook on a layer": lambda: with_hook(lambda n: n[1], "forward_pre_hook"),
    "an own forward": lambda: Scaled(*network()).eval(),
    "an own forward inside": lambda: nn.Sequential(Scaled(*network())).eval(),
    "a layer's own forward": lambda: with_layer(as_kind(Cosine)),
    "an own call": lambda: Called(*network()).eval(),
    "an own order": lambda: Backwards(*network()).eval(),
    "an own weight": lambda: with_layer(as_kind(Loud)),
    "forward of the instance": lambda: set_forward(network()),
    "forward of a layer's instance": lambda: with_layer(set_forward),
    "an inner method of the instance": set_conv_forward,
    "weight_norm": lambda: with_layer(nn.utils.weight_norm),
    "spectral_norm": lambda: with_layer(old_spectral_norm),
    "prune": lambda: with_layer(lambda m: prune.random_unstructured(m, "weight", 0.3)),
    "a drawn weight": lambda: with_layer(
        lambda m: parametrize.register_parametrization(
            m, "weight", Noise(), unsafe=True
        )
    ),
    "reflected padding": lambda: with_conv(padding_mode="reflect"),
    "circular padding": lambda: with_conv(padding_mode="circular"),
    "a sum": lambda: nn.Sequential(
        models.Residual(network()[:1]), *network()[1:]
    ).eval(),
    "a flattening in part": lambda: nn.Sequential(nn.Flatten(2), *network()[1:]).eval(),
    "a function": lambda: nn.Sequential(network(), nn.Softmax(1)).eval(),
}


@pytest.mark.filterwarnings("ignore:.*weight_norm.*is deprecated")
@pytest.mark.filterwarnings("ignore:.*spectral_norm.*is deprecated")
@pytest.mark.parametrize("way", list(ask(network())))
@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_read_is_refused(name, way):
    """By each function that reads weights, and the message names a layer."""
    with pytest.raises(TypeError, match=r"layer|model|here"):
        ask(REFUSED[name]())[way]()


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("weight_norm", "remove_weight_norm"),
        ("spectral_norm", "remove_spectral_norm"),
        ("prune", r"prune\.remove"),
        ("a hook inside", r"layer 1\.0 .*handle\.remove"),
        ("forward of a layer's instance", "layer 3.*method forward"),
        ("a layer's own forward", "layer 3.*forward"),
        ("an own order", "__iter__"),
        ("a drawn weight", "other weights"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*weight_norm.*is deprecated")
def test_the_message_says_what_to_do(name, hint):
    """Which layer, which method, and how to get rid of it."""
    with pytest.raises(TypeError, match=hint):
        exact_logits(REFUSED[name](), X)


@pytest.mark.parametrize(
    "register", [register_module_forward_hook, register_module_forward_pre_hook]
)
def test_hooks_of_all_modules_are_refused(register):
    """As long as they are there."""
    ways = ask(network())
    handle = register(lambda *_: None)
    try:
        for call in ways.values():
            with pytest.raises(TypeError, match="all modules"):
                call()
    finally:
        handle.remove()
    assert len(ways["exact_logits"]()) == 3


def test_a_class_that_was_patched_is_refused(monkeypatch):
    """The forward of Linear itself is another one than torch's."""
    net = network()
    monkeypatch.setattr(nn.Linear, "forward", lambda self, x: x @ self.weight.T)
    with pytest.raises(TypeError, match="forward of its own"):
        exact_logits(net, X)


def test_a_hook_used_to_be_certified():
    """The last layer turned round by a hook: no certificate of the stored weights."""
    net = network()
    y = label(net)
    good = make_certificate(net, X, y, EPS)
    assert check_certificate(net, X, y, EPS, good)
    net[3].register_forward_hook(lambda m, i, o: -o)
    assert label(net) != y
    with pytest.raises(TypeError, match="hook"):
        check_certificate(net, X, y, EPS, good)


def test_dropout_in_train_mode_is_refused():
    """It draws; in eval mode it does nothing."""
    net = nn.Sequential(*network(), nn.Dropout(0.5))
    for name, call in ask(net).items():
        with pytest.raises(ValueError, match="train mode"):
            call()
        assert name
    assert exact_logits(net.eval(), X) == exact_logits(network(), X)


# ----------------------------------------------------------------- the same function


class Plain(nn.Sequential):
    """A network by its own name, with a help and no other forward."""

    def __init__(self) -> None:
        super().__init__(OrderedDict(enumerate_names(network())))

    def num_layers(self) -> int:
        """How many there are."""
        return len(self)


def enumerate_names(net: nn.Sequential) -> list[tuple[str, nn.Module]]:
    """Layers under other names."""
    return [(f"part{i}", layer) for i, layer in enumerate(net)]


def removed_hooks() -> nn.Sequential:
    """Hooks were there and are gone."""
    net = network()
    for handle in (
        net.register_forward_hook(tenfold),
        net[1].register_forward_hook(tenfold),
    ):
        handle.remove()
    return net


def removed_weight_norm() -> nn.Sequential:
    """The old weight_norm, whose weights are made once and for all."""
    net = with_layer(nn.utils.weight_norm)
    nn.utils.remove_weight_norm(net[3])
    with torch.no_grad():
        net[3].weight.copy_(network()[3].weight)
    return net


def backward_hook() -> nn.Sequential:
    """A hook that only sees gradients."""
    net = network()
    net[1].register_full_backward_hook(lambda m, i, o: None)
    return net


SAME = {
    "a copy": lambda: copy.deepcopy(network()),
    "frozen": lambda: network().requires_grad_(False),
    "nested": nested,
    "identities": lambda: nn.Sequential(
        nn.Identity(), *network()[:2], nn.Dropout(), network()[2], nn.Dropout(),
        network()[3], nn.Identity(),
    ).eval(),
    "a plain subclass": lambda: Plain().eval(),
    "removed hooks": removed_hooks,
    "removed weight_norm": removed_weight_norm,
    "a backward hook": backward_hook,
    "two Flattens": lambda: nn.Sequential(nn.Flatten(), *network()).eval(),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:.*weight_norm.*is deprecated")
@pytest.mark.parametrize("name", SAME)
def test_the_same_function_is_the_same_question(name):
    """Equal logits, digest, certificate, margins and error bounds."""
    net, plain = SAME[name](), network()
    y = label(plain)
    good = make_certificate(plain, X, y, EPS)
    assert exact_logits(net, X) == exact_logits(plain, X)
    assert make_certificate(net, X, y, EPS).question == good.question
    proved = check_certificate(net, X, y, EPS, good)
    assert proved == check_certificate(plain, X, y, EPS, good)
    pair = [forward_error_bound(m, X[None], X[None]) for m in (net, plain)]
    assert torch.equal(*pair)


@pytest.mark.parametrize(
    "wrap",
    [parametrizations.weight_norm, parametrizations.spectral_norm,
     parametrizations.orthogonal],
)  # fmt: skip
def test_a_parametrised_weight_is_the_one_that_is_computed(wrap):
    """The same as a plain layer with that weight, in everything."""
    net = with_layer(wrap)
    plain = network()
    with torch.no_grad():
        plain[3].weight.copy_(net[3].weight)
    y = label(plain)
    assert torch.equal(net(X[None]), plain(X[None]))
    good = make_certificate(net, X, y, EPS)
    assert exact_logits(net, X) == exact_logits(plain, X)
    assert check_certificate(plain, X, y, EPS, good) == check_certificate(
        net, X, y, EPS, good
    )


def test_a_parametrised_layer_with_its_own_forward_is_refused():
    """What torch puts around the class does not hide it."""
    net = with_layer(lambda m: parametrizations.weight_norm(as_kind(Cosine)(m)))
    with pytest.raises(TypeError, match="forward of its own"):
        exact_logits(net, X)


@pytest.mark.parametrize("kind", [nn.Dropout2d, nn.AlphaDropout, nn.Identity])
def test_layers_that_do_nothing(kind):
    """In eval mode they are left out."""
    net = nn.Sequential(kind(), *network()).eval()
    assert exact_logits(net, X) == exact_logits(network(), X)


def test_a_shared_layer_counts_twice():
    """Tied weights are read at each place."""
    layer = nn.Linear(4, 4)
    net = nn.Sequential(layer, nn.ReLU(), layer).eval()
    x = torch.tensor([0.5, 0.25, 1.0, 0.0])
    logits = [float(v) for v in exact_logits(net, x)]
    assert logits == pytest.approx(net(x[None])[0].tolist(), abs=1e-6)
    y = label(net, x)
    assert check_certificate(net, x, y, 1e-6, make_certificate(net, x, y, 1e-6))


def test_a_bare_layer():
    """A network need not be a Sequential."""
    layer = nn.Linear(4, 3).eval()
    x = torch.tensor([0.5, 0.25, 1.0, 0.0])
    y = label(layer, x)
    proved = check_certificate(layer, x, y, 1e-6, make_certificate(layer, x, y, 1e-6))
    logits = exact_logits(layer, x)
    reach = [sum(abs(Fraction(v)) for v in row) for row in
             (layer.weight[y] - layer.weight).double().tolist()]  # fmt: skip
    for z, m, r in zip(logits, proved, reach, strict=True):
        assert m <= logits[y] - z <= m + r * Fraction(2e-6)
    error = forward_error_bound(layer, x[None], x[None])
    off = [abs(Fraction(v) - z) for v, z in zip(layer(x).tolist(), logits, strict=True)]
    assert all(o <= e for o, e in zip(off, error[0].tolist(), strict=True))


# ----------------------------------------------------------------------- questions


def digest(
    net: nn.Module, x: torch.Tensor = X, y: object = 0, eps: object = 0.25
) -> str:
    """The question's."""
    return certificates.question(net, x, y, eps)


def test_the_question_knows_the_structure():
    """Networks with equal state dictionaries and other options, all different."""
    nets = [with_conv()]
    for change in ({"stride": (2, 2)}, {"stride": (1, 2)}, {"padding": (2, 2)},
                   {"dilation": (2, 2), "padding": (2, 2)}):  # fmt: skip
        net = copy.deepcopy(nets[0])
        vars(net[0]).update(change)
        nets.append(net[:2])
    nets.append(nets[0][:2])
    fewer = nn.Sequential(nets[0][0], nn.Flatten(), nn.Linear(4, 3))
    fewer.load_state_dict(
        {k.replace("3", "2"): v for k, v in nets[0].state_dict().items()}
    )
    nets.append(fewer)
    assert len({digest(net) for net in nets}) == len(nets)


def test_the_question_knows_types_and_values():
    """The dtype of weights and image, one bit of either, label and radius."""
    net = network()
    other = copy.deepcopy(net)
    with torch.no_grad():
        other[1].bias[0] = other[1].bias[0].nextafter(torch.tensor(9.0))
    asked = [
        digest(net), digest(copy.deepcopy(net).double()), digest(other),
        digest(net, X.double()), digest(net, X.nextafter(torch.ones(()))),
        digest(net, y=1), digest(net, eps=np.nextafter(0.25, 1)),
    ]  # fmt: skip
    assert len(set(asked)) == len(asked)
    assert digest(net, y=np.int64(0), eps=np.float32(0.25)) == asked[0]
    assert digest(net, y=torch.tensor(0), eps=torch.tensor(0.25)) == asked[0]


@pytest.mark.parametrize("y", [True, 1.0, "1", None, torch.tensor(True), np.bool_(True),
                               torch.tensor([0, 1]), torch.tensor(1.0)])  # fmt: skip
def test_a_label_is_an_integer(y):
    """Booleans, floats, several at once are none."""
    net = network()
    good = make_certificate(net, X, label(net), EPS)
    for call in (
        lambda: make_certificate(net, X, y, EPS),
        lambda: check_certificate(net, X, y, EPS, good),
        lambda: certificates.question(net, X, y, EPS),
        lambda: certificates.holds_in_floats([Fraction(1)] * 3, torch.zeros(3), y),
    ):
        with pytest.raises(TypeError, match="one integer"):
            call()


@pytest.mark.parametrize("y", [-1, 3, 11, 2**40])
def test_a_label_is_a_class(y):
    """0 .. 2 for three logits."""
    net = network()
    good = make_certificate(net, X, label(net), EPS)
    for call in (
        lambda: make_certificate(net, X, y, EPS),
        lambda: check_certificate(net, X, y, EPS, good),
        lambda: certificates.holds_in_floats([Fraction(1)] * 3, torch.zeros(3), y),
    ):
        with pytest.raises(ValueError, match="label"):
            call()


@pytest.mark.parametrize(
    "eps", [float("nan"), -EPS, 1.5, float("inf"), Fraction(1, 10)]
)
def test_a_radius_is_a_float_in_the_unit_interval(eps):
    """One tenth is no float; the nearest one makes another ball."""
    net = network()
    good = make_certificate(net, X, label(net), EPS)
    for call in (
        lambda: make_certificate(net, X, 0, eps),
        lambda: check_certificate(net, X, 0, eps, good),
    ):
        with pytest.raises(ValueError, match="eps = "):
            call()


def test_one_logit_is_no_choice():
    """All of no rivals is true; so it is never asked."""
    net = network(classes=1)
    assert len(exact_logits(net, X)) == 1
    for call in (
        lambda: make_certificate(net, X, 0, EPS),
        lambda: check_certificate(net, X, 0, EPS, None),
    ):
        with pytest.raises(ValueError, match="TwoLogits"):
            call()
    with pytest.raises(ValueError, match="at least 2"):
        certificates.holds_in_floats([Fraction(0)], torch.zeros(1), 0)


def test_a_binary_network():
    """Wrapped in TwoLogits: as a last layer with a row of zeros, in everything."""
    one, two = network(classes=1), network(classes=2)
    with torch.no_grad():
        for stored, rows in zip(one[3].parameters(), two[3].parameters(), strict=True):
            rows.copy_(torch.cat([torch.zeros_like(stored), stored]))
        two[1].load_state_dict(one[1].state_dict())
    net = models.TwoLogits(one).eval()
    assert torch.equal(net(X[None]), two(X[None]))
    y = label(net)
    good = make_certificate(net, X, y, EPS, num_steps=2)
    again = make_certificate(two, X, y, EPS, num_steps=2)
    assert good.question == again.question
    for part in ("lower", "upper", "slopes"):
        pairs = zip(getattr(good, part), getattr(again, part), strict=True)
        assert all((a == b).all() for a, b in pairs)
    assert check_certificate(net, X, y, EPS, good) == check_certificate(
        two, X, y, EPS, good
    )
    assert exact_logits(net, X) == exact_logits(two, X)
    pair = [forward_error_bound(m, X[None], X[None]) for m in (net, two)]
    assert torch.equal(*pair)
    for other in (network(), one[:3], nn.Flatten()):
        with pytest.raises(TypeError, match=r"TwoLogits.*need a Linear layer"):
            exact_logits(models.TwoLogits(other).eval(), X)
    one[3].register_forward_hook(tenfold)
    with pytest.raises(TypeError, match=r"layer model\.3"):
        exact_logits(net, X)


def test_a_map_of_logits_is_refused():
    """Its pixels are no classes."""
    net, x = nn.Sequential(nn.Conv2d(1, 3, 1)).eval(), torch.rand(SHAPE)
    for call in (
        lambda: exact_logits(net, x),
        lambda: make_certificate(net, x, 1, EPS),
        lambda: check_certificate(net, x, 1, EPS, None),
    ):
        with pytest.raises(ValueError, match=r"\(3, 2, 2\), not one row of logits"):
            call()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_no_number_is_read(value):
    """In weights, biases and images."""
    for k in range(4):
        net = network()
        with torch.no_grad():
            list(net.parameters())[k].view(-1)[0] = value
        with pytest.raises(RejectedError, match="no rational"):
            exact_logits(net, X)
        with pytest.raises(ValueError, match=r"NaN|rational"):
            make_certificate(net, X, 0, EPS)
    with pytest.raises(RejectedError, match="no rational"):
        exact_logits(network(), X * value)
    with pytest.raises(ValueError, match="images"):
        make_certificate(network(), X * value, 0, EPS)


@pytest.mark.parametrize("scale", [1e-300, 1e300])
def test_huge_and_tiny_weights(scale):
    """Numbers at the ends of float64 are as exact as others."""
    net = network().double()
    with torch.no_grad():
        net[3].weight *= scale
        net[3].bias *= scale
    y, logits = label(net, X.double()), exact_logits(net, X)
    good = make_certificate(net, X, y, EPS)
    proved = check_certificate(net, X, y, EPS, good)
    for j, (m, z) in enumerate(zip(proved, logits, strict=True)):
        assert 0 < m <= logits[y] - z or j == y
    with torch.no_grad():
        net[1].weight *= 1e250
    with pytest.raises(RejectedError, match="nothing to propose"):
        make_certificate(net, X, y, EPS)


def test_inputs_that_do_not_fit():
    """A Linear layer takes rows, a convolution takes channels."""
    net = network()
    for x in (torch.rand(5), torch.rand(1, 3, 2)):
        with pytest.raises(ValueError, match=r"does not take|takes inputs of"):
            exact_logits(net, x)
    with pytest.raises(ValueError, match="Flatten first"):
        exact_logits(nn.Linear(2, 3), torch.rand(1, 2))
    for x in (torch.rand(2, 2), torch.rand(2, 2, 2), torch.rand(1, 0, 2)):
        with pytest.raises(ValueError, match=r"does not take|takes inputs of"):
            exact_logits(with_conv(), x)


def test_the_limit_is_the_one_that_is_told():
    """16.7 million entries."""
    assert reading.MOST_ENTRIES == 2**24


# ----------------------------------------------------------------- the float program


def test_sums_beyond_the_largest_float_are_told():
    """Real logits 1 and 0; the program computes infinity less infinity."""
    net = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2)).eval()
    with torch.no_grad():
        net[0].weight.copy_(torch.full((2, 2), 3e38))
        net[0].bias.zero_()
        net[2].weight.copy_(torch.tensor([[1.0, -1.0], [0.0, 0.0]]))
        net[2].bias.copy_(torch.tensor([1.0, 0.0]))
    x = torch.ones(2)
    assert exact_logits(net, x) == [1, 0]
    assert net(x[None])[0, 0].isnan()
    error = forward_error_bound(net, x[None], x[None])[0]
    assert error.isinf().all()
    assert not certificates.holds_in_floats([Fraction(0), Fraction(1)], error, 0)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -1.0])
def test_no_error_that_is_no_number_passes(bad):
    """In any place, and in the margins."""
    fine = [Fraction(0), Fraction(10), Fraction(10)]
    for k in range(3):
        error = torch.zeros(3, dtype=torch.float64)
        assert certificates.holds_in_floats(fine, error, 0)
        error[k] = bad
        assert not certificates.holds_in_floats(fine, error, 0)
        margins = [*fine]
        margins[k] = bad
        if bad != -1.0:
            zero = torch.zeros(3, dtype=torch.float64)
            assert not certificates.holds_in_floats(margins, zero, 0)


def test_a_box_that_is_none():
    """Swapped, NaN, or of two shapes."""
    net, x = network(), X[None]
    for low, high in [(x, x - 0.1), (x * float("nan"), x), (x, x[:, :, :1])]:
        with pytest.raises(ValueError, match="lower <= upper"):
            forward_error_bound(net, low, high)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_errs_within_its_bound(dtype):
    """Float logits against unrounded ones at points of a ball."""
    net = network().to(dtype)
    low, high = bounds.input_box(X[None].to(dtype), 0.125)
    allowed = forward_error_bound(net, low, high)[0].tolist()
    generator = torch.Generator().manual_seed(0)
    for _ in range(30):
        share = torch.rand(X.shape, generator=generator).to(dtype)
        point = (low[0] + share * (high - low)[0]).clamp(low[0], high[0])
        said, real = net(point[None])[0].tolist(), exact_logits(net, point)
        off = [abs(Fraction(v) - r) for v, r in zip(said, real, strict=True)]
        assert all(o <= a for o, a in zip(off, allowed, strict=True))
