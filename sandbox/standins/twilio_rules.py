"""What Twilio refuses when a message is posted, in the order in which it looks.

Owns codes and messages of Twilio's error dictionary (twilio.com/docs/api/errors). Changes nothing.
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections import deque
from typing import Any
from urllib.parse import urlsplit

import phonenumbers

LONGEST_BODY = 1600
_WHATSAPP = "whatsapp:"
_VARIABLE = re.compile(r"\{\{(\w+)\}\}")
_E164 = re.compile(r"\+[1-9]\d{6,14}")


class TwilioRefusal(Exception):
    """Twilio answers an error body with this code, message and HTTP status."""

    def __init__(self, code: int, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.code, self.message, self.status = code, message, status


class Pace:
    """How many messages of one sender are taken in a second: within any second, no more. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._taken: dict[str, deque[float]] = {}

    def admit(self, form: dict[str, str], most: int | None) -> None:
        """Count one message; raise TwilioRefusal, and count nothing, when its sender has had ``most`` just now."""
        if most is None:
            return
        sender = form.get("MessagingServiceSid") or form.get("From", "")
        with self._lock:
            taken = self._taken.setdefault(sender, deque())
            now = time.monotonic()
            while taken and taken[0] <= now - 1.0:
                taken.popleft()
            if len(taken) >= most:
                raise TwilioRefusal(20429, "Too Many Requests", 429)
            taken.append(now)


def check_message(form: dict[str, str], account: dict[str, Any], branch: dict[str, Any]) -> str:
    """Return the text to send; raise TwilioRefusal when Twilio would not take the message.

    Unknown parameters are ignored, as Twilio does.
    """
    recipient = form.get("To", "")
    if not recipient:
        raise TwilioRefusal(21604, "A 'To' phone number is required.")
    senders = _check_sender(form, account)
    body = _check_content(form, account)
    _check_recipient(recipient, senders, branch)
    _check_callback(form.get("StatusCallback"))
    return body


def _check_sender(form: dict[str, str], account: dict[str, Any]) -> list[str]:
    """The numbers the message may come from."""
    service, sender = form.get("MessagingServiceSid"), form.get("From", "")
    if service:
        if service not in account["messaging_services"]:
            raise TwilioRefusal(21701, "The Messaging Service does not exist")
        pool: list[str] = account["messaging_services"][service]
        if not pool:
            raise TwilioRefusal(21703, "The Messaging Service does not have any Twilio phone number associated with it")
        return pool
    if not sender:
        raise TwilioRefusal(21603, "A 'From' phone number is required.")
    if sender in account["numbers"]:
        return [sender]
    if sender.startswith(_WHATSAPP):
        raise TwilioRefusal(63007, "Twilio could not find a Channel with the specified From address")
    if not _is_phone_number(sender):
        raise TwilioRefusal(21212, f"Invalid 'From' Phone Number: {sender}")
    raise TwilioRefusal(
        21606,
        f"The 'From' phone number provided ({sender}) is not a valid message-capable Twilio phone number "
        "for this destination/account",
    )


def _check_content(form: dict[str, str], account: dict[str, Any]) -> str:
    if "ContentSid" in form:
        return _render_template(form, account)
    body = form.get("Body", "")
    if not body and not form.get("MediaUrl"):
        raise TwilioRefusal(21602, "Message body is required.")
    if len(body) > LONGEST_BODY:
        raise TwilioRefusal(21617, f"The concatenated message body exceeds the {LONGEST_BODY} character limit")
    return body


def _render_template(form: dict[str, str], account: dict[str, Any]) -> str:
    template: str | None = account["contents"].get(form["ContentSid"])
    if template is None:
        raise TwilioRefusal(21655, "The ContentSid is Invalid")
    try:
        variables = json.loads(form.get("ContentVariables") or "{}")
    except ValueError:
        variables = None
    if not isinstance(variables, dict):
        raise TwilioRefusal(21656, "The ContentVariables Parameter is invalid")
    if not all(_is_usable(value) for value in variables.values()):
        raise TwilioRefusal(21656, "The ContentVariables Parameter is invalid")
    if set(variables) != set(_VARIABLE.findall(template)):
        raise TwilioRefusal(63028, "Number of parameters provided does not match the expected number of parameters")
    return _VARIABLE.sub(lambda found: str(variables[found[1]]), template)


def _is_usable(value: Any) -> bool:
    """Not empty, without a line break, a tab or more than four spaces on end."""
    return isinstance(value, str) and bool(value) and not re.search(r"[\n\t]| {5}", value)


def _check_recipient(recipient: str, senders: list[str], branch: dict[str, Any]) -> None:
    known = branch.get("recipients", {}).get(recipient, {})
    if not _is_phone_number(recipient.removeprefix(_WHATSAPP)):
        raise TwilioRefusal(21211, f"Invalid 'To' Phone Number: {recipient}")
    if recipient.startswith(_WHATSAPP) != senders[0].startswith(_WHATSAPP):
        raise TwilioRefusal(21910, "Invalid From and To pair. From and To should be of the same channel")
    if [recipient] == senders:
        raise TwilioRefusal(21266, "'To' and 'From' number cannot be the same")
    if known.get("refuse"):
        raise TwilioRefusal(known["refuse"], "The recipient cannot be reached")
    opted_out = {pair[0] for pair in branch.get("opt_outs", []) if pair[1] == recipient}
    if None in opted_out or opted_out.intersection(senders):
        raise TwilioRefusal(21610, "Attempt to send to unsubscribed recipient")


def _check_callback(url: str | None) -> None:
    if url and (urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).hostname):
        raise TwilioRefusal(21609, "The StatusCallback URL is not a valid URL")


def _is_phone_number(text: str) -> bool:
    """E.164 and of a length that the country has; its digits may well belong to nobody."""
    if not _E164.fullmatch(text):
        return False
    try:
        return phonenumbers.is_possible_number(phonenumbers.parse(text))
    except phonenumbers.NumberParseException:
        return False
