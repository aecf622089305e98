"""What of a webhook is not what somebody wrote: the ids, addresses and codes that are kept when words go.

Owns the list of what stays. It names what is kept, never what goes: Twilio adds parameters without notice.
"""

from __future__ import annotations

import re
from typing import Any

_KEPT = re.compile(
    r"(Message|Sms|SmsMessage|Account|MessagingService)Sid|From|To|(From|To)(City|State|Zip|Country)|WaId"
    r"|Num(Media|Segments)|SmsStatus|MessageStatus|MessageType|ErrorCode|ApiVersion|OptOutType|ChannelPrefix"
)
_WORDS_OF_OURS = {"body", "media"}  # under "_", beside what ``parsing`` has understood


def without_words(payload: dict[str, Any]) -> dict[str, Any]:
    """The parameters without text, media, buttons and places; what was understood of them without its words."""
    kept = {name: value for name, value in payload.items() if _KEPT.fullmatch(name)}
    understood = payload.get("_")
    if isinstance(understood, dict):
        kept["_"] = {name: value for name, value in understood.items() if name not in _WORDS_OF_OURS}
    return kept
