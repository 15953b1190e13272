"""Questions in the boxes of exercises: answered by mouse, by keyboard, kept, light."""

import gzip
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Locator, Page
from shots import ALL

from advlib import exercises
from advlib.exercises import catalogue

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "_ext"))

import questions  # noqa: E402

AXE = Path(__file__).parent / "vendor" / "axe.min.js"
RUN_AXE = """async () => {
  const {violations} = await axe.run('form.question', {resultTypes: ['violations']});
  return violations.flatMap(v => v.nodes.map(n => `${v.id}: ${n.target}`));
}"""
ANSWER = """() => document.querySelectorAll('form.question').forEach(form => {
  form.querySelectorAll('input').forEach(input => {
    if (input.type === 'text') input.value = '3'; else input.checked = true;
  });
  form.requestSubmit();
})"""
FORM = re.compile(r'<form class="question".*?</form>', re.S)
EXERCISES = catalogue.load()
RECALL, PREDICT, SEVERAL = "2a.1", "1.4", "1.1"


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """Yield a page of a reader whose scripts must not complain."""
    said: list[str] = []
    with browser.new_context() as context:
        page = context.new_page()
        page.on("pageerror", lambda error: said.append(str(error)))
        yield page
    assert said == []


def form(page: Page, base: str, number: str) -> Locator:
    """Open the page of an exercise; return its form."""
    short = number.split(".")[0]
    names = {"1": "01_introduction", "2a": "02a_linear_models"}
    page.goto(f"{base}/chapters/{names[short]}.html")
    found = page.locator(f'form[data-number="{number}"]')
    found.scroll_into_view_if_needed()
    return found


def words(text: str) -> str:
    """The words of ``text``, without formulas and spaces."""
    return re.sub(r"\s|\$[^$]*\$", "", text)


def says(found: Locator, text: str) -> bool:
    """Whether the reply says ``text``; its formulas are left out of both."""
    found.locator(".reply p").first.wait_for()
    said = found.locator(".reply").evaluate(
        "e => { const c = e.cloneNode(true);"
        " c.querySelectorAll('math').forEach(m => m.remove()); return c.textContent; }"
    )
    return words(text) in re.sub(r"\s", "", said)


def test_a_choice_by_mouse(page: Page, base: str) -> None:
    """Each wrong option says what is wrong with it, the right one confirms."""
    found, options = form(page, base, RECALL), EXERCISES[RECALL].question.options
    found.get_by_role("button").click()
    assert says(found, "Choose an answer first.")
    for place, option in enumerate(options):
        found.locator("label").nth(place).click()
        assert found.locator(".reply p").count() == 0  # the old reply is gone
        found.get_by_role("button").click()
        assert says(found, option.why)
        assert says(found, "Right." if option.right else "Not yet.")
        assert found.locator(".reply .right").count() == option.right


def test_a_choice_by_keyboard(page: Page, base: str) -> None:
    """Arrows go through the options, Enter asks; wrong first, then right."""
    found, options = form(page, base, RECALL), EXERCISES[RECALL].question.options
    right = next(place for place, option in enumerate(options) if option.right)
    found.locator("input").first.focus()
    page.keyboard.press("Space")
    page.keyboard.press("Enter")
    assert says(found, options[0].why)
    assert says(found, "Not yet.")
    for _ in range(right):
        page.keyboard.press("ArrowDown")
    page.keyboard.press("Tab")
    assert found.get_by_role("button").evaluate("e => e === document.activeElement")
    page.keyboard.press("Enter")
    assert says(found, options[right].why)
    assert says(found, "Right.")


def test_several_right_options(page: Page, base: str) -> None:
    """What is chosen is answered, what is missing is counted and not given away."""
    found, options = form(page, base, SEVERAL), EXERCISES[SEVERAL].question.options
    assert "Choose all that apply." in found.locator("legend").text_content()
    rights = [place for place, option in enumerate(options) if option.right]
    wrong = next(place for place, option in enumerate(options) if not option.right)
    for place in (wrong, rights[0]):
        found.locator("label").nth(place).click()
    found.get_by_role("button").click()
    assert says(found, "1 of your choices is wrong, 1 right one is missing.")
    assert says(found, options[wrong].why)
    assert says(found, options[rights[0]].why)
    assert not says(found, options[rights[1]].why)
    for place in (wrong, rights[1]):
        found.locator("label").nth(place).click()
    found.get_by_role("button").click()
    assert found.locator(".reply .right").text_content() == "Right."


