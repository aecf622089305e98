"""One organization's words: its language, its own wording where it has one, and times as its people read them.

Owns how values are written into a template. What can be worded is ``catalogue.py``'s; sends nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from babel.dates import format_datetime, format_timedelta
from babel.lists import format_list

from app.errors import InvalidInput
from app.services.catalogue import CATALOGUE

DAYS = ("mondays", "tuesdays", "wednesdays", "thursdays", "fridays", "saturdays", "sundays")
_MINUTE, _HOUR, _DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Text:
    """One text, ready to be planned: what it says, and of which template with which values."""

    template: str
    values: Mapping[str, str]
    body: str


@dataclass(frozen=True, slots=True)
class ApprovedTemplate:
    """What Twilio knows a template by, and which of our values stand for its variables 1, 2, ..."""

    content_sid: str
    variables: Sequence[str]


class Refused(InvalidInput):
    """A wish that cannot be, told in the organization's language to a caller and in English to a program."""

    def __init__(self, key: str, /, *, code: str, **values: Any) -> None:
        self.key, self.values = f"refused.{key}", values
        super().__init__(ENGLISH.say(self.key, **values), code=code)


@dataclass(frozen=True, slots=True)
class Wording:
    """The words of one organization. ``own`` are its templates by language and key, each with its ``text``, or the
    ``content_sid`` and ``variables`` of an approved one."""

    language: str
    zone: ZoneInfo
    business: str
    own: Mapping[str, Mapping[str, Mapping[str, Any]]]

    def say(self, key: str, /, **values: Any) -> str:
        """The sentence, with every placeholder filled."""
        return self._template(key).format_map(self._filled(key, values))

    def text(self, key: str, /, **values: Any) -> Text:
        """The same as a text to be sent."""
        filled = self._filled(key, values)
        return Text(key, filled, self._template(key).format_map(filled))

    def reason(self, error: InvalidInput) -> str:
        """Why not, as a part of a sentence: in this language where the catalogue knows the refusal."""
        if isinstance(error, Refused):
            return self.say(error.key, **error.values)
        key = f"refused.{error.code}"
        return self.say(key) if CATALOGUE.placeholders.get(key) == () else str(error)

    def time(self, moment: datetime) -> str:
        """A moment in local time; where the clocks show that twice, with the zone's name, which tells them apart."""
        local = moment.astimezone(self.zone)
        said = format_datetime(local, self._template("time.moment"), tzinfo=self.zone, locale=self.language)
        if local.replace(fold=0).utcoffset() == local.replace(fold=1).utcoffset():
            return said
        name = f"{local:%Z}"
        if not name.isalpha():  # some zones have no name but their offset
            name = f"UTC{local.isoformat()[-6:]}"
        return self.say("phrase.twice", when=said, zone=name)

    def clock(self, local: datetime) -> str:
        """Only the clock of it, in the moment's own zone."""
        return format_datetime(local, self._template("time.clock"), locale=self.language)

    def length(self, time: timedelta) -> str:
        """A length of time in its largest whole unit: ``2 hours``, ``90 minutes``."""
        whole = next(unit for unit in (_DAY, _HOUR, _MINUTE, timedelta.resolution) if not time % unit)
        granularity = {_DAY: "day", _HOUR: "hour"}.get(whole, "minute")
        # A threshold that no time reaches: 36 hours are not two days.
        return format_timedelta(time, granularity=granularity, threshold=10**6, locale=self.language)  # type: ignore[arg-type]

    def listed(self, parts: Sequence[str]) -> str:
        """Several things in one sentence: ``one, two and three``."""
        return format_list(list(parts), locale=self.language)

    def choices(self, parts: Sequence[str]) -> str:
        """Several things to choose from by their number."""
        return "; ".join(self.say("phrase.choice", number=n, what=part) for n, part in enumerate(parts, start=1))

    def on_days(self, weekday: int) -> str:
        """A day of every week, Monday being 0."""
        return self.say(f"phrase.on_{DAYS[weekday]}")

    def approved(self, template: str) -> ApprovedTemplate | None:
        """The approved WhatsApp template that says the same, if the organization has one in its language."""
        own = self._own(template)
        if not own.get("content_sid"):
            return None
        return ApprovedTemplate(own["content_sid"], own.get("variables") or list(CATALOGUE.placeholders[template]))

    def _own(self, key: str) -> Mapping[str, Any]:
        return self.own.get(self.language, {}).get(key, {})

    def _template(self, key: str) -> str:
        own: str | None = self._own(key).get("text")
        return own or CATALOGUE.sentences[self.language][key]

    def _filled(self, key: str, values: Mapping[str, Any]) -> dict[str, str]:
        given = {"business": self.business, **values}
        return {name: self._written(given[name]) for name in CATALOGUE.placeholders[key]}

    def _written(self, value: Any) -> str:
        if isinstance(value, datetime):
            return self.time(value)
        if isinstance(value, timedelta):
            return self.length(value)
        return value(self) if callable(value) else str(value)


ENGLISH = Wording("en", ZoneInfo("UTC"), "", {})
