"""While the database is away a webhook goes to the disk, and from there into the database as if nothing had been."""

from __future__ import annotations

import json
import secrets
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography.fernet import Fernet
from sqlalchemy import text

from app import create_app
from app.models.messages import has_opted_out, record_opt_out
from app.services import intake, spool, spool_drain, verification
from tests.conftest import run_as_superuser
from tests.eventually import eventually
from tests.spooling import rows, status_update

CUSTOMER = "+4915112345678"


def files_of(platform) -> list[Path]:
    return [path for path in Path(platform.settings.spool_dir).iterdir() if path.is_file()]


def test_what_comes_while_the_database_is_away_is_answered_2xx_and_stored_once_in_order_when_it_is_back(
    met, platform, client, away
):
    before = datetime.now(UTC)
    with away():
        for status in ("queued", "ringing", "in-progress", "in-progress", "ended"):
            assert status_update(met.salon, client, "c1", status).status_code == 200
        assert met.dental.text(client, CUSTOMER, "Hello there, friends").status_code == 200
        after = datetime.now(UTC)
        assert platform.spool.contents().lines == 6
        time.sleep(0.05)
    done = spool_drain.drain(platform)
    assert (done.stored, done.duplicates, done.total) == (5, 1, 6)
    found = rows(platform, "event_key, received_at, status")
    assert [row[0].split(":")[2] for row in found if row[0].startswith("status-update")] == [
        "queued",
        "ringing",
        "in-progress",
        "ended",
    ]
    assert all(before <= row[1] <= after for row in found)
    assert {row[2] for row in found} == {"received"}
    assert platform.spool.folder.is_empty()


def test_nothing_that_was_said_can_be_read_on_the_disk(met, platform, client, away):
    with away():
        met.salon.text(client, CUSTOMER, "my secret wish")
    content = b"".join(path.read_bytes() for path in files_of(platform))
    for secret in (CUSTOMER, "secret wish", met.salon.twilio_token, met.salon.account_sid, str(met.salon.id)):
        assert secret.encode() not in content


def test_a_later_event_of_a_lane_in_the_spool_waits_behind_it_and_others_do_not(met, platform, client, away):
    with away():
        status_update(met.salon, client, "c1", "queued")
    assert status_update(met.salon, client, "c1", "ended").status_code == 200
    assert status_update(met.salon, client, "c2", "queued").status_code == 200
    assert len(rows(platform, "id")) == 1
    spool_drain.drain(platform)
    assert [row[0] for row in rows(platform, "event_key")] == [
        "status-update:c2:queued",
        "status-update:c1:queued",
        "status-update:c1:ended",
    ]
    status_update(met.salon, client, "c1", "ended", endedReason="late")
    assert len(rows(platform, "id")) == 4


