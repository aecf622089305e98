"""The watch over the run's logs can fail: what is planted and written is found, and what is masked is not."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.leaks import LeakWatch, Planted, logs_of_ours

pytest_plugins = ["pytester"]

SECRET = "s3cretS3cretS3cret"
WORDS = 'I said "good morning" to Zoë twice'


def planted() -> Planted:
    planted = Planted()
    planted.plant(SECRET)
    planted.plant_words({"message": {"transcript": WORDS, "type": "end-of-call-report", "turns": [{"m": "short"}]}})
    return planted


@pytest.mark.parametrize(
    "line",
    [
        f'{{"event": "x", "token": "{SECRET}"}}',
        '{"event": "I said \\"good morning\\" to Zo\\u00eb twice"}',
        f"Traceback: {WORDS}",
        "a text to +4915199988877 failed",
        "To=%2B4915199988877&x=1",
        "whatsapp:4915199988877",
        "for jane@mail.example.org",
        "POST /webhooks/twilio/abcDEF123456/status",
        "postgresql://app:hunter22@db/x",
        "vd_0123456789abcdef",
        "Authorization: Bearer 0123456789abcdef",
    ],
)
def test_what_must_not_be_in_a_log_is_found(line: str) -> None:
    assert list(planted().search([("a log", "fine"), ("a log", line)]))


@pytest.mark.parametrize(
    "line",
    [
        '{"event": "x", "to": "[number]", "route": "/webhooks/vapi/<token>"}',
        "POST /webhooks/twilio/[token]/status",
        "GET /webhooks/vapi/*** 200",
        "postgresql://[secret]@db/x",
        "Bearer [secret]",
        '{"timestamp": "2026-11-24T03:31:03+00:00", "delivery_id": 123456789012}',
        "I said something else",
        "rq 3.0 on Python 3.11, at 127.0.0.1:8000",
    ],
)
def test_what_may_be_in_a_log_is_no_alarm(line: str) -> None:
    assert not list(planted().search([("a log", line)]))


def test_words_are_found_in_a_line_that_differs_only_in_its_ids() -> None:
    planted = Planted()
    planted.plant_words("see you at 10 o'clock on Monday")
    written = [("a log", f"id {number}: see you at {number} o'clock on Monday") for number in (9, 10)]
    assert len(list(planted.search(written))) == 1


def test_a_date_with_a_time_is_nobodys_words() -> None:
    planted = Planted()
    planted.plant_words({"startTime": "2026-11-24 06:17:44.009", "start": "Tue 24 Nov 2026"})
    assert not list(planted.search([("a log", "13511:M 24 Nov 2026 06:08:55.386 * Server initialized")]))


def test_logs_of_servers_and_stand_ins_are_not_ours(tmp_path: Path) -> None:
    for name in ("web.log", "deep/worker.log", "postgres.log", "standins.log", "data/PG_VERSION", "data/a.log"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("x")
    assert sorted(path.name for path in logs_of_ours(tmp_path)) == ["web.log", "worker.log"]


@pytest.mark.parametrize("workers", [(), ("-n", "2")], ids=["alone", "under xdist"])
@pytest.mark.parametrize("writes", ["write_line('to +4915199988877')", "write_line('to nobody')"], ids=["leak", "none"])
def test_a_leak_fails_a_run_whose_tests_all_pass(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, workers: tuple[str, ...], writes: str
) -> None:
    pytester.makeconftest(
        """
        from tests.leaks import LeakWatch

        def pytest_configure(config):
            watch = LeakWatch()
            watch.begin()
            config.pluginmanager.register(watch)
        """
    )
    pytester.makepyfile(
        f"""
        from app.observability import logging as lines

        def test_writes():
            lines.{writes}
        """
    )
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    result = pytester.runpytest_subprocess("-p", "no:randomly", *workers, timeout=60)
    result.assert_outcomes(passed=1)
    leaks = "nobody" not in writes
    assert (result.ret == 1) == leaks
    assert ("a phone number in log" in result.stdout.str()) == leaks


def test_an_error_report_is_watched_whether_or_not_it_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    from app.observability import sentry

    watch = LeakWatch()
    try:
        raise RuntimeError(WORDS)
    except RuntimeError as error:
        monkeypatch.setattr(sentry, "scrub", lambda event, _hint: event)  # as if nothing were scrubbed
        watch._sent(error, kind="web:RuntimeError", where="web")
    assert [leak.source for leak in planted().search(watch.everything(None))] == ["report"]
