"""What is wrong while the database, which keeps the alerts, is away.

Owns the notes of that time: in Redis, so that one process of all tells of a cause, and in this process
alone when that is away too (then each process that notices tells; better twice than not at all). The notes
are handed over to the table when it is back, and whoever watches there tells of the end.

Who is about to tell has claimed it for a minute. One that dies in the middle is followed by another.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from redis import Redis

from app.redis import RedisAway, RedisLink

NOTES = "voicedesk:alerts"
CLAIM_SECONDS = 60
KEPT_SECONDS = 7 * 86_400
TOLD = "told"


@dataclass(frozen=True, slots=True)
class Note:
    """A cause that was noted while the table was away, and when a person was told of it, if so."""

    key: str
    kind: str
    facts: dict[str, Any]
    began_at: datetime
    told_at: datetime | None = None


class Notebook:
    """One process's notes. Used by one thread; forks begin with an empty one."""

    def __init__(self, redis: RedisLink, *, name: str) -> None:
        self._redis = redis
        self._name = name
        self._notes: dict[str, Note] = {}

    def note(self, key: str, *, kind: str, facts: dict[str, Any]) -> None:
        """The cause is there; also in Redis, in case that this process does not live to hand it over."""
        known = self._notes.setdefault(key, Note(key, kind, facts, datetime.now(UTC)))
        try:
            self._redis.use(lambda redis: _keep(redis, known))
        except RedisAway:
            return

    def claim_untold(self) -> list[Note]:
        """The notes that this process is to tell, and no other for a minute."""
        for note in self._notes.values():
            if note.told_at is None and (moment := self._told_elsewhere(note.key)):
                self._notes[note.key] = replace(note, told_at=moment)
        return [note for note in self._notes.values() if note.told_at is None and self._claim(note.key)]

    def told(self, key: str) -> None:
        """A person has been told."""
        now = datetime.now(UTC)
        self._notes[key] = replace(self._notes[key], told_at=now)
        try:
            self._redis.use(lambda redis: redis.set(_state(key), f"{TOLD} {now.isoformat()}", ex=KEPT_SECONDS))
        except RedisAway:
            return

    def hand_over(self) -> list[Note]:
        """Everything that was noted here or, as far as Redis knows, anywhere; but not what is just being told."""
        notes = dict(self._notes)
        try:
            found: dict[str, tuple[Note, str]] = self._redis.use(_read)
        except RedisAway:
            found = {}
        for key, (note, state) in found.items():
            mine = notes.get(key)
            told_at = (mine.told_at if mine else None) or _when_told(state)
            notes[key] = replace(mine or note, told_at=told_at)
            if told_at is None and state and state != self._name:
                del notes[key]  # its teller, or in a minute another, will say
        return sorted(notes.values(), key=lambda note: note.key)

    def forget(self, notes: list[Note]) -> None:
        """These are in the table now."""
        for note in notes:
            self._notes.pop(note.key, None)
        if notes:
            try:
                self._redis.use(lambda redis: _drop(redis, [note.key for note in notes]))
            except RedisAway:
                return  # handed over once more later, which changes nothing

    def hush(self, key: str, *, seconds: float) -> None:
        """A person was just told of this cause's end: tell nothing of it from here for so long."""
        if seconds > 0:
            try:
                self._redis.use(lambda redis: redis.set(_quiet(key), "1", px=int(seconds * 1000)))
            except RedisAway:
                return

    def _claim(self, key: str) -> bool:
        def claim(redis: Redis) -> bool:
            if redis.exists(_quiet(key)):
                return False
            if redis.set(_state(key), self._name, nx=True, ex=CLAIM_SECONDS):
                return True
            mine = redis.get(_state(key)) == self._name.encode()
            return mine and bool(redis.expire(_state(key), CLAIM_SECONDS))

        try:
            return self._redis.use(claim)
        except RedisAway:
            return True

    def _told_elsewhere(self, key: str) -> datetime | None:
        try:
            state: bytes | None = self._redis.use(lambda redis: redis.get(_state(key)))  # type: ignore[assignment]
        except RedisAway:
            return None
        return _when_told(state.decode()) if state else None


def _state(key: str) -> str:
    return f"{NOTES}:state:{key}"


def _quiet(key: str) -> str:
    return f"{NOTES}:quiet:{key}"


def _when_told(state: str) -> datetime | None:
    word, _, moment = state.partition(" ")
    return datetime.fromisoformat(moment) if word == TOLD else None


def _keep(redis: Redis, note: Note) -> None:
    body = {"kind": note.kind, "facts": note.facts, "began_at": note.began_at.isoformat()}
    redis.hsetnx(NOTES, note.key, json.dumps(body))


def _read(redis: Redis) -> dict[str, tuple[Note, str]]:
    found: dict[str, tuple[Note, str]] = {}
    stored: dict[bytes, bytes] = redis.hgetall(NOTES)  # type: ignore[assignment]
    for name, body in stored.items():
        key, fields = name.decode(), json.loads(body)
        state: bytes | None = redis.get(_state(key))  # type: ignore[assignment]
        note = Note(key, fields["kind"], fields["facts"], datetime.fromisoformat(fields["began_at"]))
        found[key] = (note, state.decode() if state else "")
    return found


def _drop(redis: Redis, keys: list[str]) -> None:
    redis.hdel(NOTES, *keys)
    redis.delete(*(_state(key) for key in keys))
