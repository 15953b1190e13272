"""ONNX files read as graphs: each operator against onnxruntime, and what is refused."""

import gzip
import logging
import os
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from advlib.networks.maps import Matrix  # noqa: E402
from advlib.networks.onnx_bytes import NoRuleError, parse  # noqa: E402
from advlib.networks.onnx_files import (  # noqa: E402
    OnnxNetwork,
    Runtime,
    compare_onnx,
    read_onnx,
)

CLOSE = 1e-5  # of the largest output
BENCHMARKS = Path(os.environ.get("ADVLIB_DATA", "/nowhere")) / "vnncomp"
N = helper.make_node


def numbers(*shape: int, seed: int = 0) -> np.ndarray:
    """Weights of ``shape``."""
    return np.random.default_rng([seed, *shape]).normal(size=shape).astype("float32")


def make(
    nodes, inside, weights=None, opset=17, dtype=TensorProto.FLOAT, outside=None
) -> onnx.ModelProto:
    """A model of ``nodes`` from x to y; ``weights`` by name."""
    given = [helper.make_tensor_value_info("x", dtype, inside)]
    made = [helper.make_tensor_value_info("y", dtype, outside)]
    weights = [
        numpy_helper.from_array(np.asarray(value), name)
        for name, value in (weights or {}).items()
    ]
    graph = helper.make_graph(nodes, "net", given, made, weights)
    versions = [helper.make_opsetid("", opset)]
    return helper.make_model(graph, opset_imports=versions, ir_version=8)


def saved(folder: Path, *args, **options) -> Path:
    """The file of such a model."""
    path = folder / "net.onnx"
    path.write_bytes(make(*args, **options).SerializeToString())
    return path


def agrees(path: Path, *, lower=-2.0, upper=2.0, count=20) -> OnnxNetwork:
    """The network in ``path``, after it was compared with onnxruntime."""
    network = read_onnx(path)
    runtime = Runtime(path)
    gap = compare_onnx(network, runtime, count=count, lower=lower, upper=upper)
    assert gap < CLOSE
    assert network.graph.inside == network.input_shape == runtime.input_shape
    return network


# ------------------------------------------------------------ one operator at a time

F2, F3, F4 = (2, 5), (1, 3, 4), (1, 4, 6, 7)
ONE = {"w": np.float32(0.7)}
UNARY = [
    ("Relu", {}), ("LeakyRelu", {}), ("LeakyRelu", {"alpha": 1.5}), ("Abs", {}),
    ("Neg", {}), ("Sigmoid", {}), ("Tanh", {}), ("Softplus", {}), ("Elu", {}),
    ("Elu", {"alpha": 0.3}), ("Selu", {}), ("Selu", {"alpha": 1.2, "gamma": -2.0}),
    ("Celu", {"alpha": 0.4}), ("HardSigmoid", {}),
    ("HardSigmoid", {"alpha": 0.5, "beta": 0.1}), ("Identity", {}), ("Dropout", {}),
    ("Cast", {"to": 1}), ("Flatten", {}), ("Flatten", {"axis": 0}),
    ("Flatten", {"axis": -1}), ("Flatten", {"axis": 3}), ("Transpose", {}),
    ("Transpose", {"perm": [1, 0, 2]}), ("Squeeze", {}), ("Sum", {}), ("Mean", {}),
    ("Max", {}), ("Min", {}), ("ReduceMean", {}), ("ReduceMean", {"axes": [-1]}),
    ("ReduceMean", {"axes": [1, 2], "keepdims": 0}), ("ReduceSum", {}),
    ("ReduceMax", {"axes": [2]}), ("ReduceMax", {"axes": [0, 2], "keepdims": 0}),
    ("ReduceMax", {}), ("ReduceMin", {"axes": [1]}), ("ReduceMin", {"keepdims": 0}),
    ("Concat", {"axis": 1}), ("Split", {"axis": 2}),
    ("ReduceSum", {"noop_with_empty_axes": 1}),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "options"), UNARY)
def test_an_operator_of_one_value(kind, options, tmp_path):
    agrees(saved(tmp_path, [N(kind, ["x"], ["y"], **options)], F3, opset=13))


NEWER = [
    ("Gelu", {}), ("Gelu", {"approximate": "tanh"}),
    ("Split", {"axis": 2, "num_outputs": 1}),
]  # fmt: skip
NEWEST = [("Swish", {}), ("Swish", {"alpha": 1.7})]


@pytest.mark.parametrize(
    ("kind", "options", "opset"),
    [(*case, 20) for case in NEWER] + [(*case, 24) for case in NEWEST],
)
def test_newer_operators(kind, options, opset, tmp_path):
    model = make([N(kind, ["x"], ["y"], **options)], F3, opset=opset)
    if kind != "Swish":
        (tmp_path / "net.onnx").write_bytes(model.SerializeToString())
        agrees(tmp_path / "net.onnx")
        return
    (tmp_path / "net.onnx").write_bytes(model.SerializeToString())
    x, alpha = torch.from_numpy(numbers(9, *F3)).double(), options.get("alpha", 1.0)
    alpha = float(np.float32(alpha))
    got = read_onnx(tmp_path / "net.onnx").graph(x)
    torch.testing.assert_close(got, x * torch.sigmoid(alpha * x))


