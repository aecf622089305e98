"""Which of several names somebody means: forgiving of case, accents, endings and slips. Pure reckoning."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from difflib import SequenceMatcher
from typing import Protocol, TypeVar

CLOSE = 0.75  # of two words: "Haarschnit" is a Haarschnitt, "Anna" is no Hans


class Named(Protocol):
    """Anything with a name."""

    @property
    def name(self) -> str:
        """What people call it."""


T = TypeVar("T", bound=Named)


def match(said: str, choices: Iterable[T]) -> list[T]:
    """Those that are meant: of that very name, else with all its words, else much alike; several when unclear."""
    wanted = _plain(said)
    named = [(one, _plain(one.name)) for one in choices]
    if not wanted:
        return []
    for is_meant in (_same, _within, _alike):
        found = [one for one, name in named if name and is_meant(wanted, name)]
        if found:
            return found
    return []


def _plain(name: str) -> str:
    bare = unicodedata.normalize("NFKD", name.casefold())
    return " ".join(re.findall(r"\w+", "".join(sign for sign in bare if not unicodedata.combining(sign))))


def _same(said: str, name: str) -> bool:
    return said == name


def _within(said: str, name: str) -> bool:
    """All words of the shorter one stand in the longer one."""
    few, many = sorted((set(said.split()), set(name.split())), key=len)
    return few <= many


def _alike(said: str, name: str) -> bool:
    few, many = sorted((said.split(), name.split()), key=len)
    return all(any(SequenceMatcher(None, one, other).ratio() >= CLOSE for other in many) for one in few)
