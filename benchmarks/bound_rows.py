"""Bounds: seconds and tightness beside auto_LiRPA; memory of a long run."""

import json
import statistics
import subprocess
import sys
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from advlib import bounds
from benchmarks import peers
from benchmarks.config import ROOT, Config, NotRunError
from benchmarks.timing import Row, interleaved, ratio


def others(y: Tensor, num_classes: int) -> Tensor:
    """Return the rows e_y - e_j for j != y (N, K - 1, K), labels ``y``."""
    spec = bounds.margin_spec(y, num_classes)
    kept = ~F.one_hot(y, num_classes).bool()
    return spec[kept].view(len(y), num_classes - 1, num_classes)


def _without_own(margins: Tensor, y: Tensor) -> Tensor:
    return margins[~F.one_hot(y, margins.shape[1]).bool()].view(len(y), -1)


Problem = tuple[nn.Module, Tensor, Tensor, float]  # model, x, y, eps
Peer = Callable[[str], Tensor]  # from a method's name to its bounds


def compare(config: Config) -> list[Row]:
    """Return interval and CROWN bounds beside auto_LiRPA: time, and who is tighter."""
    rows = []
    for name, eps, batch in config.bounds:
        model, (x, y) = config.network(name), config.first(batch)
        spec = others(y, model(x[:1]).shape[1])
        setting = f"{name}, eps {eps}, batch {batch}"
        try:
            theirs = peers.lirpa(model, x, eps, spec, config.slope_steps)
        except ImportError as error:
            rows.append(Row("bounds", setting, "auto_LiRPA", None, "", str(error)))
            continue
        with torch.no_grad():
            rows += _interval_rows(config, setting, (model, x, y, eps), theirs)
            rows += _crown_rows(config, setting, (model, x, y, eps), theirs)
    return rows


def _behind(ours: Tensor, theirs: Tensor) -> float:
    """Return by how much ours is looser at worst, relative to 1 + |theirs|."""
    return ((theirs - ours) / (1 + theirs.abs())).max().item()


def _time_row(config: Config, setting: str, label: str, goal: str,
              calls: dict[str, Callable[[], Tensor]]) -> Row:  # fmt: skip
    times = interleaved(calls, config.repeats)
    note = f"advlib {1000 * statistics.median(times['advlib']):.3g} ms"
    what = f"{label}: auto_LiRPA / advlib, time"
    return Row("bounds", setting, what, ratio(times, "peer", "advlib"), goal, note)


def _interval_rows(
    config: Config, setting: str, at: Problem, theirs: Peer
) -> list[Row]:
    def ours() -> Tensor:
        return bounds.interval_margins(*at)

    calls = {"advlib": ours, "peer": lambda: theirs("IBP")}
    row = _time_row(config, setting, "interval", ">= 1.7", calls)
    behind = _behind(_without_own(ours(), at[2]), theirs("IBP"))
    what = "interval: worst relative loss of tightness"
    return [row, Row("bounds", setting, what, behind, "<= 1e-4")]


def _crown_rows(config: Config, setting: str, at: Problem, theirs: Peer) -> list[Row]:
    """Time CROWN as the book uses it; equal without intervals, tighter with them."""

    def ours(intersect: bool = True) -> Tensor:
        return bounds.crown_margins(*at, intersect=intersect)

    calls = {"advlib": ours, "peer": lambda: theirs("backward")}
    goal = ">= 1.0" if "cnn" in setting else ">= 1.5"
    row = _time_row(config, setting, "CROWN", goal, calls)
    other = theirs("backward")
    plain, cut = (_without_own(ours(part), at[2]) for part in (False, True))
    certified = {n: int((m > 0).all(1).sum()) for n, m in (("a", cut), ("p", other))}
    note = f"certified {certified['a']}, auto_LiRPA {certified['p']} of {len(other)}"
    what = "CROWN: worst relative loss of tightness"
    mean = ((other - cut) / (1 + other.abs())).mean().item()
    return [
        row,
        Row("bounds", setting, f"{what}, no intersection", _behind(plain, other),
            "<= 1e-4"),
        Row("bounds", setting, f"{what}, intersected", _behind(cut, other), "", note),
        Row("bounds", setting, "CROWN: mean relative loss, intersected", mean,
            "<= 1e-4"),
    ]  # fmt: skip