I64 = np.int64
TAKES = [  # kind, shape of x, the constants, options
    ("PRelu", F4, [numbers(4, 1, 1)], {}),
    ("Reshape", F3, [I64([0, -1, 2])], {}),
    ("Reshape", F3, [I64([4, 3])], {"allowzero": 1}),
    ("Reshape", F3, [I64([-1])], {}),
    ("Squeeze", F3, [I64([0])], {}),
    ("Squeeze", F3, [I64([-3])], {}),
    ("Unsqueeze", F3, [I64([0, -1])], {}),
    ("Unsqueeze", F3, [I64([3, 1])], {}),
    ("Expand", (1, 3, 1), [I64([2, 1, 4])], {}),
    ("Expand", F3, [I64([2, 1, 1, 1])], {}),
    ("Tile", F3, [I64([2, 1, 3])], {}),
    ("Gather", F3, [I64([2, 0, 0])], {"axis": 1}),
    ("Gather", F3, [I64([[1, -1], [0, 2]])], {"axis": -1}),
    ("Gather", F3, [I64(2)], {"axis": 2}),
    ("Slice", F4, [I64([0, 1]), I64([1, 3])], {}),
    ("Slice", F4, [I64([1, 0]), I64([-1, 99]), I64([3, 1])], {}),
    ("Slice", F4, [I64([-1]), I64([-99]), I64([2]), I64([-2])], {}),
    ("Slice", F4, [I64([4, 5]), I64([0, -2**63]), I64([2, -1]), I64([-1, -3])], {}),
    ("Slice", F4, [I64([0]), I64([2**63 - 1]), I64([-1]), I64([3])], {}),
    ("Slice", F4, [I64([9, -1]), I64([-99, 0]), I64([1, 3]), I64([-1, -1])], {}),
    ("ReduceSum", F4, [I64([1, -1])], {"keepdims": 0}),
    ("ReduceSum", F4, [I64([2])], {}),
    ("Split", F3, [I64([1, 3])], {"axis": -1}),
    ("Add", F3, [numbers(3, 1)], {}),
    ("Add", (3, 1), [numbers(2, 1, 4)], {}),
    ("Sub", F3, [numbers(4)], {}),
    ("Mul", F3, [numbers(3, 1)], {}),
    ("Mul", (3, 1), [numbers(2, 3, 4)], {}),
    ("Div", F3, [numbers(4)], {}),
    ("Sum", F3, [numbers(4), numbers(3, 4, seed=1)], {}),
    ("Mean", F3, [numbers(4), numbers(2, 1, 1, seed=1)], {}),
    ("Max", F3, [numbers(4), numbers(3, 1)], {}),
    ("Min", F3, [numbers(2, 1, 1)], {}),
    ("Clip", F3, [np.float32(-0.5), np.float32(0.7)], {}),
    ("Clip", F3, [np.float32(-0.5)], {}),
    ("Clip", F3, [None, np.float32(0.7)], {}),
    ("Clip", F3, [np.float32(0.5), np.float32(-0.7)], {}),
    ("Clip", F3, [np.float32(-3.4028235e38), np.float32(3.4028235e38)], {}),
    ("Dropout", F3, [np.float32(0.5), np.bool_(False)], {}),
    ("Concat", F3, [numbers(1, 2, 4)], {"axis": -2}),
    ("MatMul", F3, [numbers(4, 6)], {}),
    ("MatMul", F3, [numbers(4)], {}),
    ("MatMul", F3, [numbers(2, 4, 5)], {}),
    ("MatMul", F3, [numbers(1, 1, 4, 5)], {}),
    ("MatMul", (4,), [numbers(4, 5)], {}),
    ("MatMul", (4,), [numbers(4)], {}),
    ("MatMul", (4,), [numbers(3, 4, 5)], {}),
    ("BatchNormalization", F4, [numbers(4), numbers(4, seed=1), numbers(4, seed=2),
                                abs(numbers(4, seed=3))], {"epsilon": 0.1}),
    ("BatchNormalization", F2, [numbers(5)] * 3 + [abs(numbers(5))], {}),
    ("Pad", F3, [I64([0, 1, 2, 0, 0, 3])], {}),
    ("Pad", F3, [I64([0, 1, 2, 0, 0, 3]), np.float32(-1.5)], {}),
    ("Pad", F3, [I64([0, -1, 2, 0, 1, -1]), np.float32(0.5)], {}),
    ("Pad", F3, [I64([0, 1, 2, 0, 2, 3])], {"mode": "reflect"}),
    ("Pad", F3, [I64([0, 1, 2, 2, 5, 9])], {"mode": "edge"}),
    ("Resize", F4, [None, np.float32([1, 1, 2, 3])],
     {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}),
    ("Resize", F4, [None, np.float32([1, 1, 2, 3])], {}),
    ("Resize", F4, [None, None, I64([1, 4, 18, 14])], {}),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "inside", "constants", "options"), TAKES)
def test_an_operator_with_constants(kind, inside, constants, options, tmp_path):
    names = [f"c{k}" if c is not None else "" for k, c in enumerate(constants)]
    weights = {n: c for n, c in zip(names, constants, strict=True) if n}
    made = ["y", "rest"] if kind == "Split" else ["y"]
    agrees(saved(tmp_path, [N(kind, ["x", *names], made, **options)], inside, weights))


@pytest.mark.parametrize(
    ("kind", "weight", "inside"),
    [
        ("Sub", (4,), F3), ("Add", (2, 1, 1), F3), ("MatMul", (5, 3), F3),
        ("MatMul", (3,), F3), ("MatMul", (2, 5, 3), F3), ("MatMul", (6, 4), (4,)),
        ("MatMul", (2, 6, 4), (4,)), ("Mul", (3, 1), F3), ("Max", (4,), F3),
    ],
)  # fmt: skip
def test_the_constant_comes_first(kind, weight, inside, tmp_path):
    agrees(
        saved(tmp_path, [N(kind, ["w", "x"], ["y"])], inside, {"w": numbers(*weight)})
    )


OLD = [  # options in attributes that later became inputs
    ("Clip", {"min": -0.5, "max": 0.7}, 7), ("Clip", {"max": 0.7}, 10),
    ("Clip", {"min": 0.0}, 6 + 1), ("Clip", {}, 7),
    ("Slice", {"starts": [1, -3], "ends": [3, 99], "axes": [1, 2]}, 9),
    ("Slice", {"starts": [0, 1], "ends": [1, 3]}, 9),
    ("Squeeze", {"axes": [0]}, 11), ("Unsqueeze", {"axes": [1, 4]}, 11),
    ("Split", {"axis": 1, "split": [1, 2]}, 11),
    ("Pad", {"pads": [0, 1, 0, 0, 0, 2], "value": 0.25}, 10),
    ("Dropout", {"ratio": 0.3}, 7), ("ReduceSum", {"axes": [1]}, 11),
    ("Upsample", {"scales": [1.0, 2.0, 3.0], "mode": "nearest"}, 7),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "options", "opset"), OLD)
def test_old_versions(kind, options, opset, tmp_path):
    made = ["y", "rest"] if kind == "Split" else ["y"]
    agrees(saved(tmp_path, [N(kind, ["x"], made, **options)], F3, opset=opset))


def test_scales_of_old_versions(tmp_path):
    for kind, opset in (("Upsample", 9), ("Resize", 10)):
        scales = {"s": np.float32([1, 1, 3, 2])}
        nodes = [N(kind, ["x", "s"], ["y"], mode="nearest")]
        agrees(saved(tmp_path, nodes, F4, scales, opset=opset))


@pytest.mark.parametrize("mode", ["DCR", "CRD"])
def test_depth_and_space(mode, tmp_path):
    node = N("DepthToSpace", ["x"], ["y"], blocksize=2, mode=mode)
    agrees(saved(tmp_path, [node], (2, 8, 2, 3)))
    node = N("SpaceToDepth", ["x"], ["y"], blocksize=2)
    agrees(saved(tmp_path, [node], (2, 2, 4, 6)))


@pytest.mark.parametrize("seed", range(16))
def test_gemm(seed, tmp_path):
    rng = np.random.default_rng(seed)
    left, trans_a, trans_b, third = ((seed >> k) & 1 for k in range(4))
    inside = (3, 4) if bool(trans_a if left else trans_b) != bool(left) else (4, 3)
    other = ((5, 4) if trans_b else (4, 5)) if left else ((4, 5) if trans_a else (5, 4))
    inside = ((4, 3) if trans_a else (3, 4)) if left else (
        (3, 4) if trans_b else (4, 3)
    )  # fmt: skip
    rows = (3, 5) if left else (5, 3)
    weights = {"w": numbers(*other), "c": numbers(*(rows if third else rows[1:]))}
    options = {"alpha": rng.normal(), "beta": rng.normal()}
    names = ["x", "w", "c"] if left else ["w", "x", "c"]
    node = N("Gemm", names, ["y"], transA=trans_a, transB=trans_b, **options)
    agrees(saved(tmp_path, [node], inside, weights))


