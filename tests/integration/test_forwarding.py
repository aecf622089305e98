"""Events sent on to the organization's own URL: signed, in order, until they arrive, and at nobody else's cost."""

from __future__ import annotations

import pytest
from cryptography.fernet import Fernet
from sqlalchemy import text
from standardwebhooks import Webhook

from app.config import read_settings
from app.errors import DatabaseUnavailable
from app.services import alert_causes, credential_rotation, forwarding
from app.services.drain import Drain
from app.services.platform import Platform
from tests.doors import Connected
from tests.eventually import eventually
from tests.leaks import plant
from tests.receivers import receiving

OWN = "event.forward"


@pytest.fixture
def settings(settings):
    return settings.model_copy(update={"forward_private_targets": True})


@pytest.fixture
def receiver():
    with receiving() as one:
        yield one


@pytest.fixture
def stripe(platform, people) -> Connected:
    return Connected(platform, people.salon.id, "stripe")


@pytest.fixture
def secret(cli, people, receiver, platform) -> str:
    """The salon's events go to the receiver from here on, by as many threads as a worker's."""
    platform.forward_turns = forwarding.Turns(16)
    made = cli.data("forward", "set", people.salon.id, receiver.url)
    plant(made["secret"])
    return made["secret"]


def forwards(cli, org_id) -> list[dict]:
    """The oldest first."""
    return cli.data("deliveries", "list", "--org", org_id, "--type", OWN)[::-1]


def test_an_event_arrives_signed_as_standard_webhooks_own_library_accepts_it(
    stripe, secret, receiver, client, cli, settle
):
    stripe.post(client, event="invoice.paid")
    settle(lambda: receiver.came)
    (event,) = cli.data("deliveries", "list", "--provider", "stripe")
    said = receiver.read(secret)
    assert (said["type"], said["provider"], said["event_id"]) == ("invoice.paid", "stripe", event["event_id"])
    assert said["data"]["id"] == event["event_id"]
    assert said["timestamp"].endswith("Z")
    path, headers, _ = receiver.came[0]
    assert (path, headers["webhook-id"]) == ("/in?of=us", f"msg_{event['id']}")
    settle(lambda: [row["status"] for row in forwards(cli, stripe.org_id)] == ["processed"])
    assert cli.data("deliveries", "show", event["id"])["status"] == "processed"
    told = [line["told"] for line in cli.data("story", event["event_id"])["lines"]]
    assert any(f"voicedesk {OWN}" in line for line in told)
    assert cli.data("story", f"{OWN}:{event['id']}")["kind"] == "event"


def test_a_failed_try_is_repeated_with_the_same_id_and_a_signature_of_its_own(
    stripe, secret, receiver, client, cli, settle
):
    receiver.status = 500
    stripe.post(client)
    settle(lambda: len(receiver.came) == 2)
    receiver.status = 204
    settle(lambda: [row["status"] for row in forwards(cli, stripe.org_id)] == ["processed"])
    assert len(set(receiver.ids())) == 1
    assert len({body for _, _, body in receiver.came}) == 1
    for number in range(len(receiver.came)):
        receiver.read(secret, number)


def test_events_of_one_lane_arrive_in_order_and_wait_for_a_failed_one_those_of_another_lane_do_not(
    stripe, secret, receiver, client, cli, settle, platform, people
):
    other = Connected(platform, people.salon.id, "standard-webhooks")
    receiver.status = 404
    for event in ("invoice.paid", "customer.subscription.deleted", "checkout.session.completed"):
        stripe.post(client, event=event)
    settle(lambda: len(receiver.came) >= 1)
    other.post(client)
    settle(lambda: any(receiver.read(secret, n)["provider"] == other.provider for n in range(len(receiver.came))))
    assert {receiver.read(secret, n)["type"] for n in range(len(receiver.came))} == {"invoice.paid", "contact.created"}
    receiver.status, receiver.came = 200, []
    settle(lambda: {row["status"] for row in forwards(cli, stripe.org_id)} == {"processed"})
    arrived = [said for n in range(len(receiver.came)) if (said := receiver.read(secret, n))["provider"] == "stripe"]
    assert [said["type"] for said in arrived] == [
        *("invoice.paid", "customer.subscription.deleted", "checkout.session.completed"),
    ]


