"""Any torch module as a graph: what is read is what runs, or it is refused."""

import pytest
import torch
import torch.nn.functional as F
from own_networks import OWN, SHAPE
from torch import nn

from advlib.networks import models, tracing
from advlib.networks import modules as reader
from advlib.networks.graph import Affine, Concat, Graph, Sum, Unit
from advlib.networks.modules import graph_of


class Calls(nn.Module):
    """A module that is one function."""

    def __init__(self, function, *inner):
        super().__init__()
        self.function, self.inner = function, nn.ModuleList(inner)
        self.register_buffer("like", torch.zeros(()))  # its dtype is the module's

    def forward(self, x):
        return self.function(x, *self.inner)


def _random(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def _module(what) -> nn.Module:
    """A module or function, in float64, with weights from a seed."""
    model = what if isinstance(what, nn.Module) else Calls(what)
    for seed, (name, tensor) in enumerate(model.state_dict().items()):
        if tensor.is_floating_point():
            value = _random(*tensor.shape, seed=seed) / 2
            tensor.copy_(value.abs() + 0.2 if name.endswith("var") else value)
    return model.double().eval()


def _agrees(model: nn.Module, graph: Graph, tolerance: float = 1e-9) -> None:
    for scale in (0.3, 3.0, 30.0):
        x = scale * _random(4, *graph.inside, seed=5)
        with torch.no_grad():
            want = model(x.clone())
        torch.testing.assert_close(graph(x), want, rtol=tolerance, atol=tolerance)


MATRIX, MASK = _random(8, 5), _random(8) > 0


def _table(x):
    """Fill a table with parts of the input, as loops over positions do."""
    y = x.new_zeros(len(x), 4, 8)
    y[:, 1:] = x[:, :, 0]
    y[:, 0].add_(1.0)
    y[:, [0, 2]] = y[:, [2, 0]] * 2
    return y


def _aliases(x):
    """Write through views: a row, a transposed part, a mask, all."""
    y = x * 2
    rows = y[:, 0]
    rows.relu_()
    rows += 1
    y.transpose(2, 3)[:, 1].clamp_(-0.5, 0.25)
    y[:, 2, 3:5] = x[:, 1, 3:5]
    y.masked_fill_(MASK, -0.25)
    return y.mul_(x.new_full((8,), 0.5)).neg()


IMAGES = {
    "bn": nn.BatchNorm2d(3),
    "tracked instance norm": nn.InstanceNorm2d(3, affine=True, track_running_stats=1),
    "conv": nn.Conv2d(3, 4, (3, 2), stride=(2, 1), padding=(1, 0), dilation=(1, 2)),
    "conv of one image": lambda x: torch.stack([F.conv2d(r, W) for r in x]),
    "grouped": nn.Conv2d(3, 6, 3, groups=3),
    "circular": nn.Conv2d(3, 4, 3, padding=2, padding_mode="circular"),
    "reflect": nn.Conv2d(3, 4, 3, padding=2, padding_mode="reflect"),
    "replicate": nn.Conv2d(3, 4, 3, padding=2, padding_mode="replicate"),
    "same": nn.Conv2d(3, 4, (3, 5), padding="same", dilation=(1, 2)),
    "even same": nn.Conv2d(3, 4, 3, padding="same", dilation=2),
    "transposed": nn.ConvTranspose2d(
        3, 4, 3, stride=(2, 3), padding=1, output_padding=(1, 2)
    ),
    "transposed grouped": nn.ConvTranspose2d(3, 6, 2, groups=3, dilation=2, bias=False),
    "rows as batch": lambda x: F.conv1d(x.reshape(-1, 3, 8), W[0, :, :, :2]).view(
        len(x), 8, -1
    ),
    "average": nn.AvgPool2d(2),
    "average, padding": nn.AvgPool2d(3, 2, 1),
    "average, padding left out": nn.AvgPool2d((3, 2), 2, (1, 0), False, False),
    "average, ceil": nn.AvgPool2d(3, 2, 1, ceil_mode=True),
    "average, divisor": nn.AvgPool2d(3, 2, ceil_mode=True, divisor_override=5),
    "adaptive average": nn.AdaptiveAvgPool2d((3, 5)),
    "adaptive average, even": nn.AdaptiveAvgPool2d((4, 2)),
    "global average": nn.AdaptiveAvgPool2d(1),
    "max": nn.MaxPool2d(2),
    "max, ceil": nn.MaxPool2d((3, 2), 2, (1, 0), ceil_mode=True),
    "max, dilation": nn.MaxPool2d(3, 1, 1, dilation=2),
    "adaptive max": nn.AdaptiveMaxPool2d((3, 4)),
    "nearest": nn.Upsample(scale_factor=2),
    "bilinear": nn.Upsample(size=(5, 13), mode="bilinear"),
    "corners": nn.Upsample(scale_factor=1.7, mode="bilinear", align_corners=True),
    "shuffle": nn.PixelUnshuffle(2),
    "unfold": nn.Unfold(3, padding=1),
    "pad": lambda x: F.pad(x, (1, -1, 2, 0), value=1.5),
    "strided shortcut": lambda x: F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 1, 2)),
    "linear": nn.Linear(8, 5),
    "linear, no bias": nn.Linear(8, 5, bias=False),
    "matmul": lambda x: x @ MATRIX,
    "matmul left": lambda x: MATRIX.T @ x,
    "matrix for each": lambda x: torch.matmul(x, _random(3, 8, 2)),
    "matrix for each, left": lambda x: torch.matmul(_random(3, 2, 8), x),
    "einsum": lambda x: torch.einsum("bchw,whk->bck", x, _random(8, 8, 2)),
    "vector": lambda x: x @ MATRIX[:, 0],
    "addmm": lambda x: torch.addmm(
        x.flatten(1)[:, :5], x[:, 0, 0], MATRIX, beta=0.5, alpha=2
    ),
    "sums": lambda x: x.sum(1) + x.mean((2, 3), keepdim=True)[:, 0] - x.sum(-1)[:, :1],
    "cumsum": lambda x: x.cumsum(2),
    "constants": lambda x: 1.5 - (2 * x / MATRIX[:, :1] + MATRIX[:, 1]) * 0.5 - x,
    "alpha": lambda x: torch.add(x[:, 0], x[:, 1], alpha=0.25).sub(1, alpha=3),
    "max of axes": lambda x: x.amax((1, 3)) + x.amin(2)[:, 1] + x.max(-1)[0][:, 2],
    "maximum": lambda x: torch.maximum(x[:, 0], x[:, 1]).minimum(x[:, 2] + 1),
    "maximum, numbers": lambda x: x.maximum(MATRIX[:, 0]).minimum(MATRIX[:, 1:2] + 1),
    "clamp": lambda x: x.clamp(MATRIX[:, 0], MATRIX[:, :1]) + x.clamp(max=2.0),
    "where": lambda x: torch.where(MASK, x, -0.5) + torch.where(MASK, 0.2, x[:, :1]),
    "fill": lambda x: x.masked_fill(MASK, 0.75),
    "slices": lambda x: torch.cat([x[:, 1:, ::3], x[:, :2, 5:]], -2).flip(1),
    "views": lambda x: x.permute(0, 3, 1, 2).reshape(len(x), 4, -1).transpose(1, 2),
    "index": lambda x: x[:, [2, 0, 0]].index_select(3, torch.tensor([5, 1])),
    "gather": lambda x: x.gather(2, torch.tensor([3, 1]).expand(len(x), 3, 8, 2).mT),
    "stack": lambda x: torch.stack([x[:, 0], x[:, 1] * 2, x.new_ones(8, 8).expand(
        len(x), 8, 8)], 2),
    "split": lambda x: torch.cat([p * k for k, p in enumerate(x.split([3, 5], 3))], 3),
    "chunks": lambda x: torch.cat(x.chunk(2, -1)[::-1], -1).roll((1, 2), (1, 3)),
    "repeat": lambda x: x.repeat(1, 2, 1, 1) + x.mean(1, True).expand(-1, 6, -1, -1),
    "squeeze": lambda x: x[:, :1].squeeze(1).unsqueeze(-1).unflatten(1, (2, 4)),
    "casts": lambda x: x.double().contiguous().clone().detach(),
    "triangle": lambda x: x.tril(-1) - x.triu(2),
    "table": _table,
    "aliases": _aliases,
    "one filled by another": lambda x: torch.empty_like(x).copy_(x * 2).add_(1.0),
}  # fmt: skip
W = _random(4, 3, 3, 3)
UNITS = {
    "relu in place": nn.ReLU(inplace=True),
    "leaky": nn.LeakyReLU(0.15),
    "steep": nn.LeakyReLU(1.5, inplace=True),
    "prelu": nn.PReLU(3, 0.3),
    "relu6": nn.ReLU6(),
    "hardtanh": nn.Hardtanh(-0.5, 2.0),
    "hardsigmoid": nn.Hardsigmoid(),
    "softshrink": nn.Softshrink(0.3),
    "threshold": nn.Threshold(0.25, 0.25),
    "abs": torch.abs,
    "sigmoid": nn.Sigmoid(),
    "tanh": nn.Tanh(),
    "tanhshrink": nn.Tanhshrink(),
    "gelu": nn.GELU(),
    "gelu tanh": nn.GELU(approximate="tanh"),
    "silu": nn.SiLU(),
    "silu by hand": lambda x: torch.sigmoid(x) * x,
    "elu": nn.ELU(0.7),
    "selu": nn.SELU(),
    "celu": nn.CELU(0.4),
    "dropouts": nn.Sequential(nn.Dropout(), nn.Dropout2d(), nn.AlphaDropout()),
}