def test_gemm_without_and_with_a_sum_that_depends_on_the_input(tmp_path):
    weights = {"w": numbers(4, 4)}
    agrees(saved(tmp_path, [N("Gemm", ["x", "w"], ["y"])], (1, 4), weights))
    node = N("Gemm", ["x", "w", "x"], ["y"], beta=0.5)
    agrees(saved(tmp_path, [node], (1, 4), weights))


# -------------------------------------------------------------------------- windows


def pooling(rng: np.random.Generator) -> tuple[str, dict, tuple[int, ...]]:
    """A pooling operator with options at random, and a shape that it may take."""
    axes = int(rng.integers(1, 4))
    kernel = rng.integers(1, 4, axes)
    options = {"kernel_shape": kernel, "strides": rng.integers(1, 4, axes)}
    auto = rng.choice(["NOTSET", "NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID"])
    if auto == "NOTSET":
        options["pads"] = rng.integers(0, np.tile(kernel, 2))
        options["ceil_mode"] = int(rng.integers(2))
        options["dilations"] = rng.choice([1, 1, 2], axes)
    else:
        options["auto_pad"] = str(auto)
        options["strides"] = np.minimum(options["strides"], kernel)  # onnxruntime's
    kind = str(rng.choice(["MaxPool", "AveragePool"]))
    if kind == "AveragePool":
        options["count_include_pad"] = int(rng.integers(2))
    options = {k: v.tolist() if hasattr(v, "tolist") else v for k, v in options.items()}
    return (
        kind,
        options,
        (int(rng.integers(1, 3)), 2, *rng.integers(5, 9, axes).tolist()),
    )


@pytest.mark.parametrize("seed", range(40))
def test_pooling_at_random(seed, tmp_path):
    kind, options, inside = pooling(np.random.default_rng(seed))
    path = saved(tmp_path, [N(kind, ["x"], ["y"], **options)], inside, opset=22)
    agrees(path, count=5)


@pytest.mark.parametrize("include", [0, 1])
def test_averages_at_the_end(include, tmp_path):
    for n, stride, ends in ((7, 2, [0, 0]), (8, 3, [1, 1]), (9, 2, [2, 1])):
        options = {"kernel_shape": [4], "strides": [stride], "pads": ends}
        node = N(
            "AveragePool", ["x"], ["y"], ceil_mode=1, count_include_pad=include,
            **options,
        )  # fmt: skip
        agrees(saved(tmp_path, [node], (2, 3, n), opset=19))


