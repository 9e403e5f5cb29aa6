"""The rows that travel through the pipe.

One row is one answer. Stages only add fields. Fields that are not ours (somebody's jq column)
are kept as raw JSON and written back unchanged.

gc=False: rows hold only what JSON can, so no cycle leads back to one. Watched by the collector, reading a
list of rows took twice the time.
"""

from __future__ import annotations

import json
import unicodedata
from codecs import BOM_UTF8
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, Raw, Struct, UnsetType

from selfrefine.errors import DataError

SCHEMA_VERSION = 1

UnitInterval = Annotated[float, Meta(ge=0.0, le=1.0)]
Count = Annotated[int, Meta(ge=0)]
Seed = Annotated[int, Meta(ge=0, lt=2**53)]
"""Below 2^53: jq reads every number as a double."""

FinishReason = Literal["stop", "length", "error"]
Verdict = Literal["ok", "revise"]
Extra = dict[str, Raw] | UnsetType


class Message(Struct, frozen=True, kw_only=True, gc=False):
    role: str
    content: str


class Task(Struct, frozen=True, kw_only=True, gc=False):
    id: str
    prompt: tuple[Message, ...]
    references: tuple[str, ...] = ()
    tags: dict[str, str] = {}
    meta: dict[str, Any] = {}
    extra: Extra = msgspec.field(default=UNSET, name="selfrefine:extra")
    """Columns that are not ours, a column `extra` among them. Never encoded as a field: see `encode`."""


class Critique(Struct, frozen=True, kw_only=True, gc=False):
    text: str = ""
    score: UnitInterval | None = None
    verdict: Verdict | None = None
    p_ok: UnitInterval | UnsetType = UNSET
    """How probable `ok` was to the critic, where its verdict is scored and not written."""
    finish_reason: FinishReason = "stop"
    error: str | None = None
    pass_index: Count = 0
    critic: str = ""
    prompt_sha256: str = ""
    messages: tuple[Message, ...] = ()
    prompt_token_ids: tuple[int, ...] = ()
    token_ids: tuple[int, ...] = ()
    logprobs: tuple[float, ...] | None = None
    counted_tokens: Count | UnsetType = UNSET
    """How many were sampled, where a server counted them and told no ids."""
    keep: Count | UnsetType = UNSET
    """Characters of the text before its first fault, where the critic placed one."""
    votes: tuple[Critique, ...] | UnsetType = UNSET
    """Where several critics judged: the critique of each, in the order of `critique.critics`."""

    @property
    def voices(self) -> tuple[Critique, ...]:
        """What single critics said: its votes, or itself."""
        return self.votes or (self,)

    @property
    def sampled_tokens(self) -> int:
        return sum(_sampled(one) for one in self.voices)


class Reward(Struct, frozen=True, kw_only=True, gc=False):
    name: str
    value: UnitInterval | None
    """In [0, 1], higher is better; null with a reason in `error` when it could not be computed."""
    detail: str | None = None
    """What a critic could be told, and the raw figure (BLEU 0-100, TER, nats). Never a reference."""
    signature: str = ""
    error: str | None = None
    keep: Count | UnsetType = UNSET
    """Characters of the text before its first fault, where that has a place."""


class Lesson(Struct, frozen=True, kw_only=True, gc=False):
    """What `select` wants learnt from a row; rows of `selected.jsonl` carry it."""

    teaches: Literal["answer", "revision", "critique", "verdict", "proposal"] = "answer"
    role: Literal["learn", "chosen", "rejected"] = "learn"
    """chosen and rejected: of the pair named by `pair`, or, without a pair, as a label of its own (KTO)."""
    pair: str | None = None


