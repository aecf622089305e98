"""What becomes of a message: its type, its identity, its lane; and what must never leave parse()."""

from __future__ import annotations

import copy
import json
from datetime import UTC, datetime
from typing import Any

import orjson
import pytest

from app.errors import MalformedEvent
from app.integrations.events import InboundEvent, WebhookRequest
from app.integrations.vapi import parse

CALL = {"id": "0199c0de-1111-4222-8333-944455566677", "type": "inboundPhoneCall", "status": "queued"}
MILLISECONDS = 1_763_976_600_123


def parsed(message: Any) -> InboundEvent:
    return parse_bytes(json.dumps({"message": message}).encode())


def parse_bytes(body: bytes) -> InboundEvent:
    return parse(WebhookRequest("POST", "https://desk.example/", {}, body))


def message(kind: str, **fields: Any) -> dict[str, Any]:
    return {"type": kind, "timestamp": MILLISECONDS, "call": dict(CALL), **fields}


def tool(call_id: str) -> dict[str, Any]:
    return {"id": call_id, "type": "function", "function": {"name": "check_availability", "arguments": {}}}


class TestTypes:
    @pytest.mark.parametrize("kind", ["tool-calls", "assistant-request", "transfer-destination-request"])
    def test_somebody_waits_for_three_types(self, kind: str) -> None:
        assert parsed(message(kind)).awaits_answer == kind

    @pytest.mark.parametrize("kind", ["status-update", "end-of-call-report", "hang", "something-of-next-year"])
    def test_all_others_are_taken_and_nobody_waits(self, kind: str) -> None:
        event = parsed(message(kind))
        assert (event.type, event.awaits_answer, event.provider) == (kind, None, "vapi")

    def test_the_old_function_call_is_a_tool_call(self) -> None:
        event = parsed(message("function-call", functionCall={"name": "book_appointment", "parameters": {}}))
        assert (event.type, event.awaits_answer) == ("tool-calls", "tool-calls")

    def test_a_final_transcript_is_a_transcript(self) -> None:
        assert parsed(message('transcript[transcriptType="final"]')).type == "transcript"

    @pytest.mark.parametrize(
        ("stamp", "moment"),
        [
            (MILLISECONDS, datetime(2025, 11, 24, 9, 30, 0, 123000, UTC)),
            ("2025-11-24T09:30:00.123Z", datetime(2025, 11, 24, 9, 30, 0, 123000, UTC)),
            ("yesterday", None),
            (1e300, None),
            (True, None),
            (None, None),
        ],
    )
    def test_both_forms_of_time_are_read_and_nonsense_is_no_time(self, stamp: Any, moment: datetime | None) -> None:
        assert parsed({**message("hang"), "timestamp": stamp}).occurred_at == moment


class TestIdentity:
    def test_the_call_is_the_lane(self) -> None:
        assert parsed(message("hang")).lane_key == f"call:{CALL['id']}"

    def test_a_report_is_one_per_call_however_its_links_differ(self) -> None:
        first = parsed(message("end-of-call-report", artifact={"recordingUrl": "https://r.example/a?sig=1"}))
        again = parsed({**message("end-of-call-report"), "timestamp": MILLISECONDS + 9000})
        assert first.event_key == again.event_key

    def test_statuses_differ_by_status_and_reason(self) -> None:
        keys = {
            parsed(message("status-update", status="in-progress")).event_key,
            parsed(message("status-update", status="ended", endedReason="customer-ended-call")).event_key,
            parsed(message("status-update", status="ended", endedReason="silence-timed-out")).event_key,
        }
        assert len(keys) == 3

    def test_tool_calls_are_known_by_their_ids_whatever_the_time(self) -> None:
        once = parsed(message("tool-calls", toolCallList=[tool("call_1")]))
        again = parsed({**message("tool-calls", toolCallList=[tool("call_1")]), "timestamp": MILLISECONDS + 1})
        other = parsed(message("tool-calls", toolCallList=[tool("call_1"), tool("call_2")]))
        assert once.event_key == again.event_key != other.event_key

    def test_two_speech_updates_of_one_moment_are_two(self) -> None:
        stopped = parsed(message("speech-update", status="stopped", role="user"))
        started = parsed(message("speech-update", status="started", role="assistant"))
        assert stopped.event_key != started.event_key

    def test_without_a_call_the_content_decides_and_presigned_links_do_not(self) -> None:
        base = {"type": "status-update", "status": "ended", "timestamp": MILLISECONDS}
        links = [
            {**base, "artifact": {"url": f"https://s.example/r.wav?X={n}", "presignedLogUrl": f"https://l/{n}"}}
            for n in (1, 2)
        ]
        assert parsed(links[0]).event_key == parsed(links[1]).event_key
        assert parsed(links[0]).event_key != parsed({**links[0], "status": "queued"}).event_key
        assert parsed(links[0]).lane_key == ""

    def test_without_a_time_the_content_decides_too(self) -> None:
        first, second = ({**message("hang", note=note), "timestamp": None} for note in ("a", "b"))
        assert parsed(first).event_key == parsed(first).event_key != parsed(second).event_key

    @pytest.mark.parametrize("call_id", ["x" * 5000, "+15005550001 & more", "\u0000", "ключ"])
    def test_strange_ids_make_short_plain_keys(self, call_id: str) -> None:
        event = parsed({**message("tool-calls", toolCallList=[tool("t" * 4000)]), "call": {"id": call_id}})
        assert len(event.event_key) <= 200
        assert len(event.lane_key) <= 200
        assert event.event_key.isascii()
        assert "+1500" not in event.event_key + event.lane_key

    def test_parsing_the_same_bytes_twice_gives_the_same_event(self) -> None:
        legacy = message("function-call", functionCall={"name": "send_text", "parameters": {"body": "hi"}})
        assert parsed(legacy) == parsed(copy.deepcopy(legacy))