def test_one_that_fails_to_the_end_is_dead_and_a_replay_sends_it_under_the_same_id(
    stripe, secret, receiver, client, cli, settle, monkeypatch, platform
):
    from app.services import delivery

    monkeypatch.setattr(delivery, "SCHEDULE", (0.01, 0.01))
    receiver.status = 302
    stripe.post(client)
    settle(lambda: [row["status"] for row in forwards(cli, stripe.org_id)] == ["dead"])
    (dead,) = forwards(cli, stripe.org_id)
    assert (dead["error_code"], dead["attempts"], len(receiver.came)) == ("target_refused", 3, 3)
    receiver.status = 200
    cli.data("deliveries", "replay", dead["id"])
    settle(lambda: [row["status"] for row in forwards(cli, stripe.org_id)] == ["processed"])
    assert len(set(receiver.ids())) == 1
    (event,) = cli.data("deliveries", "list", "--provider", "stripe")
    cli.data("deliveries", "replay", event["id"])
    settle(lambda: cli.data("deliveries", "show", event["id"])["status"] == "skipped")
    assert f"delivery {dead['id']}" in cli.data("deliveries", "show", event["id"])["note"]
    assert len(receiver.came) == 4


def test_410_switches_it_off_and_alerts_and_a_new_url_goes_on_with_what_is_replayed(
    stripe, secret, receiver, client, cli, settle, platform
):
    receiver.status = 410
    stripe.post(client)
    settle(lambda: [row["status"] for row in forwards(cli, stripe.org_id)] == ["dead"])
    shown = cli.data("forward", "show", stripe.org_id)
    assert (shown["off_reason"], forwards(cli, stripe.org_id)[0]["error_code"]) == ("gone", "gone")
    causes = list(alert_causes._forwards_gone(platform))
    assert [cause.facts["org_id"] for cause in causes] == [str(stripe.org_id)]
    stripe.post(client)
    settle(lambda: cli.data("deliveries", "list", "--provider", "stripe")[0]["status"] == "skipped")
    assert len(receiver.came) == 1

    receiver.status = 200
    set_again = cli.data("forward", "set", stripe.org_id, receiver.url)
    assert "secret" not in set_again
    assert list(alert_causes._forwards_gone(platform)) == []
    cli.data("deliveries", "replay", cli.data("deliveries", "list", "--provider", "stripe")[0]["id"])
    settle(lambda: len(receiver.came) == 2)
    receiver.read(secret)


def test_switched_off_by_hand_nothing_is_sent_not_even_what_was_planned(stripe, secret, receiver, client, cli, settle):
    receiver.status = 500
    stripe.post(client)
    settle(lambda: receiver.came)
    cli.data("forward", "off", stripe.org_id)
    sent = len(receiver.came)
    settle(lambda: [row["status"] for row in forwards(cli, stripe.org_id)] == ["skipped"])
    assert len(receiver.came) <= sent + 1
    assert cli.data("forward", "show", stripe.org_id)["off_reason"] == "by_hand"


def test_while_a_secret_is_rotated_either_verifies_and_then_only_the_new_one(
    stripe, secret, receiver, client, cli, settle, platform
):
    new = cli.data("forward", "rotate", stripe.org_id)["secret"]
    plant(new)
    stripe.post(client)
    settle(lambda: receiver.came)
    assert receiver.read(secret) == receiver.read(new)
    assert cli.refusal("forward", "rotate", stripe.org_id)["code"] == "invalid_input"
    with platform.database.transaction(system=True) as session:
        session.execute(text("UPDATE forward_targets SET previous_until = now() - interval '1 second'"))
    stripe.post(client)
    settle(lambda: len(receiver.came) == 2)
    receiver.read(new)
    with pytest.raises(Exception, match="No matching signature"):
        Webhook(secret).verify(receiver.came[1][2], receiver.came[1][1])


def test_a_dead_target_costs_its_own_events_no_attempts_and_another_organization_nothing(
    secret, receiver, client, cli, settle, platform, people
):
    salon = Connected(platform, people.salon.id, "standard-webhooks")  # each event in a lane of its own
    dental = Connected(platform, people.dental.id, "standard-webhooks")
    with receiving() as lively:
        cli.data("forward", "set", people.dental.id, lively.url)
        receiver.status = 503
        for _ in range(6):
            salon.post(client)
        settle(lambda: "circuit_open" in {row["error_code"] for row in forwards(cli, salon.org_id)})
        waits = [row for row in forwards(cli, salon.org_id) if row["error_code"] == "circuit_open"]
        assert {row["waiting_on"] for row in waits} == {f"forward:{salon.org_id}"}
        dental.post(client)
        settle(lambda: len(lively.came) == 1)
        receiver.status = 200
        settle(lambda: {row["status"] for row in forwards(cli, salon.org_id)} == {"processed"})
        # every attempt that was counted is a request that was made
        assert sum(row["attempts"] for row in forwards(cli, salon.org_id)) == len(receiver.came)


def test_a_slow_target_takes_a_quarter_of_the_threads_and_no_attempts(secret, receiver, client, cli, platform, people):
    platform.forward_turns = forwarding.Turns(8)
    receiver.wait = 0.15
    salon = Connected(platform, people.salon.id, "standard-webhooks")
    for _ in range(5):
        salon.post(client)

    def done() -> bool:
        Drain(platform, threads=8).run()
        return [row["status"] for row in forwards(cli, salon.org_id)] == ["processed"] * 5

    eventually(done, seconds=20)
    assert receiver.most_at_once <= 2
    assert {row["attempts"] for row in forwards(cli, salon.org_id)} == {1}