def convolution(rng: np.random.Generator, kind: str) -> tuple[dict, dict, tuple]:
    """The options of a convolution at random, its weights, and a shape for it."""
    axes, groups = int(rng.integers(1, 4)), int(rng.integers(1, 3))
    kernel, strides = rng.integers(1, 4, axes), rng.integers(1, 3, axes)
    options = {"strides": strides, "group": groups}
    options["dilations"] = rng.choice([1, 1, 2], axes)
    auto = rng.choice(["NOTSET", "NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID"])
    c, m = 2 * groups, 3 * groups
    shape = (m, c // groups) if kind == "Conv" else (c, m // groups)
    if kind == "ConvTranspose":
        auto = "NOTSET"
        options["output_padding"] = rng.integers(0, strides)
    if auto == "NOTSET":
        options["pads"] = rng.integers(0, 2, 2 * axes)
    else:
        options["auto_pad"] = str(auto)
        options["dilations"] = [1] * axes  # others onnxruntime does not run
    options = {k: v.tolist() if hasattr(v, "tolist") else v for k, v in options.items()}
    weights = {"w": numbers(*shape, *kernel), "b": numbers(m)}
    return options, weights, (1, c, *rng.integers(5, 8, axes).tolist())


@pytest.mark.parametrize("kind", ["Conv", "ConvTranspose"])
@pytest.mark.parametrize("seed", range(20))
def test_convolutions_at_random(kind, seed, tmp_path):
    options, weights, inside = convolution(np.random.default_rng(seed), kind)
    node = N(kind, ["x", "w", "b"][: 3 - seed % 2], ["y"], **options)
    agrees(saved(tmp_path, [node], inside, weights), count=5)


def test_a_transposed_convolution_that_is_told_its_shape(tmp_path):
    weights = {"w": numbers(2, 3, 3, 4)}
    for options in (
        {"output_shape": [9, 12], "strides": [2, 2]},
        {"auto_pad": "SAME_UPPER", "strides": [1, 2]},
    ):
        node = N("ConvTranspose", ["x", "w"], ["y"], **options)
        agrees(saved(tmp_path, [node], (1, 2, 5, 6), weights))
    node = N("ConvTranspose", ["x", "w"], ["y"], output_shape=[8, 12], strides=[2, 2])
    with pytest.raises(TypeError, match="give pads"):
        read_onnx(saved(tmp_path, [node], (1, 2, 5, 6), weights))


@pytest.mark.parametrize("kind", ["GlobalAveragePool", "GlobalMaxPool"])
def test_global_pooling(kind, tmp_path):
    agrees(saved(tmp_path, [N(kind, ["x"], ["y"])], (2, 3, 4, 5)))


# ------------------------------------------------------------- several values, chains


def test_values_that_meet(tmp_path):
    weights = {"w": numbers(4, 4), "k": numbers(1, 2), "c": I64([1])}
    mask = np.array([[True, False, True, False]])
    chains = [
        [N("Max", ["x", "a", "b"], ["y"])], [N("Min", ["a", "x"], ["y"])],
        [N("Sum", ["x", "a", "x", "a", "x"], ["y"])], [N("Sub", ["a", "x"], ["y"])],
        [N("Sub", ["a", "a"], ["z"]), N("Add", ["z", "b"], ["y"])],
        [N("Mean", ["x", "b"], ["y"])], [N("Concat", ["x", "k", "a"], ["y"], axis=1)],
        [N("Concat", ["x", "k", "x"], ["y"], axis=1)],
        [N("Concat", ["a", "a", "b"], ["y"], axis=0)],
        [N("Where", ["m", "x", "a"], ["y"])], [N("Where", ["m", "w", "a"], ["y"])],
        [N("Where", ["m", "x", "x"], ["y"])],
        [N("Split", ["a"], ["p", "q"], axis=1), N("Sub", ["q", "p"], ["y"])],
        [N("Gather", ["x", "c"], ["g"], axis=1), N("Add", ["g", "b"], ["y"])],
    ]  # fmt: skip
    first = [N("MatMul", ["x", "w"], ["a"]), N("Relu", ["a"], ["b"])]
    for chain in chains:
        agrees(saved(tmp_path, first + chain, (1, 4), {**weights, "m": mask}))


def test_the_pieces_of_a_split(tmp_path):
    split = N("Split", ["x"], ["p", "q", "r"], axis=2, num_outputs=3)
    for name in "pqr":
        nodes = [split, N("Relu", [name], ["y"])]
        agrees(saved(tmp_path, nodes, (1, 3, 7), opset=18))
    join = N("Concat", ["r", "p", "q"], ["y"], axis=2)
    agrees(saved(tmp_path, [split, join], (1, 3, 7), opset=18))


def test_shapes_are_folded(tmp_path):
    weights = {
        "zero": I64(0), "at": I64([0]), "minus": I64([-1]), "two": I64([2]),
        "w": numbers(3, 2),
    }  # fmt: skip
    nodes = [
        N("Shape", ["x"], ["s"]), N("Gather", ["s", "zero"], ["n"], axis=0),
        N("Unsqueeze", ["n", "at"], ["u"]), N("Concat", ["u", "minus"], ["t"], axis=0),
        N("Reshape", ["x", "t"], ["flat"]),
        N("Shape", ["flat"], ["r"], start=1), N("Div", ["r", "two"], ["half"]),
        N("Slice", ["flat", "at", "half", "minus"], ["front"]),
        N("ConstantOfShape", ["two"], ["ones"],
          value=numpy_helper.from_array(np.float32([1.5]))),
        N("Constant", [], ["c"], value_floats=[1.0, -1.0, 0.5]),
        N("Size", ["x"], ["size"]), N("Cast", ["size"], ["f"], to=1),
        N("Sqrt", ["f"], ["root"]), N("Div", ["front", "root"], ["z"]),
        N("Add", ["z", "c"], ["v"]), N("Identity", ["w"], ["w2"]),
        N("MatMul", ["v", "w2"], ["q"]), N("Add", ["q", "ones"], ["y"]),
    ]  # fmt: skip
    network = agrees(saved(tmp_path, nodes, ("batch", 2, 3), weights, outside=("b", 2)))
    assert (network.input_shape, network.output_shape) == ((1, 2, 3), (1, 2))
    assert (network.input_name, network.output_name) == ("x", "y")


GELU = {"c": np.float32(2**0.5), "one": np.float32(1), "half": np.float32(0.5)}
GELU["two"] = np.float32(2)


def test_gelu_and_silu_spelled_out(tmp_path):
    front = [N("Div", ["x", "c"], ["a"]), N("Erf", ["a"], ["b"])]
    front.append(N("Add", ["b", "one"], ["d"]))
    for back in (
        [N("Mul", ["x", "d"], ["e"]), N("Mul", ["e", "half"], ["y"])],
        [N("Mul", ["half", "x"], ["e"]), N("Mul", ["e", "d"], ["y"])],
        [N("Div", ["d", "two"], ["e"]), N("Mul", ["e", "x"], ["y"])],
    ):
        network = agrees(saved(tmp_path, front + back, F3, GELU))
        assert [network.graph.nodes[i].op.name for i in network.graph.units] == ["gelu"]
        assert len(network.graph.nodes) == 2
    silu = [N("Sigmoid", ["x"], ["s"]), N("Mul", ["s", "x"], ["y"])]
    agrees(saved(tmp_path, silu, F3))
    quick = [N("Mul", ["x", "c"], ["a"]), N("Sigmoid", ["a"], ["s"])]
    agrees(saved(tmp_path, [*quick, N("Mul", ["x", "s"], ["y"])], F3, GELU))
    for broken in (
        [N("Add", ["x", "one"], ["a"]), N("Sigmoid", ["a"], ["s"])],
        [N("Mul", ["x", "row"], ["a"]), N("Sigmoid", ["a"], ["s"])],
        [N("Relu", ["x"], ["a"]), N("Sigmoid", ["a"], ["s"])],
    ):
        product = [*broken, N("Mul", ["x", "s"], ["y"])]
        with pytest.raises(NoRuleError, match="such products have a rule only as"):
            read_onnx(saved(tmp_path, product, F3, {**GELU, "row": numbers(4)}))
    wrong = {**GELU, "c": np.float32(1.5)}
    for broken in (wrong, {**GELU, "one": np.float32(0.9)}):
        with pytest.raises(TypeError, match=r"only within GELU"):
            read_onnx(saved(tmp_path, front + back, F3, broken))


def test_softplus_with_a_threshold(tmp_path):
    weights = {"b": np.float32(5), "t": np.float32(20)}
    nodes = [
        N("Mul", ["x", "b"], ["a"]), N("Softplus", ["a"], ["s"]),
        N("Div", ["s", "b"], ["d"]), N("Greater", ["a", "t"], ["g"]),
        N("Where", ["g", "x", "d"], ["y"]),
    ]  # fmt: skip
    agrees(saved(tmp_path, nodes, F3, weights), lower=-6, upper=6)
    plain = [N("Softplus", ["x"], ["s"]), N("Greater", ["x", "t"], ["g"])]
    plain.append(N("Where", ["g", "x", "s"], ["y"]))
    agrees(saved(tmp_path, plain, F3, weights), lower=-30, upper=30)
    for broken in (
        {"b": np.float32(5), "t": np.float32(2)},
        {"b": np.float32(-5), "t": np.float32(20)},
    ):
        with pytest.raises(TypeError, match="only as softplus"):
            read_onnx(saved(tmp_path, nodes, F3, broken))
    nodes[-1] = N("Where", ["g", "d", "x"], ["y"])
    with pytest.raises(TypeError, match="only as softplus"):
        read_onnx(saved(tmp_path, nodes, F3, weights))


def test_a_bias_of_its_own_joins_the_matrix_before_it(tmp_path):
    weights = {"w": numbers(4, 3), "c": numbers(3)}
    first = N("MatMul", ["x", "w"], ["a"])
    network = agrees(
        saved(tmp_path, [first, N("Add", ["a", "c"], ["y"])], (1, 4), weights)
    )
    assert len(network.graph.nodes) == 2
    shared = [N("Add", ["a", "c"], ["b"]), N("Max", ["a", "b"], ["y"])]
    network = agrees(saved(tmp_path, [first, *shared], (1, 4), weights))
    maps = [getattr(node.op, "map", None) for node in network.graph.nodes]
    assert sum(isinstance(linear, Matrix) for linear in maps) == 1


def test_dead_branches_and_the_old_style(tmp_path):
    weights = {"w": numbers(4, 3), "nan": np.float32([np.nan])}
    nodes = [N("MatMul", ["x", "w"], ["y"]), N("Softmax", ["y"], ["p"])]
    nodes.append(N("Add", ["p", "nan"], ["q"]))
    model = make(nodes, (1, 4), weights)
    model.graph.input.append(
        helper.make_tensor_value_info("w", TensorProto.FLOAT, (4, 3))
    )
    path = tmp_path / "net.onnx"
    path.write_bytes(model.SerializeToString())
    assert len(agrees(path).graph.nodes) == 2


def test_float64_and_a_larger_leading_length(tmp_path):
    weights = {"w": numbers(4, 3).astype("float64") / 3}
    nodes = [N("MatMul", ["x", "w"], ["z"]), N("Relu", ["z"], ["y"])]
    path = saved(tmp_path, nodes, (5, 4), weights, dtype=TensorProto.DOUBLE)
    network = read_onnx(path)
    assert (network.input_dtype, network.input_shape) == ("float64", (5, 4))
    assert compare_onnx(network, Runtime(path), count=10, lower=-1) < 1e-14
    assert Runtime(path)(np.zeros((2, 5, 4))).shape == (2, 5, 3)


def test_weights_are_exact(tmp_path):
    weight = numbers(4, 3)
    path = saved(tmp_path, [N("MatMul", ["x", "w"], ["y"])], (1, 4), {"w": weight})
    got = read_onnx(path).graph.nodes[1].op.map.weight
    assert got.dtype == torch.float64
    assert (got.numpy() == weight.T.astype("float64")).all()
    half = {"h": numbers(4, 3).astype("float16")}
    nodes = [N("Cast", ["h"], ["w"], to=1), N("MatMul", ["x", "w"], ["y"])]
    agrees(saved(tmp_path, nodes, (1, 4), half))


# -------------------------------------------------------------------------- refused

TWO = "depend on the input"
REFUSED = [  # operator and options, what the error says, shape
    ("Softmax", {}, "the logits, have the same order", F3),
    ("LogSoftmax", {}, "the logits, have the same order", F3),
    ("Sign", {}, "there are rules for Abs, Add", F3),
    ("Floor", {}, "there are rules", F3),
    ("Erf", {}, "only within GELU", F3),
    ("HardSwish", {}, "product of two values", F3),
    ("ThresholdedRelu", {}, "there are rules", F3),
    ("ArgMax", {}, "there are rules", F3),
    ("Cast", {"to": 7}, "cast to float or double only", F3),
    ("Cast", {"to": 10}, "cast to float or double only", F3),
    ("Elu", {"alpha": -1.0}, "alpha is -1.0", F3),
    ("Relu", {"strange": 1}, "nothing is known of its strange", F3),
    ("MaxPool", {"kernel_shape": [2, 2], "storage_order": 1}, "column major", F4),
    ("AveragePool", {"kernel_shape": [2, 2], "auto_pad": "VALID", "ceil_mode": 1},
     "read differently", F4),
    ("MaxPool", {"kernel_shape": [2]}, "a kernel", F4),
    ("Transpose", {"perm": [0, 1]}, "axes don't match", F3),
    ("Flatten", {"axis": 7}, "no axis 7", F3),
    ("Clip", {"min": -1e30}, "digits get lost", F3),
    ("DynamicQuantizeLinear", {}, "quantised", F3),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "options", "says", "inside"), REFUSED)
