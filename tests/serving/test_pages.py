"""Both pages in headless Chromium, by mouse and by keyboard, on a desk and on a phone."""

import dataclasses
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from gpt.model.generate import respond
from gpt.serving.protocol import Served
from gpt.serving.rating import DIMENSIONS, Rating
from gpt.serving.server import make_app
from tests.serving.conftest import Gate, load, running, wait_until
from tests.serving.test_rating import write_run

pytestmark = pytest.mark.slow
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
DESK, PHONE = {"width": 1280, "height": 800}, {"width": 390, "height": 844}
SCREENS = [(DESK, "light"), (DESK, "dark"), (PHONE, "light"), (PHONE, "dark")]
Open = Callable[..., Page]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser: Browser) -> Iterator[Open]:
    """Opens a page; at the end, it must not have thrown, nor have asked another host for anything."""
    contexts, faults = [], []

    def open_one(url: str, screen: dict = DESK, scheme: str = "light") -> Page:
        context = browser.new_context(viewport=screen, color_scheme=scheme, has_touch=screen is PHONE,
                                      is_mobile=screen is PHONE)  # fmt: skip
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(20_000)
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("request", lambda r: None if r.url.startswith("http://127.0.0.1:") else faults.append(r.url))
        page.goto(url)
        return page

    yield open_one
    for context in contexts:
        context.close()
    assert not [fault for fault in faults if not fault.startswith("data:")]


def luminance(color: str) -> float:
    """WCAG's relative luminance of a `rgb(r, g, b)`."""
    parts = [int(part) / 255 for part in color.removeprefix("rgb(").removesuffix(")").split(",")]
    return sum(w * (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4)
               for w, p in zip((0.2126, 0.7152, 0.0722), parts, strict=True))  # fmt: skip


LOOKS = """() => [...document.querySelectorAll("button, label, summary, p, h1, h2, legend, .text")].filter(
    (e) => e.checkVisibility() && e.textContent.trim() && !e.disabled).map((e) => {
  let back = e;
  while (getComputedStyle(back).backgroundColor === "rgba(0, 0, 0, 0)" && back.parentElement) back = back.parentElement;
  return [e.textContent.trim().slice(0, 30), getComputedStyle(e).color, getComputedStyle(back).backgroundColor];
})"""
INSIDE = """() => [...document.querySelectorAll("button, textarea, input:not([type=radio]), .options label, .text")]
  .filter((e) => e.checkVisibility()).map((e) => [e.id || e.className || e.textContent, e.getBoundingClientRect()])
  .filter(([, box]) => box.left < 0 || box.right > innerWidth + .5).map(([name]) => name)"""
UNNAMED = """() => [...document.querySelectorAll("button, textarea, input")].filter((e) => e.checkVisibility() &&
  !(e.textContent.trim() || e.ariaLabel || [...(e.labels ?? [])].some((l) => l.textContent.trim()))).length"""
TALL = """() => [...document.querySelectorAll("button:not(.plain), .options label, textarea")]
  .filter((e) => e.checkVisibility()).every((e) => e.getBoundingClientRect().height >= 44)"""


def check_looks(page: Page, scheme: str) -> None:
    """Contrast of 4.5 (WCAG AA), nothing beside the screen, names for all controls, targets that a thumb can hit."""
    looks = page.evaluate(LOOKS)
    assert len(looks) > 5
    for text, color, back in looks:
        light, dark = sorted((luminance(color), luminance(back)), reverse=True)
        assert (light + 0.05) / (dark + 0.05) >= 4.5, (text, color, back)
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (luminance(background) < 0.2) == (scheme == "dark")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert page.evaluate(INSIDE) == []
    assert page.evaluate(UNNAMED) == 0
    assert page.evaluate(TALL)


# ---- the chat ----