class TestMalformed:
    @pytest.mark.parametrize(
        "body",
        [
            b"",
            b"null",
            b"[]",
            b'"text"',
            b"{",
            b"{}",
            b'{"message": null}',
            b'{"message": []}',
            b'{"message": {}}',
            b'{"message": {"type": 7}}',
            b'{"message": {"type": " "}}',
            b"\xff\xfe\x00",
            b"[" * 200_000,
            b'{"a":' * 100_000,
        ],
    )
    def test_what_cannot_be_understood_is_refused_as_such(self, body: bytes) -> None:
        with pytest.raises(MalformedEvent):
            parse_bytes(body)


class TestStorable:
    def test_nul_is_replaced_in_values_and_keys(self) -> None:
        event = parsed({**message("hang"), "a\u0000b": ["x\u0000y", {"z": "\u0000"}]})
        assert "\\u0000" not in orjson.dumps(event.payload).decode()
        assert event.payload["a\ufffdb"][0] == "x\ufffdy"

    def test_lone_surrogates_are_replaced_and_pairs_kept(self) -> None:
        event = parse_bytes(b'{"message": {"type": "hang", "a": "\\ud800", "b": "\\ud83d\\ude00"}}')
        assert (event.payload["a"], event.payload["b"]) == ("\ufffd", "\U0001f600")
        orjson.dumps(event.payload)

    def test_numbers_that_json_does_not_know_become_null(self) -> None:
        event = parse_bytes(b'{"message": {"type": "hang", "a": NaN, "b": -Infinity, "c": 1e999, "d": 1.5}}')
        assert [event.payload[name] for name in "abcd"] == [None, None, None, 1.5]

    def test_huge_integers_are_read_and_can_be_stored(self) -> None:
        event = parse_bytes(b'{"message": {"type": "hang", "n": NaN, "a": %s, "b": %s}}' % (b"9" * 40, b"9" * 6000))
        orjson.dumps(event.payload)
        assert event.payload["a"] == pytest.approx(1e40)

    def test_bottomless_nesting_is_cut_and_the_event_survives(self) -> None:
        event = parse_bytes(b'{"message": {"type": "hang", "deep": %s}}' % (b"[" * 500 + b"]" * 500))
        assert b"[too deep]" in orjson.dumps(event.payload)


class TestSecrets:
    def test_the_secrets_vapi_sends_do_not_leave(self) -> None:
        event = parsed(
            message(
                "assistant-request",
                phoneNumber={
                    "id": "p1",
                    "number": "+15005550006",
                    "twilioAccountSid": "AC1",
                    "twilioAuthToken": "LEAK",
                    "twilioApiKey": "LEAK",
                    "twilioApiSecret": "LEAK",
                    "serverUrlSecret": "LEAK",
                    "credentialId": "cred-1",
                },
                assistant={
                    "server": {"url": "https://u:LEAK@s.example/x", "secret": "LEAK", "headers": {"X-Any": "LEAK"}},
                    "model": {"headers": {"x-custom": "LEAK"}, "maxTokens": 250, "tokenizer": "cl100k"},
                    "credentials": [{"provider": "openai", "apiKey": "LEAK"}],
                    "tools": [{"server": {"credentialIds": ["cred-2"], "bearer_token": "LEAK", "password": 1234567}}],
                },
                Authorization="Bearer LEAK",
                private_key="LEAK",
            )
        )
        kept = orjson.dumps(event.payload).decode()
        assert "LEAK" not in kept
        assert "1234567" not in kept
        assert event.payload["phoneNumber"]["credentialId"] == "cred-1"
        assert event.payload["assistant"]["tools"][0]["server"]["credentialIds"] == ["cred-2"]

    def test_counters_and_people_are_no_secrets(self) -> None:
        harmless = {
            "maxTokens": 250,
            "usage": {"promptTokens": 12, "completion_tokens": 3.5, "tokens": {"prompt": 1, "cached": None}},
            "tokenizer": "cl100k",
            "secretary": "Ms Doe",
            "endedReason": "pipeline-error-token-limit",
            "isServerUrlSecretSet": True,
            "twilioAuthToken": None,
        }
        assert parsed(message("model-output", **harmless)).payload.items() >= harmless.items()

    def test_a_list_of_tokens_is_scrubbed_text_by_text(self) -> None:
        event = parsed(message("hang", tokens=["LEAK", {"value": "LEAK", "count": 3}]))
        assert event.payload["tokens"] == ["[scrubbed]", {"value": "[scrubbed]", "count": 3}]