def test_what_has_no_rule_is_named(kind, options, says, inside, tmp_path):
    opset = 10 if kind == "Clip" else 17
    node = N(kind, ["x"], ["y"], name="the_node", **options)
    with pytest.raises((TypeError, ValueError), match=says) as error:
        read_onnx(saved(tmp_path, [node], inside, opset=opset))
    assert f"{kind} 'the_node'" in str(error.value)
    assert "net.onnx" in str(error.value)


A, B = numbers(2, 3), numbers(4)
MISFITS = [  # operator, constants, options, what the error says, shape
    ("Reshape", [I64([-2, 6])], {}, "a shape of", F3),
    ("Reshape", [I64([5, 5])], {}, "cannot reshape", F3),
    ("Reshape", [np.float32([3, 4])], {}, "not integers", F3),
    ("Unsqueeze", [], {}, "no axes", F3),
    ("Slice", [], {}, "starts or ends", F3),
    ("Slice", [I64([2]), I64([2]), I64([1])], {}, "empty", F3),
    ("Split", [I64([1, 1])], {"axis": 2}, "cannot be split", F3),
    ("Split", [], {"axis": 1}, "equal parts", F3),
    ("Tile", [I64([2])], {}, "repeats", F3),
    ("DepthToSpace", [], {"blocksize": 2, "mode": "XYZ"}, "DCR and CRD", F4),
    ("Resize", [None, np.float32([1, 1, 2, 1.5])], {}, "by whole factors", F4),
    ("Resize", [None, np.float32([1, 1, 2, 2])], {"mode": "linear"}, "whole", F4),
    ("Resize", [None, np.float32([2, 2])], {}, "2 factors for 4 axes", F4),
    ("Gemm", [A], {}, "not two axes", F3),
    ("Gemm", [A, A], {}, "does not take", (2, 3)),
    ("MatMul", [A], {}, "no product of", F3),
    ("MatMul", [numbers(2, 4, 3)], {}, "shape", (3, 5, 4)),
    ("Add", [I64([1, 2, 3, 4])], {}, "not floats", F3),
    ("Relu", [], {"alpha": 1.0}, "nothing is known of its alpha", F3),
    ("LeakyRelu", [], {"alpha": float("nan")}, "alpha is nan", F3),
    ("Flatten", [], {"axis": 1.5}, "not whole", F3),
    ("Gelu", [], {"approximate": "other"}, "approximation 'other'", F3),
    ("Clip", [B, B], {}, "not one number", F3),
    ("BatchNormalization", [abs(B)] * 4, {}, "do not fit the channels", F3),
    ("BatchNormalization", [B] * 3 + [abs(B)], {"training_mode": 1}, "inference", F4),
    ("Dropout", [np.float32(0.5), np.bool_(True)], {}, "training mode", F3),
    ("Conv", [A], {}, "1 to 3 axes", (2, 3)),
    ("Conv", [numbers(4, 4, 2, 2)], {"kernel_shape": [3, 3]}, "kernel_shape", F4),
    ("Conv", [numbers(4, 4, 2, 2), numbers(1)], {}, "a bias", F4),
    ("Conv", [numbers(4, 4, 2, 2)], {"pads": [1, 1, 1, 1], "auto_pad": "VALID"},
     "auto_pad 'VALID' with pads", F4),
    ("Conv", [numbers(4, 4, 2, 2)], {"strides": [0, 1]}, "strides is", F4),
    ("Conv", [numbers(4, 3, 2, 2)], {}, "does not take", F4),
    ("ConvTranspose", [numbers(4, 4, 2, 2)], {"output_padding": [1, 1]},
     "output_padding", F4),
    ("AveragePool", [], {"kernel_shape": [9, 9]}, "wider", F4),
    ("AveragePool", [], {"kernel_shape": [1, 1], "pads": [1] * 4}, "padding", F4),
    ("ReduceSum", [I64([1, -2])], {}, "named twice", F3),
    ("Pad", [I64([1, 1])], {}, "pads for", F3),
    ("Pad", [I64([0, -1, 0, 0, 0, 0])], {"mode": "edge"}, "negative pads", F3),
    ("Pad", [I64([0, 3, 0, 0, 0, 0])], {"mode": "reflect"}, "on a length of 3", F3),
    ("Pad", [I64([0, 3, 0, 0, 0, 0])], {"mode": "other"}, "reflect, edge", F3),
    ("Where", [B, B], {}, "input 0", F3),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "constants", "options", "says", "inside"), MISFITS)
