"""An account at Twilio's stand-in, and who sends from it."""

from __future__ import annotations

from app.integrations.twilio import SentMessage, TwilioCredentials, TwilioMessages
from sandbox.standins import RemoteWorld

ACCOUNT = "AC" + "3c" * 16
TOKEN = "a token of the tests"
NUMBER, WHATSAPP_NUMBER, CUSTOMER = "+12025550188", "+12025550189", "+12025550143"
SERVICE = "MG" + "4d" * 16
KEY_SID, KEY_SECRET = "SK" + "6e" * 16, "a key of the tests"
CREDENTIALS = TwilioCredentials(
    account_sid=ACCOUNT, auth_token=TOKEN, from_number=NUMBER, whatsapp_from=WHATSAPP_NUMBER
)


def open_account(world: RemoteWorld) -> TwilioMessages:
    """Twilio's stand-in with one account, its senders, its Messaging Service and its API key."""
    world.twilio_account(
        ACCOUNT,
        TOKEN,
        [NUMBER, f"whatsapp:{WHATSAPP_NUMBER}"],
        messaging_services={SERVICE: [NUMBER]},
        api_keys={KEY_SID: KEY_SECRET},
    )
    return TwilioMessages(world.twilio_url)


def send_text(
    twilio: TwilioMessages, *, credentials: TwilioCredentials = CREDENTIALS, **changes: object
) -> SentMessage:
    """Send a text, by SMS unless told otherwise."""
    given = {"channel": "sms", "to": CUSTOMER, "body": "See you at ten.", "status_callback": None, **changes}
    return twilio.send(credentials, **given)  # type: ignore[arg-type]
