"""The model card of an adapter (README.md): the hub's metadata as YAML, and a text for people.

Everything in it comes from the lineage, so equal adapters have equal cards. Names, prompts and reasons are
somebody's text: whatever the template does not say itself becomes a code span, in which neither Markdown nor
HTML acts.
"""

from __future__ import annotations

import json
import re
import unicodedata
from functools import cache
from pathlib import Path
from typing import Any, Literal

import msgspec

from selfrefine.lineage import chain
from selfrefine.lineage.chain import CARD, LINEAGE, Lineage
from selfrefine.lineage.tested import Tested
from selfrefine.runfolder.jsonl import atomic_write
from selfrefine.runfolder.run import Run
from selfrefine.runfolder.summaries import RoundSummary
from selfrefine.stats import Difference, Interval

TEMPLATE = "card.md.jinja"
HUB = {"smollm2": "HuggingFaceTB/SmolLM2-135M-Instruct"}
"""The embedded model by its name on the hub."""
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}")
_TAG = re.compile(r"[a-z0-9][a-z0-9_-]{0,40}")

Kind = Literal["adapter", "merged"]


class Text(str):
    """Text of our own, which may stand in a card as it is."""


def place(run: Run, summary: RoundSummary, start: Path | None) -> None:
    """Write card and lineage into the adapter folder of a round that is about to be committed as accepted;
    of another, take away what a killed process that had decided otherwise left. `start`: the run's --adapter.

    Killed in between, the same call writes the same bytes. Raises: RunFolderError, ConfigError.
    """
    adapter = run.round(summary.index).adapter
    if summary.gate is not None and summary.gate.accepted:
        told = chain.of_round(run, summary, chain.origin_of(start))
        atomic_write(adapter / LINEAGE, chain.encode(told))
        atomic_write(adapter / CARD, render(told).encode())
        return
    for name in (LINEAGE, CARD):
        for left in (adapter / name, adapter / f".{name}.tmp"):
            left.unlink(missing_ok=True)


def render(lineage: Lineage, tested: Tested | None = None, kind: Kind = "adapter") -> str:
    """The card. `tested`: the test figures, once they are known. `merged`: of a plain model made of it."""
    lineage = msgspec.json.decode(chain.encode(lineage), type=Lineage)  # tables in the order of the file
    settings = {key: lineage.settings[key] for key in chain.TOLD if key in lineage.settings}
    first, last = lineage.chain[0], lineage.chain[-1]
    accepted = [link for link in lineage.chain[1:-1] if link.outcome == "accept"]
    body = _environment().get_template(TEMPLATE)
    text = body.render(
        told=lineage,
        settings=settings | lineage.settings,
        base=HUB.get(lineage.base.get("id", ""), lineage.base.get("id", "")),
        embedded=lineage.base.get("id") in HUB,
        on_hub=(hub := hub_id(lineage)) is not None,
        # Names that have the hub's form may stand in a code block as they are; others could end it.
        base_for_code=Text(hub or "path/to/base"),
        model_flag=Text("" if lineage.base.get("id") in HUB else f" --model {hub or 'path/to/base'}"),
        gate=last.gate,
        start=first.measures.get("gate"),
        measured=last.measures.get("gate"),
        parents=accepted,
        last=last,
        tested=tested,
        kind=kind,
        hashes={"data": last.data, "tasks": lineage.tasks},
        watched=[guard for guard in lineage.guards if guard.value is not None or guard.state != "ok"],
    )
    return f"---\n{front_matter(lineage, tested, kind)}---\n\n{text.strip()}\n"


def hub_id(lineage: Lineage) -> str | None:
    """The base's name on the hub; None of a folder. A folder has no revision: `a/b` with one is no path."""
    name = lineage.base.get("id", "")
    if name in HUB:
        return HUB[name]
    return name if _HUB_ID.fullmatch(name) and lineage.base.get("revision") else None


def front_matter(lineage: Lineage, tested: Tested | None, kind: Kind) -> str:
    """The hub's metadata. What is not known (the language, a base that is on no hub) is left out."""
    import yaml

    told: dict[str, Any] = {}
    if base := hub_id(lineage):
        told["base_model"] = base
        told["base_model_relation"] = "adapter" if kind == "adapter" else "finetune"
    told["library_name"] = "peft" if kind == "adapter" else "transformers"
    told["pipeline_tag"] = "text-generation"
    source = str(lineage.settings.get("tasks.source", "")).lower().replace(":", "-")
    own = ("selfrefine", "self-improvement", "lora", str(lineage.settings.get("recipe") or ""), source)
    told["tags"] = [tag for tag in dict.fromkeys(own) if _TAG.fullmatch(tag)]
    if tested is not None and tested.end.mean is not None:
        tasks = visible(str(lineage.settings.get("tasks.source", "tasks")))
        measure = {"type": "mean_reward", "name": f"mean reward ({visible(measures(lineage))})"}
        result = {
            "task": {"type": "text-generation"},
            "dataset": {"name": f"{tasks}, held-out test tasks", "type": "selfrefine-test"},
            "metrics": [measure | {"value": tested.end.mean}],
        }
        told["model-index"] = [{"name": f"{lineage.run} round {lineage.round}", "results": [result]}]
    text: str = yaml.safe_dump(told, sort_keys=False, allow_unicode=True, width=10**9)
    return text


def measures(lineage: Lineage) -> str:
    """The rewards that measure, by name."""
    named = lineage.settings.get("evaluate.measure") or lineage.settings.get("reward.use") or []
    return ", ".join(map(str, named)) if isinstance(named, list | tuple) else str(named)


def visible(text: str) -> str:
    """One line, in which nothing acts or hides: white space is one space, other such characters are named."""
    line = " ".join(text.split())
    odd = ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")
    return "".join(f"‹U+{ord(c):04X}›" if unicodedata.category(c) in odd else c for c in line)


def code(text: str, most: int = 300) -> Text:
    """`text` as a code span, also for a cell of a table: there `|` would end the cell even inside a span."""
    line = visible(text)
    line = line if len(line) <= most else f"{line[: most - 1]}…"
    longest = max((len(run) for run in re.findall(r"`+", line)), default=0)
    fence, pad = "`" * (longest + 1), " " if line.startswith("`") or line.endswith("`") else ""
    cell = line.replace("|", "\\|")
    return Text(f"{fence}{pad}{cell}{pad}{fence}" if line else "–")


def figure(value: float | None, sign: bool = False) -> Text:
    return Text("–" if value is None else f"{value:{'+' if sign else ''}.3f}")


def interval(found: Interval | Difference | None) -> Text:
    """ "0.325 [0.281, 0.372]"; the mean alone where there is no interval."""
    if found is None or found.mean is None:
        return Text("–")
    sign = isinstance(found, Difference)
    ends = "" if found.lo is None else f" [{figure(found.lo, sign)}, {figure(found.hi, sign)}]"
    return Text(f"{figure(found.mean, sign)}{ends}")


def _shown(value: object) -> str:
    """Jinja calls it for every value that is printed: what is not ours becomes a code span."""
    if isinstance(value, Text):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if isinstance(value, float):
        return f"{value:g}"
    return code(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str))


@cache
def _environment() -> Any:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        undefined=jinja2.StrictUndefined,
        autoescape=False,  # Markdown; `finalize` makes every value a code span
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"figure": figure, "signed": lambda v: figure(v, True), "interval": interval}
    environment.filters |= {"upto": lambda v: Text(f"{v:,}"), "measures": measures}
    return environment
