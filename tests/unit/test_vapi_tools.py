"""The questions in a message, in every form Vapi has sent them."""

from __future__ import annotations

from typing import Any

import pytest

from app.integrations.vapi import ToolCall, tool_calls_of

SLOT = {"start": "2026-12-01T10:00:00+01:00"}
WANTED = ToolCall("call_a", "book_appointment", SLOT)
PLAIN = {"id": "call_a", "type": "function", "function": {"name": "book_appointment", "arguments": SLOT}}
AS_TEXT = {
    "id": "call_a",
    "function": {"name": "book_appointment", "arguments": '{"start":"2026-12-01T10:00:00+01:00"}'},
}


@pytest.mark.parametrize(
    "message",
    [
        {"toolCallList": [PLAIN]},
        {"toolCalls": [PLAIN]},
        {"toolCallList": [AS_TEXT]},
        {"toolWithToolCallList": [{"type": "function", "function": {"name": "book_appointment"}, "toolCall": PLAIN}]},
        {"toolWithToolCallList": [{"name": "book_appointment", "toolCall": {"id": "call_a", "parameters": SLOT}}]},
        {"toolCallList": [{"id": "call_a", "name": "book_appointment", "parameters": SLOT}]},
        {"toolCallList": [{"id": "call_a", "name": "book_appointment", "arguments": SLOT}]},
        {"functionCall": {"id": "call_a", "name": "book_appointment", "parameters": SLOT}},
        {"toolCallList": [PLAIN], "toolCalls": [PLAIN], "toolWithToolCallList": [{"toolCall": PLAIN}]},
    ],
)
def test_every_form_gives_the_same_call(message: dict[str, Any]) -> None:
    assert tool_calls_of(message) == [WANTED]


def test_several_calls_keep_their_order() -> None:
    calls = [{"id": name, "name": "send_text", "arguments": {}} for name in ("c", "a", "b")]
    assert [call.id for call in tool_calls_of({"toolCallList": calls, "toolCalls": calls[::-1]})] == ["c", "a", "b"]


@pytest.mark.parametrize("arguments", ["{not json", "[1]", "7", [1], 7, True, "[" * 100_000])
def test_arguments_that_cannot_be_read_still_get_an_answer(arguments: Any) -> None:
    [call] = tool_calls_of({"toolCallList": [{"id": "x", "name": "send_text", "arguments": arguments}]})
    assert call.id == "x"
    assert call.name == "send_text"
    assert call.error


@pytest.mark.parametrize("arguments", [None, "", {}, "{}", "null "])
def test_no_arguments_are_empty_arguments_or_an_error_but_never_lost(arguments: Any) -> None:
    [call] = tool_calls_of({"toolCallList": [{"id": "x", "name": "check_availability", "arguments": arguments}]})
    assert call.arguments == {}


def test_a_readable_form_of_the_same_call_is_preferred() -> None:
    broken = {"id": "call_a", "name": "book_appointment", "arguments": "{"}
    assert tool_calls_of({"toolCallList": [broken], "toolCalls": [PLAIN]}) == [WANTED]


def test_a_call_without_a_name_still_gets_an_answer() -> None:
    [call] = tool_calls_of({"toolCallList": [{"id": "x", "arguments": {}}]})
    assert (call.id, call.name) == ("x", "")
    assert call.error


def test_the_oldest_form_has_no_id_and_gets_one_that_is_stable_and_new_for_a_new_question() -> None:
    def ask(timestamp: int) -> str:
        function = {"name": "send_text", "parameters": {"body": "hi"}}
        return tool_calls_of({"functionCall": function, "timestamp": timestamp, "call": {"id": "c1"}})[0].id

    assert ask(1) == ask(1) != ask(2)


def test_nul_hidden_in_arguments_that_are_text_is_replaced() -> None:
    [call] = tool_calls_of({"toolCallList": [{"id": "x", "name": "send_text", "arguments": '{"body": "a\\u0000b"}'}]})
    assert call.arguments == {"body": "a\ufffdb"}


@pytest.mark.parametrize("message", [{}, {"toolCallList": None}, {"toolCallList": ["x", 1, None]}, {"functionCall": 3}])
def test_what_is_no_call_is_left_out(message: dict[str, Any]) -> None:
    assert tool_calls_of(message) == []
