"""Twilio's incoming phone numbers and Messaging Services: where texts that come in are posted.

Owns their resources (Twilio docs, "IncomingPhoneNumber resource", "Services resource"). Which numbers and
services an account has is said by ``twilio_account``; nothing is posted from here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

from flask import Blueprint, Response, jsonify, request

from sandbox.standins.state import State
from sandbox.standins.twilio_rules import TwilioRefusal

_NUMBER = {"sms_url": "", "sms_method": "POST", "sms_application_sid": "", "status_callback": ""}
_SERVICE = {
    "inbound_request_url": None,
    "inbound_method": "POST",
    "status_callback": None,
    "use_inbound_webhook_on_number": False,
}


class Senders:
    """Who texts go out from and come in to."""

    def __init__(self, state: State, authenticate: Callable[[dict[str, Any], str], dict[str, Any]]) -> None:
        self._state = state
        self._authenticate = authenticate

    def add_routes(self, blueprint: Blueprint, account: str) -> None:
        """The numbers are below the account, services on a host of their own (here beside it)."""
        numbers = f"{account}/IncomingPhoneNumbers"
        blueprint.add_url_rule(f"{numbers}.json", view_func=self.list_numbers)
        blueprint.add_url_rule(f"{numbers}/<sid>.json", view_func=self.update_number, methods=["POST"])
        blueprint.add_url_rule("/v1/Services/<sid>", view_func=self.fetch_service)
        blueprint.add_url_rule("/v1/Services/<sid>", view_func=self.update_service, methods=["POST"])

    def list_numbers(self, account_sid: str) -> Response:
        """GET the account's numbers, by PhoneNumber."""
        asked = request.args.get("PhoneNumber")
        with self._state.reading("twilio") as branch:
            account = self._authenticate(branch, account_sid)
            own = [number for number in account["numbers"] if number.startswith("+") and asked in (None, number)]
            shown = [self._number(branch, account_sid, number) for number in own]
        page = {"page": 0, "page_size": 50, "next_page_uri": None, "uri": request.path.removeprefix("/twilio")}
        return jsonify({"incoming_phone_numbers": shown, **page})

    def update_number(self, account_sid: str, sid: str) -> Response:
        """POST changes to a number."""
        with self._state.changing("twilio") as branch:
            account = self._authenticate(branch, account_sid)
            number = next((one for one in account["numbers"] if _sid("PN", account_sid, one) == sid), None)
            if number is None:
                raise TwilioRefusal(20404, "The requested resource was not found", 404)
            _change(branch.setdefault("senders", {}).setdefault(number, {}), _NUMBER)
            return jsonify(self._number(branch, account_sid, number))

    def fetch_service(self, sid: str) -> Response:
        """GET a Messaging Service."""
        with self._state.reading("twilio") as branch:
            return jsonify(self._service(branch, self._owner(branch, sid), sid))

    def update_service(self, sid: str) -> Response:
        """POST changes to a Messaging Service."""
        with self._state.changing("twilio") as branch:
            owner = self._owner(branch, sid)
            _change(branch.setdefault("senders", {}).setdefault(sid, {}), _SERVICE)
            return jsonify(self._service(branch, owner, sid))

    def listing(self) -> dict[str, dict[str, Any]]:
        """Everything that was set, by number or SID."""
        with self._state.reading("twilio") as branch:
            return {name: dict(fields) for name, fields in branch.get("senders", {}).items()}

    def _owner(self, branch: dict[str, Any], sid: str) -> str:
        """The account of the credentials, if the service is its own."""
        username = request.authorization.username if request.authorization else ""
        owner = next(
            (one for one, account in branch.get("accounts", {}).items() if username in (one, *account["api_keys"])), ""
        )
        account = self._authenticate(branch, owner)
        if sid not in account["messaging_services"]:
            raise TwilioRefusal(20404, "The requested resource was not found", 404)
        return owner

    @staticmethod
    def _number(branch: dict[str, Any], account_sid: str, number: str) -> dict[str, Any]:
        known = {**_NUMBER, **branch.get("senders", {}).get(number, {})}
        return {"sid": _sid("PN", account_sid, number), "account_sid": account_sid, "phone_number": number, **known}

    @staticmethod
    def _service(branch: dict[str, Any], account_sid: str, sid: str) -> dict[str, Any]:
        return {"sid": sid, "account_sid": account_sid, **_SERVICE, **branch.get("senders", {}).get(sid, {})}


def _change(known: dict[str, Any], fields: dict[str, Any]) -> None:
    for name, default in fields.items():
        given = request.form.get("".join(word.capitalize() for word in name.split("_")))
        if given is not None:
            known[name] = given.lower() == "true" if isinstance(default, bool) else given


def _sid(prefix: str, account_sid: str, name: str) -> str:
    return prefix + hashlib.md5(f"{account_sid}:{name}".encode(), usedforsecurity=False).hexdigest()
