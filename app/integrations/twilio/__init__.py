"""Twilio: texts that come in, news of texts that went out, and sending them, by SMS and WhatsApp.

Owns everything that is Twilio's way of talking; knows no row, no organization and no other provider.
"""

from app.integrations.twilio.codes import (
    PERMANENT_CODES,
    STATUS_RANK,
    TRANSIENT_CODES,
    classify_status_error,
    moves_forward,
)
from app.integrations.twilio.credentials import TwilioCredentials
from app.integrations.twilio.messages import Approved, SentMessage, TwilioMessages, sender_of
from app.integrations.twilio.numbers import RETRIES, NumberSettings, ServiceSettings, TwilioNumbers
from app.integrations.twilio.parsing import TWIML_EMPTY, consent_of, conversation_lane, parse_inbound, parse_status
from app.integrations.twilio.reconciling import ListedText, as_inbound, as_status
from app.integrations.twilio.routing import routing_keys
from app.integrations.twilio.signing import verify
from app.integrations.twilio.words import without_words

__all__ = [
    "PERMANENT_CODES",
    "RETRIES",
    "STATUS_RANK",
    "TRANSIENT_CODES",
    "TWIML_EMPTY",
    "Approved",
    "ListedText",
    "NumberSettings",
    "SentMessage",
    "ServiceSettings",
    "TwilioCredentials",
    "TwilioMessages",
    "TwilioNumbers",
    "as_inbound",
    "as_status",
    "classify_status_error",
    "consent_of",
    "conversation_lane",
    "moves_forward",
    "parse_inbound",
    "parse_status",
    "routing_keys",
    "sender_of",
    "verify",
    "without_words",
]