@pytest.mark.parametrize(("screen", "scheme"), SCREENS)
def test_an_instruction_with_input_is_answered(
    url: str, served: Served, open_page: Open, screen: dict, scheme: str
) -> None:
    entry = {"instruction": "Name <b>it</b>.", "input": "a lamp\nand a chair", "output": ""}
    [expected] = respond(served.model, served.tokenizer, [entry], max_new_tokens=20)
    page = open_page(url, screen, scheme)
    expect(page.get_by_role("heading", name="small")).to_be_visible()
    page.get_by_label("Instruction", exact=True).fill(entry["instruction"])
    page.get_by_text("Input: the text").click()
    page.get_by_label("Input", exact=True).fill(entry["input"])
    page.get_by_text("Sampling: how").click()
    page.get_by_label("Most tokens").fill("20")
    page.get_by_role("button", name="Send").click()
    expect(page.get_by_text("20 tokens in")).to_be_visible()
    assert page.locator(".answer").text_content() == expected.text
    assert page.locator(".asked").text_content().endswith("Name <b>it</b>.Inputa lamp\nand a chair")  # no HTML of it
    expect(page.get_by_text("cut off at the limit")).to_be_visible()
    assert page.get_by_label("Instruction", exact=True).input_value() == ""
    assert "token" in page.get_by_label("Most tokens").evaluate("e => e.closest('label').textContent")
    check_looks(page, scheme)


@pytest.mark.parametrize(("key", "typed"), [("50%-off", "50%-off"), ("a b", "a%20b")])
def test_the_key_in_the_address_may_hold_any_sign(served: Served, open_page: Open, key: str, typed: str) -> None:
    with running(make_app(served, key=key)) as url:
        expect(open_page(f"{url}/#{typed}").get_by_role("heading", name="small")).to_be_visible()  # it asked for models


def test_sampling_is_sent_and_the_answer_grows(url: str, served: Served, open_page: Open, gate: Gate) -> None:
    page = open_page(url)
    page.get_by_text("Sampling: how").click()
    for label, value in {"Temperature": "1.5", "Top p": "0.9", "Top k": "50", "Most tokens": "30", "Seed": "7"}.items():
        page.get_by_label(label).fill(value)
    page.get_by_label("Instruction", exact=True).fill("Go.")
    with page.expect_request("**/v1/chat/completions") as sent:
        page.get_by_role("button", name="Send").click()
    body = sent.value.post_data_json
    assert {name: body[name] for name in ("temperature", "top_p", "top_k", "max_tokens", "seed")} == {
        "temperature": 1.5, "top_p": 0.9, "top_k": 50, "max_tokens": 30, "seed": 7,
    }  # fmt: skip
    expect(page.get_by_role("button", name="Stop")).to_be_visible()
    expect(page.get_by_role("log")).to_have_attribute("aria-busy", "true")
    page.evaluate("""() => { window.lengths = new Set(); new MutationObserver(() =>
        lengths.add(document.querySelector(".answer").textContent.length)).observe(document.querySelector(".answer"),
        {childList: true}); }""")
    gate.opened.set()
    expect(page.get_by_text("seed 7")).to_be_visible()
    assert page.evaluate("lengths.size") > 5


@pytest.mark.parametrize("how", ["button", "Escape"])
def test_stopping_frees_the_place_and_keeps_what_was_there(
    served: Served, open_page: Open, gate: Gate, how: str
) -> None:
    with running(make_app(served)) as url:
        page = open_page(url)
        page.get_by_label("Instruction", exact=True).fill("Go on for long.")
        page.keyboard.press("Enter")
        wait_until(lambda: load(url) == (1, 0))
        if how == "button":
            page.get_by_role("button", name="Stop").click()
        else:
            page.keyboard.press("Escape")
        wait_until(lambda: load(url) == (0, 0))
        expect(page.locator(".meta", has_text="Stopped.")).to_be_visible()
        gate.opened.set()
        page.get_by_label("Instruction", exact=True).fill("Again.")
        page.get_by_role("button", name="Send").click()
        expect(page.get_by_text("tokens in")).to_be_visible()


