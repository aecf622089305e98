"""Twilio's Messages resource as the REST API of 2010-04-01 serves it: send, fetch, list, and the account.

Owns routes, authentication and pages. What Twilio refuses is in twilio_rules.py, what a message looks
like in twilio_messages.py, what happens to it afterwards in twilio_delivery.py.
"""

from __future__ import annotations

import hmac
from datetime import datetime, timedelta
from email.utils import format_datetime
from typing import Any
from urllib.parse import urlencode

from flask import Blueprint, Response, jsonify, request

from sandbox.standins.state import State, now
from sandbox.standins.twilio_delivery import DEFAULT_SETTINGS, Deliveries
from sandbox.standins.twilio_messages import API_VERSION, inbound_message, matches, new_message, resource
from sandbox.standins.twilio_numbers import Senders
from sandbox.standins.twilio_rules import Pace, TwilioRefusal, check_message

LARGEST_PAGE = 1000


class TwilioStandIn:
    """Twilio under the prefix ``/twilio``."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._deliveries = Deliveries(state)
        self._deliveries.resume()
        self._senders = Senders(state, self._authenticate)
        self._pace = Pace()

    def blueprint(self) -> Blueprint:
        """The routes; the names of their functions are the operations that faults can be set for."""
        blueprint = Blueprint("twilio", __name__, url_prefix="/twilio")
        account = f"/{API_VERSION}/Accounts/<account_sid>"
        blueprint.add_url_rule(f"{account}.json", view_func=self.fetch_account)
        blueprint.add_url_rule(f"{account}/Messages.json", view_func=self.create_message, methods=["POST"])
        blueprint.add_url_rule(f"{account}/Messages.json", view_func=self.list_messages)
        blueprint.add_url_rule(f"{account}/Messages/<sid>.json", view_func=self.fetch_message)
        self._senders.add_routes(blueprint, account)
        blueprint.register_error_handler(TwilioRefusal, self._refuse)
        return blueprint

    def close(self) -> None:
        """Send no more callbacks."""
        self._deliveries.close()

    def fault_response(self, status: int, retry_after: int | None) -> Response:
        """Twilio's own error body for 404, 405, 429 and 500."""
        refusal = {
            404: TwilioRefusal(20404, f"The requested resource {_resource_path()} was not found", 404),
            405: TwilioRefusal(20004, "Method not allowed", 405),
            429: TwilioRefusal(20429, "Too Many Requests", 429),
        }.get(status, TwilioRefusal(20500, "Internal Server Error", 500))
        response = self._refuse(refusal)
        if retry_after is not None:
            response.headers["Retry-After"] = str(retry_after)
        return response

    # --- operations --------------------------------------------------------------------------

    def fetch_account(self, account_sid: str) -> Response:
        """GET the account: a cheap way to see whether credentials hold."""
        with self._state.reading("twilio") as branch:
            account = self._authenticate(branch, account_sid)
            return jsonify(
                {
                    "sid": account_sid,
                    "friendly_name": account["friendly_name"],
                    "status": "active",
                    "type": "Trial" if account["trial"] else "Full",
                    "owner_account_sid": account_sid,
                    "date_created": account["created_at"],
                    "date_updated": account["created_at"],
                    "uri": f"/{API_VERSION}/Accounts/{account_sid}.json",
                }
            )

    def create_message(self, account_sid: str) -> tuple[Response, int]:
        """POST a message: 201 and ``queued`` (``accepted`` through a Messaging Service), the rest by callback."""
        with self._state.reading("twilio") as branch:
            account = self._authenticate(branch, account_sid)
            form = request.form.to_dict()
            body = check_message(form, account, branch)
        self._pace.admit(form, self._deliveries.settings(branch)["sender_rate"])
        with self._state.changing("twilio") as branch:
            message = new_message(account_sid, account, form, body)
            branch.setdefault("messages", {})[message["sid"]] = message
            answer = resource(message)
        self._deliveries.plan(message["sid"])
        return jsonify(answer), 201

    def fetch_message(self, account_sid: str, sid: str) -> Response:
        """GET one message; unlike the list it never lags."""
        with self._state.reading("twilio") as branch:
            self._authenticate(branch, account_sid)
            message = branch.get("messages", {}).get(sid)
            if message is None or message["account_sid"] != account_sid:
                raise TwilioRefusal(20404, f"The requested resource {_resource_path()} was not found", 404)
            return jsonify(resource(message))

    def list_messages(self, account_sid: str) -> Response:
        """GET a page of messages, the newest first, by To, From and DateSent; new ones may show up late."""
        size, page = _page_asked()
        with self._state.reading("twilio") as branch:
            self._authenticate(branch, account_sid)
            lag = timedelta(seconds=self._deliveries.settings(branch)["listing_delay"])
            found = [
                resource(message)
                for message in reversed(list(branch.get("messages", {}).values()))
                if message["account_sid"] == account_sid
                and datetime.fromisoformat(message["created_at"]) + lag <= now()
                and matches(message, request.args)
            ]
        start = page * size
        shown = found[start : start + size]
        more = start + size < len(found)
        return jsonify(
            {
                "messages": shown,
                "page": page,
                "page_size": size,
                "start": start,
                "end": start + max(len(shown) - 1, 0),
                "uri": _page_uri(page, size),
                "first_page_uri": _page_uri(0, size),
                "previous_page_uri": _page_uri(page - 1, size) if page else None,
                "next_page_uri": _page_uri(page + 1, size) if more else None,
            }
        )

    # --- controls ----------------------------------------------------------------------------

    def controls(self) -> dict[str, Any]:
        """What tests may set and see."""
        return {
            "twilio_account": self._put_account,
            "twilio_recipient": self._put_recipient,
            "twilio_settings": self._put_settings,
            "opt_out": self._opt_out,
            "opt_in": self._opt_in,
            "messages": self._messages,
            "inbound_message": self._put_inbound,
            "twilio_numbers": self._senders.listing,
            "callbacks": self._deliveries.listing,
        }

    def _put_account(
        self,
        sid: str,
        token: str,
        numbers: list[str],
        messaging_services: dict[str, list[str]] | None = None,
        contents: dict[str, str] | None = None,
        api_keys: dict[str, str] | None = None,
        trial: bool = False,
    ) -> None:
        with self._state.changing("twilio") as branch:
            branch.setdefault("accounts", {})[sid] = {
                "token": token,
                "friendly_name": "A small business",
                "created_at": format_datetime(now()),
                "numbers": numbers,
                "messaging_services": messaging_services or {},
                "contents": contents or {},
                "api_keys": api_keys or {},
                "trial": trial,
            }

    def _put_recipient(
        self, number: str, refuse: int | None = None, fail: int | None = None, window_open: bool | None = None
    ) -> None:
        with self._state.changing("twilio") as branch:
            recipient = {"refuse": refuse, "fail": fail, "window_open": window_open}
            branch.setdefault("recipients", {})[number] = recipient

    def _put_settings(self, **changes: Any) -> dict[str, Any]:
        unknown = set(changes) - set(DEFAULT_SETTINGS)
        if unknown:
            raise ValueError(f"unknown settings {sorted(unknown)}")
        with self._state.changing("twilio") as branch:
            branch.setdefault("settings", {}).update(changes)
            return self._deliveries.settings(branch)

    def _opt_out(self, recipient: str, sender: str | None = None) -> None:
        with self._state.changing("twilio") as branch:
            pairs = branch.setdefault("opt_outs", [])
            if [sender, recipient] not in pairs:
                pairs.append([sender, recipient])

    def _opt_in(self, recipient: str, sender: str | None = None) -> None:
        with self._state.changing("twilio") as branch:
            branch["opt_outs"] = [
                pair
                for pair in branch.get("opt_outs", [])
                if pair[1] != recipient or (sender is not None and pair[0] != sender)
            ]

    def _put_inbound(
        self, account: str, sender: str, recipient: str, body: str, sid: str | None = None, sent_at: str | None = None
    ) -> str:
        with self._state.changing("twilio") as branch:
            message = inbound_message(account, sender, recipient, body, sid=sid, sent_at=sent_at)
            branch.setdefault("messages", {})[message["sid"]] = message
            return str(message["sid"])

    def _messages(self) -> list[dict[str, Any]]:
        with self._state.reading("twilio") as branch:
            return [dict(message) for message in branch.get("messages", {}).values()]

    # --- helpers -----------------------------------------------------------------------------

    def _authenticate(self, branch: dict[str, Any], account_sid: str) -> dict[str, Any]:
        """The account, after HTTP basic authentication by its token or one of its API keys."""
        account: dict[str, Any] | None = branch.get("accounts", {}).get(account_sid)
        given = request.authorization
        if account is None or given is None or given.type != "basic":
            raise TwilioRefusal(20003, "Authenticate", 401)
        secret = account["token"] if given.username == account_sid else account["api_keys"].get(given.username)
        if secret is None or not hmac.compare_digest(secret.encode(), (given.password or "").encode()):
            raise TwilioRefusal(20003, "Authenticate", 401)
        return account

    @staticmethod
    def _refuse(refusal: TwilioRefusal) -> Response:
        response = jsonify(
            {
                "code": refusal.code,
                "message": refusal.message,
                "more_info": f"https://www.twilio.com/docs/errors/{refusal.code}",
                "status": refusal.status,
            }
        )
        response.status_code = refusal.status
        return response


def _page_asked() -> tuple[int, int]:
    try:
        size, page = int(request.args.get("PageSize", 50)), int(request.args.get("Page", 0))
    except ValueError:
        raise TwilioRefusal(20001, "Invalid PageSize or Page", 400) from None
    return max(1, min(size, LARGEST_PAGE)), max(0, page)


def _page_uri(page: int, size: int) -> str:
    kept = {name: value for name, value in request.args.items() if name not in ("Page", "PageSize")}
    return f"{_resource_path()}?{urlencode(kept | {'PageSize': size, 'Page': page})}"


def _resource_path() -> str:
    return request.path.removeprefix("/twilio")
