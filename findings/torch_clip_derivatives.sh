#!/usr/bin/env bash
# Five ways to clip to [0, 1] in PyTorch: equal values, three different derivatives at 0.
#
# Expected: functions that return the same numbers have the same derivative, or torch
# chooses one convention at the two kinks.
# Happens: at 0 and at 1, clamp has 1 and 1, hardtanh 0 and 0, minimum of maximum 0.5 and
# 0.5, the difference of two ReLUs 0 and 1 (relu6 / 6 ends likewise: 0 and 0). Four in
# five pixels of a handwritten digit are exactly 0: a network that begins with hardtanh
# returns the same bits on images and shows a gradient attack no gradient there.
# Versions: torch 2.13.0, numpy 2.4.6, Python 3.11, 2026-11-28.
# Fails if that changes.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install -q "torch==${TORCH:-2.13.0}" numpy==2.4.6
"$work/venv/bin/python" - <<'EOF'
import torch
import torch.nn.functional as F

CLIPS = {
    "clamp": lambda x: x.clamp(0, 1),
    "hardtanh": lambda x: F.hardtanh(x, 0.0, 1.0),
    "minimum of maximum": lambda x: x.maximum(torch.zeros(())).minimum(torch.ones(())),
    "relu(x) - relu(x - 1)": lambda x: F.relu(x) - F.relu(x - 1),
    "relu6(6 x) / 6": lambda x: F.relu6(6 * x) / 6,
}
EXPECTED = {
    "clamp": [1.0, 1.0],
    "hardtanh": [0.0, 0.0],
    "minimum of maximum": [0.5, 0.5],
    "relu(x) - relu(x - 1)": [0.0, 1.0],
    "relu6(6 x) / 6": [0.0, 0.0],
}
print("torch", torch.__version__)
grid = torch.arange(-8, 17) / 8  # exact in binary
seen = {}
for name, clip in CLIPS.items():
    assert torch.equal(clip(grid), grid.clamp(0, 1)), f"{name}: other values"
    ends = torch.tensor([0.0, 1.0], requires_grad=True)
    (slope,) = torch.autograd.grad(clip(ends).sum(), ends)
    seen[name] = slope.tolist()
    print(f"{name:22} same values; derivative at 0: {slope[0]}, at 1: {slope[1]}")
assert seen == EXPECTED, "the derivatives have changed"
EOF
