"""The page, put together: runs are read, facts become sections, charts are drawn, all becomes one file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from selfrefine import __version__
from selfrefine.errors import SelfrefineError
from selfrefine.report.page import (
    facts_answers,
    facts_compared,
    facts_making,
    facts_reflection,
    facts_result,
    facts_rounds,
    facts_tags,
    facts_training,
    facts_watched,
    markup,
    samples,
    svg,
)
from selfrefine.report.page.figures import Figure, Headline, Section
from selfrefine.report.page.read import Told, told
from selfrefine.runfolder.run import Run
from selfrefine.words import count

SECTIONS: tuple[Callable[[Told, str], Section | None], ...] = (
    facts_rounds.section,
    facts_tags.section,
    facts_answers.section,
    facts_reflection.section,
    facts_training.section,
    facts_watched.section,
    facts_making.section,
)
"""In the order of the page. Each gets a run and a prefix of ids that is the run's own."""

SAMPLES = {"id": "samples", "title": "Samples"}


class RunPart(Struct, frozen=True, kw_only=True):
    id: str
    name: str
    headline: Headline
    sections: tuple[Section, ...]


def page(runs: Sequence[Run], watching: int = 0) -> str:
    """The page of these runs as HTML.

    watching: seconds after which the page looks again, as while a run goes on; 0: never.
    """
    found = [told(run, name) for run, name in zip(runs, names(runs), strict=True)]
    shown = _samples(found)
    parts = [_part(one, f"run{number}") for number, one in enumerate(found, start=1)]
    many = len(parts) > 1
    scripts = [markup.asset(name) for name in ("page.js", "assets/samples.js")]
    styles = [markup.asset(name) for name in ("page.css", "assets/samples.css")]
    return markup.render(
        title=f"{len(found)} runs compared" if many else found[0].name,
        subtitle=" · ".join(one.name for one in found) if many else _subtitle(found[0]),
        version=__version__,
        policy=markup.policy(scripts, styles),
        styles=[markup.inline(text) for text in styles],
        scripts=[markup.inline(text) for text in scripts],
        watching=watching,
        contents=_contents(parts, many),
        compared=[_drawn(facts_compared.section(found))] if many else [],
        runs=parts,
        many=many,
        blocks=[{"id": "samples-data", "json": markup.data_block(shown)}],
    )


def _samples(found: Sequence[Told]) -> dict[str, Any]:
    """The rows that are shown; of a run with a damaged file none, and its headline says so."""

    def rows(some: Sequence[Told]) -> dict[str, Any]:
        return samples.payload(*(one.run for one in some), keep=_examples(some))

    try:
        return rows(found)
    except (SelfrefineError, OSError):
        whole = []
        for one in found:
            try:
                rows([one])
                whole.append(one)
            except (SelfrefineError, OSError) as error:
                if str(error) not in one.problems:
                    one.problems.append(str(error))
                one.problems.append("The answers of this run are left out below, since not all can be read.")
        return rows(whole)


def _examples(some: Sequence[Told]) -> set[str]:
    """Rows that the page has links to."""
    found = [one.weaknesses for one in some if one.weaknesses is not None]
    return {row for one in found for cell in (*one.gate, *one.train) for row in cell.examples}


def _part(one: Told, key: str) -> RunPart:
    sections = [section for make in SECTIONS if (section := make(one, key)) is not None]
    return RunPart(
        id=key,
        name=one.name,
        headline=facts_result.headline(one),
        sections=tuple(map(_drawn, sections)),
    )


def _drawn(section: Section) -> Section:
    return placed(with_drawings(section) if svg.available() else with_tables(section))


def placed(section: Section) -> Section:
    """Where two cards fit side by side, a chart that would have nothing beside it is told so."""
    figures = list(section.figures)
    free = None
    for place, one in enumerate([*figures, None]):
        if one is None or one.wide:
            if free is not None and figures[free].svg and not figures[free].keep:
                figures[free] = replace(figures[free], alone=True)
            free = None
        else:
            free = place if free is None else None
    return replace(section, figures=tuple(figures))


def with_drawings(section: Section) -> Section:
    """Its charts as SVG."""

    def drawing(figure: Figure) -> Figure:
        if figure.chart is None:
            return figure
        return replace(figure, svg=svg.draw(figure.chart, figure.title, figure.finding, figure.id))

    return replace(section, figures=tuple(map(drawing, section.figures)))


def with_tables(section: Section) -> Section:
    """Without vl-convert the tables stand open in the charts' place."""
    return replace(section, figures=tuple(replace(figure, open=True) for figure in section.figures))


def names(runs: Sequence[Run]) -> list[str]:
    """Their names, or their paths where two have the same."""
    short = [run.name for run in runs]
    return short if len(set(short)) == len(short) else [str(run.path) for run in runs]


def _contents(parts: Sequence[RunPart], many: bool) -> list[dict[str, Any]]:
    if many:
        return [
            {"id": "compared", "title": "Beside each other"},
            *({"id": p.id, "title": p.name} for p in parts),
            SAMPLES,
        ]
    (one,) = parts
    found = [{"id": f"{one.id}-result", "title": "Result"}]
    found += [{"id": section.id, "title": section.title} for section in one.sections]
    return [*found[:-1], SAMPLES, found[-1]]


def _subtitle(one: Told) -> str:
    rounds = count(max(0, len(one.rounds) - 1), "round")
    recipe = one.manifest.config.get("recipe")
    return " · ".join(
        filter(None, (facts_result.model_name(one), f"recipe {recipe}" if recipe else "", rounds))
    )
