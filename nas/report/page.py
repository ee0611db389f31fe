"""A report as one HTML file with everything inside, and its figures as SVG and PNG files."""

import json
import re
from collections.abc import Mapping
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Any

from nas.errors import ReportError
from nas.report.content import Figure, Page
from searchspace.files import write_atomically

STATIC_WIDTH_PX = 720
PNG_SCALE = 2.0


def render(page: Page) -> str:
    """The page as HTML; scripts, styles and data are inside.

    Raises:
        ReportError: the extra that draws is not installed.
    """
    _converter()
    import jinja2
    from markupsafe import Markup

    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    template = environment.from_string(_resource("page.html.j2"))
    scripts = [_vega(), _resource("page.js")] if page.figures else [_resource("page.js")]
    return template.render(
        page=page,
        style=Markup(_resource("page.css")),
        scripts=[Markup(script.replace("</script", "<\\/script")) for script in scripts],
        spec=lambda figure: Markup(_inside_html(figure.spec)),
        with_code=lambda text: Markup(re.sub(r"`([^`]*)`", r"<code>\1</code>", str(Markup.escape(text)))),
    )


def write_figures(page: Page, folder: Path) -> list[Path]:
    """Each figure as an SVG and a PNG file in a folder.

    Raises:
        ReportError: the extra that draws is not installed, or the folder cannot be made.
    """
    converter = _converter()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ReportError(
            f"{folder}: figures need a folder, it cannot be made ({error.strerror}); choose another"
        ) from None
    written = []
    for figure in page.figures:
        spec = _static(figure)
        for suffix, content in (
            ("svg", converter.vegalite_to_svg(spec).encode()),
            ("png", converter.vegalite_to_png(spec, scale=PNG_SCALE)),
        ):
            path = folder / f"{figure.name}.{suffix}"
            write_atomically(path, content)
            written.append(path)
    return written


def _static(figure: Figure) -> dict[str, Any]:
    """A figure for paper: of a fixed width, on white."""
    return {**figure.spec, "width": STATIC_WIDTH_PX, "background": "white", "title": figure.title}


def _converter() -> Any:
    """The library that holds Vega and draws without a browser."""
    try:
        import vl_convert
    except ImportError:
        raise ReportError("a report needs the extra `report`: pip install pocketnas[report]") from None
    return vl_convert


@lru_cache(maxsize=1)
def _vega() -> str:
    """Vega, Vega-Lite and Vega-Embed as one script; putting it together takes a second."""
    bundle: str = _converter().javascript_bundle()
    return bundle


def _inside_html(spec: Mapping[str, Any]) -> str:
    """JSON that cannot end the script element it stands in."""
    return json.dumps(spec).replace("<", "\\u003c")


def _resource(name: str) -> str:
    return resources.files("nas.report").joinpath(name).read_text(encoding="utf-8")
