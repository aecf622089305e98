"""Where Twilio posts an organization's texts, against where it should.

Owns what is expected of a number and of a Messaging Service. A service that is named in the credentials takes its
numbers' texts, so it is the one that is looked at; WhatsApp senders are set by hand, Twilio's API of 2010 has none.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from app.errors import ResourceGone
from app.integrations.twilio import RETRIES, TwilioCredentials, TwilioNumbers
from app.services.connecting.differences import Connection, Difference, apply_fix
from app.services.directory import Business

if TYPE_CHECKING:
    from app.services.platform import Platform


def compare(platform: Platform, connection: Connection) -> Iterable[Difference]:
    """Differences of the number, or of the Messaging Service. Raises what Twilio's refusals and silences mean."""
    credentials = connection.credentials
    assert isinstance(credentials, TwilioCredentials)
    twilio = TwilioNumbers(platform.settings.twilio_api_base_url)
    if credentials.messaging_service_sid:
        yield from _service(twilio, connection, credentials, credentials.messaging_service_sid)
        return
    if connection.org_id is not None:
        own = connection.businesses[0] if connection.businesses else None
        yield from _number(twilio, connection, credentials, credentials.from_number or "", own)
        return
    for business in connection.businesses:
        if business.phone_number:
            yield from _number(twilio, connection, credentials, business.phone_number, business)


def _number(
    twilio: TwilioNumbers, connection: Connection, credentials: TwilioCredentials, number: str, own: Business | None
) -> Iterable[Difference]:
    if not number:
        fix = f"integration set {connection.integration_id} --set from_number=+..."
        yield Difference(connection, "the number", "", "a number, or a Messaging Service", fix, business=own)
        return
    found = twilio.find_number(credentials, number)
    if found is None:
        fix = "Buy or move the number into this Twilio account, or name another account's credentials."
        yield Difference(connection, "the number", "not in this account", "a number of this account", fix, business=own)
        return
    wanted = connection.webhook_url + RETRIES

    def mend() -> None:
        twilio.set_number(credentials, found.sid, url=wanted)

    fix = apply_fix(connection)
    if found.application_sid:
        has = f"the application {found.application_sid}"
        yield Difference(connection, "who takes its texts", has, "its own webhook", fix, mend, own)
    if found.url != wanted:
        yield Difference(connection, "webhook of incoming texts", found.url, wanted, fix, mend, own)
    elif found.method != "POST":
        yield Difference(connection, "method of the webhook", found.method, "POST", fix, mend, own)


def _service(
    twilio: TwilioNumbers, connection: Connection, credentials: TwilioCredentials, sid: str
) -> Iterable[Difference]:
    own = connection.businesses[0] if connection.org_id and connection.businesses else None
    try:
        found = twilio.fetch_service(credentials, sid)
    except ResourceGone:
        fix = f"integration set {connection.integration_id} --set messaging_service_sid=MG..."
        yield Difference(
            connection, "the Messaging Service", "not in this account", "one of this account", fix, None, own
        )
        return
    url, callback = connection.webhook_url + RETRIES, f"{connection.webhook_url}/status{RETRIES}"

    def mend() -> None:
        twilio.set_service(credentials, sid, url=url, status_callback=callback)

    compared = (
        ("webhook of incoming texts", found.url, url),
        ("method of the webhook", found.method, "POST"),
        ("status callback", found.status_callback, callback),
        ("whose webhook is used", "the number's" if found.defers_to_number else "the service's", "the service's"),
    )
    for what, has, should in compared:
        if has != should:
            yield Difference(connection, what, has, should, apply_fix(connection), mend, own)