class Sample(Struct, frozen=True, kw_only=True, gc=False):
    """In the order of a row: what a person reads first, ids and logprobs last."""

    v: int = SCHEMA_VERSION
    id: str
    task: Task
    messages: tuple[Message, ...] | UnsetType | None = UNSET
    """Where the context is another than the task's prompt: with a system message, a draft, a critique. Read
    it by `context`."""
    round: Count = 0
    index: Count = 0
    parent_id: str | None = None
    text: str = ""
    finish_reason: FinishReason = "stop"
    critiques: tuple[Critique, ...] = ()
    rewards: tuple[Reward, ...] = ()
    reward: UnitInterval | None = None
    error: str | None = None
    lesson: Lesson | UnsetType = UNSET
    seed: Seed = 0
    policy: str = ""
    engine: str = ""
    prompt_token_ids: tuple[int, ...] = ()
    token_ids: tuple[int, ...] = ()
    """The stop token included; `text` is without it."""
    logprobs: tuple[float, ...] | None = None
    """Nats under the sampling policy at temperature 1, one per *sampled* token: where a stop string cut
    the answer, the appended end-of-turn has none, so this may be shorter than `token_ids`."""
    counted_tokens: Count | UnsetType = UNSET
    """How many were sampled, where a server counted them and told no ids."""
    extra: Extra = msgspec.field(default=UNSET, name="selfrefine:extra")

    @property
    def sampled_tokens(self) -> int:
        """0 where that is not known."""
        return _sampled(self)

    @property
    def context(self) -> tuple[Message, ...]:
        """The messages that `text` answers."""
        return self.messages or self.task.prompt


def _sampled(of: Sample | Critique) -> int:
    return len(of.token_ids) or (0 if of.counted_tokens is UNSET else of.counted_tokens)


def unless_prompt(messages: tuple[Message, ...], task: Task) -> tuple[Message, ...] | UnsetType:
    """A row's `messages`: UNSET where they are the task's prompt, which the row holds already."""
    return UNSET if messages == task.prompt else messages


PROMPT_FIELDS = ("prompt", "messages", "conversations", "question", "instruction", "concepts", "chosen")
"""Columns that a task's prompt is read from, best first (`tasks.rows`)."""

_TASK_FIELDS = frozenset(Task.__struct_fields__) - {"extra"}
_SAMPLE_FIELDS = frozenset(Sample.__struct_fields__) - {"extra"}
UNDECODABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What decoding a line of somebody's JSON may raise; `why_undecodable` says it in words."""
_decode_raw = msgspec.json.Decoder(dict[str, Raw]).decode
_decode_sample = msgspec.json.Decoder(Sample).decode
_decode_task = msgspec.json.Decoder(Task).decode


def decode_sample(line: bytes, where: str) -> Sample:
    """One JSON line to a Sample. Raises: DataError naming `where` (file:line) and the field's path."""
    raw = parse_row(line, where)
    version = raw.get("v")
    if version is not None and bytes(version) != str(SCHEMA_VERSION).encode():
        raise DataError(
            f"{where}: schema version {bytes(version).decode(errors='replace')[:20]} is not known "
            f"(this selfrefine reads version {SCHEMA_VERSION})"
        )
    if _is_task(raw):
        raise DataError(f"{where}: this is a task, not an answer; run `selfrefine generate` on it first")
    if not {"id", "task", "text"} <= raw.keys():
        missing = ", ".join(sorted({"id", "task", "text"} - raw.keys()))
        raise DataError(f"{where}: not a sample row, it has no {missing}")
    try:
        sample = _decode_sample(line)
    except UNDECODABLE as error:
        raise DataError(f"{where}: {why_undecodable(line, error)}") from None
    extra = {k: v for k, v in raw.items() if k not in _SAMPLE_FIELDS}
    task_extra = {k: v for k, v in _decode_raw(raw["task"]).items() if k not in _TASK_FIELDS}
    if task_extra:
        task = msgspec.structs.replace(sample.task, extra=task_extra)
        sample = msgspec.structs.replace(sample, task=task)
    return msgspec.structs.replace(sample, extra=extra) if extra else sample


def decode_task(line: bytes, where: str) -> Task:
    """One JSON line in the project's own task schema. Raises: DataError."""
    raw = parse_row(line, where)
    try:
        task = _decode_task(line)
    except UNDECODABLE as error:
        raise DataError(f"{where}: {why_undecodable(line, error)}") from None
    extra = {k: v for k, v in raw.items() if k not in _TASK_FIELDS}
    return msgspec.structs.replace(task, extra=extra) if extra else task


def parse_row(line: bytes, where: str) -> dict[str, Raw]:
    """The columns of one JSON line, unread. Raises: DataError."""
    try:
        line.decode()  # foreign columns are passed on unread: what is not UTF-8 there would break the output
        return _decode_raw(line)
    except UNDECODABLE as error:
        raise DataError(f"{where}: {why_undecodable(line, error)}") from None


