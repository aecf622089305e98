"""What Vapi knows of us, against what it should: the credential, the tools, the assistant's and the number's server,
and who takes the number's calls.

Owns what is expected. A credential's secret cannot be read back, so its name carries a fingerprint of it: another
secret is another name, and is told as a difference. Whatever else somebody set at Vapi stays as it is.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

from app.integrations.vapi import VapiCredentials, VapiSettings, authentication_plan
from app.services.connecting import vapi_consent
from app.services.connecting.differences import Connection, Difference, apply_fix
from app.services.directory import Business
from app.services.tools import TOOLS

if TYPE_CHECKING:
    from app.services.platform import Platform

TIMEOUT_SECONDS = 20
# By itself Vapi repeats nothing. What was refused is refused again.
RETRIES = {
    "type": "exponential",
    "maxRetries": 5,
    "baseDelaySeconds": 1,
    "excludedStatusCodes": [400, 401, 403, 404, 413],
}
NEEDED_MESSAGES = ("end-of-call-report", "status-update", "tool-calls", "transfer-destination-request")
Thing = dict[str, Any]


def compare(platform: Platform, connection: Connection) -> Iterable[Difference]:
    """Differences of the credential, the tools, and each organization's assistant and number."""
    credentials = connection.credentials
    assert isinstance(credentials, VapiCredentials)
    key = credentials.private_key or platform.settings.vapi_private_key
    if key is None:
        fix = f"integration set {connection.integration_id} --set private_key=@file, or VAPI_PRIVATE_KEY"
        yield Difference(connection, "Vapi's private key", "", "a private key", fix)
        return
    desk = _Desk(VapiSettings(platform.settings.vapi_api_base_url, key), connection, credentials)
    yield from desk.differences()