def test_a_drain_that_dies_after_the_commit_repeats_nothing(met, platform, client, away, monkeypatch):
    with away():
        for number in range(5):
            status_update(met.salon, client, f"c{number}")

    def die(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(platform.spool.folder, "note_taken", die)
    with pytest.raises(KeyboardInterrupt):
        spool_drain.drain(platform)
    monkeypatch.undo()
    assert len(rows(platform, "id")) == 5
    assert spool_drain.drain(platform).duplicates == 5
    assert len(rows(platform, "id")) == 5
    with platform.database.transaction(system=True) as session:
        assert session.execute(text("SELECT sum(accepted) FROM ledger_entries")).scalar() == 5


def test_a_drain_that_was_stopped_and_comes_back_after_another_took_over_repeats_nothing_and_takes_nothing(
    met, platform, client, away, monkeypatch, another
):
    with away():
        for number in range(5):
            status_update(met.salon, client, f"c{number}")
    monkeypatch.setattr(spool_drain, "SILENT_SECONDS", 0.0)
    stopped, real = another(), intake.store_late

    def store_after_the_other(who, deliveries):
        monkeypatch.setattr(intake, "store_late", real)
        assert spool_drain.drain(platform).stored == 5
        with away():
            status_update(met.salon, client, "later")  # and life has gone on
        return real(who, deliveries)

    monkeypatch.setattr(intake, "store_late", store_after_the_other)
    done = spool_drain.drain(stopped)
    assert (done.stored, done.duplicates) == (0, 5)
    assert stopped.spool.contents().lines == 1, "what it had not read is there"
    assert spool_drain.drain(platform).stored == 1
    assert len(rows(platform, "id")) == 6


def test_a_process_that_knows_nobody_keeps_what_it_cannot_verify_and_verifies_it_later(
    people, platform, settings, away
):
    stranger = create_app(settings)
    client = stranger.test_client()
    with away():
        assert status_update(people.salon, client, "c1").status_code == 200
        forged = people.salon.vapi(client, {"type": "hang", "call": {"id": "c2"}}, secret="wrong")
        assert forged.status_code == 200
        unknown = client.post("/webhooks/vapi/nobody-has-this", json={"message": {"type": "hang"}})
        assert unknown.status_code == 200
        assert people.salon.text(client, CUSTOMER, "Hello there, friends").status_code == 200
    done = spool_drain.drain(platform)
    assert (done.stored, done.refused) == (2, 2)
    assert [row[0] for row in rows(platform, "type")] == ["status-update", "message.inbound"]
    stranger.extensions["platform"].close()


def test_a_signature_with_a_date_is_verified_as_of_the_moment_it_came(people, platform, settings, away, monkeypatch):
    stranger = create_app(settings)
    with away():
        people.salon.text(stranger.test_client(), CUSTOMER, "Hello there, friends")
    seen = []
    real = verification.receive
    monkeypatch.setattr(verification, "receive", lambda *args, now: seen.append(now) or real(*args, now=now))
    spool_drain.drain(platform)
    ((received_at,),) = rows(platform, "received_at")
    assert seen == [received_at]
    stranger.extensions["platform"].close()


def test_a_caller_whom_a_new_process_cannot_place_hears_a_sentence(people, settings, away):
    stranger = create_app(settings)
    client = stranger.test_client()
    with away():
        said = people.salon.tool(client, "check_availability", call_id="c1", start="2031-03-03")
        assert "take a message" in said
        answer = people.salon.vapi(client, {"type": "assistant-request", "call": {"id": "c2"}})
        assert answer.status_code == 200
        assert "try again" in answer.get_json()["error"]
    stranger.extensions["platform"].close()


def test_there_is_little_room_for_strangers_and_beyond_it_they_are_told_to_come_again(
    people, settings, away, monkeypatch
):
    monkeypatch.setattr(spool, "MOST_UNPROVEN", 5)
    stranger = create_app(settings)
    client = stranger.test_client()
    platform = stranger.extensions["platform"]
    with away():
        for _ in range(5):
            client.post(f"/webhooks/vapi/{secrets.token_hex(4)}", json={"message": {"type": "hang"}})
        refused = client.post("/webhooks/vapi/once-more", json={"message": {"type": "hang"}})
    assert refused.status_code == 503
    assert int(refused.headers["Retry-After"]) > 0
    assert platform.spool.contents().unproven == 5
    platform.close()


def test_a_spool_that_is_full_means_503_and_retry_after(people, settings, away):
    app = create_app(settings.model_copy(update={"spool_max_bytes": 500}))
    platform = app.extensions["platform"]
    platform.directory.warm()
    with away():
        codes = [status_update(people.salon, app.test_client(), f"c{n}").status_code for n in range(3)]
        refused = status_update(people.salon, app.test_client(), "c9")
    assert set(codes) <= {200, 503}
    assert refused.status_code == 503
    assert int(refused.headers["Retry-After"]) > 0
    platform.close()


def test_stop_takes_effect_when_it_is_read_back_and_undoes_nothing_said_since(met, platform, client, away):
    with away():
        met.salon.text(client, CUSTOMER, "STOP")
        met.dental.text(client, CUSTOMER, "START")
    with platform.database.transaction(met.dental.id) as session:
        record_opt_out(session, met.dental.id, CUSTOMER, source="twilio")  # later than that START
    spool_drain.drain(platform)
    with platform.database.transaction(met.salon.id) as session:
        assert has_opted_out(session, met.salon.id, CUSTOMER)
    with platform.database.transaction(met.dental.id) as session:
        assert has_opted_out(session, met.dental.id, CUSTOMER)


def test_a_line_whose_key_is_missing_is_set_aside_and_taken_when_the_key_is_back(met, platform, client, away, another):
    with away():
        status_update(met.salon, client, "c1")
    rotated = another(credentials_keys=[Fernet.generate_key().decode()])
    assert spool_drain.drain(rotated).aside == 1
    assert platform.spool.contents().aside == 1
    assert rows(platform, "id") == []
    assert spool_drain.drain(platform, with_aside=True).stored == 1
    assert platform.spool.contents().aside == 0


def test_what_was_malformed_is_kept_for_a_person_as_always(met, platform, client, away):
    with away():
        answer = met.salon.vapi(client, {"type": ""})
        assert answer.status_code == 400
    assert spool_drain.drain(platform).stored == 1
    assert rows(platform, "type, status") == [("malformed", "dead")]


def test_the_events_of_an_organization_that_is_gone_are_not_brought_back(met, platform, client, away, monkeypatch):
    with away():
        status_update(met.salon, client, "c1")
    platform.directory.forget()
    monkeypatch.setattr(platform.directory, "find_business", lambda _: None)
    assert spool_drain.drain(platform).refused == 1
    assert rows(platform, "id") == []


def test_a_database_that_hangs_costs_one_request_two_seconds_and_the_next_ones_nothing(met, platform, client, postgres):
    status_update(met.salon, client, "c0")
    postgres.freeze()
    try:
        began = time.monotonic()
        assert status_update(met.salon, client, "c1").status_code == 200
        assert time.monotonic() - began < 2.5
        began = time.monotonic()
        assert status_update(met.salon, client, "c2").status_code == 200
        assert time.monotonic() - began < 0.5
    finally:
        postgres.thaw()
    eventually(platform.database.answers, seconds=5)
    spool_drain.drain(platform)
    assert len(rows(platform, "id")) == 3


def test_a_read_only_database_is_as_good_as_none(met, platform, client, postgres, database_urls):
    run_as_superuser(postgres, f"ALTER DATABASE {database_urls.name} SET default_transaction_read_only = on")
    platform.database.dispose()
    assert status_update(met.salon, client, "c1").status_code == 200
    assert platform.spool.contents().lines == 1
    run_as_superuser(postgres, f"ALTER DATABASE {database_urls.name} RESET default_transaction_read_only")
    platform.database.dispose()
    assert spool_drain.drain(platform).stored == 1


def test_an_exhausted_pool_is_as_good_as_none(met, settings, people, away):
    app = create_app(settings.model_copy(update={"database_pool_size": 2}))
    platform = app.extensions["platform"]
    platform.directory.warm()
    with platform.database.engine.connect(), platform.database.engine.connect():
        began = time.monotonic()
        assert status_update(people.salon, app.test_client(), "c1").status_code == 200
        assert time.monotonic() - began < 3
    assert spool_drain.drain(platform).stored == 1
    platform.close()


def test_the_keeper_empties_it_as_soon_as_the_database_is_back(met, platform, client, away):
    with away():
        status_update(met.salon, client, "c1")
        platform.spool_keeper.start()
        time.sleep(0.1)
    eventually(platform.spool.folder.is_empty, seconds=5)
    assert len(rows(platform, "id")) == 1


def test_json_of_another_kind_than_expected_is_thanked_for_too(settings, away, people):
    stranger = create_app(settings)
    with away():
        answer = stranger.test_client().post(
            f"/webhooks/vapi/{people.salon.vapi_token}", data=json.dumps([1]), content_type="application/json"
        )
    assert answer.status_code == 200
    stranger.extensions["platform"].close()