def test_what_does_not_fit_is_said(kind, constants, options, says, inside, tmp_path):
    names = [f"c{k}" if c is not None else "" for k, c in enumerate(constants)]
    weights = {n: c for n, c in zip(names, constants, strict=True) if n}
    made = ["y", "rest"] if kind == "Split" else ["y"]
    opset = 20 if kind == "Gelu" else 17
    node = N(kind, ["x", *names], made, name="the_node", **options)
    with pytest.raises((NoRuleError, ValueError), match=says) as error:
        read_onnx(saved(tmp_path, [node], inside, weights, opset=opset))
    assert f"{kind} 'the_node'" in str(error.value)


def test_other_outputs_and_constants_without_a_rule(tmp_path):
    pool = N("MaxPool", ["x"], ["p", "i"], kernel_shape=[2, 2])
    nodes = [pool, N("Cast", ["i"], ["f"], to=1), N("Add", ["p", "f"], ["y"])]
    with pytest.raises(NoRuleError, match="output of indices is used"):
        read_onnx(saved(tmp_path, nodes, F4))
    agrees(saved(tmp_path, [pool, N("Relu", ["p"], ["y"])], F4))
    nodes = [N("Dropout", ["x"], ["d", "m"]), N("Where", ["m", "d", "x"], ["y"])]
    with pytest.raises(NoRuleError, match="training mode"):
        read_onnx(saved(tmp_path, nodes, F3))
    nodes = [N("MatMul", ["a", "a"], ["b"]), N("Add", ["x", "b"], ["y"])]
    with pytest.raises(
        NoRuleError, match="MatMul 'b': the constant cannot be computed"
    ):
        read_onnx(saved(tmp_path, nodes, F3, {"a": A}))
    nodes = [N("Constant", [], ["c"], value_string="no"), N("Add", ["x", "c"], ["y"])]
    with pytest.raises(NoRuleError, match="its value is value_string"):
        read_onnx(saved(tmp_path, nodes, F3))
    nodes = [N("Div", ["a", "a"], ["b"]), N("Add", ["x", "b"], ["y"])]
    with pytest.raises(ValueError, match="constant 'b' holds NaN"):
        read_onnx(saved(tmp_path, nodes, F3, {"a": np.float32(0)}))
    nodes = [N("Gather", ["a", "x"], ["y"])]
    with pytest.raises(NoRuleError, match="second input depends"):
        read_onnx(saved(tmp_path, nodes, F3, {"a": A}))
    nodes = [
        N("Mul", ["x", "s"], ["z"]),
        N("Erf", ["z"], ["e"]),
        N("Relu", ["e"], ["y"]),
    ]
    with pytest.raises(NoRuleError, match="Relu 'y': Erf has a rule only within GELU"):
        read_onnx(saved(tmp_path, nodes, F3, {"s": np.float32(0.5**0.5)}))
    nodes = [N("Greater", ["x", "s"], ["g"]), N("Not", ["g"], ["y"])]
    with pytest.raises(NoRuleError, match="Not 'y': there are rules"):
        read_onnx(saved(tmp_path, nodes, F3, {"s": np.float32(1)}))


def test_sparse_weights_have_no_rule(tmp_path):
    values = numpy_helper.from_array(numbers(2), "w")
    sparse = helper.make_sparse_tensor(
        values, numpy_helper.from_array(I64([0, 3])), [4]
    )
    model = make([N("Add", ["x", "w"], ["y"])], F3)
    model.graph.sparse_initializer.append(sparse)
    path = tmp_path / "net.onnx"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(NoRuleError, match="'w' is stored as sparse"):
        read_onnx(path)


def test_two_values_that_depend_on_the_input(tmp_path):
    relu, weights = N("Relu", ["x"], ["r"]), {"w": numbers(3, 3), "m": np.eye(3) > 0}
    for node, says in [
        (N("Mul", ["x", "r"], ["y"]), TWO), (N("Mul", ["x", "x"], ["y"]), TWO),
        (N("Div", ["w", "r"], ["y"]), "its divisor"),
        (N("MatMul", ["x", "r"], ["y"]), TWO),
        (N("Gemm", ["x", "r"], ["y"]), "not a constant"),
        (N("Greater", ["x", "r"], ["y"]), "comparisons"),
        (N("Pow", ["x", "w"], ["y"]), "not piecewise linear"),
        (N("PRelu", ["x", "r"], ["y"]), "not a constant"),
        (N("Conv", ["x", "r"], ["y"]), "not a constant"),
    ]:  # fmt: skip
        with pytest.raises(TypeError, match=says):
            read_onnx(saved(tmp_path, [relu, node], (3, 3), weights))


def test_operators_of_others(tmp_path):
    for node, says in [
        (N("Gelu", ["x"], ["y"], domain="com.microsoft"), "com.microsoft"),
        (N("Mine", ["x"], ["y"], domain="mine"), "domain 'mine'"),
    ]:
        with pytest.raises(TypeError, match=says):
            read_onnx(saved(tmp_path, [node], F3))
    model = make([N("Relu", ["x"], ["y"])], F3)
    body = [N("Neg", ["a"], ["b"])]
    versions = [helper.make_opsetid("", 17)]
    function = helper.make_function("", "Relu", ["a"], ["b"], body, versions)
    model.functions.append(function)  # a ReLU that is none
    path = tmp_path / "net.onnx"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(TypeError, match="function of the file's own"):
        read_onnx(path)


def test_versions_without_rules(tmp_path):
    for opset in (6, 99):
        with pytest.raises(TypeError, match="versions 7 to"):
            read_onnx(saved(tmp_path, [N("Relu", ["x"], ["y"])], F3, opset=opset))


def test_random_constants_and_branches(tmp_path):
    nodes = [N("RandomNormal", [], ["r"], shape=[3, 4]), N("Add", ["x", "r"], ["y"])]
    with pytest.raises(TypeError, match="RandomNormal 'r': its output is random"):
        read_onnx(saved(tmp_path, nodes, F3))
    branch = helper.make_graph(
        [N("Identity", ["x"], ["z"])], "b", [],
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, F3)],
    )  # fmt: skip
    node = N("If", ["c"], ["y"], then_branch=branch, else_branch=branch)
    with pytest.raises(TypeError, match="without branches"):
        read_onnx(saved(tmp_path, [node], F3, {"c": np.bool_(True)}))


