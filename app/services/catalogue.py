"""The wordings that ship, by language: loaded from their files and checked before anything is said.

Owns what a template is: a sentence with named placeholders, the same in every language. Whose wording is
used, and how times are written, is ``wording.py``'s. A new sentence is a line in each file of ``wordings/``.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from string import Formatter
from typing import Any

from babel.dates import parse_pattern

from app.errors import ConfigurationError, InvalidInput

LANGUAGES = ("en", "es", "de")
FOLDER = Path(__file__).parent / "wordings"
# What an organization may word as it likes: the rest is put together from pieces, or only asked for.
OWN = ("text.", "notice.", "said.", "refused.", "time.")
NEVER_LEFT_OUT = frozenset({"when", "wanted", "options", "reason", "services", "names"})
LONGEST = 1000
_PATTERNS = "time."


@dataclass(frozen=True, slots=True)
class Catalogue:
    """Sentences by language and key, the placeholders of each key in the order of English, and customers' words."""

    sentences: Mapping[str, Mapping[str, str]]
    placeholders: Mapping[str, tuple[str, ...]]
    words: Mapping[str, frozenset[str]]

    def check(self, key: str, sentence: str) -> str:
        """A sentence that may stand for the key; raises InvalidInput saying what it must have, never repeating it."""
        sentence = " ".join(sentence.split())
        if not 0 < len(sentence) <= LONGEST:
            raise InvalidInput(f"text: 1 to {LONGEST} characters")
        if key.startswith(_PATTERNS):
            _check_pattern(sentence)
            return sentence
        allowed = self.placeholders[key]
        used = _placeholders(sentence)
        unknown = [name for name in used if name not in allowed]
        if unknown:
            there = ", ".join(f"{{{name}}}" for name in allowed) or "none"
            raise InvalidInput(f"text: a placeholder is unknown here; there is: {there}")
        missing = [name for name in allowed if name in NEVER_LEFT_OUT and name not in used]
        if missing:
            raise InvalidInput(f"text: {{{missing[0]}}} must not be left out")
        return sentence


def load(folder: Path = FOLDER) -> Catalogue:
    """All languages; raises ConfigurationError naming the file and key where they are not alike."""
    read = {language: _read(folder / f"{language}.toml") for language in LANGUAGES}
    sentences: dict[str, dict[str, str]] = {}
    words: dict[str, set[str]] = {}
    for language, (said, heard) in read.items():
        sentences[language] = said
        for name, several in heard.items():
            words.setdefault(name, set()).update(word.casefold() for word in several)
    first = sentences[LANGUAGES[0]]
    placeholders = {key: tuple(dict.fromkeys(_placeholders(text))) for key, text in first.items()}
    catalogue = Catalogue(sentences, placeholders, {name: frozenset(several) for name, several in words.items()})
    for language, said in sentences.items():
        different = sorted(first.keys() ^ said.keys())
        if different:
            raise ConfigurationError(f"the wordings of {language} and {LANGUAGES[0]} differ in {different[0]}")
        for key, text in said.items():
            if not key.startswith(_PATTERNS) and set(_placeholders(text)) != set(placeholders[key]):
                raise ConfigurationError(f"the wording {key} of {language} has other placeholders than the others")
    return catalogue


def _read(path: Path) -> tuple[dict[str, str], dict[str, list[str]]]:
    """Sentences by ``section.name``, and the words by their name."""
    try:
        sections: dict[str, dict[str, Any]] = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"the wordings {path.name} cannot be read ({type(error).__name__})") from None
    words = sections.pop("words", {})
    sentences = {f"{section}.{name}": text for section, given in sections.items() for name, text in given.items()}
    for key, text in sentences.items():
        try:
            _check_pattern(text) if key.startswith(_PATTERNS) else _placeholders(text)
        except InvalidInput as error:
            raise ConfigurationError(f"the wording {key} of {path.name}: {error}") from None
    return sentences, words


def _placeholders(text: str) -> list[str]:
    """The names in braces, in order. Raises InvalidInput for braces that are none."""
    try:
        parts = list(Formatter().parse(text))
    except ValueError:
        raise InvalidInput("text: a placeholder is a name in braces; a brace alone is written twice") from None
    names = [(name, form, conversion) for _, name, form, conversion in parts if name is not None]
    if any(form or conversion or not name.isidentifier() for name, form, conversion in names):
        raise InvalidInput("text: a placeholder is a plain name in braces")
    return [name for name, _, _ in names]


def _check_pattern(text: str) -> None:
    try:
        parse_pattern(text)
    except (ValueError, KeyError):
        raise InvalidInput("text: a pattern of CLDR is needed, such as EEEE d MMMM 'at' HH:mm") from None


CATALOGUE = load()
