"""Aligned text files, line by line a sentence and its translation: parallel:src.en,src.fr"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from selfrefine.errors import ConfigError, DataError
from selfrefine.records import Task
from selfrefine.runfolder.formats import bare
from selfrefine.tasks.base import Located, SourceKind, TaskOptions, ask
from selfrefine.tasks.lines import decoded, opened

# A model cannot guess the target language, so there is a default only where the file's name says it.
LANGUAGES = {
    "ar": "Arabic", "bg": "Bulgarian", "ca": "Catalan", "cs": "Czech", "da": "Danish", "de": "German",
    "el": "Greek", "en": "English", "es": "Spanish", "et": "Estonian", "fa": "Persian", "fi": "Finnish",
    "fr": "French", "he": "Hebrew", "hi": "Hindi", "hr": "Croatian", "hu": "Hungarian", "id": "Indonesian",
    "it": "Italian", "ja": "Japanese", "ko": "Korean", "lt": "Lithuanian", "lv": "Latvian", "nl": "Dutch",
    "no": "Norwegian", "pl": "Polish", "pt": "Portuguese", "ro": "Romanian", "ru": "Russian",
    "sk": "Slovak", "sl": "Slovenian", "sr": "Serbian", "sv": "Swedish", "th": "Thai", "tr": "Turkish",
    "uk": "Ukrainian", "vi": "Vietnamese", "zh": "Chinese",
}  # fmt: skip


def read(name: str, options: TaskOptions) -> Iterator[Located]:
    """A task a line pair: the first file's line is the question, the second's its reference.

    Raises: DataError where the files do not have equally many lines (checked before the first task, since
    after a lost line every pair is wrong) or a line is blank on one side only.
    """
    paths = name.split(",")
    if len(paths) != 2:
        raise ConfigError(f"parallel:{name}: two files are needed, as in parallel:src.en,src.fr")
    default = default_template(paths[1])
    if options.template is None and default is None:
        raise ConfigError(
            f"parallel:{name}: the file name does not give the target language; add a template, "
            'as in --template "Translate this sentence into French.\\n{source}"'
        )
    counts = [_count(path) for path in paths]
    if counts[0] != counts[1]:
        raise DataError(
            f"{paths[0]} has {counts[0]:,} lines and {paths[1]} has {counts[1]:,}: they are not aligned"
        )
    with opened(paths[0]) as sources, opened(paths[1]) as targets:
        for (where, source_line), (where_target, target_line) in zip(sources, targets, strict=True):
            source = decoded(source_line, where).strip()
            target = decoded(target_line, where_target).strip()
            if not source and not target:
                continue
            if not source or not target:
                blank = where_target if source else where
                raise DataError(
                    f"{blank}: blank, but the other file's line is not; remove the line from both files"
                )
            yield where, Task(id="", prompt=ask(source, options, default or ""), references=(target,))


def default_template(target: str) -> str | None:
    """A translation prompt for a file whose name ends in a language code (val.fr), else None."""
    language = LANGUAGES.get(Path(bare(target)).suffix.lstrip(".").lower())
    return None if language is None else f"Translate this sentence into {language}.\n{{source}}"


def _count(path: str) -> int:
    if not Path(path).is_file():
        # A pipe could be read only once, and counting comes first.
        raise DataError(f"{path}: no such file" if not Path(path).exists() else f"{path}: not a regular file")
    with opened(path) as lines:
        return sum(1 for _ in lines)


PARALLEL = SourceKind(
    name="parallel",
    spelling="parallel:SRC,REF",
    about="aligned text files, one sentence and its translation per line; the ending of REF names the "
    "language (val.fr), else give --template",
    example="selfrefine tasks parallel:val.en,val.fr",
    read=read,
)
