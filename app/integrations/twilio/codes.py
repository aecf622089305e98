"""Twilio's numbers and words: which errors a repetition may cure, and which status follows which.

Owns the tables (Twilio docs, "Error and warning dictionary" and "Message resource: status values").
The sorting into permanent and transient is ours: the dictionary does not say it.
"""

from __future__ import annotations

from typing import Literal

OPTED_OUT = "21610"

PERMANENT_CODES = frozenset(
    {
        "20003",  # credentials
        "20404",  # no such resource
        "11751", "21620", "63019",  # media: too large, not a URL, cannot be fetched
        "21211", "21212", "21214", "21217",  # To or From is no number, or cannot be reached
        "21408",  # the country is not enabled for this account
        "21601", "21606",  # From is not ours, or cannot send texts
        "21602", "21604", "21617",  # no body, no To, a body over 1,600 characters
        "21608",  # a trial account and an unverified number
        OPTED_OUT,
        "21612", "21614",  # no route from From to To; To is not a mobile number
        "21622", "21654", "21655", "21656",  # sender pool and content
        "21703",  # the Messaging Service has no sender
        "30002",  # the account is suspended
        "30003", "30004", "30005", "30006", "30007",  # handset off, blocked, unknown, a landline; filtered
        "30024", "30032", "30034",  # the sender is not registered
        "63001", "63003", "63005", "63007", "63013",  # WhatsApp: channel, content, policy
        "63015",  # the sandbox has not been joined
        "63016",  # outside the 24-hour window: a template is needed, not a repetition
        "63024", "63028", "63032", "63033",  # recipient invalid, limited by WhatsApp, blocked
        "63041",  # the template is paused
    }
)  # fmt: skip

TRANSIENT_CODES = frozenset(
    {
        "14107", "20429", "21611", "30001", "30022", "63018",  # rates and queues: slower
        "20500", "20503",  # Twilio itself
        "30008", "30009", "30410",  # unknown, a lost segment, the carrier did not answer
        "30023", "63038",  # a day's quota is used up: tomorrow
    }
)  # fmt: skip

STATUS_RANK = {
    "accepted": 0,
    "scheduled": 1,
    "queued": 2,
    "sending": 3,
    "sent": 4,
    "delivered": 5,
    "read": 6,
    "undelivered": 7,
    "failed": 7,
    "canceled": 7,
}
FINAL_STATUSES = frozenset({"undelivered", "failed", "canceled"})


def classify_status_error(code: str | int | None) -> Literal["permanent", "temporary"]:
    """Whether a text that Twilio reports as failed could get through later; unknown codes are permanent.

    When in doubt nothing is sent twice: an unknown code may belong to a text that did arrive.
    """
    return "temporary" if str(code) in TRANSIENT_CODES else "permanent"


def moves_forward(old: str | None, new: str) -> bool:
    """Whether news of a text is newer than what is known of it; callbacks come in any order.

    A final status stays, and a text that was delivered or read cannot fail any more.
    """
    if new not in STATUS_RANK:
        return False
    if old is None or old not in STATUS_RANK:
        return True
    if old in FINAL_STATUSES or (new in FINAL_STATUSES and STATUS_RANK[old] >= STATUS_RANK["delivered"]):
        return False
    return STATUS_RANK[new] > STATUS_RANK[old]
