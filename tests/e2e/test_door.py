"""The providers' door as gunicorn serves it, where a test client of the framework's own would not notice."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import requests

from tests.e2e.house import House
from tests.people import open_business


@pytest.fixture
def vapi(tmp_path, world) -> Iterator[tuple[str, dict[str, str]]]:
    """The URL of one organization's Vapi webhook on a real server, and the headers that prove the sender."""
    house = House(tmp_path, world, redis=False)
    business = open_business(house.platform, world, "Salon", "+4930111110001")
    house.start_web()
    headers = {"X-Vapi-Secret": business.vapi_secret, "Content-Type": "application/json"}
    yield f"{house.base_url}/webhooks/vapi/{business.vapi_token}", headers
    house.close()


def test_too_much_is_413_whether_its_length_is_said_or_it_comes_in_chunks(vapi):
    url, headers = vapi
    chunks = (b" " * 100_000 for _ in range(60))
    for body in (b" " * 6_000_000, chunks):
        answer = requests.post(url, data=body, headers=headers, timeout=20)
        assert answer.status_code == 413
        assert answer.headers["Content-Type"] == "application/problem+json"
    body = b'{"message": {"type": "hang", "call": {"id": "c"}, "x": "' + b"y" * 4_000_000 + b'"}}'
    assert requests.post(url, data=body, headers=headers, timeout=20).status_code == 200
    assert requests.post(url, data=iter([body[:9], body[9:]]), headers=headers, timeout=20).status_code == 200


def test_an_answer_that_refuses_names_what_is_wrong_and_repeats_nothing_that_was_sent(vapi):
    url, headers = vapi
    answer = requests.post(url, data=b"{}", headers={**headers, "X-Vapi-Secret": "a-wrong-secret"}, timeout=20)
    assert answer.status_code == 403
    assert answer.json()["code"] == "signature_invalid"
    assert "a-wrong-secret" not in answer.text
