"""Plant known bugs, one at a time, in a copy of the package: do the tests see them?

    python tools/mutants.py           # all of them, a table, exit 1 if one survives
    python tools/mutants.py padding   # those whose name contains a word

A bug is a text of one file that is replaced; it must occur there exactly once, which
``tests/test_mutants.py`` checks, so that the list does not rot. The working tree is
never touched. The tests of each bug run until the first that fails, in a forked process
(so not on Windows).
"""

import importlib
import os
import re
import shutil
import sys
import tempfile
import time
import traceback
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
BOUNDS = ("tests/test_bounds.py", "tests/test_sandwich.py")
SANDWICH = ("tests/test_sandwich.py",)
EXACT = ("tests/test_exact.py", "tests/test_sandwich.py")
STOPPED = "tests/test_sandwich.py::test_a_stopped_solver_reports_what_it_has_proven"
BRANCHES = ("tests/test_branch_and_bound.py",)
ATTACKS = ("tests/test_attacks.py", "tests/test_sandwich.py")
TRAP = (
    "tests/test_attacks.py::test_pixels_at_the_edge_of_the_box_move",
    "tests/test_attacks.py::test_the_clamp_trap",
)
SAME_FUNCTION = ("tests/test_same_function.py::test_another_function_is_refused",)
GATE = "tests/test_gate.py"
UNITS = ("tests/test_units.py",)
WORDS = ("tests/test_words.py",)
MINIMAL = ("tests/test_minimal.py",)
LIPSCHITZ = ("tests/test_lipschitz.py",)
READING = ("tests/test_reading.py",)
POOL = ("tests/test_pool.py",)
ACTIVATIONS = ("tests/test_activations.py",)
LOSSES = ("tests/test_robust_losses.py",)
MASKING = (
    "tests/test_masking.py::test_silence_on_honest_networks",
    "tests/test_masking.py::test_what_fires_on_masked_networks",
    "tests/test_masking.py::test_by_hand",
    "tests/test_masking.py::test_a_radius_that_is_too_large",
)
RECIPES = tuple(
    f"tests/test_train.py::{name}"
    for name in (
        "test_order_by_hand",
        "test_rates_by_hand",
        "test_noise_belongs_to_the_sample",
        "test_perturb_stays_in_ball_and_box",
        "test_resumes_in_the_middle_of_an_epoch",
        "test_a_bad_checkpoint_is_refused_and_kept",
    )
)


@dataclass(frozen=True)
class Mutant:
    """A bug: in ``file``, ``old`` becomes ``new``; ``tests`` should fail."""

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...] = BOUNDS

    def source(self, root: Path = ROOT) -> str:
        """Return the changed file's text; raises unless ``old`` occurs once."""
        text = (root / self.file).read_text()
        if text.count(self.old) != 1 or self.old == self.new:
            raise ValueError(f"{self.name}: {text.count(self.old)} matches, not one")
        return text.replace(self.old, self.new)