def test_bad_numbers_are_named(tmp_path):
    for bad in (np.nan, np.inf):
        weights = {"weight": np.float32([bad, 1, 2, 3])}
        with pytest.raises(ValueError, match="'weight' holds NaN or infinity"):
            read_onnx(saved(tmp_path, [N("Add", ["x", "weight"], ["y"])], F3, weights))
    with pytest.raises(ValueError, match="divides by zero"):
        read_onnx(
            saved(tmp_path, [N("Div", ["x", "w"], ["y"])], F3, {"w": np.float32(0)})
        )
    weights = {"w": np.float32([1, 1, 1]), "v": np.float32([1, 1, -2])}
    nodes = [N("BatchNormalization", ["x", "w", "w", "w", "v"], ["y"])]
    with pytest.raises(ValueError, match="variance"):
        read_onnx(saved(tmp_path, nodes, F3, weights))
    with pytest.raises(ValueError, match=r"Add 'y'.*"):
        read_onnx(saved(tmp_path, [N("Add", ["x", "w"], ["y"])], F3, {"w": numbers(5)}))


def test_convolutions_take_one_image(tmp_path):
    weights = {"w": numbers(3, 4, 2, 2)}
    node = N("Conv", ["x", "w"], ["y"])
    with pytest.raises(TypeError, match="holds 2 images: export the network"):
        read_onnx(saved(tmp_path, [node], (2, 4, 6, 7), weights))
    agrees(saved(tmp_path, [node], ("n", 4, 6, 7), weights))


def test_inputs_and_outputs(tmp_path):
    path = tmp_path / "net.onnx"
    model = make([N("Add", ["x", "z"], ["y"])], F3)
    model.graph.input.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, F3))
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ValueError, match=r"2 inputs \(x, z\)"):
        read_onnx(path)
    model = make([N("Relu", ["x"], ["y"])], F3)
    model.graph.output.append(model.graph.input[0])
    path.write_bytes(model.SerializeToString())
    for reader in (read_onnx, Runtime):
        with pytest.raises(ValueError, match=r"2 outputs \(y, x\)"):
            reader(path)
    relu = [N("Relu", ["x"], ["y"])]
    for inside, says in (
        ((1, "n"), "must be fixed"),
        ((1, 0), "zero"),
        (None, "shape"),
    ):
        with pytest.raises(ValueError, match=says):
            read_onnx(saved(tmp_path, relu, inside))
    with pytest.raises(TypeError, match="not made of float32"):
        read_onnx(saved(tmp_path, relu, F3, dtype=TensorProto.INT64))
    with pytest.raises(ValueError, match="declared to be of shape"):
        read_onnx(saved(tmp_path, relu, F3, outside=(3, 4)))
    constant = [N("Identity", ["w"], ["y"])]
    with pytest.raises(ValueError, match="does not depend on the input"):
        read_onnx(saved(tmp_path, constant, F3, {"w": numbers(3)}))
    with pytest.raises(ValueError, match="'b', which nothing before makes"):
        read_onnx(saved(tmp_path, [N("Add", ["x", "b"], ["y"])], F3))
    twice = [N("Relu", ["x"], ["y"]), N("Abs", ["x"], ["y"])]
    with pytest.raises(ValueError, match="'y' is defined twice"):
        read_onnx(saved(tmp_path, twice, F3))


# ---------------------------------------------------------------------------- files


def small() -> onnx.ModelProto:
    """A matrix and a ReLU."""
    nodes = [N("MatMul", ["x", "w"], ["z"]), N("Relu", ["z"], ["y"])]
    return make(nodes, (1, 4), {"w": numbers(4, 3)})


def test_packed_files_and_bytes(tmp_path):
    data, path = small().SerializeToString(), tmp_path / "net.onnx.gz"
    path.write_bytes(gzip.compress(data))
    agrees(path)
    x = numbers(3, 1, 4)
    assert (Runtime(data)(x) == Runtime(path)(x)).all()
    path.write_bytes(gzip.compress(data)[:-20])
    for reader in (read_onnx, Runtime):
        with pytest.raises(ValueError, match=r"net.onnx.gz: not a whole gzip"):
            reader(path)
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"net.onnx.gz: not a whole gzip"):
        read_onnx(path)


def test_broken_files_are_named(tmp_path):
    path, data = tmp_path / "net.onnx", small().SerializeToString()
    for broken in (b"", b"no network", b"\x00" * 50, gzip.compress(data), b"\x08\x07"):
        path.write_bytes(broken)
        for reader in (read_onnx, Runtime):
            with pytest.raises(
                ValueError, match=r"net\.onnx: (the file is empty|not ONNX)"
            ):
                reader(path)
    for end in range(1, len(data), 7):
        path.write_bytes(data[:end])
        with pytest.raises(ValueError, match=r"net\.onnx"):
            read_onnx(path)
    with pytest.raises(FileNotFoundError):
        read_onnx(tmp_path / "missing.onnx")


def test_broken_weights_are_named(tmp_path):
    path = tmp_path / "net.onnx"
    for dims in ((4, 4), (-1, 3), (3, -1)):
        model = small()
        model.graph.initializer[0].dims[:] = dims
        path.write_bytes(model.SerializeToString())
        with pytest.raises(ValueError, match="weight 'w'"):
            read_onnx(path)
    model = small()
    model.graph.initializer[0].data_type = TensorProto.FLOAT8E4M3FN
    path.write_bytes(model.SerializeToString())
    with pytest.raises(TypeError, match="'w' is of dtype FLOAT8E4M3FN"):
        read_onnx(path)


def test_damaged_files_are_refused_or_still_agree(tmp_path):
    rng, path = np.random.default_rng(0), tmp_path / "net.onnx"
    weights = {"w": numbers(3, 2, 3, 3), "g": numbers(4, 27), "at": I64([1])}
    nodes = [
        N("Conv", ["x", "w"], ["a"], pads=[1, 1, 1, 1], strides=[2, 2]),
        N("Flatten", ["a"], ["b"]), N("Gemm", ["b", "g"], ["c"], transB=1),
        N("Gather", ["c", "at"], ["y"], axis=1),
    ]  # fmt: skip
    whole, read = make(nodes, (1, 2, 6, 6), weights).SerializeToString(), 0
    for _ in range(200):
        data = bytearray(whole)
        for place in rng.integers(len(data), size=rng.integers(1, 4)):
            data[place] = rng.integers(256)
        path.write_bytes(bytes(data))
        try:
            network, runtime = read_onnx(path), Runtime(path)
        except (ValueError, NoRuleError):
            continue
        assert compare_onnx(network, runtime, count=2, lower=-1) < CLOSE
        read += 1
    assert read > 20


def apart(folder: Path, **where: object) -> Path:
    """The file of ``small``, its weights in another file; ``where`` says where."""
    model = small()
    weight = model.graph.initializer[0]
    (folder / "weights.bin").write_bytes(b"1234" + weight.raw_data)
    weight.ClearField("raw_data")
    weight.data_location = TensorProto.EXTERNAL
    place = {"location": "weights.bin", "offset": 4, "length": 48, **where}
    for key, value in place.items():
        weight.external_data.add(key=key, value=str(value))
    path = folder / "net.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def test_weights_in_another_file(tmp_path):
    x = torch.from_numpy(numbers(5, 1, 4)).double()
    want = (x @ torch.from_numpy(numbers(4, 3)).double()).relu()
    path = apart(tmp_path)
    assert (read_onnx(path).graph(x) == want).all()
    agrees(path)
    packed = tmp_path / "net.onnx.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    agrees(packed)
    with pytest.raises(ValueError, match="given as bytes has no other files"):
        Runtime(path.read_bytes())


