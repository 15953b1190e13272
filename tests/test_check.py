"""What attacks and bounds refuse, and that they refuse nothing else."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from advlib import _check

MODEST = settings(deadline=None, max_examples=100, derandomize=True, database=None)
X = torch.tensor([[0.0, 1.0, 0.5], [0.25, 0.75, 1.0]])
Y = torch.tensor([0, 2])


def accepts(check, *arguments) -> bool:
    """Whether ``check`` lets ``arguments`` pass; only ValueError is a refusal."""
    try:
        check(*arguments)
    except ValueError:
        return False
    return True


@given(eps=st.floats(), norm=st.sampled_from(["linf", "l2", "l1"]))
@MODEST
def test_eps_is_accepted_exactly_on_its_range(eps, norm):
    """Every float, NaN and infinities included, is judged by the written range."""
    top = 1.0 if norm == "linf" else math.nextafter(math.inf, 0)
    inside = any([eps == 0, 0 < eps < top, eps == top])
    assert accepts(_check.check_eps, eps, norm) == inside


@pytest.mark.parametrize("norm", ["l3", "", "Linf", "inf", 2])
def test_unknown_norm(norm):
    """Only the three names of the book are norms."""
    with pytest.raises(ValueError, match="norm"):
        _check.check_eps(0.1, norm)


def test_eps_message_shows_the_unit():
    """The commonest mistake, eps in 0-255, is answered by how to write it."""
    with pytest.raises(ValueError, match="8 / 255, not 8"):
        _check.check_eps(8)


@given(
    st.lists(st.floats(allow_subnormal=False, width=32), min_size=1, max_size=6),
    st.sampled_from([torch.float32, torch.float64]),
)
@MODEST
def test_images_are_accepted_exactly_in_the_unit_interval(values, dtype):
    """One value outside [0, 1], or one NaN, is enough to be refused."""
    x = torch.tensor([values], dtype=dtype)
    assert accepts(_check.check_images, x) == all(0 <= v <= 1 for v in values)


@pytest.mark.parametrize(
    "dtype", [torch.uint8, torch.int64, torch.bool, torch.complex64]
)
def test_images_of_a_wrong_dtype(dtype):
    """Bytes are no pixels in [0, 1], even if all of them are 0 or 1."""
    with pytest.raises(TypeError, match=str(dtype)):
        _check.check_images(torch.ones(2, 3).to(dtype))


@pytest.mark.parametrize("shape", [(3,), (), (0, 3)])
def test_images_of_a_wrong_shape(shape):
    """A batch dimension with at least one image is needed."""
    with pytest.raises(ValueError, match="N"):
        _check.check_images(torch.zeros(shape))


def test_half_precision_images_pass():
    """The refusal is of the wrong kind of number, not of a low precision."""
    _check.check_images(X.half())
    _check.check_images(X.bfloat16())


@pytest.mark.parametrize("dtype", [torch.int32, torch.uint8, torch.float32, torch.bool])
def test_labels_of_a_wrong_dtype(dtype):
    """Labels are int64 only."""
    with pytest.raises(TypeError, match=str(dtype)):
        _check.check_labels(X, Y.to(dtype))


@pytest.mark.parametrize(
    "y",
    [
        torch.tensor([0]),
        torch.tensor([0, 1, 2]),
        torch.tensor([[0], [1]]),
        torch.tensor(0),
        torch.tensor([0, -1]),
    ],
)
def test_labels_of_a_wrong_shape_or_sign(y):
    """One label >= 0 per image: no more, no less, no other shape."""
    with pytest.raises(ValueError, match="label"):
        _check.check_labels(X, y)


def test_train_mode_is_found_at_any_depth():
    """A single layer in train mode is enough, however deep it sits."""
    model = nn.Sequential(nn.Flatten(), nn.Sequential(nn.Dropout(0.5))).eval()
    _check.check_model(model)
    model[1][0].train()
    with pytest.raises(ValueError, match="eval"):
        _check.check_model(model)


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        ({"model": nn.Linear(3, 3).train()}, ValueError),
        ({"x": X * 255}, ValueError),
        ({"x": X.byte()}, TypeError),
        ({"y": Y[:1]}, ValueError),
        ({"y": Y.float()}, TypeError),
        ({"eps": 8}, ValueError),
        ({"norm": "l0"}, ValueError),
    ],
    ids=["train", "0-255", "uint8", "one label", "float labels", "eps 8", "norm"],
)
def test_check_all_makes_every_check(change, kind):
    """Good input passes; each single fault is refused."""
    good = {
        "model": nn.Linear(3, 3).eval(),
        "x": X,
        "y": Y,
        "eps": 8 / 255,
        "norm": "linf",
    }
    assert _check.check_all(**good) is None
    with pytest.raises(kind):
        _check.check_all(**good | change)


def test_modules_are_found_whatever_a_class_says():
    """A shared one as often as it is named; a ring ends; ``modules`` is not asked."""

    class Silent(nn.Sequential):
        def modules(self):
            return iter(())

    act = nn.ReLU()
    model = Silent(nn.Linear(2, 2), act, nn.Sequential(act))
    assert len(_check.modules_of(model)) == 5
    assert len(_check.tensors_of(_check.modules_of(model))) == 2
    with pytest.raises(ValueError, match="train mode"):
        _check.check_model(model)
    act.parent = model
    assert {id(m) for m in _check.modules_of(model)} == {
        id(m) for m in nn.Sequential.modules(model)
    }