MUTANTS = [
    Mutant(
        "a forward hook ignored",
        "advlib/networks/gate.py",
        "if layer._forward_pre_hooks or layer._forward_hooks:",
        "if False:",
        SAME_FUNCTION,
    ),
    Mutant(
        "a branch that works in place changes its neighbour",
        "advlib/networks/layers.py",
        "self.body(x.clone() if inside else x)",
        "self.body(x)",
        (f"{GATE}::test_layers_that_work_in_place_inside_a_residual",),
    ),
    Mutant(
        "a tensor of a class of its own",
        "advlib/networks/gate.py",
        "if type(tensor) not in PLAIN and",
        "if type(tensor) is None and",
        (f"{GATE}::test_tensors_of_a_class_of_their_own",),
    ),
    Mutant(
        "products of few bits",
        "advlib/networks/gate.py",
        'if found & {"tf32", "bf16"}:',
        'if found & {"none of them"}:',
        (f"{GATE}::test_products_of_few_bits_prove_nothing",),
    ),
    Mutant(
        "rounding explains every difference",
        "advlib/networks/gate.py",
        "gap > ROUNDINGS * error",
        "gap > 1e6 * error",
        (f"{GATE}::test_the_comparison_sees_as_sharply_in_deep_networks",),
    ),
    Mutant(
        "a compiled layer runs with its old weights",
        "advlib/networks/canonical.py",
        'other.__dict__.pop("_compiled_call_impl", None)',
        "None",
        (f"{GATE}::test_a_compiled_layer_is_read_and_not_run",),
    ),
    Mutant(
        "one bad certificate costs the good ones",
        "advlib/proof/files.py",
        "_refuse_head(certificate)  # what",
        "pass  # what",
        ("tests/test_certificates.py::test_what_would_not_be_loaded_is_not_saved",),
    ),
    Mutant(
        "a subclass taken for its parent",
        "advlib/networks/gate.py",
        "isinstance(layer, kind) and _adds_nothing(layer, kind)",
        "isinstance(layer, kind)",
        SAME_FUNCTION,
    ),
    Mutant(
        "the canonical form never compared",
        "advlib/networks/gate.py",
        "    if far.any():\n",
        "    if False:\n",
        ("tests/test_gate.py::test_a_bug_in_the_canonical_form_is_found",),
    ),
    Mutant(
        "one logit is a choice of a class",
        "advlib/_check.py",
        "    if num_classes < 2:\n",
        "    if num_classes < 1:\n",
        ("tests/test_gate.py::test_one_logit_has_no_margin",),
    ),
    Mutant(
        "a unit with NaN bounds is off",
        "advlib/bounds/walk.py",
        "    slope = slope + 0 * (lower + upper)",
        "    slope = slope",
        ("tests/test_gate.py::test_a_unit_whose_bounds_overflow_is_not_off",),
    ),
    Mutant(
        "crossed bounds taken in silence",
        "advlib/bounds/plan.py",
        "if not (low <= up + slack).all():",
        "if False:",
        ("tests/test_gate.py::test_bounds_before_a_relu_that_cross_are_refused",),
    ),
    Mutant(
        "bias dropped (dense)",
        "advlib/bounds/walk.py",
        "constant = constant + rows.weight @ layer.bias\n",
        "constant = constant + 0\n",
    ),
    Mutant(
        "bias dropped (convolution)",
        "advlib/bounds/walk.py",
        "constant = constant + weight.sum((-2, -1)) @ layer.bias",
        "constant = constant + 0",
    ),
    Mutant(
        "one slope's sign",
        "advlib/bounds/walk.py",
        "weight = torch.where(weight > 0, lower, upper) * weight",
        "weight = torch.where(weight > 0, -lower, upper) * weight",
    ),
    Mutant(
        "lines above and below exchanged",
        "advlib/bounds/walk.py",
        "weight = torch.where(weight > 0, lower, upper) * weight",
        "weight = torch.where(weight < 0, lower, upper) * weight",
    ),
    Mutant(
        "l and u swapped",
        "advlib/bounds/crown.py",
        "            lines.append(relaxation(*box, rule=rule))\n",
        "            lines.append(relaxation(*box[::-1], rule=rule))\n",
    ),
    Mutant(
        "l and u swapped (chord)",
        "advlib/bounds/walk.py",
        "offset=torch.where(unstable, -slope * lower, 0.0)",
        "offset=torch.where(unstable, slope * upper, 0.0)",
    ),
    Mutant(
        "a lower slope of 1.1",
        "advlib/bounds/walk.py",
        'below = slope if rule == "dual" else (upper > -lower).to(lower)',
        'below = slope if rule == "dual" else 1.1 * (upper > -lower).to(lower)',
    ),
    Mutant(
        "wrong padding (patches)",
        "advlib/bounds/walk.py",
        "padding = (rows.padding[0] * s + p, rows.padding[1] * t + q)",
        "padding = (rows.padding[0] * s, rows.padding[1] * t)",
    ),
    Mutant(
        "wrong padding (far edge)",
        "advlib/bounds/walk.py",
        "extra.append(max(shape[1 + i] + 2 * layer.padding[i] - reach, 0))",
        "extra.append(max(shape[1 + i] + layer.padding[i] - reach, 0))",
    ),
    Mutant(
        "padding counts as a pixel",
        "advlib/bounds/walk.py",
        "weight = weight * rows.pick(weight.new_ones(len(weight), 1, *out))",
        "weight = weight * 1",
    ),
    Mutant(
        "last-layer fold transposed (z_j - z_y)",
        "advlib/bounds/intervals.py",
        "value = (spec @ layer(center)[..., None])[..., 0]",
        "value = (-spec @ layer(center)[..., None])[..., 0]",
    ),
    Mutant(
        "last-layer fold transposed (weights of another class)",
        "advlib/bounds/intervals.py",
        "pair = spec.argmax(2) * len(layer.weight) + spec.argmin(2)",
        "pair = spec.argmax(2) * len(layer.weight) + spec.argmin(2).flip(1)",
    ),
    Mutant(
        "weights transposed where they are square",
        "advlib/bounds/walk.py",
        "weight=rows.weight @ layer.weight, constant",
        "weight=rows.weight @ (layer.weight.T if layer.in_features == "
        "layer.out_features else layer.weight), constant",
    ),
    Mutant(
        "box not intersected",
        "advlib/bounds/margins.py",
        "return (lower.clamp(min=0), upper.clamp(max=1)) if box else (lower, upper)",
        "return lower, upper",
    ),
    Mutant(
        "another image's intermediate bound",
        "advlib/bounds/crown.py",
        "            box = tighten(step.index, before, *box, lines)\n",
        "            box = tighten(step.index, before, *box, lines)\n"
        "            box = box[0].roll(1, 0), box[1].roll(1, 0)\n",
    ),
    Mutant(
        "another image's given bounds",
        "advlib/bounds/margins.py",
        "[(low[part], up[part]) for low, up in pre]",
        "[(low[part].roll(1, 0), up[part].roll(1, 0)) for low, up in pre]",
    ),
    Mutant(
        "a bound rounded up by 1e-3",
        "advlib/bounds/walk.py",
        "return value - rows.dot(rows.weight.abs(), radius)",
        "return value - rows.dot(rows.weight.abs(), radius) + 1e-3",
    ),
    Mutant(
        "the sign of a multiplier ignored",
        "advlib/bounds/walk.py",
        "weight = weight + _facing(push, rows)",
        "weight = weight + _facing(push, rows).abs()",
        (*BOUNDS, "tests/test_branch_and_bound.py"),
    ),
    Mutant(
        "a timed-out incumbent reported",
        "advlib/exact/integer_programs.py",
        "    if problem.is_mixed_integer():\n        return proven_bound(problem)",
        "    if problem.is_mixed_integer():\n        return float(problem.value)",
        (STOPPED,),
    ),
    Mutant(
        "the integer program without bias",
        "advlib/exact/encoding.py",
        "constant = weight @ value.constant + bias",
        "constant = weight @ value.constant",
        EXACT,
    ),
    Mutant(
        "the integer program unscaled",
        "advlib/exact/encoding.py",
        "    return np.ldexp(1.0, np.where(sizes > 0, exponent, 0))",
        "    return np.ldexp(1.0, 0 * exponent)",
        ("tests/test_balance.py",),
    ),
    Mutant(
        "one hard image starves the others",
        "advlib/exact/branch_and_bound.py",
        "return sorted(images, key=lambda i: int(search.count[i]))",
        "return sorted(images, key=lambda i: -int(search.count[i]))",
        BRANCHES,
    ),
    Mutant(
        "the limit of one image counts all images",
        "advlib/exact/branch_and_bound.py",
        "return late or int(search.count[image]) >= self.max_nodes",
        "return late or int(search.count.sum()) >= self.max_nodes",
        BRANCHES,
    ),
    Mutant(
        "a bound depends on its neighbours in the batch",
        "advlib/exact/splits.py",
        "        better = (found > nodes.bound) & ~done\n",
        "        better = found > nodes.bound\n",
        BRANCHES,
    ),
    Mutant(
        "an empty leaf is believed",
        "advlib/exact/leaves.py",
        "return (math.inf if empty else -math.inf), None",
        "return math.inf, None",
        BRANCHES,
    ),
    Mutant(
        "infeasible is believed at once",
        "advlib/exact/integer_programs.py",
        'if end == "infeasible" and not _confirmed(',
        'if end == "never" and not _confirmed(',
        ("tests/test_balance.py",),
    ),
    Mutant(
        "the linear program's triangle too small",
        "advlib/bounds/programs.py",
        "program.add(chord, -infinite, -slope * low)",
        "program.add(chord, -infinite, -0.9 * slope * low)",
        SANDWICH,
    ),
    Mutant(
        "a certificate's interval not checked",
        "advlib/proof/checker.py",
        "        _check_interval(k, claim, layers[: k + 1], shared, before, box)\n",
        "",
        (*SANDWICH, "tests/test_certificates.py"),
    ),
    Mutant(
        "the checker uses PyTorch's layers",
        "advlib/proof/checker.py",
        "    return [layer.matrix() for layer in read_chain(model, shape)]\n",
        "    from advlib.networks import canonical as forms\n\n"
        "    layers = []\n"
        "    for layer in forms.canonical_double(model, shape):\n"
        "        if hasattr(layer, 'weight'):\n"
        "            pair = forms.affine_matrix(layer, shape)\n"
        "            layers.append(tuple(map(Exact.of, pair)))\n"
        "        shape = forms.output_shape(layer, shape)\n"
        "    return layers\n",
        ("tests/test_reading.py::test_a_bug_in_what_proposes_is_caught",),
    ),
    Mutant(
        "a hook ignored by the checker",
        "advlib/proof/reading.py",
        "    _refuse_hooks(layer, name)\n",
        "",
        READING,
    ),
    Mutant(
        "a forward of its own ignored by the checker",
        "advlib/proof/reading.py",
        "            own -= _HARMLESS | made\n",
        "            own -= {*_HARMLESS, *made, 'forward'}\n",
        READING,
    ),
    Mutant(
        "a kernel gathered in the wrong order",
        "advlib/proof/reading.py",
        "kernel[out, k, i, j]",
        "kernel[out, k, -1 - i, -1 - j]",
        READING,
    ),
    Mutant(
        "off the ball by 1e-3",
        "advlib/attacks/steps.py",
        "torch.inf if eps is None else _held(eps, x.dtype)",
        "torch.inf if eps is None else _held(eps, x.dtype) + 1e-3",
        ATTACKS,
    ),
    Mutant(
        "wrong units",
        "advlib/attacks/steps.py",
        "torch.inf if eps is None else _held(eps, x.dtype)",
        "torch.inf if eps is None else _held(eps, x.dtype) / 255",
        ATTACKS,
    ),
    Mutant(
        "clamp inside the graph",  # hardtanh: no gradient at 0 and 1
        "advlib/attacks/steps.py",
        "run_model(model, point), len(x))\n        if first:",
        "run_model(model, nn.functional.hardtanh(point, 0.0, 1.0)), len(x))\n"
        "        if first:",
        TRAP,
    ),
    Mutant(
        "a random direction with entries in [0, 1]",
        "advlib/units.py",
        'draw = torch.randn if kind == "gaussian" else torch.rand',
        "draw = torch.rand",
        UNITS,
    ),
    Mutant(
        "the purity of the rarest label",
        "advlib/units.py",
        "return _counts(labels).amax(1)",
        "return _counts(labels).amin(1)",
        UNITS,
    ),
    Mutant(
        "one direction too many ablated",
        "advlib/units.py",
        "q[:, :k].T",
        "q[:, : k + 1].T",
        UNITS,
    ),
    Mutant(
        "words compared with themselves",
        "advlib/words/coherence.py",
        "/ (k * (k - 1))",
        "/ (k * k)",
        WORDS,
    ),
    Mutant(
        "compact vectors cut off, not rounded",
        "advlib/words/vectors.py",
        "numbers = (matrix / scale[:, None]).round()",
        "numbers = (matrix / scale[:, None]).trunc()",
        WORDS,
    ),
    Mutant(
        "the paper's slip: the smallest c",
        "advlib/attacks/lbfgs.py",
        "low, high = (c, high) if hit else (low, c)",
        "low, high = (low, c) if hit else (c, high)",
        MINIMAL,
    ),
    Mutant(
        "gradient of half the square",
        "advlib/attacks/lbfgs.py",
        "gradient = 2 * c * r + gradient",
        "gradient = c * r + gradient",
        MINIMAL,
    ),
    Mutant(
        "clipped afterwards, no constraint",
        "advlib/attacks/lbfgs.py",
        'Bounds(0.0, 1.0) if box == "bounds" else None',
        "None",
        MINIMAL,
    ),
    Mutant(
        "a stride that counts twice in Fourier space",
        "advlib/bounds/lipschitz.py",
        "float(norms.max()) / math.sqrt(down * right)",
        "float(norms.max()) / (down * right)",
        LIPSCHITZ,
    ),
    Mutant(
        "a sigmoid flatter than it is",
        "advlib/bounds/lipschitz.py",
        "nn.Sigmoid: 0.25",
        "nn.Sigmoid: 0.125",
        LIPSCHITZ,
    ),
    Mutant(
        "a dilation that norms do not see",
        "advlib/bounds/lipschitz.py",
        'options = {"stride": layer.stride, "dilation": layer.dilation}',
        'options = {"stride": layer.stride}',
        LIPSCHITZ,
    ),
    Mutant(
        "NaN as a vote",
        "advlib/bounds/smoothing.py",
        "check_logits(run_model(model, noisy), len(noisy))",
        "run_model(model, noisy)",
        ("tests/test_smoothing.py",),
    ),
    Mutant(
        "the linear program unscaled",
        "advlib/bounds/programs.py",
        "usual = (abs(exponent) <= USUAL) | ~np.isfinite(values)",
        "usual = abs(exponent) >= 0",
        ("tests/test_relaxations.py",),
    ),
    Mutant(
        "bounds blamed for the solver's mistake",
        "advlib/bounds/programs.py",
        "if not ((low <= z) & (z <= up)).all():",
        "if low is not None:",
        ("tests/test_relaxations.py",),
    ),
    Mutant(
        "groups that all read the first channels",
        "advlib/networks/sparse.py",
        "columns[part] = index + group * inner * height * width",
        "columns[part] = index",
        ("tests/test_sparse.py",),
    ),
    Mutant(
        "a pool that keeps the oldest",
        "advlib/training/pool.py",
        "torch.cat(parts)[-self.size :]",
        "torch.cat(parts)[: self.size]",
        POOL,
    ),
    Mutant(
        "the surrogate's gradients change places",
        "advlib/activations.py",
        "smooth = self.update if self.training else self.attack",
        "smooth = self.attack if self.training else self.update",
        ACTIVATIONS,
    ),
    Mutant(
        "softplus with a threshold instead of alpha",
        "advlib/activations.py",
        "F.softplus(x, beta=self.alpha, threshold=40.0)",
        "F.softplus(x, threshold=self.alpha)",
        ACTIVATIONS,
    ),
    Mutant(
        "TRADES: the divergence the wrong way round",
        "advlib/training/losses.py",
        "F.kl_div(logs[1], logs[0],",
        "F.kl_div(logs[0], logs[1],",
        LOSSES,
    ),
    Mutant(
        "CROWN-IBP: the tight bound at the end",
        "advlib/training/losses.py",
        "return share * loose + (1 - share) * tight",
        "return share * tight + (1 - share) * loose",
        LOSSES,
    ),
    Mutant(
        "noise from the seed and the epoch alone",
        "advlib/train/samples.py",
        "generator = generator_of(self.seed, epoch, index)",
        "generator = generator_of(self.seed, epoch)",
        RECIPES,
    ),
    Mutant(
        "a checkpoint without momenta",
        "advlib/train/checkpoint.py",
        "        if momentum is not None:\n",
        "        if momentum is None:\n",
        RECIPES,
    ),
    Mutant(
        "both processes take one half",
        "advlib/train/samples.py",
        "batch[self.rank :: self.world]",
        "batch[:: self.world]",
        RECIPES,
    ),
    Mutant(
        "a checkpoint's checksum is not compared",
        "advlib/train/checkpoint.py",
        "    if not intact:\n",
        "    if False:\n",
        RECIPES,
    ),
    Mutant(
        "masking: transfer from the model under test",
        "advlib/evaluation/masking.py",
        "return lambda model, x, y: attack(substitute, x, y)",
        "return lambda model, x, y: attack(model, x, y)",
        MASKING,
    ),
    Mutant(
        "masking: dead pixels looked for at the image alone",
        "advlib/evaluation/masking.py",
        "beside = x + random_linf(*room, generator)",
        "beside = x + 0 * random_linf(*room, generator)",
        MASKING,
    ),
    Mutant(
        "masking: the larger radius counts those that never fell",
        "advlib/evaluation/masking.py",
        "many & ~fooled(pgd(2 * eps), many)",
        "~fooled(pgd(2 * eps), many)",
        MASKING,
    ),
]


