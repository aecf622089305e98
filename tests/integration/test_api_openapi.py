"""The API's description: valid, complete, and true of real answers."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any, get_args

import pytest
from jsonschema import Draft202012Validator, FormatChecker

from app.http.api import schemas
from app.http.api.operations import OPERATIONS, PUBLIC
from app.models.appointments import AppointmentStatus
from app.models.deliveries import DeliveryStatus
from app.models.messages import MessageStatus
from app.services.drain import Drain
from tests.integration.api import Program

PROBLEM = "application/problem+json"


@pytest.fixture
def document(client) -> dict[str, Any]:
    answer = client.get("/api/openapi.json")
    assert answer.status_code == 200
    described: dict[str, Any] = answer.get_json()
    return described


def references(part: Any) -> list[str]:
    if isinstance(part, dict):
        own = [part["$ref"]] if "$ref" in part else []
        return own + [found for value in part.values() for found in references(value)]
    return [found for value in part for found in references(value)] if isinstance(part, list) else []


def validator(document: dict[str, Any], schema: dict[str, Any]) -> Draft202012Validator:
    checker = FormatChecker()
    whole = {**schema, "components": document["components"]}
    return Draft202012Validator(whole, format_checker=checker)


def test_it_is_a_whole_openapi_3_1_document(document):
    assert document["openapi"].startswith("3.1.")
    assert {"title", "version"} <= set(document["info"])
    operations = [operation for path in document["paths"].values() for operation in path.values()]
    names = [operation["operationId"] for operation in operations]
    assert len(names) == len(set(names))
    for reference in references(document):
        assert reference.removeprefix("#/components/schemas/") in document["components"]["schemas"]
    for schema in document["components"]["schemas"].values():
        Draft202012Validator.check_schema(schema)
    for path, methods in document["paths"].items():
        for operation in methods.values():
            check_operation(path, operation)


def check_operation(path: str, operation: dict[str, Any]) -> None:
    parameters = operation["parameters"]
    in_path = {parameter["name"] for parameter in parameters if parameter["in"] == "path"}
    assert in_path == set(re.findall(r"{(\w+)}", path))
    assert all(parameter["required"] for parameter in parameters if parameter["in"] == "path")
    for parameter in parameters:
        assert parameter["in"] in ("path", "query", "header")
        Draft202012Validator.check_schema(parameter["schema"])
    assert operation["summary"]
    assert any(status.startswith("2") for status in operation["responses"])
    assert {"401", "403", "422", "429", "503"} <= set(operation["responses"])
    for response in operation["responses"].values():
        assert response["description"]
        assert set(response["content"]) <= {"application/json", PROBLEM}


def test_every_route_of_the_api_is_in_it(app, document):
    described = {(path, method.upper()) for path, methods in document["paths"].items() for method in methods}
    served = {
        (re.sub(r"<(?:\w+(?:\(.*?\))?:)?(\w+)>", r"{\1}", rule.rule), method)
        for rule in app.url_map.iter_rules()
        if rule.rule.startswith("/api/") and rule.endpoint not in PUBLIC
        for method in rule.methods - {"HEAD", "OPTIONS"}
    }
    assert described == served
    assert len(described) == len(OPERATIONS)


def answers(client, app, platform, people) -> list[tuple[str, str, Any]]:
    """Real ones of every operation, good and bad: operation, status, answer."""
    program = Program(app, people.salon.id)
    reader = Program(app, people.salon.id, scopes=("read",))
    people.salon.vapi(client, {"type": "status-update", "status": "ended", "call": {"id": "c1"}})
    people.salon.text(client, "+4915112345678", "hello")
    begins = (datetime.now(UTC) + timedelta(days=2)).replace(hour=10, minute=0, second=0, microsecond=0)
    people.salon.tool(
        client, "book_appointment", call_id="c1", start=begins.isoformat(), name="Ada", phone="+4915112345678"
    )
    Drain(platform, threads=1).run()
    sent = program.send("k", to="+4915112345678", body="x")
    found = [("send_message", sent), ("send_message", program.send("k", to="+4915112345678", body="x"))]
    for name in ("deliveries", "calls", "messages", "appointments"):
        listed = program.get(f"/{name}", limit=1)
        (row,) = listed.get_json()["data"]
        singular = {"deliveries": "delivery"}.get(name, name.removesuffix("s"))
        found += [(f"list_{name}", listed), (f"show_{singular}", program.get(f"/{name}/{row['id']}"))]
        found += [(f"list_{name}", program.get(f"/{name}", limit=0)), (f"list_{name}", client.get(f"/api/v1/{name}"))]
    done = program.get("/deliveries", status="processed", type="status-update").get_json()["data"][0]
    replay = f"/deliveries/{done['id']}/replay"
    found += [("replay_delivery", program.post(replay)), ("replay_delivery", program.post(replay))]
    found += [("replay_delivery", reader.post(replay)), ("replay_delivery", program.post("/deliveries/77/replay"))]
    found += [("show_availability", program.get("/availability", days=2))]
    found += [("show_usage", program.get("/usage"))]
    found += [("send_message", program.send("k", to="+4915112345678", body="y"))]
    return found


def test_real_answers_are_as_they_are_described(client, app, platform, people, document):
    by_name = {
        operation["operationId"]: operation for path in document["paths"].values() for operation in path.values()
    }
    seen = set()
    for name, answer in answers(client, app, platform, people):
        response = by_name[name]["responses"][str(answer.status_code)]
        content_type = answer.content_type
        schema = response["content"][content_type]["schema"]
        errors = sorted(validator(document, schema).iter_errors(answer.get_json()), key=str)
        assert errors == [], f"{name} {answer.status_code}: {errors[:1]}"
        seen.add((name, answer.status_code))
    assert {name for name, status in seen if status < 300} == set(by_name)
    assert {status for _, status in seen} >= {200, 202, 401, 403, 404, 409, 422}


def test_an_answer_that_is_not_as_described_would_be_noticed(document):
    page = validator(document, {"$ref": "#/components/schemas/CallPage"})
    assert list(page.iter_errors({"data": [{"id": 1}], "next_cursor": None}))
    problem = validator(document, {"$ref": "#/components/schemas/Problem"})
    assert list(problem.iter_errors({"title": "x"}))


def test_the_words_for_a_status_are_those_of_the_rows():
    assert set(get_args(schemas.DeliveryStatus)) == set(DeliveryStatus)
    assert set(get_args(schemas.MessageStatus)) == set(MessageStatus)
    assert set(get_args(schemas.AppointmentStatus)) == set(AppointmentStatus)
