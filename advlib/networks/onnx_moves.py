"""What an ONNX file computes of constants, and how its operators move entries about.

Shapes are fixed, so whatever computes shapes is a constant and ends here. Operators
that only move entries (``MOVES``) work on constants and on values that depend on the
input alike: of the latter they move the places.
"""

import math
from collections.abc import Callable

import numpy as np

from advlib.networks.onnx_steps import Step

# constants that these compute are not the same at each run
RANDOM = {"RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike",
          "Bernoulli", "Multinomial", "Dropout"}  # fmt: skip


def fold(step: Step) -> list[np.ndarray]:
    """Return the outputs of a ``step`` whose inputs are constants.

    They are computed in the file's own dtypes, by onnx's reference. Raises
    ``NoRuleError`` for what is random, and for what the reference cannot compute.
    """
    if step.kind == "Constant":
        return [_constant(step)]
    if step.kind == "Identity":
        return [step.array(0)]
    if step.kind == "Concat":
        arrays = [step.array(i) for i in range(len(step.values))]
        return [np.concatenate(arrays, step.integer("axis", 0))]
    if step.kind in MOVES:
        found = MOVES[step.kind](step, step.array(0))
        return [np.asarray(f) for f in (found if isinstance(found, list) else [found])]
    if step.kind in RANDOM:
        raise step.refuse("its output is random")
    return _evaluate(step)


def _constant(step: Step) -> np.ndarray:
    for name, dtype in [
        ("value", None), ("value_float", np.float32), ("value_floats", np.float32),
        ("value_int", np.int64), ("value_ints", np.int64),
    ]:  # fmt: skip
        if (value := step.take(name)) is not None:
            return np.asarray(value, dtype=dtype)
    raise step.refuse(f"its value is {', '.join(step.attributes) or 'missing'}")


def _evaluate(step: Step) -> list[np.ndarray]:
    from onnx import helper
    from onnx.reference import ReferenceEvaluator

    known = {
        name: value
        for name, value in zip(step.names, step.values, strict=True)
        if value is not None
    }
    inputs = [
        helper.make_tensor_value_info(
            name, helper.np_dtype_to_tensor_dtype(value.dtype), value.shape
        )
        for name, value in known.items()
    ]
    outputs = [helper.make_empty_tensor_value_info(n) for n in step.node.output if n]
    graph = helper.make_graph([step.node], "constant", inputs, outputs)
    step.attributes.clear()
    try:
        with np.errstate(all="ignore"):
            run = ReferenceEvaluator(graph, opsets={"": step.opset})
            found = run.run([name or None for name in step.outputs if name], known)
    except Exception as error:  # whatever a third party's operator may raise
        raise step.refuse(f"the constant cannot be computed: {error}") from error
    return _in_place(step, [np.asarray(value) for value in found])


def _in_place(step: Step, found: list[np.ndarray]) -> list[np.ndarray]:
    """Return one value an output, the unused ones empty."""
    rest = iter(found)
    return [next(rest) if name else np.zeros(0) for name in step.outputs]


# ------------------------------------------------------------------------- moves


def move(step: Step) -> list[int]:
    """Return the outputs of a ``step`` that only moves entries of its first input.

    Raises ``NoRuleError`` and ``ValueError`` as its operator does.
    """
    node = step.variable(0)
    found = MOVES[step.kind](step, step.places(node))
    found = found if isinstance(found, list) else [found]
    return [step.pick(node, places) for places in found]


def _flatten(step: Step, x: np.ndarray) -> np.ndarray:
    axis = step.integer("axis", 1)
    if axis != x.ndim:
        axis = step.axis(axis, x.ndim) if x.ndim else 0
    return x.reshape(math.prod(x.shape[:axis]), math.prod(x.shape[axis:]))


def _reshape(step: Step, x: np.ndarray) -> np.ndarray:
    shape, zero = step.whole(1), step.integer("allowzero", 0)
    if not zero:
        shape = [x.shape[i] if n == 0 else n for i, n in enumerate(shape)]
    if min(shape, default=0) < -1 or (zero and 0 in shape):
        raise ValueError(f"a shape of {shape}")
    return x.reshape(shape)


def _squeeze(step: Step, x: np.ndarray) -> np.ndarray:
    axes = step.given("axes", 1)
    if axes is None:
        return np.squeeze(x)
    return np.squeeze(x, tuple(step.axis(a, x.ndim) for a in axes))


def _unsqueeze(step: Step, x: np.ndarray) -> np.ndarray:
    axes = step.given("axes", 1)
    if axes is None:
        raise step.refuse("it has no axes")
    return np.expand_dims(x, tuple(axes))


def _transpose(step: Step, x: np.ndarray) -> np.ndarray:
    return x.transpose(step.take("perm", range(x.ndim)[::-1]))


def _slice(step: Step, x: np.ndarray) -> np.ndarray:
    starts, ends = step.given("starts", 1), step.given("ends", 2)
    if starts is None or ends is None:
        raise step.refuse("its starts or ends are missing")
    axes = step.given("axes", 3) or range(len(starts))
    steps = step.whole(4) if step.value(4) is not None else [1] * len(starts)
    for axis, start, end, by in zip(axes, starts, ends, steps, strict=True):
        axis = step.axis(axis, x.ndim)
        x = x.take(_range(x.shape[axis], start, end, by), axis)
    return x


