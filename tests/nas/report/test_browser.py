"""A report in a real browser: it draws without errors, answers to pointer and keyboard, fits narrow screens and dark ones.

Screenshots are kept in ``$SCREENSHOTS``, or in the test's own folder.
"""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nas.report.kinds import page_of
from nas.report.page import render
from tests.nas.report.runs import search_run, trimming_run

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed (Debian: apt-get install chromium)"),
    # playwright's connection is closed when the interpreter collects it
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]
DRAWN = "document.querySelectorAll('.chart[data-drawn]').length === document.querySelectorAll('.chart').length"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("reports")
    made = {}
    for name, make in (("search", search_run), ("netadapt", trimming_run)):
        made[name] = folder / f"{name}.html"
        made[name].write_text(render(page_of(make(folder / name))), encoding="utf-8")
    return made


def opened(browser: Any, report: Path, *, width: int, dark: bool = False) -> tuple[Any, list[str]]:
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme="dark" if dark else "light")
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: said.append(request.url) if request.url.startswith("http") else None)
    page.goto(report.as_uri())
    page.wait_for_function(DRAWN)
    return page, said


@pytest.mark.parametrize("name", ["search", "netadapt"])
@pytest.mark.parametrize("screen", [(1280, False), (390, True)], ids=str)
def test_it_draws_silently_and_fits(
    browser: Any, reports: dict[str, Path], tmp_path: Path, name: str, screen: tuple[int, bool]
) -> None:
    width, dark = screen
    page, said = opened(browser, reports[name], width=width, dark=dark)
    folder = Path(os.environ.get("SCREENSHOTS", tmp_path))
    folder.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=folder / f"{name}-{width}{'-dark' if dark else ''}.png", full_page=True)
    assert said == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    for box in page.evaluate("[...document.querySelectorAll('.chart svg')].map(s => s.getBoundingClientRect().width)"):
        assert 0 < box <= width
    ground, ink = (
        sum(map(int, page.evaluate(f"getComputedStyle(document.body).{key}.match(/\\d+/g).slice(0, 3).map(Number)")))
        for key in ("backgroundColor", "color")
    )
    assert (ground < ink) == dark
    fill = page.evaluate("getComputedStyle(document.querySelector('.chart text')).fill.match(/\\d+/g).map(Number)")
    assert sum(fill[:3]) == ink, "text of figures has the page's colour"
    page.close()


def test_hover_and_click_lead_to_the_network(browser: Any, reports: dict[str, Path]) -> None:
    page, said = opened(browser, reports["search"], width=1280)
    mark = page.locator("#figure-front .mark-symbol path").first
    mark.hover()
    tooltip = page.locator("#vg-tooltip-element")
    tooltip.wait_for(state="visible")
    assert "accuracy" in tooltip.inner_text()
    mark.click()
    page.wait_for_function("location.hash.startsWith('#network-')")
    assert page.evaluate("document.activeElement.id") == page.evaluate("location.hash.slice(1)")
    assert said == []
    page.close()


def test_the_keyboard_is_enough(browser: Any, reports: dict[str, Path]) -> None:
    page, _ = opened(browser, reports["search"], width=1280)
    seen = []
    for _ in range(40):
        page.keyboard.press("Tab")
        seen.append(page.evaluate("document.activeElement.getAttribute('href')"))
        if str(seen[-1]).startswith("#network-"):
            break
    assert seen[0] == "#content"
    page.keyboard.press("Enter")
    page.wait_for_function("location.hash.startsWith('#network-')")
    page.close()