@pytest.mark.parametrize("way", ["mouse", "keyboard"])
def test_a_number(page: Page, base: str, way: str) -> None:
    """Below, above, inside: how far off, and what surprises; no number, no verdict."""
    found, asked = form(page, base, PREDICT), EXERCISES[PREDICT].question
    field = found.get_by_role("textbox", name="Your number")

    def answer(text: str) -> None:
        field.fill(text)
        if way == "mouse":
            found.get_by_role("button").click()
        else:
            field.press("Enter")

    for nothing in ("", "soon"):
        answer(nothing)
        assert says(found, "Write a number first.")
    answer("0.05")
    assert says(found, "Not quite. Found: 0.13, your 0.05 is 0.08 less.")
    assert says(found, f"{asked.below} {asked.after}")
    answer("0,2")  # as half of Europe writes it
    assert says(found, "your 0.2 is 0.07 more.")
    assert says(found, f"{asked.above} {asked.after}")
    answer("0.13")
    assert says(found, "Right. Found: 0.13, so is yours.")
    assert says(found, f"{asked.inside} {asked.after}")
    assert found.locator(".reply .wrong").count() == 0


def test_hints_are_graded(page: Page, base: str) -> None:
    """A second hint shows when the first is open; on paper there are none."""
    page.goto(f"{base}/chapters/01_introduction.html")
    coded = [e for e in EXERCISES.values() if e.number in exercises.known()]
    here = [e for e in coded if e.number.startswith("1.")]
    hints = page.locator("details.hint")
    assert hints.count() == 2 * len(here) >= 2
    first, second = hints.nth(0), hints.nth(1)
    first.scroll_into_view_if_needed()
    assert first.is_visible()
    assert not second.is_visible()
    first.locator("summary").focus()
    page.keyboard.press("Enter")
    second.locator("summary").click()
    for found, text in zip((first, second), exercises.about("1.6").hints, strict=True):
        shown = found.locator("p")
        assert shown.is_visible()
        said = words(shown.text_content()).lower()
        assert said == words(f"{text}.").replace("`", "").lower()
    below = "e => e.closest('.exercise').querySelector('.hint ~ .solution') !== null"
    assert first.evaluate(below)
    page.emulate_media(media="print")
    assert not first.is_visible()


def test_what_was_answered_is_kept(page: Page, base: str) -> None:
    """After a reload choices, number and replies are there again."""
    found = form(page, base, SEVERAL)
    found.locator("label").nth(1).click()
    found.get_by_role("button").click()
    number = form(page, base, PREDICT)
    assert found.locator("input:checked").count() == 1
    assert says(found, "Not yet. 1 right one is missing.")
    number.locator("input").fill("0.2")
    number.get_by_role("button").click()
    page.reload()
    assert number.locator("input").input_value() == "0.2"
    assert says(number, "your 0.2 is 0.07 more.")


def test_forbidden_storage_and_files(browser: Browser, site: Path) -> None:
    """From a file, and where storage throws, questions are answered all the same."""
    said: list[str] = []
    forbid = "Object.defineProperty(window, 'localStorage', {get() { throw 0; }})"
    for script in ("", forbid):
        with browser.new_context() as context:
            context.add_init_script(script)
            page = context.new_page()
            page.on("pageerror", lambda error: said.append(str(error)))
            page.goto((site / "chapters/01_introduction.html").as_uri())
            found = page.locator(f'form[data-number="{PREDICT}"]')
            found.locator("input").fill("0.13")
            found.get_by_role("button").click()
            assert says(found, "Right.")
    assert said == []