def slopes(config: Config) -> list[Row]:
    """Return optimised slopes beside auto_LiRPA's, which optimises all of them."""
    rows = []
    for name, eps, batch in config.slopes:
        model, (x, y) = config.network(name), config.first(batch)
        setting = f"{name}, eps {eps}, batch {batch}, {config.slope_steps} steps"
        spec = others(y, model(x[:1]).shape[1])
        try:
            theirs = peers.lirpa(model, x, eps, spec, config.slope_steps)
        except ImportError as error:
            rows.append(Row("slopes", setting, "auto_LiRPA", None, "", str(error)))
            continue
        rows += _slope_rows(config, setting, (model, x, y, eps), theirs)
    return rows


def _slope_rows(config: Config, setting: str, at: Problem, theirs: Peer) -> list[Row]:
    def ours(which: str) -> Tensor:
        return bounds.alpha_crown_margins(
            *at, num_steps=config.slope_steps, slopes=which
        )

    calls = {
        "last": lambda: ours("last"),
        "all": lambda: ours("all"),
        "peer": lambda: theirs("CROWN-Optimized"),
    }
    times = interleaved(calls, max(3, config.repeats - 2))
    values = {n: _without_own(calls[n](), at[2]) for n in ("last", "all")}
    other = calls["peer"]()
    loss = {
        n: ((other - v).mean() / other.abs().mean()).item() for n, v in values.items()
    }
    rows = []
    for which, goal in (("last", ">= 5"), ("all", ">= 1.0")):
        time_ratio = ratio(times, "peer", which)
        what = f"{which} slopes: auto_LiRPA / advlib, time"
        rows.append(Row("slopes", setting, what, time_ratio, goal))
        what = f"{which} slopes: mean relative loss"
        rows.append(Row("slopes", setting, what, loss[which], "<= 0.01"))
    return rows


CHILD = """
import json, re, resource, sys, time
import torch
from advlib import bounds, data, zoo

def peak():  # in GiB; ru_maxrss is not below what the process that started us had
    try:
        found = re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())
        return int(found[1]) / 2**20
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20

name, eps, n, dataset = sys.argv[1], float(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
images = data.load(dataset)
model = zoo.load(name, images).requires_grad_(False)
x, y = (part[:n] for part in images.test)
before = peak()
began = time.process_time()
with torch.no_grad():
    margins = bounds.crown_margins(model, x, y, eps)
print(json.dumps({
    "images": len(y), "before": before, "peak": peak(),
    "seconds": time.process_time() - began,
    "certified": int(bounds.certified(margins, y).sum()),
}))
"""


def memory(config: Config) -> list[Row]:
    """Return the peak memory of CROWN over many images, in a process of its own."""
    name, eps, n = config.memory

    def run() -> dict:
        found = subprocess.run(
            [sys.executable, "-c", CHILD, name, str(eps), str(n), config.dataset.name],
            capture_output=True, text=True, check=True, cwd=ROOT,
        )  # fmt: skip
        return json.loads(found.stdout)

    setting = f"CROWN, {name}, eps {eps}, {n} images"
    try:
        found = config.checkpoint(f"memory-{name}-{n}", run)
    except NotRunError as error:
        return [Row("memory", setting, "peak memory (GiB)", None, "<= 4", str(error))]
    note = f"{found['seconds']:.0f} CPU s, {found['certified']} certified"
    return [Row("memory", setting, "peak memory (GiB)", found["peak"], "<= 4", note)]
