"""Slack's Web API as far as alerts need it: chat.postMessage and auth.test.

Owns Slack's way of refusing: HTTP 200 with ``ok: false`` and a word, 429 alone being a status
(docs.slack.dev, Web API), and its scopes, which every answer to a known token names in a header. Has
no notion of what an alert is.
"""

from __future__ import annotations

import secrets
import time
from typing import Any

from flask import Blueprint, Response, jsonify, request

from sandbox.standins.state import State

LONGEST_TEXT = 40_000
USUAL_SCOPES = ("chat:write", "chat:write.public")


class SlackRefusal(Exception):
    """Slack answers 200 with this error."""


class SlackStandIn:
    """Slack under the prefix ``/slack/api``."""

    def __init__(self, state: State) -> None:
        self._state = state

    def blueprint(self) -> Blueprint:
        """The routes; the names of their functions are the operations that faults can be set for."""
        blueprint = Blueprint("slack", __name__, url_prefix="/slack/api")
        blueprint.add_url_rule("/auth.test", view_func=self.auth_test, methods=["GET", "POST"])
        blueprint.add_url_rule("/chat.postMessage", view_func=self.post_message, methods=["POST"])
        blueprint.register_error_handler(SlackRefusal, lambda refusal: jsonify({"ok": False, "error": str(refusal)}))
        return blueprint

    def close(self) -> None:
        """Nothing runs in the background."""

    def fault_response(self, status: int, retry_after: int | None) -> Response:
        """Slack's own answers: an unknown method is a 200, too many requests a 429, trouble a 500."""
        words = {404: "unknown_method", 405: "unknown_method", 429: "ratelimited"}
        response = jsonify({"ok": False, "error": words.get(status, "internal_error")})
        response.status_code = 200 if status in (404, 405) else status
        if retry_after is not None:
            response.headers["Retry-After"] = str(retry_after)
        return response

    def auth_test(self) -> Response:
        """Say who the token is."""
        with self._state.reading("slack") as branch:
            bot = _authenticate(branch, _arguments())
            return _answer(
                bot,
                {
                    "ok": True,
                    "url": "https://a-small-team.slack.com/",
                    "team": "A small team",
                    "user": "voicedesk",
                    "team_id": bot["team_id"],
                    "user_id": bot["user_id"],
                    "bot_id": bot["bot_id"],
                    "is_enterprise_install": False,
                },
            )

    def post_message(self) -> Response:
        """Post to a channel the bot is in, or to any public one with ``chat:write.public``; twice is twice."""
        arguments = _arguments()
        with self._state.changing("slack") as branch:
            bot = _authenticate(branch, arguments)
            if "chat:write" not in bot["scopes"]:
                raise SlackRefusal("missing_scope")
            channel = _channel(branch, str(arguments.get("channel") or ""), bot["scopes"])
            text = str(arguments.get("text") or "")
            if not text and not arguments.get("blocks") and not arguments.get("attachments"):
                raise SlackRefusal("no_text")
            if len(text) > LONGEST_TEXT:
                raise SlackRefusal("msg_too_long")
            stamp = f"{time.time():.6f}"
            message = {
                "type": "message",
                "subtype": "bot_message",
                "text": text,
                "ts": stamp,
                "bot_id": bot["bot_id"],
                "username": "voicedesk",
            }
            if arguments.get("blocks"):
                message["blocks"] = arguments["blocks"]
            branch.setdefault("posts", []).append({"channel": channel, **message})
            return _answer(bot, {"ok": True, "channel": channel, "ts": stamp, "message": message})

    def controls(self) -> dict[str, Any]:
        """What tests may set and see."""
        return {"slack_token": self._put_token, "slack_channel": self._put_channel, "slack_posts": self._posts}

    def _put_token(self, token: str, scopes: list[str] | None = None) -> None:
        with self._state.changing("slack") as branch:
            ids = {name: prefix + secrets.token_hex(5).upper() for name, prefix in _ID_PREFIXES.items()}
            granted = list(USUAL_SCOPES) if scopes is None else scopes
            branch.setdefault("tokens", {})[token] = {**ids, "scopes": granted}

    def _put_channel(self, channel_id: str, name: str, member: bool = True, archived: bool = False) -> None:
        with self._state.changing("slack") as branch:
            channel = {"name": name.lstrip("#"), "member": member, "archived": archived}
            branch.setdefault("channels", {})[channel_id] = channel

    def _posts(self) -> list[dict[str, Any]]:
        with self._state.reading("slack") as branch:
            return list(branch.get("posts", []))


_ID_PREFIXES = {"team_id": "T", "user_id": "U", "bot_id": "B"}


def _answer(bot: dict[str, Any], body: dict[str, Any]) -> Response:
    """A good answer; its header says what the token may do."""
    response = jsonify(body)
    response.headers["X-OAuth-Scopes"] = ",".join(bot["scopes"])
    return response


def _arguments() -> dict[str, Any]:
    """JSON or form, as Slack takes both."""
    body = request.get_json(silent=True) if request.is_json else None
    return body if isinstance(body, dict) else request.form.to_dict()


def _authenticate(branch: dict[str, Any], arguments: dict[str, Any]) -> dict[str, Any]:
    given = request.authorization
    token = given.token if given and given.type == "bearer" else arguments.get("token")
    if not token:
        raise SlackRefusal("not_authed")
    bot: dict[str, Any] | None = branch.get("tokens", {}).get(token)
    if bot is None:
        raise SlackRefusal("invalid_auth")
    return bot


def _channel(branch: dict[str, Any], wanted: str, scopes: list[str]) -> str:
    """The channel's id, found by id or by name."""
    for channel_id, channel in branch.get("channels", {}).items():
        if wanted in (channel_id, channel["name"], "#" + channel["name"]):
            if channel["archived"]:
                raise SlackRefusal("is_archived")
            if not channel["member"] and "chat:write.public" not in scopes:
                raise SlackRefusal("not_in_channel")
            return str(channel_id)
    raise SlackRefusal("channel_not_found")