def test_a_private_target_is_refused_when_it_is_set_and_again_when_something_is_sent(
    stripe, secret, receiver, client, cli, settle, platform, monkeypatch
):
    monkeypatch.setattr(platform.forwarder, "_private_allowed", False)
    for url in (receiver.url, "http://169.254.169.254/latest/meta-data", "https://[::ffff:10.0.0.1]/"):
        assert cli.refusal("forward", "set", stripe.org_id, url)["code"] == "target_not_allowed"
    stripe.post(client)
    settle(lambda: [row["error_code"] for row in forwards(cli, stripe.org_id)] == ["target_not_allowed"])
    assert receiver.came == []


def test_what_cannot_be_a_url_or_is_our_own_is_refused_and_a_production_house_wants_https(cli, people, platform):
    from app.integrations.forwarder import Forwarder

    for url in ("nonsense", "https://user:word@hooks.example/", "ftp://127.0.0.1/", "http://localhost:1/#x"):
        assert cli.refusal("forward", "set", people.salon.id, url)["code"] == "invalid_input"
    assert cli.refusal("forward", "show", people.salon.id)["code"] == "not_found"
    assert cli.refusal("forward", "rotate", people.salon.id)["code"] == "not_found"
    production = {"environment": "production", "forward_private_targets": True}
    _, faults = read_settings(**{**platform.settings.model_dump(), **production})
    assert "FORWARD_PRIVATE_TARGETS" in {fault.variable for fault in faults}
    platform.forwarder = Forwarder(private_allowed=True, plain_allowed=False)
    assert cli.refusal("forward", "set", people.salon.id, "http://127.0.0.1/")["code"] == "invalid_input"


def test_our_own_address_is_refused_because_what_is_forwarded_would_come_in_again(cli, people, platform, monkeypatch):
    from app.integrations import targets

    monkeypatch.setattr(targets.socket, "getaddrinfo", lambda *_, **__: [(2, 1, 6, "", ("93.184.216.34", 443))])
    refused = cli.refusal("forward", "set", people.salon.id, "https://voicedesk.test/webhooks/stripe/x")
    assert "come in again" in refused["message"]


def test_an_event_is_planned_once_however_often_its_own_handler_runs(
    stripe, secret, receiver, client, cli, settle, platform, monkeypatch
):
    """As when a process dies between the commit of the plan and the record of the attempt."""
    from app.services import delivery

    record, failed = delivery._record, []

    def fail_once(*args, **kwargs):
        if not failed:
            failed.append(True)
            raise DatabaseUnavailable
        return record(*args, **kwargs)

    monkeypatch.setattr(delivery, "RECORD_AGAIN_SECONDS", 0)
    monkeypatch.setattr(delivery, "RECORD_SECONDS", -1)
    monkeypatch.setattr(delivery, "_record", fail_once)
    stripe.post(client)
    Drain(platform, threads=2).run()
    monkeypatch.setattr(delivery, "_record", record)
    with platform.database.transaction(system=True) as session:
        session.execute(text("UPDATE lanes SET due_at = now()"))
        session.execute(
            text("UPDATE webhook_delivery_log SET running_since = NULL, status = 'retrying' WHERE provider = 'stripe'")
        )
    settle(lambda: receiver.came and cli.data("deliveries", "list", "--provider", "stripe")[0]["status"] == "skipped")
    assert len(forwards(cli, stripe.org_id)) == 1


def test_signing_secrets_are_sealed_anew_with_the_first_key(stripe, secret, receiver, client, cli, settle, platform):
    cli.data("forward", "rotate", stripe.org_id)
    fresh = Fernet.generate_key().decode()
    plant(fresh)
    both = Platform(
        platform.settings.model_copy(update={"credentials_keys": [fresh, *platform.settings.credentials_keys]})
    )
    alone = Platform(platform.settings.model_copy(update={"credentials_keys": [fresh]}))
    try:
        assert credential_rotation.rotate(both, actor="test")["old_keys_needed"] is False
        target = forwarding._read_target(alone, stripe.org_id)
        assert target is not None
        assert len(target.secrets) == 2
    finally:
        both.close()
        alone.close()


def test_a_tenant_sees_its_own_target_alone_and_an_export_holds_no_secret(
    stripe, secret, people, platform, cli, tmp_path
):
    with platform.database.transaction(people.dental.id) as session:
        assert session.execute(text("SELECT count(*) FROM forward_targets")).scalar_one() == 0
    file = tmp_path / "salon.jsonl"
    cli.data("org", "export", people.salon.id, "--out", file)
    written = file.read_text()
    assert "forward_targets" in written
    assert secret not in written