def planted(mutant: Mutant, folder: Path) -> None:
    """Copy package and tests to ``folder`` and plant the bug there."""
    unchanged = shutil.ignore_patterns("__pycache__", "weights", "results")
    shutil.copytree(ROOT / "advlib", folder / "advlib", ignore=unchanged)
    shutil.copytree(ROOT / "tests", folder / "tests", ignore=unchanged)
    shutil.copytree(ROOT / "tools", folder / "tools", ignore=unchanged)
    for name in ("conftest.py", "pyproject.toml"):
        shutil.copy(ROOT / name, folder / name)
    for name in ("weights", "results"):
        if (ROOT / "advlib" / name).exists():
            (folder / "advlib" / name).symlink_to(ROOT / "advlib" / name)
    (folder / mutant.file).write_text(mutant.source())


def first_failure(mutant: Mutant) -> str | None:
    """Return the test that fails first, or None if all of them pass.

    The tests run in a fork of this process: what it has imported, they need not.
    Raises ``RuntimeError`` if the tests of the copy did not run, or ran elsewhere.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        planted(mutant, folder)
        log = folder / "log.txt"
        child = os.fork()
        if child == 0:
            run(folder, mutant.tests, log)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        said = log.read_text()
    if status == 0:
        return None
    failed = re.findall(r"^FAILED \S*?tests/(\S+)", said, re.MULTILINE)
    if status != 1 or not failed:
        raise RuntimeError(f"{mutant.name}: pytest ended {status}\n{said[-2000:]}")
    return failed[0]


def run(folder: Path, tests: tuple[str, ...], log: Path) -> None:
    """Run ``tests`` of the copy in ``folder`` and end this process; 99: no copy."""
    status = 99
    try:
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        os.chdir(folder)
        sys.path.insert(0, str(folder))
        for name in [n for n in sys.modules if n.split(".")[0] == "advlib"]:
            del sys.modules[name]
        found = importlib.import_module("advlib").__file__
        if Path(found).resolve().is_relative_to(folder):
            flags = ["-q", "-x", "--tb=no", "-rfE", "-p", "no:cacheprovider"]
            status = pytest.main([*flags, *tests])
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(int(status))


def main(words: list[str]) -> int:
    """Print one line per bug; return how many were not caught."""
    chosen = [m for m in MUTANTS if all(word in m.name for word in words)]
    for name in ("cvxpy", "highspy", "scipy.optimize", "torch"):
        importlib.import_module(name)  # once, for all forks
    survived = 0
    for mutant in chosen:
        begin = time.perf_counter()
        killer = first_failure(mutant)
        survived += killer is None
        said = f"caught by {killer}" if killer else "SURVIVED"
        seconds = time.perf_counter() - begin
        print(f"{mutant.name:<54} {seconds:5.0f} s  {said}", flush=True)
    print(f"{len(chosen) - survived} of {len(chosen)} planted bugs caught")
    return survived


if __name__ == "__main__":
    sys.exit(1 if main(sys.argv[1:]) else 0)