def test_strange_memories_do_no_harm(page: Page, base: str) -> None:
    """What an older page, or somebody else, left in the storage is survived."""
    left = {f"question {n}": "<b>1</b>" for n in (SEVERAL, PREDICT, RECALL)}
    fill = f"Object.assign(localStorage, {json.dumps(left)})"
    page.add_init_script(fill)
    found = form(page, base, PREDICT)
    assert says(found, "Write a number first.")
    assert page.locator(".reply b").count() == 0


def test_without_script_and_on_paper(browser: Browser, base: str) -> None:
    """No form shows, its solution is there; on paper neither."""
    where = f"{base}/chapters/01_introduction.html"
    with browser.new_context(java_script_enabled=False) as context:
        page = context.new_page()
        page.goto(where)
        assert page.locator("form.question").count() == 3
        assert page.locator("form.question:visible").count() == 0
        assert page.locator("#exercise-1-1 details.solution").count() == 1
    with browser.new_context() as context:
        page = context.new_page()
        page.goto(where)
        assert page.locator("form.question:visible").count() == 3
        page.emulate_media(media="print")
        assert page.locator("form.question:visible").count() == 0


def test_head_says_what_it_takes(page: Page, base: str) -> None:
    """Kind, difficulty with a name for those who do not see dots, minutes."""
    form(page, base, RECALL)
    exercises = [e for e in EXERCISES.values() if e.chapter == "2a"]
    for exercise in exercises:
        head = page.locator(f"#exercise-{exercise.number.replace('.', '-')} > .name")
        assert head.locator(".kind").text_content() == exercise.kind
        level, said = head.locator(".level"), f"difficulty {exercise.difficulty} of 3"
        assert level.get_attribute("role") == "img"
        assert level.get_attribute("aria-label") == said
        assert level.locator(".on").count() == exercise.difficulty
        assert f"{exercise.minutes}\u00a0min" in head.text_content()


@pytest.mark.parametrize("mode", ["light", "dark"])
def test_answered_forms_are_accessible(browser: Browser, base: str, mode: str) -> None:
    """All forms of a page answered, on a phone: axe finds nothing, nothing is cut."""
    view = {"width": 390, "height": 844}
    with browser.new_context(viewport=view, color_scheme=mode) as context:
        page = context.new_page()
        page.goto(f"{base}/chapters/06a_upper_bounds.html")
        page.add_style_tag(content=ALL)
        page.evaluate(ANSWER)
        assert page.locator(".reply p").count() >= 8
        page.evaluate(AXE.read_text(encoding="utf8"))
        assert page.evaluate(RUN_AXE) == []
        wider = "e => [...e].filter(f => f.scrollWidth > f.clientWidth).length"
        assert page.locator("form.question").evaluate_all(wider) == 0


def test_every_question_is_on_its_page_and_nowhere_else(site: Path, order) -> None:
    """As many forms as questions, in the catalogue's order; the script where asked."""
    found = []
    for name in order:
        text = (site / f"{name}.html").read_text(encoding="utf8")
        numbers = re.findall(r'<form class="question" data-number="([^"]+)"', text)
        assert ("_static/questions.js?v=" in text) == bool(numbers)
        found += numbers
    assert found == [n for n, e in EXERCISES.items() if e.question]


def test_questions_are_light(site: Path) -> None:
    """The script at most 3 kB, the forms of a page at most 6 kB, compressed."""
    script = (site / "_static" / questions.SCRIPT).read_bytes()
    assert b"/*" not in script
    assert len(gzip.compress(script)) <= 3000
    for path in (site / "chapters").glob("*.html"):
        forms = "".join(FORM.findall(path.read_text(encoding="utf8")))
        assert len(gzip.compress(forms.encode())) <= 6000, path.name


def test_a_formula_and_code_in_words() -> None:
    """Dollars make mathematics, backticks code, the rest stays as it is."""
    made = list(questions.inline("so $a < b$, by `f(x)`: yes"))
    kinds = [type(node).__name__ for node in made]
    assert kinds == ["Text", "math", "Text", "literal", "Text"]
    assert [node.astext() for node in made] == [
        "so ",
        "a < b",
        ", by ",
        "f(x)",
        ": yes",
    ]
