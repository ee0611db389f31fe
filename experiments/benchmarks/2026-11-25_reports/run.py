"""Reports of runs in a real browser: how they look on a wide screen and on a phone's, light and dark.

    python -m experiments.benchmarks.2026-11-25_reports.run NAME=RUN… [--into FOLDER]

Writes a screenshot of each run's report at each width in each scheme (NAME-1280.png, NAME-390-dark.png …) and ``result.jsonl``
with what the page weighs, what the browser's console said and whether anything reaches beyond the screen.
"""

import argparse
import io
import shutil
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

from experiments.record import write_record
from nas.report.kinds import page_of
from nas.report.page import render

HERE = Path(__file__).parent
SCREENS = ((1280, False), (1280, True), (390, False), (390, True))
DRAWN = "document.querySelectorAll('.chart[data-drawn]').length === document.querySelectorAll('.chart').length"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", metavar="NAME=RUN")
    parser.add_argument("--into", type=Path, default=HERE)
    options = parser.parse_args()
    found = []
    with sync_playwright() as playwright, tempfile.TemporaryDirectory() as folder:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        for name, _, run in (given.partition("=") for given in options.runs):
            path = Path(folder) / f"{name}.html"
            path.write_text(render(page_of(Path(run))), encoding="utf-8")
            for width, dark in SCREENS:
                page = browser.new_page(
                    viewport={"width": width, "height": 900}, color_scheme="dark" if dark else "light"
                )
                said: list[str] = []
                page.on("console", lambda message, said=said: said.append(message.text))
                page.on("pageerror", lambda error, said=said: said.append(str(error)))
                page.goto(path.as_uri())
                page.wait_for_function(DRAWN)
                shot = Image.open(io.BytesIO(page.screenshot(full_page=True)))
                shot.quantize(64).save(options.into / f"{name}-{width}{'-dark' * dark}.png", optimize=True)
                found.append(
                    {
                        "run": name,
                        "width": width,
                        "dark": dark,
                        "bytes": path.stat().st_size,
                        "console": said,
                        "page_width": page.evaluate("document.documentElement.scrollWidth"),
                        "page_height": page.evaluate("document.documentElement.scrollHeight"),
                        "figures": page.evaluate("document.querySelectorAll('.chart').length"),
                    }
                )
                page.close()
        browser.close()
    write_record(options.into / "result.jsonl", found)


if __name__ == "__main__":
    main()