@pytest.mark.parametrize("name", IMAGES)
def test_an_operator_is_torch_s(name):
    model = _module(IMAGES[name])
    graph = graph_of(model, (3, 8, 8))
    _agrees(model, graph)
    assert not [i for i in graph.units if graph.nodes[i].op != Unit("relu")]


@pytest.mark.parametrize("name", UNITS)
def test_a_function_is_torch_s(name):
    model = _module(UNITS[name])
    _agrees(model, graph_of(model, (3, 4, 4)))


@pytest.mark.parametrize("beta", [0.5, 1.0, 3.0])
def test_softplus_has_no_threshold(beta):
    model = _module(nn.Softplus(beta))
    graph = graph_of(model, (6,))
    _agrees(model, graph, 2.1e-9 / beta)
    z = torch.tensor([[20.1 / beta] * 6], dtype=torch.float64)
    assert (graph(z) > model(z)).all()
    smooth = _module(lambda x: -F.logsigmoid(-x))
    torch.testing.assert_close(graph_of(smooth, (6,))(z), F.softplus(z))


def test_other_dimensions():
    for model, shape in [
        (nn.Conv1d(2, 4, 3, 2, padding_mode="circular", padding=1), (2, 9)),
        (nn.ConvTranspose1d(2, 3, 4, 3, 1, 1), (2, 5)),
        (nn.Conv3d(1, 2, 2, padding=1), (1, 3, 4, 3)),
        (nn.ConvTranspose3d(1, 2, 2, 2), (1, 2, 3, 2)),
        (nn.MaxPool1d(3, 2, 1), (2, 9)),
        (nn.MaxPool3d(2), (1, 4, 4, 2)),
        (nn.AvgPool1d(3, 2, 1, count_include_pad=False), (2, 9)),
        (nn.AvgPool3d(2), (2, 4, 4, 2)),
        (nn.AdaptiveAvgPool1d(4), (2, 9)),
        (nn.AdaptiveAvgPool3d((1, 3, 2)), (2, 4, 4, 3)),
        (nn.AdaptiveMaxPool1d(4), (2, 9)),
        (nn.BatchNorm1d(7), (7,)),
        (nn.BatchNorm1d(2), (2, 9)),
        (nn.BatchNorm3d(2), (2, 3, 3, 2)),
        (nn.Upsample(7, mode="linear"), (2, 9)),
        (nn.Upsample(scale_factor=2, mode="trilinear"), (1, 2, 3, 2)),
        (nn.Linear(7, 1), (7,)),
        (nn.Linear(1, 3), (1,)),
        (nn.Sequential(nn.Linear(7, 1), nn.Flatten(0)), (7,)),
    ]:
        own = _module(model)
        _agrees(own, graph_of(own, shape))