@dataclass
class _Desk:
    """One comparison: what Vapi has is read once, what is made on the way is used by what follows."""

    vapi: VapiSettings
    connection: Connection
    credentials: VapiCredentials

    def differences(self) -> Iterable[Difference]:
        """All of them, in the order in which they must be mended."""
        if not self._credentials or self._credentials[0].get("name") != self.name:
            yield self._differs("credential", self._stale_name(), self.name, self.make_credential)
        for name in TOOLS:
            known = self.tools.get(name)
            wanted = self.tool(name)
            if known is None:
                yield self._differs(f"tool {name}", "", "this tool", partial(self.make_tool, name))
            elif not _covers(known, wanted):
                has = _brief(known, wanted)
                yield self._differs(f"tool {name}", has, _brief(wanted, wanted), partial(self.make_tool, name))
        for business in self.connection.businesses:
            yield from self._assistant(business)
            yield from self._number(business)

    def _assistant(self, business: Business) -> Iterable[Difference]:
        if not business.assistant_id:
            yield self._differs(
                "the assistant", "", "an assistant", None, business, f"org set {business.id} --assistant ID"
            )
            return
        found = self.vapi.find_assistant(business.assistant_id)
        if found is None:
            fix = f"org set {business.id} --assistant ID, with one that this private key can see"
            yield self._differs("the assistant", "unknown to Vapi", "an assistant", None, business, fix)
            return
        assistant_id = str(found.get("id"))
        if not _covers(found.get("server") or {}, self.server):
            has = _brief(found.get("server") or {}, self.server)
            mend = self._mend_server("assistant", assistant_id)
            yield self._differs("the assistant's server", has, _brief(self.server, self.server), mend, business)
        model = found.get("model") or {}
        missing = [name for name in TOOLS if self.tool_id(name) not in (model.get("toolIds") or [])]
        if missing:

            def hand_over() -> None:
                ids = [self.tool_id(name) for name in TOOLS]
                kept = [one for one in model.get("toolIds") or [] if one not in ids]
                self.vapi.change("assistant", assistant_id, {"model": {**model, "toolIds": [*kept, *ids]}})

            should = "all of " + ", ".join(TOOLS)
            yield self._differs("the assistant's tools", f"without {', '.join(missing)}", should, hand_over, business)
        said = found.get("serverMessages")
        if said is not None and not set(NEEDED_MESSAGES) <= set(said):
            wanted = [*said, *(one for one in NEEDED_MESSAGES if one not in said)]

            def listen() -> None:
                self.vapi.change("assistant", assistant_id, {"serverMessages": wanted})

            yield self._differs("what the assistant tells", ", ".join(said), ", ".join(wanted), listen, business)
        yield from self._opening(business, found)

    def _opening(self, business: Business, assistant: Thing) -> Iterable[Difference]:
        """The sentence of consent, where Vapi does not ask and so cannot be told with each call."""
        is_fixed = (self._number_of(business) or {}).get("assistantId") == assistant.get("id")
        opening = vapi_consent.compare(assistant, business.consent_sentence, is_fixed=is_fixed)
        if opening is None:
            return
        if opening.fields is None:
            fix = "Give the assistant a first message in words, or take it off the number, so that Vapi asks here"
            yield self._differs("the first message", opening.has, opening.should, None, business, fix)
            return
        mend = partial(self.vapi.change, "assistant", str(assistant["id"]), opening.fields)
        yield self._differs("the first message", opening.has, opening.should, mend, business)

    def _number(self, business: Business) -> Iterable[Difference]:
        """Only of a number that Vapi knows: another is answered by Twilio, or nobody."""
        found = self._number_of(business)
        if found is None:
            return
        if not _covers(found.get("server") or {}, self.server):
            has = _brief(found.get("server") or {}, self.server)
            mend = self._mend_server("phone-number", str(found.get("id")))
            yield self._differs("the number's server", has, _brief(self.server, self.server), mend, business)
        fixed = found.get("assistantId")
        if fixed and business.assistant_id and fixed != business.assistant_id:
            fix = f"org set {business.id} --assistant {fixed}; or change it, or take it off the number, at Vapi"
            yield self._differs("the number's assistant", str(fixed), business.assistant_id, None, business, fix)

    def _number_of(self, business: Business) -> Thing | None:
        return self._numbers.get(business.phone_number) if business.phone_number else None

    def _mend_server(self, kind: str, thing_id: str) -> Callable[[], None]:
        return lambda: self.vapi.change(kind, thing_id, {"server": self.server})

    def _differs(
        self,
        what: str,
        has: str,
        should: str,
        mend: Callable[[], None] | None,
        business: Business | None = None,
        fix: str | None = None,
    ) -> Difference:
        if business is None and self.connection.org_id and self.connection.businesses:
            business = self.connection.businesses[0]
        return Difference(self.connection, what, has, should, fix or apply_fix(self.connection), mend, business)

    # --- what should be ------------------------------------------------------------------------

    @property
    def server(self) -> Thing:
        """Where Vapi is to post, how it proves itself, and how often it tries."""
        return {
            "url": self.connection.webhook_url,
            "timeoutSeconds": TIMEOUT_SECONDS,
            "backoffPlan": RETRIES,
            "credentialId": str(self._credentials[0]["id"]) if self._credentials else "",  # it is made first
        }

    def tool(self, name: str) -> Thing:
        """The tool as it should be."""
        return {**TOOLS[name].definition(), "server": self.server}

    @cached_property
    def name(self) -> str:
        """The credential's name: whose it is, and a fingerprint of how it proves."""
        plan = json.dumps([str(self.connection.integration_id), authentication_plan(self.credentials)], sort_keys=True)
        return f"{self._ours}{hashlib.sha256(plan.encode()).hexdigest()[:8]}"

    @property
    def _ours(self) -> str:
        return f"Voicedesk {str(self.connection.integration_id)[:8]} "

    # --- what is -------------------------------------------------------------------------------

    @cached_property
    def _credentials(self) -> list[Thing]:
        return [one for one in self.vapi.list_credentials() if str(one.get("name", "")).startswith(self._ours)]

    @cached_property
    def _numbers(self) -> dict[str, Thing]:
        """Vapi's phone numbers by their number; of two that are the same the newest."""
        return {str(one.get("number")): one for one in reversed(self.vapi.list_phone_numbers())}

    @cached_property
    def tools(self) -> dict[str, Thing]:
        """Our tools as Vapi has them, by name: those that are sent to this integration, wherever it was."""
        end = self.connection.webhook_url.rpartition("/webhooks/")[2]
        ours = [one for one in self.vapi.list_tools() if str((one.get("server") or {}).get("url", "")).endswith(end)]
        return {str((one.get("function") or {}).get("name")): one for one in ours}

    def tool_id(self, name: str) -> str | None:
        """Vapi's id of a tool of ours, when it is there."""
        return str(self.tools[name]["id"]) if name in self.tools else None

    def _stale_name(self) -> str:
        return str(self._credentials[0].get("name")) if self._credentials else ""

    # --- making it so --------------------------------------------------------------------------

    def make_credential(self) -> None:
        """Make it, or give the one that is there the secret of now."""
        fields = {"name": self.name, "authenticationPlan": authentication_plan(self.credentials)}
        if self._credentials:
            self.vapi.change("credential", str(self._credentials[0]["id"]), fields)
            self._credentials[0] = {**self._credentials[0], "name": self.name}
        else:
            made = self.vapi.create("credential", {"provider": "custom-credential", **fields})
            self._credentials.append({"id": made, "name": self.name})

    def make_tool(self, name: str) -> None:
        """Make it, or mend the one that is there."""
        wanted, known = self.tool(name), self.tools.get(name)
        if known is None:
            self.tools[name] = {**wanted, "id": self.vapi.create("tool", wanted)}
        else:
            self.vapi.change("tool", str(known["id"]), {key: wanted[key] for key in wanted if key != "type"})


def _covers(has: Any, should: Any) -> bool:
    """Whether everything that should be is there; what else somebody set is theirs."""
    if isinstance(should, dict):
        return isinstance(has, dict) and all(_covers(has.get(key), value) for key, value in should.items())
    return bool(has == should)


def _brief(has: Thing, should: Thing) -> str:
    """Where they post to; or, where that is the same, what else is not as it should be."""
    there = has.get("server") or has
    wanted = should.get("server") or should
    if there.get("url") != wanted.get("url"):
        return str(there.get("url") or "")
    unlike = sorted(key for key in wanted if not _covers(there.get(key), wanted[key]))
    unlike += sorted(
        key for key in should if key != "server" and "server" in should and not _covers(has.get(key), should[key])
    )
    return f"{there.get('url')} with other {', '.join(unlike)}" if unlike else f"{there.get('url')} with ours"