def _range(n: int, start: int, end: int, by: int) -> np.ndarray:
    """The places from ``start`` until ``end``: negative ones count from the end."""
    start, end = (k + n if k < 0 else k for k in (start, end))
    low, high = (0, n) if by > 0 else (-1, n - 1)
    start = min(max(start, 0), high)
    return np.arange(start, min(max(end, low), high), by)


def _split(step: Step, x: np.ndarray) -> list[np.ndarray]:
    axis = step.axis(step.integer("axis", 0), x.ndim)
    sizes, n = step.given("split", 1), x.shape[axis]
    pieces = step.integer("num_outputs", len(step.outputs))
    if sizes is None:
        if step.opset < 18 and n % pieces:
            raise ValueError(f"a length of {n} has no {pieces} equal parts")
        size = -(-n // pieces)
        sizes = [min(size, n - size * i) for i in range(pieces)]
    if sum(sizes) != n or min(sizes) < 0 or len(sizes) != len(step.outputs):
        raise ValueError(f"a length of {n} cannot be split into {sizes}")
    return np.split(x, np.cumsum(sizes)[:-1], axis)


def _gather(step: Step, x: np.ndarray) -> np.ndarray:
    axis = step.axis(step.integer("axis", 0), x.ndim)
    step.whole(1)  # refuses what is not whole
    return np.take(x, step.array(1), axis)


def _expand(step: Step, x: np.ndarray) -> np.ndarray:
    return np.broadcast_to(x, np.broadcast_shapes(x.shape, tuple(step.whole(1))))


def _tile(step: Step, x: np.ndarray) -> np.ndarray:
    times = step.whole(1)
    if len(times) != x.ndim:
        raise ValueError(f"{len(times)} repeats of {x.ndim} axes")
    return np.tile(x, times)


def _depth_to_space(step: Step, x: np.ndarray) -> np.ndarray:
    b, mode = step.integer("blocksize", 0), step.take("mode", "DCR")
    n, c, h, w = x.shape
    c //= b * b
    if mode == "DCR":
        x = x.reshape(n, b, b, c, h, w).transpose(0, 3, 4, 1, 5, 2)
    elif mode == "CRD":
        x = x.reshape(n, c, b, b, h, w).transpose(0, 1, 4, 2, 5, 3)
    else:
        raise step.refuse(f"mode {mode!r}; DCR and CRD have a rule")
    return x.reshape(n, c, h * b, w * b)


def _space_to_depth(step: Step, x: np.ndarray) -> np.ndarray:
    b = step.integer("blocksize", 0)
    n, c, h, w = x.shape
    if step.take("mode", "DCR") != "DCR":
        raise step.refuse("its mode is not DCR")
    x = x.reshape(n, c, h // b, b, w // b, b).transpose(0, 3, 5, 1, 2, 4)
    return x.reshape(n, c * b * b, h // b, w // b)


def _resize(step: Step, x: np.ndarray) -> np.ndarray:
    """Repeat entries: nearest, by whole factors."""
    mode = step.take("mode", "nearest")
    for unused in ("cubic_coeff_a", "exclude_outside", "extrapolation_value"):
        step.take(unused)
    middle = step.opset > 10 and step.kind == "Resize"
    where = step.take(
        "coordinate_transformation_mode", "half_pixel" if middle else "asymmetric"
    )
    near = step.take("nearest_mode", "round_prefer_floor" if middle else "floor")
    if step.take("keep_aspect_ratio_policy", "stretch") != "stretch":
        raise step.refuse("it keeps the aspect ratio")
    plain = {("asymmetric", "floor"), ("half_pixel", "round_prefer_floor"),
             ("half_pixel", "round_prefer_ceil")}  # fmt: skip
    factors = _factors(step, x.shape)
    whole = all(f >= 1 and f == int(f) for f in factors)
    if mode != "nearest" or (where, near) not in plain or not whole:
        raise step.refuse(
            f"{mode}, {where}, {near}, by factors {factors}: there is a rule for "
            "nearest by whole factors, asymmetric with floor or half_pixel"
        )
    if step.take("antialias", 0):
        raise step.refuse("it has antialias")
    for axis, factor in enumerate(factors):
        x = np.repeat(x, int(factor), axis)
    return x


def _factors(step: Step, shape: tuple[int, ...]) -> list[float]:
    at = 1 if step.opset < 11 or step.kind == "Upsample" else 2
    if step.kind == "Upsample" and step.opset < 9:
        factors = list(step.take("scales", ()))
    elif step.value(3) is not None and len(step.whole(3)):
        factors = [m / n for m, n in zip(step.whole(3), shape, strict=True)]
    else:
        factors = step.numbers(at).tolist()
    if len(factors) != len(shape):
        raise ValueError(f"{len(factors)} factors for {len(shape)} axes")
    return factors


MOVES: dict[str, Callable[[Step, np.ndarray], np.ndarray | list[np.ndarray]]] = {
    "Flatten": _flatten,
    "Reshape": _reshape,
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
    "Transpose": _transpose,
    "Slice": _slice,
    "Split": _split,
    "Gather": _gather,
    "Expand": _expand,
    "Tile": _tile,
    "DepthToSpace": _depth_to_space,
    "SpaceToDepth": _space_to_depth,
    "Resize": _resize,
    "Upsample": _resize,
}
