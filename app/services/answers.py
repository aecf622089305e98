"""Answers while a caller listens: inside the deadline, always, from a degraded path if need be.

Owns the deadline of a request, the same question asked twice, and what is said when the time is up.
Work runs in a thread that the answer leaves behind at its deadline; what it still achieves is merged
into the rows it holds.
"""

from __future__ import annotations

import time
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeout
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from app.errors import DatabaseUnavailable, VoicedeskError
from app.integrations.deadline import Deadline
from app.integrations.events import InboundEvent
from app.integrations.vapi import SPEAKS_FIRST, ToolCall, call_of, tool_calls_of
from app.models import tool_answers
from app.models.deliveries import UNOWNED_ORG_ID
from app.observability import metrics
from app.observability.context import carry
from app.observability.errors import report
from app.observability.logging import describe, get_logger
from app.services import calls, intake, late_asks
from app.services.tools import TOOLS, Asking, unfinished
from app.services.wording import ENGLISH

if TYPE_CHECKING:
    from app.services.directory import Business, Endpoint
    from app.services.platform import Platform

THREADS = 64
TAKE_OVER_AFTER = timedelta(seconds=25)  # longer than any answer takes: whoever claimed it has died
LOOK_AGAIN_SECONDS = 0.05
SENTENCE_RESERVE_SECONDS = 0.4  # kept of the deadline for making the fallback sentence true
LEAST_WORK_SECONDS = 0.3  # less than that beyond the reserve is not worth beginning
LEAST_RECORD_SECONDS = 0.1  # an answer is given even if nobody could record it in time

_pool = ThreadPoolExecutor(THREADS, "answer")
log = get_logger(__name__)


def answer(platform: Platform, endpoint: Endpoint, event: InboundEvent) -> dict[str, Any]:
    """The body Vapi waits for. Never raises for what goes wrong behind it: a caller hears a sentence.

    Raises DatabaseUnavailable only when the organization was never known to this process (then `cannot_answer`).
    """
    began = time.monotonic()
    settings = platform.settings
    tools = event.awaits_answer == "tool-calls"
    deadline = Deadline.within(settings.tool_deadline_seconds if tools else settings.assistant_deadline_seconds)
    business = None if endpoint.org_id == UNOWNED_ORG_ID else platform.directory.business(endpoint.org_id)
    if business is None:
        body = _say_only(event, ENGLISH.say("said.not_set_up"))
    elif business.suspended_at is not None:
        body = _say_only(event, business.wording.say("said.suspended"))
    elif tools:
        body, late = _answer_tools(platform, business, deadline, event)
        if late and _keep_for_later(platform, endpoint, business, event, body, late):
            return _answered(endpoint, event, body, began)
    elif event.awaits_answer == "assistant-request":
        body = _answer_assistant(business, event)
    else:
        body = _answer_transfer(business)
    _keep(platform, endpoint, event, body, deadline)
    return _answered(endpoint, event, body, began)


def cannot_answer(event: InboundEvent) -> dict[str, Any]:
    """What is said when it is not known who was called: nothing is promised."""
    metrics.answer_degraded("no_database")
    return _say_only(event, ENGLISH.say("said.sorry" if event.awaits_answer == "tool-calls" else "said.away"))


def _answered(endpoint: Endpoint, event: InboundEvent, body: dict[str, Any], began: float) -> dict[str, Any]:
    metrics.answer_given(event.type, time.monotonic() - began)
    log.info(
        "webhook.answered",
        org_id=str(endpoint.org_id),
        type=event.type,
        duration_ms=round((time.monotonic() - began) * 1000),
    )
    return body


def _keep(
    platform: Platform, endpoint: Endpoint, event: InboundEvent, body: dict[str, Any], deadline: Deadline
) -> None:
    """Record what was answered, without making the caller wait for a slow database; it goes on behind the answer."""
    kept = _pool.submit(carry(_record_answered), platform, endpoint, event, body)
    try:
        kept.result(timeout=max(LEAST_RECORD_SECONDS, deadline.remaining()))
    except (DatabaseUnavailable, FutureTimeout):
        metrics.answer_degraded("not_recorded")
        log.warning("answer.not_recorded", org_id=str(endpoint.org_id), type=event.type)
    except Exception as error:  # noqa: BLE001 - the caller has an answer coming, whatever the record suffers
        metrics.answer_degraded("not_recorded")
        report(error, where="web", event="answer.not_recorded", org_id=str(endpoint.org_id), type=event.type)


