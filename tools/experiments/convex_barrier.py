"""How much of the gap no single-neuron linear program closes: the convex barrier.

For each network and radius, the smallest margin of each image by intervals, CROWN,
optimised slopes, the triangle's linear program with CROWN's bounds and with LP-optimal
bounds before each ReLU (the best single-neuron relaxation), and exactly. One record
per image. Run: python tools/experiments/convex_barrier.py
"""

import argparse
import time

import torch
from torch import Tensor, nn

from advlib import bounds, data, evaluation, exact, relaxations, results, zoo

CASES = [("small_ibp", 0.1), ("small", 0.02), ("small_pgd", 0.03)]


def worst(margins: Tensor, y: Tensor) -> float:
    """Return the smallest entry of ``margins`` (1, K) outside the column ``y``."""
    others = margins.double().clone()
    others[0, y] = torch.inf
    return float(others.min())


def measure(model: nn.Module, x: Tensor, y: Tensor, eps: float) -> dict:
    """Return the smallest margin of one image by each method, and the exact time.

    Targets are solved exactly in the order of their LP bounds, until the next bound
    exceeds the smallest exact margin met.
    """
    corners = bounds.input_box(x, eps)
    pre = bounds.relu_bounds(model, *corners)
    tight = relaxations.lp_bounds(model, *corners, pre=pre)
    best = relaxations.lp_margins(model, x, y, eps, pre=tight)
    row = {
        "interval": worst(bounds.interval_margins(model, x, y, eps), y),
        "crown": worst(bounds.crown_margins(model, x, y, eps, pre=pre), y),
        "alpha": worst(bounds.alpha_crown_margins(model, x, y, eps, pre=pre), y),
        "lp": worst(relaxations.lp_margins(model, x, y, eps, pre=pre), y),
        "lp_best": worst(best, y),
    }
    begin, low, high = time.process_time(), float("inf"), float("inf")
    for j in best[0].argsort().tolist():
        if j == int(y) or float(best[0, j]) > high:
            continue
        found = exact.milp_margin(model, x, y, j, eps, pre=tight, time_limit=60.0)
        low, high = min(low, found.bound), min(high, found.margin)
    row |= {"exact_bound": low, "exact": high}
    row["exact_seconds"] = time.process_time() - begin
    open_units = [int(((a < 0) & (b > 0)).sum()) for a, b in tight]
    return {name: round(v, 6) for name, v in row.items()} | {"unstable": open_units}


def main() -> None:
    """Measure every case on the first correctly classified test images; save each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=50, help="images per case")
    n = parser.parse_args().n
    dataset = data.load("mnist")
    begin, found = time.process_time(), []
    for name, eps in CASES:
        model = zoo.load(name, dataset).double().requires_grad_(False)
        x, y = (part[: 2 * n] for part in dataset.test)
        right = (~evaluation.wrong(model.float(), x, y)).nonzero()[:n, 0].tolist()
        model.double()
        rows = []
        for i in right:
            row = measure(model, x[i : i + 1].double(), y[i : i + 1], eps)
            rows.append({"image": i} | row)
        found.append({"network": name, "eps": eps, "rows": rows})
        results.save(
            "convex_barrier",
            found,
            command=f"python tools/experiments/convex_barrier.py --n {n}",
            seeds=[],
            dataset=f"mnist, the first {n} correctly classified test images",
            seconds=time.process_time() - begin,
        )


if __name__ == "__main__":
    main()
