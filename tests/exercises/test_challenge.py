"""The verifier challenge: its truths are true, guessing loses, mistakes are named."""

import pytest
import torch

from advlib import attacks
from advlib.exact import branch_and_bound
from advlib.exercises import challenge


@pytest.fixture(scope="module")
def asked() -> list[challenge.Case]:
    """Return twelve cases of one seed."""
    return challenge.cases(12, seed=3)


@pytest.mark.parametrize("robust", [True, False])
def test_planted_cases_are_what_they_say(robust: bool) -> None:
    """The smallest margin over all corners is 1/64 or 0; the search agrees."""
    for seed in range(20):
        case = challenge.planted(seed, robust=robust)
        margins = branch_and_bound.minimal_margin(
            case.model, case.image, case.label, case.eps, tolerance=1e-6
        )
        assert margins[0].bound == pytest.approx(robust / 64, abs=1e-5)
        said = challenge.by_search(case.model, case.image, case.label, case.eps, 10)
        assert said in (case.truth, "unknown")  # a tie may stay open


def test_every_attacked_case_has_its_witness(asked: list[challenge.Case]) -> None:
    """It is allowed, and the network is wrong there or ties; both answers occur."""
    assert {case.truth for case in asked} == {"certified", "attacked"}
    assert {"planted"} < {case.kind for case in asked}
    for case in asked:
        assert (case.witness is None) == (case.truth == "certified")
        if case.witness is None:
            continue
        there = case.image + case.witness
        assert float(case.witness.abs().max()) <= case.eps * (1 + 1e-12)
        assert 0 <= float(there.min())
        assert float(there.max()) <= 1
        z = case.model(there)[0]
        rival = z.clone()
        rival[case.label] = -torch.inf
        assert float(z[case.label] - rival.max()) <= 0


def test_cases_are_drawn_anew() -> None:
    """With a seed they are the same, without one they are not."""
    first, again, other, fifth = (challenge.cases(3, s) for s in (5, 5, None, None))
    same = [(a.eps, a.kind, a.truth) for a in first]
    assert same == [(a.eps, a.kind, a.truth) for a in again]
    sums = [sum(float(c.image.sum()) for c in drawn) for drawn in (first, other, fifth)]
    assert len(set(sums)) == 3
    with pytest.raises(ValueError, match="count"):
        challenge.cases(0)


def trusting(model, image, label, eps, seconds):
    """Believe PGD: what it does not fool is certified."""
    delta = attacks.pgd_linf(model, image, label, eps, alpha=eps / 4, num_steps=20)
    fooled = bool(model(image + delta).argmax(1) != label)
    return "attacked" if fooled else "certified"


def test_guessing_loses_and_proof_wins() -> None:
    """An attack taken for a proof falls below "unknown"; no rival is ever wrong."""
    found = challenge.score(trusting, seed=1)
    rows = found.rows
    assert all(row["wrong"] == 0 for name, row in rows.items() if name != "yours")
    assert rows["yours"]["wrong"] >= 1
    assert rows["yours"]["score"] < rows["always unknown"]["score"] == 0
    assert rows["intervals"]["score"] <= rows["CROWN"]["score"]
    assert 0 < rows["CROWN"]["score"] < rows["branch and bound"]["score"]
    assert "has a counterexample" in " ".join(found.messages)
    order = list(found.table().frame.index)
    assert order[0] == "branch and bound"
    assert order[-1] == "yours"
    assert "counterexample" in found._repr_html_()


def spoils(model, image, label, eps, seconds):
    """Change what it was given, and answer nothing."""
    image.zero_()
    for weight in model.parameters():
        weight.data.zero_()
    return "safe"


@pytest.mark.parametrize(
    ("verify", "said"),
    [
        (lambda *case: 1 / 0, "raised ZeroDivisionError"),
        (lambda model, image: "unknown", "raised TypeError"),
        (spoils, "answered 'safe'; it must answer one of certified"),
        (lambda *case: "attacked", "is called attacked and is robust"),
    ],
)
def test_mistakes_are_named(verify, said: str) -> None:
    """An error counts as unknown; the network and the image are the reader's copies."""
    found = challenge.score(verify, seed=1, count=4, rivals=False)
    assert said in " ".join(found.messages)
    clean = challenge.score(challenge.by_search, seed=1, count=4, rivals=False)
    assert clean.rows["yours"]["wrong"] == 0
    assert clean.messages == []


def test_late_answers_are_unknown() -> None:
    """An answer that takes longer than allowed gives no points, and is named."""

    def slow(model, image, label, eps, seconds):
        for _ in range(200):
            model(image)
        return "certified"

    found = challenge.score(slow, seed=1, count=3, rivals=False, seconds=1e-4)
    assert found.rows["yours"]["late"] == 3
    assert found.rows["yours"]["score"] == 0
    assert "took" in found.messages[0]
    with pytest.raises(TypeError, match="function"):
        challenge.score("certified")
