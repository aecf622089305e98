"""The sentence of consent that an organization's calls begin with: where it stands in what an assistant says.

Owns the putting of the sentence before an assistant's own first message, the taking off again, and the
recognising of it. Whom Vapi is told, and what is kept of it, is for others.
"""

from __future__ import annotations

_ENDS = (".", "!", "?", "…", ":")


def begins(message: str, sentence: str) -> bool:
    """Whether the message begins with the sentence, and not with a longer word or another case of it."""
    said, wanted = " ".join(message.split()).casefold(), " ".join(sentence.split()).casefold()
    return bool(wanted) and said.startswith(wanted) and not said[len(wanted) : len(wanted) + 1].isalnum()


def put_before(message: str, sentence: str) -> str:
    """The sentence, and then the message."""
    return f"{ended(sentence)} {message}".rstrip()


def taken_off(message: str, sentence: str) -> str:
    """The message as it was before; one that does not begin with the sentence stays."""
    was = ended(sentence)
    return message[len(was) :].lstrip() if sentence and message.startswith(was) else message


def ended(sentence: str) -> str:
    """The sentence as it stands before another: with an end."""
    return sentence if not sentence or sentence.endswith(_ENDS) else f"{sentence}."