def test_all_of_the_chat_can_be_reached_by_keyboard(url: str, open_page: Open) -> None:
    page = open_page(url)
    expect(page.get_by_label("Instruction", exact=True)).to_be_focused()
    page.keyboard.type("first line")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("second line")
    assert page.get_by_label("Instruction", exact=True).input_value() == "first line\nsecond line"
    page.keyboard.press("Tab")
    expect(page.get_by_role("button", name="Send")).to_be_focused()
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")  # opens the input
    page.keyboard.press("Tab")
    expect(page.get_by_label("Input", exact=True)).to_be_focused()
    page.keyboard.type("a lamp")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    expect(page.get_by_label("Temperature")).to_be_focused()
    page.get_by_label("Most tokens").fill("5")
    page.keyboard.press("Enter")  # sends from any field
    expect(page.get_by_text("5 tokens in")).to_be_visible()
    assert "a lamp" in page.locator(".asked").text_content()


def test_errors_are_shown_and_nothing_written_is_lost(served: Served, open_page: Open) -> None:
    with running(make_app(served)) as url:
        page = open_page(url)
        expect(page.get_by_role("heading", name="small")).to_be_visible()
        page.get_by_text("Input: the text").click()
        page.get_by_label("Instruction", exact=True).fill("Say it.")
        page.get_by_label("Input", exact=True).fill("lamp " * 300)
        page.get_by_role("button", name="Send").click()
        expect(page.get_by_role("alert")).to_contain_text("there is room for")
        assert page.get_by_label("Instruction", exact=True).input_value() == "Say it."
        assert page.get_by_label("Input", exact=True).input_value() == "lamp " * 300
        check_looks(page, "light")
    page.get_by_role("button", name="Send").click()
    expect(page.get_by_role("alert").last).to_contain_text("the server cannot be reached")


def test_earlier_turns_are_sent_only_to_a_model_that_knows_them(served: Served, open_page: Open) -> None:
    for turns, n_messages in ((False, 1), (True, 3)):
        with running(make_app(dataclasses.replace(served, turns=turns, max_new_tokens=4))) as url:
            page = open_page(url)
            expect(page.locator("#about")).to_contain_text("sees what was said" if turns else "fresh start")
            for n in range(2):
                page.get_by_label("Instruction", exact=True).fill("Go.")
                with page.expect_request("**/v1/chat/completions") as sent:
                    page.keyboard.press("Enter")
                expect(page.get_by_text("tokens in")).to_have_count(n + 1)
            assert len(sent.value.post_data_json["messages"]) == n_messages


# ---- rating ----


@pytest.fixture
def rate_url(served: Served, tmp_path: Path) -> Iterator[tuple[str, Path]]:
    long = "<img src=x onerror=alert(1)> " + "a very long response, " * 40
    ours = write_run(tmp_path / "ours", {"one": "<b>1</b>", "two": "2", "three": long})
    theirs = write_run(tmp_path / "theirs", {"one": "I", "two": "", "three": "III"})
    with running(make_app(served, rating=Rating(ours, theirs))) as url:
        yield f"{url}/rate", ours / "ratings.jsonl"


def choose(page: Page, letter: str, value: int) -> None:
    card = page.get_by_role("region", name=f"Response {letter}")
    for name in DIMENSIONS:
        card.get_by_role("group", name=name.capitalize()).get_by_label(str(value), exact=True).check()


def rate(page: Page, a: int, b: int, preference: str) -> None:
    choose(page, "A", a)
    choose(page, "B", b)
    page.get_by_role("group", name="Which do you prefer?").get_by_label(preference, exact=True).check()
    page.get_by_role("button", name="Save, next").click()


