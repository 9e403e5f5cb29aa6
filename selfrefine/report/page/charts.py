"""Vega-Lite specifications of the page's kinds of charts. Values in, a dict out; nothing is drawn here.

Texts in a chart are short and pass `label`. Colours are variables of page.css.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from selfrefine.report.safe_text import safe_text

COLOURS = tuple(f"var(--c{i})" for i in range(1, 7))
DASHES = ([1, 0], [6, 3], [2, 2], [8, 3, 2, 3], [4, 2], [1, 3])
SHAPES = ("circle", "square", "triangle-up", "diamond", "triangle-down", "cross")
HEAT = tuple(f"var(--heat-{i})" for i in range(7))
_HEIGHT = 220
Point = Mapping[str, Any]


def label(text: str, limit: int = 40) -> str:
    """A name from outside as it stands in a chart: nothing in it acts, and it is short."""
    return safe_text(text, limit)


def labels(names: Iterable[str], limit: int = 40) -> dict[str, str]:
    """Labels that stay apart: names that differ behind the limit would be drawn as one."""
    found: dict[str, str] = {}
    taken: dict[str, int] = {}
    for name in dict.fromkeys(names):
        short = label(name, limit)
        taken[short] = taken.get(short, 0) + 1
        found[name] = short if taken[short] == 1 else f"{label(name, limit - 4)} ({taken[short]})"
    return found


def tag_labels(tags: Iterable[tuple[str, str]]) -> dict[tuple[str, str], str]:
    """`op = +`; the value alone where all are of one tag."""
    found = list(dict.fromkeys(tags))
    one = len({name for name, _ in found}) == 1
    names = {tag: tag[1] if one else f"{tag[0]} = {tag[1]}" for tag in found}
    short = labels(names.values())
    return {tag: short[name] for tag, name in names.items()}


def _series(names: Sequence[str], field: str = "series", dots: bool = True) -> dict[str, Any]:
    """Colour, dash and shape say the same, for who cannot tell colours apart; one series needs no legend.

    dots: the legend shows shapes, else dashes.
    """
    dashes = {} if dots else {"legend": {"symbolStrokeWidth": 2, "symbolSize": 200}}
    legend = dashes if len(names) > 1 else {"legend": None}
    domain = list(names)

    def scale(values: Sequence[Any]) -> dict[str, Any]:
        return {
            "field": field,
            "type": "nominal",
            "scale": {"domain": domain, "range": list(values)[: len(names)]},
            **legend,
        }

    return {"color": scale(COLOURS), "shape": scale(SHAPES), "strokeDash": scale(DASHES)}


def _y(title: str, unit: bool, values: Sequence[float], zero: bool = True) -> dict[str, Any]:
    # A share is shown from 0 on, and up to where it goes: half of the charts would be empty otherwise.
    scale: dict[str, Any] = {"zero": zero or unit, "nice": True}
    axis = (
        {"tickCount": 5, "format": ".1f" if max(values, default=1) > 0.3 else ".2f"}
        if unit
        else {"tickCount": 5}
    )
    return {"type": "quantitative", "title": title, "scale": scale, "axis": axis}


def with_intervals(
    points: Sequence[Point], names: Sequence[str], x: str, y: str, order: Sequence[str], unit: bool = True
) -> dict[str, Any]:
    """Means with their intervals over an ordinal x: points have `x`, `series`, `mean`, `lo`, `hi` and `tip`.

    Lines join a series' points; a bar shows each interval, moved aside a little where series share an x.
    """
    own = _series(names)
    offset = (
        {"xOffset": {"field": "series", "type": "nominal", "sort": list(names)}} if len(names) > 1 else {}
    )
    base: dict[str, Any] = {
        "x": {
            "field": "x",
            "type": "ordinal",
            "sort": list(order),
            "title": x,
            "scale": {"type": "point", "padding": 0.4},
        },
        "color": own["color"],
    }
    if offset:  # only a band can be shared
        base["x"]["scale"] = {"type": "band", "padding": 0.5}
    return {
        "height": _HEIGHT,
        "data": {"values": list(points)},
        "encoding": base | offset,
        "layer": [
            {
                "mark": {"type": "line", "strokeWidth": 2},
                "encoding": {
                    "y": {"field": "mean", **_y(y, unit, [p["hi"] for p in points])},
                    "strokeDash": own["strokeDash"],
                },
            },
            {
                "mark": {"type": "rule", "strokeWidth": 2, "opacity": 0.55},
                "encoding": {"y": {"field": "lo", "type": "quantitative"}, "y2": {"field": "hi"}},
            },
            {
                "mark": {"type": "point", "filled": True, "size": 70, "opacity": 1},
                "encoding": {
                    "y": {"field": "mean", "type": "quantitative"},
                    "shape": own["shape"],
                    "description": {"field": "tip"},
                },
            },
        ],
    }


def lines(
    points: Sequence[Point], names: Sequence[str], x: str, y: str, unit: bool, log: bool = False
) -> dict[str, Any]:
    """Lines over a figure: points have `x`, `series`, `y` and `tip`."""
    dots = len(points) <= 80
    own = _series(names, dots=dots)
    across: dict[str, Any] = {
        "field": "x",
        "type": "quantitative",
        "title": x,
        "axis": {"tickCount": 6, "format": "d"},
    }
    across["scale"] = {"type": "log", "base": 2} if log else {"zero": False, "nice": False}
    if log:
        across["axis"] = {"values": sorted({p["x"] for p in points}), "format": "d"}
    layers: list[dict[str, Any]] = [
        {
            "mark": {"type": "line", "strokeWidth": 2},
            "encoding": {"strokeDash": own["strokeDash"]},
        }
    ]
    if dots:
        layers.append(
            {
                "mark": {"type": "point", "filled": True, "size": 50, "opacity": 1},
                "encoding": {"shape": own["shape"], "description": {"field": "tip"}},
            }
        )
    return {
        "height": _HEIGHT,
        "data": {"values": list(points)},
        "encoding": {
            "x": across,
            "y": {"field": "y", **_y(y, unit, [p["y"] for p in points], zero=False)},
            "color": own["color"],
        },
        "layer": layers,
    }


def stacked(
    points: Sequence[Point],
    names: Sequence[str],
    colours: Sequence[str],
    y: str | None,
    x: str,
    share: bool,
    legend: bool = True,
) -> dict[str, Any]:
    """A bar per `row`, cut into `part`s of `value`; `place` orders the parts."""
    value: dict[str, Any] = {"field": "value", "type": "quantitative", "title": x, "stack": "zero"}
    value |= (
        {"axis": {"format": "%", "tickCount": 5}, "scale": {"domain": [0, 1]}}
        if share
        else {"axis": {"tickCount": 5, "format": "~s"}}
    )
    rows = list(dict.fromkeys(point["row"] for point in points))
    columns = len(names) if sum(map(len, names)) < 35 else 4
    return {
        "height": {"step": _step(len(rows))},
        "data": {"values": list(points)},
        "mark": {"type": "bar", "height": {"band": 0.72}, "stroke": "var(--surface)", "strokeWidth": 1},
        "encoding": {
            "y": {"field": "row", "type": "ordinal", "sort": rows, "title": y},
            "x": value,
            "color": {
                "field": "part",
                "type": "nominal",
                "scale": {"domain": list(names), "range": list(colours)},
                "legend": {"columns": columns, "symbolType": "square"} if legend else None,
            },
            "order": {"field": "place", "type": "quantitative"},
            "description": {"field": "tip"},
        },
    }


def _step(rows: int, least: int = 26, most: int = 60) -> int:
    """Pixels of a row: a chart of few rows is about as tall as the line charts beside it."""
    return max(least, min(most, _HEIGHT // max(1, rows)))


def heat(
    cells: Sequence[Point], rows: Sequence[str], columns: Sequence[str], x: str
) -> tuple[dict[str, Any], bool]:
    """A matrix of values in [0, 1] with the figure in each cell, and whether it is wider than a card.

    Cells have `row`, `column`, `value` (or None), `text` and `tip`.
    """
    shown = [
        {
            **cell,
            "fill": shade(cell["value"]),
            "ink": "var(--on-high)" if step(cell["value"]) > 3 else "var(--on-low)",
        }
        for cell in cells
    ]
    wide = len(columns) > 8
    return {
        **({"width": {"step": 40}, "autosize": {"type": "pad"}} if wide else {}),
        "height": {"step": _step(len(rows), 30, 44)},
        "data": {"values": shown},
        "encoding": {
            "x": {
                "field": "column",
                "type": "ordinal",
                "sort": list(columns),
                "title": x,
                "axis": {"orient": "top"},
            },
            "y": {"field": "row", "type": "ordinal", "sort": list(rows), "title": None},
        },
        "layer": [
            {
                "mark": {"type": "rect", "stroke": "var(--surface)", "strokeWidth": 2, "cornerRadius": 3},
                "encoding": {
                    "color": {"field": "fill", "type": "nominal", "scale": None},
                    "description": {"field": "tip"},
                },
            },
            {
                "mark": {"type": "text", "fontSize": 12},
                "encoding": {
                    "text": {"field": "text"},
                    "color": {"field": "ink", "type": "nominal", "scale": None},
                },
            },
        ],
    }, wide


def shade(value: float | None) -> str:
    """Seven steps from 0 to 1: a step can be told from its neighbours, a gradient's tint cannot."""
    return "var(--heat-none)" if value is None else HEAT[step(value)]


