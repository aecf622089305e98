"""Twilio's signature, made as Twilio makes it; for traffic that is simulated. Verifies nothing."""

from __future__ import annotations

from collections.abc import Mapping

from twilio.request_validator import RequestValidator


def sign(url: str, params: Mapping[str, str], auth_token: str) -> str:
    """The value of ``X-Twilio-Signature`` for a form posted to exactly this URL, by Twilio's own library."""
    return str(RequestValidator(auth_token).compute_signature(url, dict(params)))