def test_weights_elsewhere_are_not_read(tmp_path):
    folder, outside = tmp_path / "net", tmp_path / "secret.bin"
    (folder / "sub").mkdir(parents=True)
    outside.write_bytes(b"1234" + numbers(4, 3).tobytes())
    (folder / "link.bin").symlink_to(outside)
    (folder / "way").symlink_to(tmp_path)
    (folder / "inner.bin").symlink_to(folder / "weights.bin")
    for location in (
        "../secret.bin", str(outside), "sub/../../secret.bin", "..\\secret.bin",
        "C:\\secret.bin", "\\secret.bin", "link.bin", "way/secret.bin", "missing.bin",
        "sub", "", ".",
    ):  # fmt: skip
        path = apart(folder, location=location)
        for reader in (read_onnx, Runtime):
            with pytest.raises(ValueError, match="weight 'w' is said to lie in"):
                reader(path)
    assert agrees(apart(folder, location="inner.bin"))
    for place in (
        {"offset": 8}, {"offset": -4}, {"length": 52}, {"length": 44}, {"length": -1},
        {"offset": "x"}, {"offset": 10**18},
    ):  # fmt: skip
        for reader in (read_onnx, Runtime):
            with pytest.raises(ValueError, match="weight 'w'"):
                reader(apart(folder, **place))


def test_weights_elsewhere_in_attributes(tmp_path):
    tensor = numpy_helper.from_array(numbers(3), "t")
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../secret.bin")
    inner = N("Constant", [], ["z"], value=tensor)
    made = [helper.make_tensor_value_info("z", TensorProto.FLOAT, (3,))]
    branch = helper.make_graph([inner], "b", [], made)
    for node in (inner, N("If", ["c"], ["q"], then_branch=branch, else_branch=branch)):
        model = make([node, N("Relu", ["x"], ["y"])], F3, {"c": np.bool_(True)})
        with pytest.raises(ValueError, match="only files in the folder"):
            parse(model.SerializeToString(), tmp_path / "net.onnx")


def test_the_runtime_takes_its_own_dtype_only(tmp_path):
    runtime = Runtime(small().SerializeToString())
    with pytest.raises(ValueError, match="not \\(N, 1, 4\\) of float32"):
        runtime(np.zeros((2, 1, 4)))
    with pytest.raises(ValueError, match="not \\(N, 1, 4\\)"):
        runtime(numbers(2, 4))
    with pytest.raises(ValueError, match="onnxruntime cannot open"):
        Runtime(make([N("Nothing", ["x"], ["y"])], F3).SerializeToString())


def test_a_comparison_sees_another_network(tmp_path):
    one = read_onnx(saved(tmp_path, [N("Relu", ["x"], ["y"])], F3))
    other = Runtime(saved(tmp_path, [N("Abs", ["x"], ["y"])], F3))
    assert compare_onnx(one, other, count=20, lower=-1.0) > 0.5
    assert compare_onnx(one, other, count=20) == 0
    lower = torch.tensor([0.0, 0.0, 0.0, -1.0])
    assert compare_onnx(one, other, count=20, lower=lower) > 0.5
    assert compare_onnx(one, other, count=7, seed=1, lower=lower, batch=3) > 0.5


def test_importing_the_module_does_not_import_onnx():
    code = "import sys, advlib.networks.onnx_files; print({'onnx'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "set()\n"


# ------------------------------------------------------------------ exported by torch


class Plain(nn.Module):
    """Convolutions, pooling, shortcuts, units: what classifiers are made of."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.norm.running_mean.normal_()
        self.norm.running_var.uniform_(0.5, 2)
        self.prelu, self.last = nn.PReLU(4), nn.Linear(36, 5)
        self.back = nn.ConvTranspose2d(4, 4, 3, 2, 1, 1)
        self.pool = nn.MaxPool2d(3, 2, 1, ceil_mode=True)
        self.mean = nn.AvgPool2d(3, 2, 1, ceil_mode=True, count_include_pad=False)
        self.even = nn.AvgPool2d(2, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.norm(self.conv(x)))
        x = x + nn.functional.relu6(2 * x) + nn.functional.hardtanh(x)
        x = self.prelu(self.back(self.mean(self.pool(x))))
        x = nn.functional.leaky_relu(self.even(x)).permute(0, 2, 3, 1)
        x = torch.cat([x[:, 1:], nn.functional.pad(x, (0, 0, 1, 0))[:, :2, 1:]], 1)
        return self.last(x.flatten(1)[:, :36])


class Smooth(nn.Module):
    """The smooth units, and options of theirs."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(4, 32), nn.Linear(32, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        a, b, c, d = self.first(x).chunk(4, 1)
        a = torch.cat([nn.functional.gelu(a[:, :4]), nn.functional.silu(a[:, 4:])], 1)
        b = nn.functional.softplus(b, beta=5.0) + nn.functional.softplus(b)
        c = torch.cat([nn.functional.elu(c), torch.sigmoid(d)], 1)
        return self.last(torch.cat([a, b, c], 1)) + torch.tanh(x[:, :3])


def exported(model: nn.Module, x: torch.Tensor, path: Path, **options) -> Path:
    """The file of ``model`` that torch writes."""
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the old exporter is said to be old
            torch.onnx.export(model.eval(), (x,), path, verbose=False, **options)
    finally:
        logging.disable(logging.NOTSET)
    return path


@pytest.mark.parametrize("dynamo", [False, True])
def test_networks_that_torch_exports(dynamo, tmp_path):
    pytest.importorskip("onnxscript")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        models = {"plain": (Plain(), (1, 1, 9, 9)), "smooth": (Smooth(), (1, 4))}
    for name, (model, shape) in models.items():
        options = {"dynamo": dynamo}
        if not dynamo:
            options["dynamic_axes"] = {"x": {0: "batch"}}
        path = tmp_path / f"{name}.onnx"
        x = torch.zeros(shape)
        network = agrees(
            exported(model, x, path, input_names=["x"], **options), count=50
        )
        x = torch.from_numpy(numbers(20, *shape))
        want = torch.stack([model.double()(one.double()) for one in x])
        torch.testing.assert_close(network.graph(x.double()), want, rtol=0, atol=1e-6)
        assert Path(f"{path}.data").exists() == dynamo  # weights in another file


def benchmarks() -> list[Path]:
    """The smallest file of each benchmark, the large ones left out."""
    found = []
    for folder in sorted(BENCHMARKS.glob("*")):
        files = sorted(folder.glob("*.onnx*"), key=lambda f: (f.stat().st_size, f))
        found += [f for f in files[:1] if f.stat().st_size < 1e6]
    return found


@pytest.mark.parametrize("path", benchmarks(), ids=lambda p: p.parent.name)
def test_benchmarks(path):
    agrees(path, lower=-1, upper=1, count=100)
