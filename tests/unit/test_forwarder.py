"""One POST to a stranger's server: over in time, followed nowhere, and only to the address that was checked."""

from __future__ import annotations

import socket
import ssl
import threading
import time
import uuid
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from app.errors import CircuitOpen, ProviderUnavailable
from app.integrations import forwarder, target_circuits, targets
from app.integrations.forwarder import Forwarder
from app.integrations.targets import TargetNotAllowed
from tests.receivers import receiving


@pytest.fixture
def receiver():
    with receiving() as one:
        yield one


@pytest.fixture
def circuit() -> str:
    return target_circuits.name_of(uuid.uuid4())


def here(**options) -> Forwarder:
    return Forwarder(**{"private_allowed": True, "plain_allowed": True, **options})


def test_it_arrives_as_it_was_sent(receiver, circuit):
    answer = here().post(circuit, receiver.url, {"webhook-id": "msg_1"}, b'{"a":1}')
    assert answer.status == 200
    ((path, headers, body),) = receiver.came
    assert (path, body, headers["webhook-id"]) == ("/in?of=us", b'{"a":1}', "msg_1")
    assert headers["host"] == f"127.0.0.1:{receiver.port}"


def test_a_private_address_is_refused_at_each_send_not_only_when_it_is_set(receiver, circuit):
    with pytest.raises(TargetNotAllowed):
        here(private_allowed=False).post(circuit, receiver.url, {}, b"")
    assert receiver.came == []


def look_up(monkeypatch, answer):
    """Look names under .example up so. Whoever else looks something up meanwhile is not concerned: an earlier test may
    have left this process's circuits connected to a Redis."""
    real = socket.getaddrinfo

    def looked_up(host, port, *more, **named):
        made_up = str(host).endswith(".example")
        return [(2, 1, 6, "", (answer(host), port))] if made_up else real(host, port, *more, **named)

    monkeypatch.setattr(targets.socket, "getaddrinfo", looked_up)


def test_a_name_that_changes_between_look_up_and_connection_leads_nowhere_else(receiver, circuit, monkeypatch):
    """DNS rebinding: public for the check, private a moment later. Only one look-up is made, and its result used."""
    asked = []

    def rebinding(host):
        asked.append(host)
        return "93.184.216.34" if len(asked) == 1 else "127.0.0.1"

    connected = []

    def dial(address, *_):
        connected.append(address)
        raise ConnectionRefusedError

    look_up(monkeypatch, rebinding)
    monkeypatch.setattr(forwarder, "_dial", dial)
    with pytest.raises(ProviderUnavailable):
        here(private_allowed=False).post(circuit, f"http://rebind.example:{receiver.port}/", {}, b"")
    assert (asked, connected) == (["rebind.example"], ["93.184.216.34"])


def test_a_redirect_is_an_answer_and_is_not_followed(receiver, circuit):
    receiver.status, receiver.headers = 307, {"Location": receiver.url}
    assert here().post(circuit, receiver.url, {}, b"x").status == 307
    assert len(receiver.came) == 1


def test_of_an_answer_the_status_counts_and_the_rest_is_read_in_part_and_in_time(receiver, circuit, monkeypatch):
    receiver.body = b"x" * 5_000_000
    assert here().post(circuit, receiver.url, {}, b"x").status == 200
    monkeypatch.setattr(forwarder, "TIMEOUT_SECONDS", 0.5)
    receiver.body, receiver.trickle = b"x" * 1000, 0.05
    began = time.monotonic()
    assert here().post(circuit, receiver.url, {}, b"x").status == 200
    assert time.monotonic() - began < 3


def test_an_answer_whose_beginning_trickles_in_is_cut_off(circuit, monkeypatch):
    monkeypatch.setattr(forwarder, "TIMEOUT_SECONDS", 0.5)
    ended = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:

        def trickle() -> None:
            connection, _ = server.accept()
            with connection, suppress(OSError):
                connection.sendall(b"HTTP/1.1 200 OK\r\nX-Slow: ")
                while not ended.wait(0.05):
                    connection.sendall(b"x")

        threading.Thread(target=trickle, daemon=True).start()
        began = time.monotonic()
        with pytest.raises(ProviderUnavailable):
            here().post(circuit, f"http://127.0.0.1:{server.getsockname()[1]}/", {}, b"x")
        ended.set()
    assert time.monotonic() - began < 3


def test_a_dead_target_is_not_asked_after_three_failures_and_another_one_is(receiver, circuit):
    receiver.status = 503
    for _ in range(3):
        with pytest.raises(ProviderUnavailable):
            here().post(circuit, receiver.url, {}, b"x")
    with pytest.raises(CircuitOpen):
        here().post(circuit, receiver.url, {}, b"x")
    assert len(receiver.came) == 3
    receiver.status = 404  # it did its work: no failure of its health
    other = target_circuits.name_of(uuid.uuid4())
    assert {here().post(other, receiver.url, {}, b"x").status for _ in range(5)} == {404}


def test_circuits_of_targets_are_forgotten_when_they_are_too_many_but_never_an_open_one(receiver, monkeypatch):
    monkeypatch.setattr(target_circuits, "MOST", 3)
    registry = target_circuits.TargetCircuits()
    try:
        first = registry.get("forward:first")
        for _ in range(3):
            first.here.failed("", 60)
        for number in range(10):
            registry.get(f"forward:{number}")
        assert len(registry._circuits) == 3
        assert registry.get("forward:first") is first
    finally:
        registry.close()


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    """A certificate for hooks.example, and the file that trusts it."""
    folder = tmp_path_factory.mktemp("tls")
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "hooks.example")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("hooks.example")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    file, key_file = folder / "cert.pem", folder / "key.pem"
    file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    key_file.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return file, key_file


def test_the_certificate_is_checked_for_the_name_though_the_address_is_connected_to(authority, circuit, monkeypatch):
    file, key_file = authority
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file, key_file)
    look_up(monkeypatch, lambda _: "127.0.0.1")
    with receiving(context) as receiver:
        trusting = here(ca_file=str(file))
        assert trusting.post(circuit, f"https://hooks.example:{receiver.port}/x", {}, b"x").status == 200
        with pytest.raises(ProviderUnavailable, match="certificate"):
            trusting.post(circuit, f"https://other.example:{receiver.port}/x", {}, b"x")
        with pytest.raises(ProviderUnavailable, match="certificate"):
            here().post(circuit, f"https://hooks.example:{receiver.port}/x", {}, b"x")
        assert len(receiver.came) == 1