# ------------------------------------------------------------------ whole networks


class Random(nn.Module):
    """A random network: each step takes one or two earlier values of equal kind."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.draw = torch.Generator().manual_seed(seed)
        self.steps, shapes = [], [(3, 6, 6)]
        self.layers = nn.ModuleList()
        for _ in range(self._int(3, 8)):
            c, h, w = shapes[i := self._int(0, len(shapes))]
            j = self._int(0, len(shapes))
            kind = self._int(0, 8)
            if kind == 0:
                options = {"stride": self._int(1, 3), "padding": 1, "bias": kind < 4}
                layer = nn.Conv2d(c, self._int(1, 5), 3, **options)
            elif kind == 1:
                layer = nn.BatchNorm2d(c)
            elif kind == 2 and min(h, w) > 2:
                pools = nn.MaxPool2d(2), nn.AvgPool2d(3, 1, 1), nn.MaxPool2d(3, 1, 1)
                layer = pools[self._int(0, 3)]
            elif kind == 3:
                layer = Calls(lambda x: torch.cat([x, -0.5 * x[:, :1]], 1))
            elif kind == 4 and shapes[j][1:] == (h, w):
                layer = Calls(lambda x, y: torch.cat([y, x], 1))
            elif kind == 5 and shapes[j] == (c, h, w):
                layer = Calls(lambda x, y: x - torch.relu(y))
            else:
                units = nn.ReLU(True), nn.LeakyReLU(0.2), nn.Tanh(), nn.Hardtanh()
                layer = Calls(lambda x, unit: unit(x + 0.1), units[self._int(0, 4)])
            two = kind in (4, 5) and layer.function.__code__.co_argcount == 2
            two = two and isinstance(layer, Calls) and not layer.inner
            self.layers.append(layer)
            self.steps.append((i, j) if two else (i,))
            shapes.append(self._shape(layer, *(shapes[k] for k in self.steps[-1])))
        ends = sum(c * h * w for c, h, w in shapes[-2:])
        self.last = nn.Linear(ends, self._int(1, 4))

    def _int(self, low: int, high: int) -> int:
        return int(torch.randint(low, high, (), generator=self.draw))

    def _shape(self, layer, *shapes):
        with torch.no_grad():
            layer.eval()
            return tuple(
                self._call(layer, *(torch.zeros(1, *s) for s in shapes)).shape[1:]
            )

    def _call(self, layer, *values):
        if len(values) == 2:
            return layer.function(*values)
        return layer(*values)

    def forward(self, x):
        values = [x]
        for layer, at in zip(self.layers, self.steps, strict=True):
            values.append(self._call(layer, *(values[i] for i in at)))
        return self.last(torch.cat([v.flatten(1) for v in values[-2:]], 1))


@pytest.mark.parametrize("seed", range(40))
def test_random_networks_are_read(seed):
    model = _module(Random(seed))
    graph = graph_of(model, (3, 6, 6))
    x = 3 * _random(5, 3, 6, 6, seed=seed)
    with torch.no_grad():
        want = model(x.clone())
    torch.testing.assert_close(graph(x), want, rtol=1e-9, atol=1e-9)


def test_ordinary_networks_are_read():
    read, refused = 0, {}
    for name, build in OWN.items():
        model = build()
        try:
            graph = graph_of(model, SHAPE, logits=True)
        except ValueError as error:
            refused[name] = str(error)
            continue
        read += 1
        x = torch.rand(3, *SHAPE, generator=torch.Generator().manual_seed(1))
        with torch.no_grad():
            want = model(x).double()
        have = graph(x.double())
        have = have.softmax(1) if name == "Softmax" else have
        torch.testing.assert_close(have, want, rtol=1e-4, atol=1e-5)
    assert len(OWN) == 33
    assert read >= 31
    assert set(refused) == {"GroupNorm", "InstanceNorm2d"}
    assert "batch norm in eval mode" in refused["GroupNorm"]
    assert "track_running_stats=True" in refused["InstanceNorm2d"]


def test_a_graph_is_what_was_read_when_it_was_read():
    model = _module(nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2)))
    graph, x = graph_of(model, (3,)), _random(2, 3)
    before = graph(x)
    for tensor in (*model.parameters(), *model.buffers()):
        tensor.detach().mul_(2)
    assert torch.equal(graph(x), before)
    assert not torch.allclose(model(x).double(), before)


def test_what_runs_is_read():
    """Hooks, remade weights, shared layers, a forward set on the instance."""
    layer = nn.Linear(4, 4)
    shared = nn.Sequential(layer, nn.ReLU(), layer)
    hooked = nn.Sequential(nn.Linear(4, 4), nn.ReLU())
    hooked[0].register_forward_hook(lambda module, args, out: 3 * out - 1)
    hooked.register_forward_pre_hook(lambda module, args: (args[0].abs(),))
    normed = nn.utils.parametrizations.weight_norm(nn.Linear(4, 3))
    replaced = nn.Linear(4, 4)
    replaced.forward = lambda x: F.leaky_relu(x, 0.2)
    spectral = nn.utils.parametrizations.spectral_norm(nn.Linear(4, 3))
    inner = Calls(lambda x, m: m(x) + m(m(x)), nn.Sequential(nn.Linear(4, 4), nn.ELU()))
    for model in (shared, hooked, normed, replaced, spectral, inner):
        own = model.double().eval()
        _agrees(own, graph_of(own, (4,)))
    graph = graph_of(shared, (4,))
    assert [n.name for n in graph.nodes] == ["input", "0", "1", "0"]


def test_names_and_kinds_of_nodes():
    model = models.seeded(models.cnn_small, (1, 8, 8), seed=0)
    graph = graph_of(model, (1, 8, 8))
    assert (graph.inside, graph.outside) == ((1, 8, 8), (10,))
    assert [n.name for n in graph.nodes] == ["input", *"01235567"]
    kinds = {type(n.op) for n in graph.nodes[1:]}
    assert kinds <= {Affine, Sum, Concat, Unit}
    assert len(graph.units) == 3
    for node in graph.nodes:
        numbers = [getattr(node.op, "bias", None)]
        numbers += [getattr(getattr(node.op, "map", None), "weight", None)]
        assert {t.dtype for t in numbers if t is not None} <= {torch.float64}


def test_a_last_softmax_is_left_out_if_asked():
    for last in (nn.Softmax(1), nn.LogSoftmax(-1), nn.Softmax(1)):
        inner = _module(nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 5)))
        model = nn.Sequential(inner, last, nn.Identity()).eval()
        with pytest.raises(ValueError, match=r"module '1'.*softmax.*logits=True"):
            graph_of(model, (4,))
        graph, x = graph_of(model, (4,), logits=True), _random(6, 4)
        torch.testing.assert_close(graph(x), inner(x).detach())
        assert torch.equal(graph(x).argsort(1), model(x).argsort(1))
    for inside in (
        nn.Sequential(nn.Softmax(1), nn.Linear(4, 2)),
        Calls(lambda x: -torch.softmax(x, 1)),
        Calls(lambda x: torch.softmax(x, 1)[:, :2]),
        Calls(lambda x: torch.softmax(x, 1).mul_(2)),
    ):
        with pytest.raises(ValueError, match="last"):
            graph_of(inside.eval(), (4,), logits=True)
    with pytest.raises(ValueError, match="over the batch"):
        graph_of(Calls(lambda x: torch.softmax(x, 0)).eval(), (4,), logits=True)


# ----------------------------------------------------------------------- refusals


class Counts(nn.Module):
    """Changes a buffer at each call."""

    def __init__(self):
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x):
        self.calls += 1
        return 2 * x


def _filled(x):
    y = torch.zeros(len(x), 4)
    y[:, 1:] = x[:, :3]
    return y


REFUSED = {
    "gt cannot be read: it jumps": lambda x: torch.where(x > 0, x, 0.5 * x),
    "would depend on the input": lambda x: x if x.sum().item() else -x,
    "gt cannot be read": lambda x: x if x.sum() > 0 else -x,
    "two values that both depend": lambda x: x * x.relu(),
    "two matrices that both depend": lambda x: (x[:, :, None] @ x[:, None]).flatten(1),
    "divides by a value": lambda x: x / (1 + x.abs()),
    "randn_like cannot be read: it is random": lambda x: x + torch.randn_like(x),
    "bernoulli_ cannot be read: it is random": lambda x: F.dropout(x, 0.5, True),
    "draws random numbers": lambda x: x + torch.rand(x.shape),
    "mixes the inputs of a batch": lambda x: x - x.mean(0),
    "each input alike": lambda x: x.view(1, -1)[:, :3],
    "must count samples": lambda x: x.T,
    "depends on the input: only a constant": lambda x: x.clamp(min=x[:, :1]),
    "numbers are read": lambda x: torch.from_numpy(x.numpy()),
    "by other means": lambda x: x * torch.tensor(x.tolist()),
    "or changed, by other": lambda x: x.apply_(lambda v: v + 1),
    "sin_ cannot be read": lambda x: x.sin_(),
    "no rule for it": lambda x: x.sort()[0],
    "not what else it returns": lambda x: x[:, x.max(1)[1]],
    "does not depend on its input": lambda x: torch.ones(len(x), 2),
    "not depend on its input": lambda x: torch.ones_like(x),
    "returns a tuple": lambda x: (x, x),
    "which rounds": lambda x: x.half().float(),
    "reads the bits": lambda x: x.view(torch.int32),
    "another tensor: join parts": _filled,
    "nothing was written": lambda x: torch.empty_like(x) + x,
    "reads memory that nothing": lambda x: torch.empty_like(x).abs() * x,
    "is given as out=": lambda x: torch.add(x, 1, out=torch.empty_like(x)),
    "writes twice": lambda x: x.index_put_((torch.tensor([0, 0]),), x[:1] + 1),
    "a deviation of its own": nn.LayerNorm(4),
    "train with SiLU": nn.Mish(),
    "train with ReLU": nn.Hardswish(),
    "it jumps: its value": nn.Threshold(0.5, 0.0),
    "a threshold of at least 20": nn.Softplus(1.0, 10),
    "only with alpha > 0": nn.ELU(-1.0),
    "changes its own parameters or buffers": Counts(),
    "does not run on one input": nn.Linear(5, 2),
    "its weight or bias depends": lambda x: F.conv1d(x[:, None], x[:, None, :2]),
    "NaN or infinity": lambda x: x * float("inf"),
}  # fmt: skip


@pytest.mark.parametrize("why", REFUSED)
def test_what_cannot_be_read_is_refused(why):
    what = REFUSED[why]
    model = what if isinstance(what, nn.Module) else Calls(what)
    with pytest.raises(ValueError, match=why):
        graph_of(model.eval(), (4,))


def test_an_operator_of_another_library_is_not_mistaken_for_torch_s():
    @torch.library.custom_op("mine::relu", mutates_args=())
    def relu(x: torch.Tensor) -> torch.Tensor:
        return x.clamp(min=0.0)

    with pytest.raises(ValueError, match=r"mine.* none of torch's own"):
        graph_of(Calls(relu).eval(), (4,))


def test_a_refusal_names_the_place():
    model = nn.Sequential(nn.Linear(4, 4), nn.Sequential(nn.ReLU(), nn.Mish())).eval()
    with pytest.raises(ValueError, match=r"^module '1\.1': the operator mish cannot"):
        graph_of(model, (4,))
    model = nn.Sequential(nn.Linear(4, 4), Calls(lambda x: x.sin())).eval()
    with pytest.raises(
        ValueError, match=r"^module '1', test_modules.py, line \d+: the"
    ):
        graph_of(model, (4,))


def test_a_model_in_a_bad_state_is_refused():
    with pytest.raises(ValueError, match="train mode"):
        graph_of(nn.Linear(4, 2), (4,))
    with pytest.raises(TypeError, match="no nn"):
        graph_of(torch.relu, (4,))
    model = nn.Linear(4, 2).eval()
    with torch.no_grad():
        model.weight[0, 0] = torch.nan
    with pytest.raises(ValueError, match="NaN: weight"):
        graph_of(model, (4,))
    with pytest.raises(TypeError, match="bfloat16"):
        graph_of(nn.Linear(4, 2).bfloat16().eval(), (4,))
    with pytest.raises(TypeError, match="autocast"):
        with torch.autocast("cpu"):
            graph_of(nn.Linear(4, 2).eval(), (4,))
    with pytest.raises(ValueError, match="no weights yet"):
        graph_of(nn.LazyLinear(3).eval(), (4,))


def test_a_wrong_rule_is_noticed(monkeypatch):
    """The comparison sees a slope that is wrong in the sixth digit, in float64."""
    model = nn.Sequential(nn.Linear(4, 8), nn.LeakyReLU(0.1), nn.Linear(8, 3)).eval()
    graph_of(model, (4,))

    def wrong(call):
        node = call.variable().node
        return call.builder.leaky_relu(node, call["negative_slope"] + 1e-7, call.name)

    rules = {**tracing.RULES, "leaky_relu": wrong}
    monkeypatch.setattr(tracing, "RULES", rules)
    with pytest.raises(ValueError, match="not the network that runs"):
        graph_of(model, (4,))


def test_nothing_else_changes():
    """Neither the model, nor the random state, nor what it was called in."""
    model = models.seeded(models.cnn_shallow, (3, 8, 8), seed=0)
    before = {name: t.clone() for name, t in model.state_dict().items()}
    state = torch.get_rng_state()
    with torch.inference_mode():
        graph_of(model, (3, 8, 8))
    assert torch.equal(state, torch.get_rng_state())
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name])
    assert all(p.requires_grad and p.grad is None for p in model.parameters())


def test_rounding_is_of_the_size_that_it_is():
    """What float32 does to a network lies between a tenth and ten times the noise."""
    model = models.seeded(models.cnn, (3, 8, 8), seed=0)
    graph = graph_of(model, (3, 8, 8))
    x = torch.rand(20, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    clean, error = reader.rounding(graph, x.double(), torch.finfo(torch.float32).eps)
    gap = (model(x).detach().double() - clean).abs().amax()
    assert error.amax() / 10 < gap < 10 * error.amax()