def _record_answered(platform: Platform, endpoint: Endpoint, event: InboundEvent, body: dict[str, Any]) -> None:
    intake.keep_answered(platform, endpoint, event, body)
    sentence = body.get("assistantOverrides", {}).get("firstMessage")
    if sentence:
        calls.note_consent(platform, endpoint.org_id, event, sentence)


def _keep_for_later(
    platform: Platform,
    endpoint: Endpoint,
    business: Business,
    event: InboundEvent,
    body: dict[str, Any],
    late: set[str],
) -> bool:
    """Put the questions that need the database into the spool, and then say so to the caller: only then is it true."""
    waiting = [call for call in tool_calls_of(event.payload) if call.id in late]
    promised = {call.id: late_asks.promise(business.wording, call) for call in waiting}
    answer = {"results": [{**one, "result": promised.get(one["toolCallId"], one["result"])} for one in body["results"]]}
    try:
        platform.spool.keep_event(endpoint, event, answer={**answer, late_asks.LATE: sorted(late)}, undone=True)
    except DatabaseUnavailable:
        return False
    metrics.answer_degraded("no_database")
    body.update(answer)
    return True


def _say_only(event: InboundEvent, sentence: str) -> dict[str, Any]:
    """One sentence, whatever was asked: nobody is known who could do more."""
    if event.awaits_answer != "tool-calls":
        return {"error": sentence}
    calls = tool_calls_of(event.payload)
    return {"results": [{"toolCallId": call.id, "name": call.name, "result": sentence} for call in calls]}


def _answer_assistant(business: Business, event: InboundEvent) -> dict[str, Any]:
    """Which assistant takes the call, with what it should know; or what is said when there is none."""
    if not business.assistant_id:
        return {"error": business.wording.say("said.nobody_answers")}
    variables = {"businessName": business.name, "timezone": business.timezone, "language": business.language}
    number = call_of(event.payload).customer_number
    if number:
        variables["customerNumber"] = number
    overrides: dict[str, Any] = {"variableValues": variables}
    if business.consent_sentence:
        overrides |= {"firstMessage": business.consent_sentence, "firstMessageMode": SPEAKS_FIRST}
    return {"assistantId": business.assistant_id, "assistantOverrides": overrides}


def _answer_transfer(business: Business) -> dict[str, Any]:
    if not business.transfer_number:
        return {"error": business.wording.say("said.no_transfer")}
    return {
        "destination": {"type": "number", "number": business.transfer_number},
        "message": {"type": "request-complete", "content": business.wording.say("said.transfer")},
    }


def _answer_tools(
    platform: Platform, business: Business, deadline: Deadline, event: InboundEvent
) -> tuple[dict[str, Any], set[str]]:
    """One result per call, in order, several calls sharing one deadline; and the ids of those that have to wait."""
    call_id = call_of(event.payload).call_id
    results = []
    late: set[str] = set()
    for call in tool_calls_of(event.payload):
        asking = Asking(platform, business, deadline, call_id, call.id)
        said = _one_line(_answer_once(asking, call))
        results.append({"toolCallId": call.id, "name": call.name, "result": said})
        if asking.no_database:
            late.add(call.id)
    return {"results": results}, late


