"""A phone number in every form that people and programs write it, found in text and taken out of it.

Owns what counts as the same number: with or without its country, a trunk zero, and whatever stands between digits.
Numbers in words ("plus four nine ...") are not found.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote_plus

import phonenumbers

from app.errors import InvalidInput

_GAP = r"[^0-9A-Za-z]{0,3}"
_COUNTRY = re.compile(rf"(?:\+|(?<![0-9])00)[0-9]{{1,3}}{_GAP}$")
_LONGEST_COUNTRY = 9


@dataclass(frozen=True, slots=True)
class Spellings:
    """One number: as it is stored (E.164), the digits that all its forms share, and the form of them all."""

    number: str
    digits: str
    pattern: re.Pattern[str]

    def are_in(self, value: Any) -> bool:
        """Whether the value, or anything in it, has the number in it; also where it is escaped for a URL."""
        return bool(self.without(value, "") != value)

    def are_in_bytes(self, value: bytes) -> bool:
        """The same for what came as bytes."""
        return self.are_in(value.decode("utf-8", "replace"))

    def without(self, value: Any, instead: str) -> Any:
        """The value with every form of the number replaced, in lists and objects too, also in their keys."""
        match value:
            case str():
                left = self._without(value, instead)
                plain = unquote_plus(left) if "%" in left else left
                less = self._without(plain, instead)
                return left if less == plain else less  # unescaped only if that is where the number stands
            case bool():
                return value
            case int():
                return instead if self.pattern.fullmatch(str(value)) else value
            case list():
                return [self.without(item, instead) for item in value]
            case dict():
                return {self.without(name, instead): self.without(item, instead) for name, item in value.items()}
        return value

    def _without(self, value: str, instead: str) -> str:
        return self.pattern.sub(lambda found: found[0] if _is_abroad(found) else instead, value)


def spellings_of(said: str) -> Spellings:
    """The forms of an international number. Raises InvalidInput, without repeating what was said."""
    try:
        number = phonenumbers.parse(said.strip().removeprefix("whatsapp:"), None)
    except phonenumbers.NumberParseException:
        number = None
    if number is None or not phonenumbers.is_possible_number(number):
        raise InvalidInput("a phone number in international form is needed, such as +12025550143")
    digits = phonenumbers.national_significant_number(number)
    country = _GAP.join(str(number.country_code))
    before = rf"(?:(?:(?:\+|00|011){_GAP})?{country}{_GAP}(?:0{_GAP})?|0{_GAP})?"
    return Spellings(
        number=phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164),
        digits=digits,
        pattern=re.compile(rf"(?<![0-9]){before}{_GAP.join(digits)}(?![0-9])"),
    )


def _is_abroad(found: re.Match[str]) -> bool:
    """Whether another country's code stands before what would be a national form."""
    return _COUNTRY.search(found.string[max(0, found.start() - _LONGEST_COUNTRY) : found.start()]) is not None
