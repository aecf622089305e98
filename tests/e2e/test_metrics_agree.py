"""After a run in which much goes wrong, /metrics of all processes together says what the database says."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from uuid import uuid4

import pytest
import requests

from app.services.messages import plan_text
from tests.e2e.house import House
from tests.eventually import eventually
from tests.people import Business, open_business
from tests.prometheus import Series, parse, total

TOKEN = "prometheus-may-read"
CANNOT_BE_REACHED = "+4915100000404"
WEBHOOK = "/webhooks/vapi/<token>"


@pytest.fixture
def house(tmp_path, world) -> Iterator[House]:
    house = House(tmp_path, world, metrics_dir=str(tmp_path / "metrics"), metrics_token=TOKEN, canary_seconds=2)
    yield house
    house.close()


@pytest.fixture
def salon(house, world) -> Business:
    return open_business(house.platform, world, "Salon", "+4930111110001")


def scrape(house: House) -> Series:
    answer = requests.get(
        house.base_url + "/metrics",
        headers={"Authorization": f"Bearer {TOKEN}", "Connection": "close"},  # any of the processes may answer
        timeout=10,
    )
    assert answer.status_code == 200
    return parse(answer.text)


def update(call_id: str) -> dict:
    return {"type": "status-update", "status": "in-progress", "call": {"id": call_id}}


def post_all(house: House, salon: Business, messages: list[dict], **options) -> list[int]:
    with ThreadPoolExecutor(8) as pool:
        return list(pool.map(lambda message: salon.vapi(house.client, message, **options).status_code, messages))


def text_to(house: House, salon: Business, numbers: list[str]) -> None:
    with house.platform.database.transaction(salon.id) as session:
        for to in numbers:
            key = str(uuid4())
            plan_text(session, salon.id, to=to, body="see you", channel="sms", idempotency_key=key, purpose="test")


def labelled(series: Series, name: str, *labels: str) -> Counter:
    """The values of a metric by these labels, without the zeros."""
    found: Counter = Counter()
    for (one, has), value in series.items():
        if one == name and value:
            found[tuple(dict(has)[label] for label in labels)] += int(value)
    return found


def rows(house: House, statement: str) -> Counter:
    return Counter({tuple(row[:-1]): row[-1] for row in house.query(statement)})


def agrees(house: House) -> None:
    """Every counter against the rows that it should have counted, as soon as nothing moves between the two looks."""
    by_type = ("provider", "type")
    series = scrape(house)
    log = "FROM webhook_delivery_log WHERE"
    assert labelled(series, "voicedesk_webhooks_accepted_total", *by_type) == rows(
        house, f"SELECT provider, type, count(*) {log} integration_id IS NOT NULL GROUP BY 1, 2"
    )
    assert labelled(series, "voicedesk_deliveries_ended_total", *by_type, "outcome") == rows(
        house, f"SELECT provider, type, status, count(*) {log} finished_at IS NOT NULL GROUP BY 1, 2, 3"
    )
    assert labelled(series, "voicedesk_delivery_attempts_total", "outcome") == rows(
        house, "SELECT outcome, count(*) FROM delivery_attempts WHERE ended_at IS NOT NULL GROUP BY 1"
    )
    assert labelled(series, "voicedesk_handler_seconds_count", *by_type) == rows(
        house,
        "SELECT provider, type, count(*) FROM delivery_attempts a JOIN webhook_delivery_log d ON d.id = a.delivery_id"
        " WHERE a.ended_at IS NOT NULL GROUP BY 1, 2",
    )
    assert labelled(series, "voicedesk_delivery_seconds_count", "provider") == rows(
        house,
        f"SELECT provider, count(*) {log} status IN ('processed', 'skipped')"
        " AND EXISTS (SELECT FROM delivery_attempts a WHERE a.delivery_id = webhook_delivery_log.id) GROUP BY 1",
    )


def eventually_agrees(house: House) -> None:
    """Canaries go on meanwhile: a look between two of them is what is wanted."""
    told: list[AssertionError] = []

    def holds() -> bool:
        try:
            agrees(house)
        except AssertionError as error:
            told[:] = [error]
            return False
        return True

    try:
        eventually(holds, seconds=20, every=0.3)
    except AssertionError:
        # Once a canary was counted and its row not found: whoever sees it again needs what the processes said.
        lines = [line for line in house.log("web").splitlines() if '"canary"' in line]
        rows_now = house.query(
            "SELECT id, event_key, status, received_at FROM webhook_delivery_log WHERE type = 'canary'"
        )
        raise AssertionError("\n".join([str(told[0]), *lines, *map(str, rows_now)])) from None


@pytest.mark.timeout(180)
def test_two_web_processes_and_a_worker_that_is_killed_count_exactly_what_they_did(house, salon):
    house.start_web()
    house.start_worker()
    house.await_worker()
    assert set(post_all(house, salon, [update(f"a{number}") for number in range(60)])) == {200}
    eventually(lambda: total(scrape(house), "voicedesk_deliveries_waiting") == 0, seconds=40)
    eventually_agrees(house)
    assert house.query("SELECT count(DISTINCT process) FROM delivery_attempts WHERE process LIKE 'worker:%'") == [(1,)]
    before = total(scrape(house), "voicedesk_deliveries_ended_total", type="status-update")
    house.kill("worker")
    assert total(scrape(house), "voicedesk_deliveries_ended_total", type="status-update") == before == 60
    assert set(post_all(house, salon, [update(f"b{number}") for number in range(20)])) == {200}
    eventually(lambda: total(scrape(house), "voicedesk_deliveries_ended_total", type="status-update") == 80, seconds=40)
    eventually_agrees(house)
    house.kill("web")  # the supervisor starts it anew, as systemd would
    house.await_web()
    assert set(post_all(house, salon, [update("c")])) == {200}
    eventually(lambda: total(scrape(house), "voicedesk_deliveries_ended_total", type="status-update") == 81, seconds=40)
    eventually_agrees(house)


@pytest.mark.timeout(240)
def test_after_a_run_with_failures_every_counter_agrees_with_the_database_and_with_what_was_sent(house, salon, world):
    house.start_web()
    house.start_worker()
    world.twilio_recipient(CANNOT_BE_REACHED, refuse=21614)
    fine = [update(f"a{number}") for number in range(40)]
    assert set(post_all(house, salon, fine)) == {200}
    assert set(post_all(house, salon, fine[:15])) == {200}
    assert set(post_all(house, salon, [update(f"x{number}") for number in range(7)], secret="wrong")) == {403}
    assert set(post_all(house, salon, [{"type": "hang", "call": {"id": f"h{number}"}} for number in range(5)])) == {200}
    assert set(post_all(house, salon, [{"call": {"id": f"m{number}"}} for number in range(3)])) == {400}
    question = {"id": "t1", "type": "function", "function": {"name": "check_availability", "arguments": {}}}
    asked = [{"type": "tool-calls", "toolCallList": [question], "call": {"id": f"q{number}"}} for number in range(4)]
    assert set(post_all(house, salon, asked)) == {200}

    world.fault("twilio", "error_500", operation="create_message")
    text_to(house, salon, [f"+49151{number:08d}" for number in range(12)] + [CANNOT_BE_REACHED] * 3)
    house.platform.bell.ring()
    opened = {"circuit": "twilio_sms"}
    eventually(lambda: total(scrape(house), "voicedesk_circuit_state", **opened) > 0, seconds=30)
    eventually(lambda: total(scrape(house), "voicedesk_delivery_attempts_total", outcome="waiting") > 0, seconds=30)
    world.clear_faults()
    eventually(
        lambda: (
            house.query("SELECT count(*) FROM webhook_delivery_log WHERE finished_at IS NULL AND type <> 'canary'")
            == [(0,)]
        ),
        seconds=90,
        every=0.3,
    )
    eventually_agrees(house)

    series = scrape(house)
    assert total(series, "voicedesk_webhooks_duplicate_total", provider="vapi") == 15
    refused = labelled(series, "voicedesk_webhooks_refused_total", "provider", "code")
    assert refused == {("vapi", "signature_invalid"): 7, ("vapi", "malformed_event"): 3}
    assert total(series, "voicedesk_request_seconds_count", route=WEBHOOK) == 40 + 15 + 7 + 5 + 3 + 4
    assert total(series, "voicedesk_answer_seconds_count", type="tool-calls") == 4
    assert total(series, "voicedesk_deliveries_ended_total", type="message.send", outcome="dead") == 3
    assert total(series, "voicedesk_deliveries_ended_total", type="malformed", outcome="dead") == 3
    assert total(series, "voicedesk_ledger_difference") == 0

    called = labelled(series, "voicedesk_outbound_seconds_count", "circuit", "outcome")
    reached = sum(count for (circuit, outcome), count in called.items() if circuit == "twilio_sms")
    reached -= called["twilio_sms", "circuit_open"]
    assert reached == len(world.requests("twilio"))  # also the look-ups of texts whose fate a 500 leaves open
    assert called["twilio_sms", "provider_unavailable"] >= 3
    assert called["twilio_sms", "provider_refused"] == 3
    assert len(world.messages()) == 12
    assert total(series, "voicedesk_errors_total", where="delivery") == total(
        series, "voicedesk_delivery_attempts_total", outcome="retry"
    ) + total(series, "voicedesk_delivery_attempts_total", outcome="dead")


@pytest.mark.timeout(120)
def test_without_a_folder_the_processes_of_one_gunicorn_count_in_one_of_its_own_which_goes_with_it(tmp_path, world):
    house = House(tmp_path, world, redis=False, metrics_token=TOKEN)
    (tmp_path / "tmp").mkdir()
    house.environment["TMPDIR"] = str(tmp_path / "tmp")
    try:
        salon = open_business(house.platform, world, "Salon", "+4930111110001")
        house.start_web()
        assert set(post_all(house, salon, [update(f"a{number}") for number in range(40)])) == {200}
        told = {total(scrape(house), "voicedesk_webhooks_accepted_total", provider="vapi") for _ in range(12)}
        assert told == {40}
        eventually_agrees(house)
        assert len(list((tmp_path / "tmp").glob("voicedesk-metrics-*/*.member"))) == 3  # the master is one
    finally:
        house.close()
    assert list((tmp_path / "tmp").glob("voicedesk-metrics-*")) == []
