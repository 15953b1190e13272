"""The mosaic of Chapter 7a: what it says of each image is what the record says."""

import base64

import numpy as np
import pytest
from hands import stage

from advlib import data, play, results

pytestmark = pytest.mark.usefixtures("mnist")

STATUS = {"a": "attacked", "c": "certified", "u": "undecided"}
ENDS = ("clean", "fgsm", "pgd", "strong", "exact", "open", "alpha", "crown", "interval")


def runs() -> dict[tuple[str, float], dict]:
    """Return the runs of the record by network and radius."""
    stored = results.load("both_sides")["data"]["runs"]
    return {(run["network"], run["eps"]): run for run in stored}


def mask(run: dict, method: str) -> np.ndarray:
    """Return the errors (n,) of one method."""
    digits = np.frombuffer(bytes.fromhex(run["errors"][method]), np.uint8)
    return np.unpackbits(digits)[: run["n"]].astype(bool)


def test_every_cell_is_the_records(opened) -> None:
    """All runs: letters against masks, the search's verdicts and subproblems."""
    page, seen = opened("mosaic"), 0
    for (name, eps), run in runs().items():
        width = "mlp_256" if name.startswith("mlp_256") else "small"
        state = {"width": width, "training": name.removeprefix(width), "eps": eps}
        page.evaluate("v => document.querySelector('.sides').stage.set(v)", state)
        found = stage(page, "s.seen()")
        letters = "".join(found["letters"])
        assert len(letters) == run["n"]
        for wrong, method in zip("mfpsauczwi"[1:], ENDS, strict=True):
            before = set("mfpsauczwi"["mfpsauczwi".index(wrong) :])
            kept = np.array([letter not in before for letter in letters])
            assert (kept == mask(run, method)).all(), (name, eps, method)
        asked = [k for k, letter in enumerate(letters) if letter in STATUS]
        assert "".join(letters[k] for k in asked) == run["search"]["status"]
        assert [found["nodes"][k] for k in asked] == run["search"]["nodes"]
        seen += len(letters)
    assert seen == 15 * 500 + 9 * 100


def test_pictures_and_labels_are_the_data_sets() -> None:
    """Half as fine, sixteen greys: no pixel is more than half a grey away."""
    stored = play.stored("mosaic")
    x, y = (part[:500] for part in data.load("mnist").test)
    assert stored["labels"] == "".join(map(str, y.tolist()))
    packed = np.frombuffer(base64.b64decode(stored["pixels"]), np.uint8)
    grey = np.stack([packed >> 4, packed & 15], 1).reshape(500, 14, 14) / 15
    exact = x.numpy()[:, 0].reshape(500, 14, 2, 14, 2).mean((2, 4))
    assert np.abs(grey - exact).max() <= 0.5 / 15 + 1e-6


def test_only_the_search_decides(opened) -> None:
    """Off: what it decided is undecided; the ends are ensemble and slopes."""
    page, run = opened("mosaic"), runs()["small_pgd", 0.1]
    page.get_by_role("radio", name="off").check()
    counts = stage(page, "s.seen().counts")
    errors = run["counts"]
    assert counts["u"] == errors["alpha"] - errors["strong"]
    assert counts["a"] == counts["c"] == 0
    page.wait_for_function(
        "document.querySelector('[role=status]').textContent.includes('bound off')"
    )
    low, high = (100 * errors[key] / run["n"] for key in ("strong", "alpha"))
    said = page.locator("[role=status]").inner_text()
    assert f"between {low:.1f} % and {high:.1f} %" in said
    undecided = page.locator(".mosaic .cells i[data-v=u]").first
    undecided.hover()
    page.get_by_text("only search can").wait_for()
    cells = page.locator(".mosaic li b").all_inner_texts()
    assert sum(map(int, cells)) == 500


def test_keys_and_mouse_go_through_the_cells(opened) -> None:
    """Arrows by image and row, Home, End; one cell takes part in Tab; sorted, too."""
    page = opened("mosaic")
    page.locator(".cells [tabindex='0']").focus()
    at = lambda: stage(page, "s.get().image")  # noqa: E731
    where = []
    for key in ("ArrowRight", "ArrowDown", "ArrowLeft", "ArrowUp", "ArrowUp", "End",
                "ArrowRight", "Home"):  # fmt: skip
        page.keyboard.press(key)
        page.wait_for_timeout(40)
        where.append(at())
    assert where == [1, 26, 25, 0, 0, 499, 499, 0]
    assert page.locator(".cells [tabindex='0']").count() == 1
    before = page.locator(".one > p").inner_text()
    page.locator(".cells i").nth(300).hover()
    page.wait_for_timeout(60)
    assert at() == 300
    assert page.locator(".one > p").inner_text() != before
    label = page.locator("[aria-selected=true]").get_attribute("aria-label")
    assert page.locator(".one > p").inner_text().startswith(label)
    page.get_by_role("radio", name="by verdict").check()
    page.wait_for_timeout(60)
    letters, order = stage(page, "s.seen().letters"), stage(page, "s.seen().order")
    rank = ["mfpsauczwi".index(letters[k]) for k in order]
    assert rank == sorted(rank)
    page.get_by_role("button", name="next image").click()
    page.wait_for_timeout(60)
    assert at() == order[order.index(300) + 1]


def test_a_wide_network_has_fewer_images_and_radii(opened) -> None:
    """The nearest of its radii, an image that it has; a finger taps a cell."""
    page = opened("mosaic", width=390, has_touch=True, is_mobile=True, mode="dark")
    page.evaluate("document.querySelector('.sides').stage.set({eps: .15, image: 450})")
    page.get_by_role("radio", name="256-256").tap()
    page.wait_for_timeout(80)
    state = stage(page, "s.get()")
    assert (state["eps"], state["image"]) == (0.1, 99)
    shown = page.locator("fieldset:has(legend:text('radius')) label:visible")
    assert shown.all_inner_texts() == ["0.02", "0.05", "0.1"]
    page.locator(".cells i").nth(42).tap()
    page.wait_for_timeout(60)
    assert stage(page, "s.get().image") == 42
    assert page.locator(".cells i").count() == 100


def test_it_answers_at_once(opened) -> None:
    """Another radius: all cells within 50 ms, the least of ten."""
    least = opened("mosaic").evaluate("""async () => {
      const {stage} = document.querySelector('.sides'), times = [];
      for (let k = 0; k < 10; k++) {
        stage.set({eps: k % 2 ? .05 : .1});
        await new Promise(done => requestAnimationFrame(() => {
          const begin = performance.now();
          requestAnimationFrame(() => done(times.push(performance.now() - begin)));
        }));
      }
      return Math.min(...times);
    }""")
    assert least <= 50