def step(value: float | None) -> int:
    """0 to 6. The ink of a cell changes above 3, in light and in dark."""
    return min(6, int((value or 0.0) * 7))


def ranges(points: Sequence[Point], rows: Sequence[str], x: str, signed: bool) -> dict[str, Any]:
    """A point with its interval per row: `row`, `mean`, `lo`, `hi`, `tip`; signed: a line at no change."""
    across: dict[str, Any] = {
        "type": "quantitative",
        "title": x,
        "axis": {"tickCount": 5, "grid": True, "format": "+.2~f" if signed else ".1f"},
    }
    across["scale"] = {"nice": True, "zero": True} if signed else {"domain": [0, 1]}
    zero: list[dict[str, Any]] = [
        {
            "data": {"values": [{"zero": 0}]},
            "mark": {"type": "rule", "color": "var(--muted)"},
            "encoding": {"x": {"field": "zero", **across}},
        }
    ]
    y = {"field": "row", "type": "ordinal", "sort": list(rows), "title": None, "axis": {"labelLimit": 160}}
    return {
        "height": {"step": _step(len(rows), 28, 48)},
        "data": {"values": list(points)},
        "layer": [
            *(zero if signed else []),
            {
                "mark": {"type": "rule", "strokeWidth": 2, "color": "var(--c1)", "opacity": 0.6},
                "encoding": {"y": y, "x": {"field": "lo", **across}, "x2": {"field": "hi"}},
            },
            {
                "mark": {"type": "point", "filled": True, "size": 80, "color": "var(--c1)", "opacity": 1},
                "encoding": {"y": y, "x": {"field": "mean", **across}, "description": {"field": "tip"}},
            },
        ],
    }
