"""Behind the nginx of deploy/: signatures cover the address that providers know, and addresses cannot be forged."""

from __future__ import annotations

import os
import shutil
import signal
import ssl
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlencode

import pytest
import requests
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from twilio.request_validator import RequestValidator

from sandbox.children import start_child, stop_child
from sandbox.ports import free_port
from tests.e2e.house import ROOT, Answer, House
from tests.eventually import eventually
from tests.people import Business, open_business

NGINX = shutil.which("nginx") or shutil.which("/usr/sbin/nginx")
ADA = "+4915112345678"
MAIN = """
{user} daemon off; pid {folder}/pid; error_log {folder}/error.log; worker_processes 1;
events {{}}
http {{
  client_body_temp_path {folder}/b; proxy_temp_path {folder}/p; fastcgi_temp_path {folder}/f;
  uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  include {folder}/voicedesk.conf;
}}
"""

pytestmark = pytest.mark.skipif(NGINX is None, reason="nginx is not installed")


class Door:
    """Posts and asks over the proxy, as somebody who trusts its certificate."""

    def __init__(self, base_url: str, certificate: Path) -> None:
        self.base_url = base_url
        self._certificate = str(certificate)

    def post(self, path: str, *, data: str, content_type: str, headers: dict[str, str]) -> Answer:
        sent = {**headers, "Content-Type": content_type}
        url = self.base_url + path
        return Answer(requests.post(url, data=data, headers=sent, timeout=20, verify=self._certificate))

    def get(self, path: str, **headers: str) -> requests.Response:
        return requests.get(self.base_url + path, headers=headers, timeout=20, verify=self._certificate)


@pytest.fixture
def behind(tmp_path, world) -> Iterator[tuple[Door, Business, Path]]:
    """A house behind the nginx of deploy/, a business in it, and nginx's folder."""
    folder, tls_port, plain_port = tmp_path / "nginx", free_port(), free_port()
    folder.mkdir(mode=0o755)
    certificate = _certify(folder)
    base_url = f"https://localhost:{tls_port}"
    house = House(tmp_path, world, redis=False, public_base_url=base_url, trusted_proxies=1, api_quota_per_address=3)
    business = open_business(house.platform, world, "Salon", "+4930111110001")
    house.start_web()
    conf = (ROOT / "deploy" / "nginx" / "voicedesk.conf").read_text()
    for there, here in {
        "listen 443 ssl": f"listen 127.0.0.1:{tls_port} ssl",
        "listen 80": f"listen 127.0.0.1:{plain_port}",
        "127.0.0.1:8000": f"127.0.0.1:{house.port}",
        "voice.example.com": "localhost",
        "/etc/voicedesk/tls": str(folder),
        "/var/log/nginx": str(folder),
    }.items():
        assert there in conf
        conf = conf.replace(there, here)
    (folder / "voicedesk.conf").write_text(conf)
    user = "user root;" if os.geteuid() == 0 else ""  # its own could not reach this folder
    (folder / "nginx.conf").write_text(MAIN.format(folder=folder, user=user))
    door = Door(base_url, certificate)
    process = start_child([NGINX or "", "-c", folder / "nginx.conf", "-p", folder], log_path=folder / "out")
    try:
        eventually(lambda: _answers(door), seconds=10)
        yield door, business, folder
    finally:
        stop_child(process, with_signal=signal.SIGTERM, seconds=5)
        house.close()


def _answers(door: Door) -> bool:
    try:
        return door.get("/health").status_code == 200
    except requests.ConnectionError:
        return False


def _certify(folder: Path) -> Path:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    certificate = folder / "fullchain.pem"
    certificate.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    plain = serialization.NoEncryption()
    private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
    (folder / "privkey.pem").write_bytes(private)
    assert ssl.create_default_context(cafile=str(certificate)).get_ca_certs()
    return certificate


@pytest.mark.timeout(120)
def test_twilios_signature_holds_for_the_public_address_with_odd_escapes_and_not_for_another(behind):
    door, business, folder = behind
    text = {"MessageSid": "SM" + "0" * 32, "AccountSid": business.account_sid, "From": ADA, "Body": "hi é+%"}
    for number, query in enumerate(("", "?a=b%2Fc%20d+e", "?m=%C3%A9&&x=", "?p=%2F//..")):
        form = {**text, "To": business.number, "NumMedia": "0", "MessageSid": f"SM{number:032d}"}
        assert business.twilio(door, form, query=query).status_code == 200, query
    target = f"/webhooks/twilio/{business.twilio_token}"
    for_another = RequestValidator(business.auth_token).compute_signature(f"http://localhost{target}", text)
    headers = {"X-Twilio-Signature": for_another}
    refused = door.post(target, data=urlencode(text), content_type="application/x-www-form-urlencoded", headers=headers)
    assert refused.status_code == 403
    written = (folder / "voicedesk.log").read_text()
    assert "/webhooks/twilio/***" in written
    assert business.twilio_token not in written
    assert "a=b" not in written


@pytest.mark.timeout(120)
def test_a_forged_forwarded_for_does_not_make_one_address_many(behind):
    door, _, _ = behind
    statuses = [
        door.get("/api/v1/deliveries", **{"X-Forwarded-For": f"203.0.113.{number}"}).status_code for number in range(5)
    ]
    assert statuses == [401, 401, 401, 429, 429]


@pytest.mark.timeout(120)
def test_too_much_is_refused_and_metrics_are_not_told_outside(behind):
    door, business, _ = behind
    message = '{"message": {"type": "hang", "x": "' + "y" * 5_100_000 + '"}}'
    path = f"/webhooks/vapi/{business.vapi_token}"
    headers = {"X-Vapi-Secret": business.vapi_secret}
    assert door.post(path, data=message, content_type="application/json", headers=headers).status_code == 413
    assert door.get("/metrics").status_code == 404
