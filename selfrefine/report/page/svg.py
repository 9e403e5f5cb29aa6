"""From a Vega-Lite specification to SVG that stands in the page: static, small, coloured by its style.

vl-convert has Vega-Lite in it and draws without a browser or a network. What it draws needs no script, so
the page's policy can forbid all but ours, and it prints. A colour is a variable of page.css: one drawing
serves light, dark and paper.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from typing import Any

from markupsafe import Markup

from selfrefine.report.safe_text import safe_text

VEGA_LITE = "6.4"
WIDTH = 420
"""CSS pixels of a card's chart; on a phone it is drawn at 0.85 of that, and its letters are still read."""
_SVG = "http://www.w3.org/2000/svg"
_AXIS = {
    "labelColor": "var(--muted)",
    "titleColor": "var(--muted)",
    "titleFontWeight": "normal",
    "labelFontSize": 12,
    "titleFontSize": 12,
    "titlePadding": 8,
    "labelPadding": 6,
    "gridColor": "var(--line)",
    "domain": False,
    "ticks": False,
    "labelLimit": 150,
    "labelAngle": 0,
}
CONFIG: dict[str, Any] = {
    "background": None,
    "padding": {"left": 10, "right": 6, "top": 2, "bottom": 2},
    "font": "sans-serif",
    "view": {"stroke": None},
    "axis": _AXIS,
    "axisX": {"grid": False, "labelOverlap": True, "labelFlush": False},
    "legend": {
        "orient": "top",
        "title": None,
        "labelColor": "var(--muted)",
        "labelFontSize": 12,
        "labelLimit": 220,
        "symbolSize": 70,
        "symbolOpacity": 1,
        "symbolStrokeWidth": 0,
        "columnPadding": 14,
        "offset": 10,
        "columns": 3,
    },
    "header": {"labelColor": "var(--muted)", "title": None, "labelFontSize": 12},
}


def available() -> bool:
    """Whether charts can be drawn: `pip install 'selfrefine[report]'`."""
    try:
        import vl_convert  # noqa: F401
    except ImportError:
        return False
    return True


def draw(spec: dict[str, Any], title: str, description: str, key: str) -> Markup:
    """SVG with a title and a description for a screen reader; its marks are silent but for tooltips.

    key: a prefix of ids, unique in the page. Raises: ImportError without vl-convert.
    """
    import vl_convert

    base = {"width": WIDTH, "autosize": {"type": "fit-x", "contains": "padding"}, "config": CONFIG}
    text = vl_convert.vegalite_to_svg(base | spec, vl_version=VEGA_LITE, allowed_base_urls=[])
    return Markup(finished(text, title, description, key))


def finished(text: str, title: str, description: str, key: str) -> str:
    """vl-convert's SVG without what only a script would use, as one image with a name."""
    ET.register_namespace("", _SVG)
    root = ET.fromstring(text)
    _prune(root)
    root.attrib.pop("version", None)
    root.attrib.pop("class", None)
    root.set("role", "img")
    root.set("aria-labelledby", f"{key}-t {key}-d")
    for place, (tag, words) in enumerate((("title", title), ("desc", description))):
        named = ET.Element(f"{{{_SVG}}}{tag}", {"id": f"{key}-{tag[0]}"})
        named.text = safe_text(words)
        root.insert(place, named)
    return ET.tostring(root, encoding="unicode")


def _prune(node: ET.Element) -> None:
    """Drop invisible areas and machinery; the text of a mark becomes its tooltip."""
    for child in list(node):
        invisible = child.get("display") == "none" or (
            child.get("class") == "background" and child.get("stroke") is None and child.get("fill") is None
        )
        if invisible:
            node.remove(child)
            continue
        _prune(child)
        tip = child.get("aria-label") if child.get("aria-roledescription", "").endswith(_TIPPED) else None
        for name in (
            "class",
            "role",
            "aria-label",
            "aria-roledescription",
            "aria-hidden",
            "pointer-events",
            "font-family",
        ):
            child.attrib.pop(name, None)
        if child.get("opacity") == "1":
            child.attrib.pop("opacity")
        if tip:
            shown = ET.Element(f"{{{_SVG}}}title")
            shown.text = tip
            child.insert(0, shown)
        if child.tag == f"{{{_SVG}}}g" and len(child) == 0:
            node.remove(child)


_TIPPED = ("rect mark", "bar", "point", "circle")
