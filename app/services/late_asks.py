"""What a caller asked for while the database was away: done when it is back, and the outcome texted.

Owns which questions can wait, what is said meanwhile (a text is promised, never a slot), and who hears how it ended
where the tool itself texts nobody. Safe to repeat: a question that was asked again and answered since is left alone,
a slot is held once for each tool call, a text has a key.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from pydantic import ValidationError

from app.errors import InvalidInput, NotFound, PermanentFailure, SlotTaken, TemporaryFailure
from app.integrations.deadline import NO_DEADLINE
from app.integrations.vapi import ToolCall, call_of, tool_calls_of
from app.models import tool_answers
from app.models.deliveries import find_answer_given
from app.services import texts
from app.services.appointments import preferred_channel
from app.services.delivery import Skip, Work
from app.services.messages import plan_text
from app.services.tools import TOOLS, Asking

if TYPE_CHECKING:
    from app.services.directory import Business
    from app.services.wording import Text, Wording

LATE = "late"  # beside the results in the answer that is kept: the ids of the calls that wait
TAKE_OVER_AFTER = timedelta(seconds=25)
_PROMISES = {
    "book_appointment": "said.late_book",
    "reschedule_appointment": "said.late_move",
    "cancel_appointment": "said.late_cancel",
    "send_text": "said.late_text",
}


def can_wait(call: ToolCall) -> bool:
    """Whether it is of use later, and says all that is needed for it."""
    if call.error is not None or call.name not in _PROMISES:
        return False
    try:
        TOOLS[call.name].arguments.model_validate(call.arguments)
    except ValidationError:
        return False
    return True


def promise(wording: Wording, call: ToolCall) -> str:
    """What is said of it once it is safe on a disk."""
    return wording.say(_PROMISES[call.name])


def do(work: Work) -> Skip | None:
    """Handler of ``tool-calls``: those of its questions that had to wait."""
    org_id = work.delivery.org_id
    with work.platform.database.transaction(org_id) as session:
        late = (find_answer_given(session, org_id, work.delivery.id) or {}).get(LATE, [])
    call_id = call_of(work.delivery.body or {}).call_id
    if not late or call_id is None:
        return Skip("it was answered when it came")
    business = work.platform.directory.business(org_id)
    for call in tool_calls_of(work.delivery.body or {}):
        if call.id in late and _claim(work, call_id, call):
            _do(work, business, call_id, call)
    work.platform.bell.ring()
    return None


def _claim(work: Work, call_id: str, call: ToolCall) -> bool:
    """Whether it is to be done here; False when it was asked again and answered. Raises TemporaryFailure meanwhile."""
    org_id = work.delivery.org_id
    key = {"call_id": call_id, "tool_call_id": call.id}
    with work.platform.database.transaction(org_id) as session:
        if tool_answers.claim_answer(session, org_id, **key, name=call.name, stale_after=TAKE_OVER_AFTER):
            return True
        if tool_answers.find_answer(session, org_id, **key) is not None:
            return False
    raise TemporaryFailure("the same question is being answered just now")


def _do(work: Work, business: Business, call_id: str, call: ToolCall) -> None:
    asking = Asking(work.platform, business, NO_DEADLINE, call_id, call.id, is_late=True)
    sorry = _attempt(asking, call)
    with work.platform.database.transaction(business.id) as session:
        said = promise(business.wording, call)
        tool_answers.record_answer(session, business.id, call_id=call_id, tool_call_id=call.id, result=said)
    to = _customer(asking, call, call_of(work.delivery.body or {}).customer_number)
    if sorry is None or to is None:
        return
    channel = preferred_channel(work.platform, business.id, to, None)
    with work.platform.database.transaction(business.id) as session:
        plan_text(
            session,
            business.id,
            to=to,
            body=sorry,
            channel=channel,
            idempotency_key=f"late:{call_id}:{call.id}",
            purpose="late",
            call_id=call_id,
        )


def _attempt(asking: Asking, call: ToolCall) -> Text | None:
    """Do it; what the customer must be told where it did not work. Raises TemporaryFailure: then try again later."""
    tool, wording = TOOLS[call.name], asking.wording
    try:
        tool.run(asking, tool.arguments.model_validate(call.arguments))
    except SlotTaken:
        return (
            texts.slot_gone(wording, asking.wanted, asking.alternatives) if asking.wanted else texts.not_done(wording)
        )
    except NotFound:
        return texts.no_appointment(wording)
    except InvalidInput:
        return texts.not_booked(wording, asking.wanted) if asking.wanted else texts.not_done(wording)
    except PermanentFailure:
        return texts.not_done(wording)
    return None


def _customer(asking: Asking, call: ToolCall, caller: str | None) -> str | None:
    """Whom to text: the number that was given, or else the one that called."""
    for said in (call.arguments.get("phone"), caller):
        try:
            if said:
                return asking.phone(str(said))
        except InvalidInput:
            continue
    return None