def _answer_once(asking: Asking, call: ToolCall) -> str:
    """The recorded answer if there is one, a running one's when it comes, or else the work itself."""
    tool = TOOLS.get(call.name)
    if tool is None:
        return asking.wording.say("said.unknown_tool")
    if call.error is not None:
        return asking.wording.say("said.no_details")
    deadline = asking.deadline
    if not deadline.fits(SENTENCE_RESERVE_SECONDS + LEAST_WORK_SECONDS):
        return asking.wording.say("said.no_time_left")  # earlier calls of the message have used it up
    future = _pool.submit(carry(_work), asking, call)
    try:
        return future.result(timeout=max(0.05, deadline.remaining() - SENTENCE_RESERVE_SECONDS))
    except FutureTimeout:
        metrics.answer_degraded("deadline")
        log.warning("answer.deadline", org_id=str(asking.business.id), tool=call.name)
        return _fallback(asking, call, future, deadline)


def _work(asking: Asking, call: ToolCall) -> str:
    """In the pool: claim the question, do it, record what is said. Errors become a sentence."""
    tool = TOOLS[call.name]
    try:
        if asking.call_id is None:
            return tool.answer(asking, call.arguments)
        if not _claim(asking, call):
            return _await_other(asking, call)
        said = _one_line(tool.answer(asking, call.arguments))
        return _record(asking, call, said)
    except DatabaseUnavailable:
        asking.no_database = asking.call_id is not None and late_asks.can_wait(call)
    except VoicedeskError as error:
        log.warning("answer.failed", org_id=str(asking.business.id), tool=call.name, **describe(error))
    except Exception as error:  # noqa: BLE001 - whatever it is, silence on the line would be worse
        report(error, where="web", event="answer.failed", org_id=str(asking.business.id), tool=call.name)
    metrics.answer_degraded("failed")
    return asking.wording.say("said.sorry")


def _fallback(asking: Asking, call: ToolCall, future: Future[str], deadline: Deadline) -> str:
    """The time is up: say only what is certain, and record it, so that asking again gets the same."""
    if future.cancel():  # every thread was busy: it never began
        return asking.wording.say("said.no_time_left")
    sentence = _pool.submit(carry(unfinished), asking)
    try:
        said = sentence.result(timeout=max(0.1, deadline.remaining() - 0.05))
    except (FutureTimeout, VoicedeskError):
        return asking.wording.say("said.uncertain")
    if future.done() and not future.exception():
        return future.result()
    asking.unfinished = asking.held is None  # of what is held the outcome is texted
    if asking.call_id is not None:
        _pool.submit(carry(_record), asking, call, _one_line(said))
    return said


def _claim(asking: Asking, call: ToolCall) -> bool:
    assert asking.call_id is not None
    with asking.platform.database.transaction(asking.business.id) as session:
        return tool_answers.claim_answer(
            session,
            asking.business.id,
            call_id=asking.call_id,
            tool_call_id=call.id,
            name=call.name,
            stale_after=TAKE_OVER_AFTER,
        )


def _await_other(asking: Asking, call: ToolCall) -> str:
    """Another request is answering the same question, or has: its answer is the answer."""
    while True:
        said = _recorded(asking, call)
        if said is not None:
            return said
        # Before the waiting for this ends: who gave it up would say that it is not known what came of it.
        if asking.deadline.remaining() < SENTENCE_RESERVE_SECONDS + 2 * LOOK_AGAIN_SECONDS:
            return asking.wording.say("said.working")
        time.sleep(LOOK_AGAIN_SECONDS)


def _record(asking: Asking, call: ToolCall, said: str) -> str:
    """Record the answer; return what is recorded, which is the first one given."""
    assert asking.call_id is not None
    with asking.platform.database.transaction(asking.business.id) as session:
        key = {"call_id": asking.call_id, "tool_call_id": call.id}
        tool_answers.record_answer(
            session,
            asking.business.id,
            **key,
            result=said,
            calendar_source=asking.calendar_source,
            unfinished=asking.unfinished,
        )
        return tool_answers.find_answer(session, asking.business.id, **key) or said


def _recorded(asking: Asking, call: ToolCall) -> str | None:
    assert asking.call_id is not None
    with asking.platform.database.transaction(asking.business.id) as session:
        return tool_answers.find_answer(session, asking.business.id, call_id=asking.call_id, tool_call_id=call.id)


def _one_line(said: str) -> str:
    """Vapi takes a single line; anything else is ignored on the line."""
    return " ".join(said.split())