def why_undecodable(line: bytes, error: Exception) -> str:
    """What is wrong with a JSON line, in words: msgspec calls a lone surrogate "truncated"."""
    if isinstance(error, RecursionError):
        return "nested too deeply (more than about 1,000 levels)"
    try:
        text = line.decode()
        value = json.loads(text, parse_constant=_no_number)
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeDecodeError as utf8:
        return f"not UTF-8 ({utf8.reason} at byte {utf8.start + 1})"
    except UnicodeEncodeError:
        return "a lone surrogate (half of a \\ud83d\\ude00 pair) in a string: replace it, such as by \\ufffd"
    except DataError as constant:
        return str(constant)
    except (ValueError, RecursionError):
        return _why_broken(line) or f"broken JSON line: {error}"
    if isinstance(value, list):
        return _ARRAY
    return str(error) if isinstance(value, dict) else "not a JSON object"


_ARRAY = "a JSON array, not a JSON object; if the file is one array, convert it with `jq -c '.[]'`"


def _why_broken(line: bytes) -> str | None:
    """A file that is well-formed, but no JSON Lines in UTF-8, by the first line of it."""
    if b"\0" in line:
        return "zero bytes in it: if it is UTF-16 text, convert it to UTF-8: iconv -f UTF-16LE -t UTF-8"
    if line.startswith(b"["):
        return _ARRAY
    if line.startswith(b"{") and line.endswith((b"{", b"[", b",")):
        return "one row stands over several lines; `jq -c .` makes one line of it"
    return None


def _no_number(name: str) -> None:
    raise DataError(f"{name} is not a JSON number; write null for a value that could not be computed")


def is_answered(line: bytes) -> bool:
    """Whether this line holds an answer by another program, in a shape of `tasks.rows`, to learn as it is.

    A task of ours with references is none: piped into `finetune`, it was meant for `generate`.
    """
    try:
        raw = _decode_raw(line.removeprefix(BOM_UTF8))
    except UNDECODABLE:
        return False
    return _is_task(raw) and "references" not in raw and bool(_ANSWERED & raw.keys())


_ANSWERED = {"chosen", "completion", "messages", "conversations", "instruction", "question"}


def _is_task(raw: dict[str, Raw]) -> bool:
    return not {"text", "task"} & raw.keys() and not raw.keys().isdisjoint(PROMPT_FIELDS)


def encode(row: Task | Sample) -> bytes:
    """A row as one JSON line without the newline; foreign columns follow ours, byte for byte.

    Raises: DataError for half a surrogate pair (an argument that was not UTF-8), and for `meta` nested more
    deeply than it could be read back.
    """
    try:
        return _encode(row)
    except RecursionError:
        raise DataError(f"row {row.id}: nested too deeply (more than about 1,000 levels)") from None
    except UnicodeEncodeError as error:
        raise DataError(f"row {row.id}: not UTF-8 text ({error.object[error.start]!r} in it)") from None


def _encode(row: Task | Sample) -> bytes:
    task_extra = row.task.extra if isinstance(row, Sample) else UNSET
    if row.extra is UNSET and task_extra is UNSET:
        return msgspec.json.encode(row)
    own = ((name, getattr(row, name)) for name in row.__struct_fields__ if name != "extra")
    fields = {name: value for name, value in own if value is not UNSET}
    if task_extra is not UNSET and isinstance(row, Sample):
        fields["task"] = Raw(_encode(row.task))
    if row.extra is not UNSET:
        fields |= row.extra
    return msgspec.json.encode(fields)


def prompt_key(prompt: Sequence[Message]) -> str:
    """Two tasks with one key are the same question: case, Unicode form and white space are evened out.

    Punctuation and roles are kept: "2 + 2" is not "2 - 2", and what a system message asks for is another chat
    than the same words from the user, for the model and so for what can be learnt by heart.
    """

    def even(text: str) -> str:  # case folding can undo the normal form, so it is made twice
        folded = unicodedata.normalize("NFKC", text).casefold()
        return " ".join(unicodedata.normalize("NFKC", folded).split())

    return "\n".join(f"{message.role}: {even(message.content)}" for message in prompt)


def groups(samples: Sequence[Sample]) -> list[list[Sample]]:
    """Samples by task id, in order of first appearance: the group of an advantage or a majority vote."""
    by_task: dict[str, list[Sample]] = {}
    for sample in samples:
        by_task.setdefault(sample.task.id, []).append(sample)
    return list(by_task.values())