@pytest.mark.parametrize(("screen", "scheme"), SCREENS)
def test_pairs_are_rated_to_the_end_and_a_summary_follows(
    rate_url: tuple[str, Path], open_page: Open, screen: dict, scheme: str
) -> None:
    url, path = rate_url
    page = open_page(url, screen, scheme)
    for n in range(3):
        expect(page.get_by_role("status")).to_contain_text(f"Pair {n + 1} of 3, {n} rated")
        page.get_by_text("Show a reference answer").click()
        expect(page.get_by_text("reference to")).to_be_visible()
        assert "ours" not in page.locator("main").text_content()  # who wrote what is hidden
        check_looks(page, scheme)
        rate(page, 4, 2, "A")
    expect(page.get_by_role("status")).to_contain_text("All 3 pairs are rated")
    expect(page.get_by_role("row", name="Accuracy")).to_be_visible()
    expect(page.get_by_role("columnheader", name="ours")).to_be_visible()
    check_looks(page, scheme)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["preference"] for line in lines] == [line["left"] for line in lines]
    assert all(line["scores"][line["left"]] == dict.fromkeys(DIMENSIONS, 4) for line in lines)


def test_what_is_open_is_named_and_nothing_is_saved(rate_url: tuple[str, Path], open_page: Open) -> None:
    url, path = rate_url
    page = open_page(url)
    choose(page, "A", 3)
    page.get_by_role("button", name="Save, next").click()
    expect(page.get_by_role("alert")).to_contain_text("Still open: relevance of B, accuracy of B")
    expect(page.get_by_role("alert")).to_contain_text("which you prefer")
    group = page.get_by_role("region", name="Response B").get_by_role("group", name="Relevance")
    expect(group.get_by_label("1", exact=True)).to_be_focused()
    assert not path.exists()


def test_rating_goes_on_after_a_reload_and_can_be_changed(rate_url: tuple[str, Path], open_page: Open) -> None:
    url, path = rate_url
    page = open_page(url)
    rate(page, 5, 1, "A")
    expect(page.get_by_role("status")).to_contain_text("Pair 2 of 3, 1 rated")
    page.reload()
    expect(page.get_by_role("status")).to_contain_text("Pair 2 of 3, 1 rated")
    page.get_by_role("button", name="Back").click()
    expect(page.get_by_role("status")).to_contain_text("Pair 1 of 3, 1 rated; this one is")
    fluency = page.get_by_role("region", name="Response A").get_by_role("group", name="Fluency")
    expect(fluency.get_by_label("5", exact=True)).to_be_checked()
    rate(page, 1, 1, "equal")
    expect(page.get_by_role("status")).to_contain_text("Pair 2 of 3, 1 rated")
    assert [json.loads(line)["preference"] == "tie" for line in path.read_text().splitlines()] == [False, True]


def test_all_of_a_rating_can_be_given_by_keyboard(rate_url: tuple[str, Path], open_page: Open) -> None:
    url, path = rate_url
    page = open_page(url)
    expect(page.get_by_role("status")).to_contain_text("Pair 1 of 3")

    def tab_to_question() -> None:
        page.keyboard.press("Tab")
        while page.evaluate("document.activeElement.type") != "radio":  # the reference, and a text that scrolls
            page.keyboard.press("Tab")

    for _ in range(8):
        tab_to_question()
        page.keyboard.press("Space")
        page.keyboard.press("ArrowRight")
        page.keyboard.press("ArrowRight")
    tab_to_question()
    page.keyboard.press("ArrowRight")  # from A to equal
    page.keyboard.press("Control+Enter")
    expect(page.get_by_role("status")).to_contain_text("Pair 2 of 3, 1 rated")
    [line] = map(json.loads, path.read_text().splitlines())
    assert line["scores"]["run"] == line["scores"]["other"] == dict.fromkeys(DIMENSIONS, 3)
    assert line["preference"] == "tie"


def test_a_server_that_is_gone_is_said_and_the_choice_stays(served: Served, tmp_path: Path, open_page: Open) -> None:
    rating = Rating(write_run(tmp_path / "ours", {"one": "1"}), write_run(tmp_path / "theirs", {"one": "I"}))
    with running(make_app(served, rating=rating)) as url:
        page = open_page(f"{url}/rate")
        expect(page.get_by_role("status")).to_contain_text("Pair 1 of 1")
    rate(page, 4, 2, "B")
    expect(page.get_by_role("alert")).to_contain_text("the server cannot be reached")
    expect(page.get_by_role("group", name="Which do you prefer?").get_by_label("B", exact=True)).to_be_checked()
