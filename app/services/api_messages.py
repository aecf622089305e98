"""Texts that programs ask for: each planned once for its key, then sent like every other text.

Owns what the same key twice means. STOP, retries and circuits are the business of ``messages.py``, because
a text is only planned here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import UUID

from app.errors import InvalidInput, NotFound, PermanentFailure
from app.models.messages import find_by_idempotency_key
from app.services import audit, inspection
from app.services.api_reads import reading
from app.services.messages import plan_text
from app.services.tool_arguments import normalise_phone

if TYPE_CHECKING:
    from app.services.platform import Platform

PURPOSE = "api"


class Planned(NamedTuple):
    """The text as it stands, and whether it was planned just now."""

    message: dict[str, Any]
    is_new: bool


def plan_once(
    platform: Platform, org_id: UUID, *, to: str, body: str, channel: str, idempotency_key: str, actor: str
) -> Planned:
    """Plan a text, or find the one that was planned for this key. Safe to repeat, also at the same time.

    ``to`` is an international number. Raises InvalidInput (a bad number) and PermanentFailure with the
    code ``key_reused`` (another text was planned for the key) or ``not_connected`` (no Twilio).
    """
    phone = _number(to)
    not_connected = _what_is_missing(platform, org_id)
    key = f"{PURPOSE}:{idempotency_key}"
    with reading(platform, org_id) as session:
        message_id = plan_text(
            session, org_id, to=phone, body=body, channel=channel, idempotency_key=key, purpose=PURPOSE
        )
        message = find_by_idempotency_key(session, org_id, key)
        assert message is not None
        said = body if message.words_removed_at else message.body  # what is not kept cannot be compared
        if (message.remote_address, said, message.channel) != (phone, body, channel):
            raise PermanentFailure("another text was planned for this Idempotency-Key", code="key_reused")
        if message_id is not None:
            if not_connected is not None:
                raise not_connected  # and nothing is planned after all
            audit.note(session, org_id, actor=actor, action="message.send", subject=str(message_id))
        planned = Planned(inspection.show_message(message), message_id is not None)
    if planned.is_new:
        platform.bell.ring()
    return planned


def _what_is_missing(platform: Platform, org_id: UUID) -> PermanentFailure | None:
    """Why no text could be sent; asked before the transaction, which is not to wait for another."""
    try:
        platform.directory.integration(org_id, "twilio")
    except NotFound as error:
        return PermanentFailure(str(error), code=error.code)
    return None


def _number(said: str) -> str:
    if not said.startswith("+"):
        raise InvalidInput("an international number is needed: a plus sign, the country and the number")
    return normalise_phone(said, near=None)
