"""Google Calendar's stand-in, asked through Google's own client and authorization libraries."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import google_auth_httplib2
import httplib2
import pytest
import requests
from google.auth.exceptions import RefreshError
from google.oauth2 import service_account
from google.oauth2.credentials import Credentials
from googleapiclient.discovery import build
from googleapiclient.errors import HttpError

from sandbox.standins import RemoteWorld, StandIns

SCOPE = "https://www.googleapis.com/auth/calendar"
CALENDAR = "desk@example.com"
THREE = {"start": {"dateTime": "2027-03-01T15:00:00+01:00"}, "end": {"dateTime": "2027-03-01T15:30:00+01:00"}}


@pytest.fixture
def world() -> Iterator[RemoteWorld]:
    with StandIns.running(latency=0.0) as world:
        world.calendar(CALENDAR, "Europe/Berlin")
        world.google_client("client-1", "client-secret", "refresh-1")
        yield world


@pytest.fixture
def events(world: RemoteWorld) -> Any:
    return service(world).events()


def owner(world: RemoteWorld, **changes: str) -> Credentials:
    given = {"refresh_token": "refresh-1", "client_id": "client-1", "client_secret": "client-secret"} | changes
    return Credentials(None, token_uri=world.token_url, **given)


def service(world: RemoteWorld, credentials: Any = None) -> Any:
    http = google_auth_httplib2.AuthorizedHttp(credentials or owner(world), http=httplib2.Http(timeout=10))
    return build("calendar", "v3", http=http, client_options={"api_endpoint": world.google_url}, cache_discovery=False)


def insert(events: Any, **fields: Any) -> dict[str, Any]:
    return events.insert(calendarId=CALENDAR, body=THREE | {"summary": "Haircut"} | fields).execute()


def refusal(request: Any) -> tuple[int, str]:
    with pytest.raises(HttpError) as caught:
        request.execute()
    return caught.value.status_code, caught.value.error_details[0]["reason"]


def busy(world: RemoteWorld, *calendars: str) -> dict[str, Any]:
    body = {
        "timeMin": "2027-03-01T00:00:00+01:00",
        "timeMax": "2027-03-02T00:00:00+01:00",
        "items": [{"id": calendar} for calendar in calendars or (CALENDAR,)],
    }
    return service(world).freebusy().query(body=body).execute()["calendars"]


# --- tokens ----------------------------------------------------------------------------------


def test_a_refresh_token_works_until_it_is_revoked(world, events):
    insert(events)
    world.revoke(refresh_token="refresh-1")
    with pytest.raises(RefreshError, match="invalid_grant"):
        insert(events)


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"client_secret": "wrong"}, "invalid_client"),
        ({"client_id": "nobody"}, "invalid_client"),
        ({"refresh_token": "wrong"}, "invalid_grant"),
    ],
)
def test_wrong_client_credentials_get_no_token(world, changes, error):
    with pytest.raises(RefreshError, match=error):
        insert(service(world, owner(world, **changes)).events())


def test_a_service_account_signs_for_itself_and_a_stranger_with_its_name_does_not(world):
    info = world.service_account("desk@standin.iam.gserviceaccount.com")
    account = service_account.Credentials.from_service_account_info(info, scopes=[SCOPE])
    assert insert(service(world, account).events())["creator"] == {"email": info["client_email"]}
    stranger = world.service_account()
    forged = info | {"private_key": stranger["private_key"]}
    with pytest.raises(RefreshError, match="Invalid JWT Signature"):
        insert(service(world, service_account.Credentials.from_service_account_info(forged, scopes=[SCOPE])).events())


def test_acting_for_somebody_needs_delegation(world):
    info = world.service_account()
    account = service_account.Credentials.from_service_account_info(info, scopes=[SCOPE], subject="boss@example.com")
    with pytest.raises(RefreshError, match="unauthorized_client"):
        insert(service(world, account).events())


def test_without_a_valid_token_it_is_401(world):
    url = f"{world.google_url}calendars/{CALENDAR}/events"
    for headers in ({}, {"Authorization": "Bearer nothing"}):
        answer = requests.get(url, headers=headers, timeout=5)
        assert (answer.status_code, answer.json()["error"]["errors"][0]["reason"]) == (401, "authError")


def test_an_expired_access_token_is_renewed_by_googles_library(world, events):
    insert(events)
    world.expire_tokens()
    insert(events)
    assert len(world.requests("google", "issue_token")) == 2


def test_scopes_bound_what_a_token_may_do(world):
    world.google_client("client-1", "client-secret", "reader", scope=f"{SCOPE}.readonly")
    reader = service(world, owner(world, refresh_token="reader")).events()
    assert reader.list(calendarId=CALENDAR).execute()["items"] == []
    assert refusal(reader.insert(calendarId=CALENDAR, body=THREE)) == (403, "insufficientPermissions")


def test_a_calendar_that_is_not_shared_is_not_found(world, events):
    world.calendar("private@example.com", shared_with=["somebody@example.com"])
    assert refusal(events.list(calendarId="private@example.com")) == (404, "notFound")
    assert busy(world, "private@example.com")["private@example.com"]["errors"][0]["reason"] == "notFound"


# --- events ----------------------------------------------------------------------------------


def test_an_event_comes_back_in_the_calendars_zone_with_its_private_properties(events):
    body = {
        "start": {"dateTime": "2027-03-01T14:00:00Z"},
        "end": {"dateTime": "2027-03-01T14:30:00Z"},
        "extendedProperties": {"private": {"bookingId": "b-1", "k" * 45: "dropped"}},
        "inventedField": "ignored",
    }
    event = events.insert(calendarId=CALENDAR, body=body).execute()
    assert event["start"] == {"dateTime": "2027-03-01T15:00:00+01:00", "timeZone": "Europe/Berlin"}
    assert event["extendedProperties"] == {"private": {"bookingId": "b-1"}}
    assert "inventedField" not in event
    assert events.get(calendarId=CALENDAR, eventId=event["id"]).execute() == event


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"id": "abcd"}, "invalid"),
        ({"id": "has-a-dash"}, "invalid"),
        ({"id": "uppercaseA"}, "invalid"),
        ({"id": "wxyzw"}, "invalid"),
        ({"end": None}, "required"),
        ({"end": {"dateTime": "2027-03-01T14:00:00+01:00"}}, "timeRangeEmpty"),
        ({"end": {"date": "2027-03-02"}}, "invalid"),
        ({"start": {"dateTime": "2027-03-01T15:00:00"}}, "required"),
        ({"start": {"dateTime": "at three"}}, "invalid"),
        ({"start": {"dateTime": "2027-03-01T15:00:00", "timeZone": "Nowhere/City"}}, "invalid"),
        ({"transparency": "glassy"}, "invalid"),
        ({"extendedProperties": {"private": {"n": 1}}}, "parseError"),
    ],
)
def test_what_google_refuses_in_an_event_is_refused(world, events, fields, reason):
    assert refusal(events.insert(calendarId=CALENDAR, body=THREE | fields)) == (400, reason)
    assert world.events(CALENDAR) == []


def test_an_id_is_taken_for_ever(events):
    insert(events, id="aaaa1")
    assert refusal(events.insert(calendarId=CALENDAR, body=THREE | {"id": "aaaa1"})) == (409, "duplicate")
    events.delete(calendarId=CALENDAR, eventId="aaaa1").execute()
    assert refusal(events.insert(calendarId=CALENDAR, body=THREE | {"id": "aaaa1"})) == (409, "duplicate")
    assert events.get(calendarId=CALENDAR, eventId="aaaa1").execute()["status"] == "cancelled"
    assert refusal(events.delete(calendarId=CALENDAR, eventId="aaaa1")) == (410, "deleted")
    assert refusal(events.patch(calendarId=CALENDAR, eventId="aaaa1", body={"summary": "x"})) == (403, "forbidden")


def test_what_is_not_there_is_404(events):
    for request in (
        events.get(calendarId=CALENDAR, eventId="nothing"),
        events.delete(calendarId=CALENDAR, eventId="nothing"),
        events.get(calendarId="nowhere@example.com", eventId="nothing"),
    ):
        assert refusal(request) == (404, "notFound")


def test_a_changed_event_refuses_an_old_etag(world, events):
    event = insert(events)
    moved = world.move_event(CALENDAR, event["id"], "2027-03-01T16:00:00", "2027-03-01T16:30:00")
    stale = events.patch(calendarId=CALENDAR, eventId=event["id"], body={"summary": "Mine"})
    stale.headers["If-Match"] = event["etag"]
    assert refusal(stale) == (412, "conditionNotMet")
    fresh = events.patch(calendarId=CALENDAR, eventId=event["id"], body={"summary": "Mine"})
    fresh.headers["If-Match"] = moved["etag"]
    assert fresh.execute()["etag"] not in (event["etag"], moved["etag"])


def test_a_patch_keeps_what_it_does_not_name_and_a_put_does_not(events):
    properties = {"private": {"bookingId": "b-1"}}
    event = insert(events, extendedProperties=properties, description="Wash and cut", location="Room 2")
    change = {"description": None, "extendedProperties": {"private": {"seen": "yes"}}}
    patched = events.patch(calendarId=CALENDAR, eventId=event["id"], body=change).execute()
    assert "description" not in patched
    assert patched["location"] == "Room 2"
    assert patched["extendedProperties"]["private"] == {"bookingId": "b-1", "seen": "yes"}
    put = events.update(calendarId=CALENDAR, eventId=event["id"], body=THREE).execute()
    assert {"location", "summary", "extendedProperties"}.isdisjoint(put)
    assert refusal(events.update(calendarId=CALENDAR, eventId=event["id"], body={"summary": "x"})) == (400, "required")


def test_a_service_account_cannot_invite(world):
    account = service_account.Credentials.from_service_account_info(world.service_account(), scopes=[SCOPE])
    request = (
        service(world, account)
        .events()
        .insert(calendarId=CALENDAR, body=THREE | {"attendees": [{"email": "guest@example.com"}]})
    )
    assert refusal(request) == (403, "forbiddenForServiceAccounts")


# --- free and busy ---------------------------------------------------------------------------


def test_busy_is_merged_and_leaves_out_transparent_and_cancelled_events(world, events):
    insert(events)
    world.insert_foreign_event(CALENDAR, "2027-03-01T15:30:00", "2027-03-01T16:00:00")
    world.insert_foreign_event(CALENDAR, "2027-03-01T09:00:00", "2027-03-01T10:00:00", transparency="transparent")
    gone = world.insert_foreign_event(CALENDAR, "2027-03-01T11:00:00", "2027-03-01T12:00:00")
    world.delete_event(CALENDAR, gone["id"])
    assert busy(world)[CALENDAR]["busy"] == [{"start": "2027-03-01T14:00:00Z", "end": "2027-03-01T15:00:00Z"}]


def test_a_whole_day_is_busy_from_midnight_to_midnight_of_the_calendar(world):
    world.insert_foreign_event(CALENDAR, "2027-03-01", "2027-03-02")
    assert busy(world)[CALENDAR]["busy"] == [{"start": "2027-02-28T23:00:00Z", "end": "2027-03-01T23:00:00Z"}]


def test_an_unknown_calendar_is_an_error_inside_a_200(world):
    answer = busy(world, CALENDAR, "nowhere@example.com")
    assert answer["nowhere@example.com"]["errors"] == [{"domain": "global", "reason": "notFound"}]
    assert "errors" not in answer[CALENDAR]


@pytest.mark.parametrize(
    ("since", "until", "reason"),
    [
        ("2027-03-02T00:00:00Z", "2027-03-01T00:00:00Z", "timeRangeEmpty"),
        ("2027-03-01T00:00:00", "2027-03-02T00:00:00", "badRequest"),
        (None, "2027-03-02T00:00:00Z", "required"),
    ],
)
def test_a_range_that_is_none_is_refused(world, since, until, reason):
    body = {"timeMin": since, "timeMax": until, "items": [{"id": CALENDAR}]}
    assert refusal(service(world).freebusy().query(body=body)) == (400, reason)


# --- lists and sync --------------------------------------------------------------------------


def pages(events: Any, **parameters: Any) -> tuple[list[dict[str, Any]], str | None]:
    items, request = [], events.list(calendarId=CALENDAR, **parameters)
    while request is not None:
        answer = request.execute()
        assert ("nextPageToken" in answer) != ("nextSyncToken" in answer) or "orderBy" in parameters
        items += answer["items"]
        request = events.list_next(request, answer)
    return items, answer.get("nextSyncToken")


def test_a_full_list_is_paged_and_ends_with_a_sync_token(events):
    made = [insert(events)["id"] for _ in range(5)]
    items, token = pages(events, maxResults=2)
    assert [item["id"] for item in items] == made
    assert token
    assert pages(events, syncToken=token)[0] == []


def test_a_sync_shows_what_changed_and_of_what_was_deleted_only_the_id(world, events):
    kept, gone = insert(events), insert(events)
    _, token = pages(events)
    world.delete_event(CALENDAR, gone["id"])
    added = world.insert_foreign_event(CALENDAR, "2027-03-03T10:00:00", "2027-03-03T11:00:00")
    items, _ = pages(events, syncToken=token, maxResults=1)
    assert [item["id"] for item in items] == [gone["id"], added["id"]]
    assert set(items[0]) == {"kind", "etag", "id", "status"}
    assert kept["id"] not in {item["id"] for item in items}


def test_a_change_between_two_pages_is_not_lost(world, events):
    ids = [insert(events)["id"] for _ in range(3)]
    first = events.list(calendarId=CALENDAR, maxResults=2).execute()
    world.delete_event(CALENDAR, ids[0])
    last = events.list(calendarId=CALENDAR, maxResults=2, pageToken=first["nextPageToken"]).execute()
    assert [item["id"] for item in pages(events, syncToken=last["nextSyncToken"])[0]] == [ids[0]]


@pytest.mark.parametrize(
    "parameters",
    [
        {"orderBy": "updated"},
        {"timeMin": "2027-03-01T00:00:00Z"},
        {"q": "cut"},
        {"showDeleted": False},
        {"privateExtendedProperty": "a=b"},
    ],
)
def test_a_sync_token_goes_with_no_filter(events, parameters):
    _, token = pages(events)
    assert refusal(events.list(calendarId=CALENDAR, syncToken=token, **parameters)) == (400, "invalid")


def test_an_expired_sync_token_is_410(world, events):
    _, token = pages(events)
    world.expire_sync_tokens(CALENDAR)
    assert refusal(events.list(calendarId=CALENDAR, syncToken=token)) == (410, "fullSyncRequired")
    assert pages(events)[1]


def test_the_filters_of_a_list_hold(world, events):
    early = world.insert_foreign_event(CALENDAR, "2027-02-01T10:00:00", "2027-02-01T11:00:00", summary="Dentist")
    ours = insert(events, extendedProperties={"private": {"bookingId": "b-1"}})
    assert [item["id"] for item in pages(events, timeMin="2027-02-15T00:00:00Z")[0]] == [ours["id"]]
    assert [item["id"] for item in pages(events, timeMax="2027-02-15T00:00:00Z")[0]] == [early["id"]]
    by_property = events.list(calendarId=CALENDAR, privateExtendedProperty="bookingId=b-1").execute()
    assert [item["id"] for item in by_property["items"]] == [ours["id"]]
    assert "nextSyncToken" not in by_property
    assert [item["id"] for item in events.list(calendarId=CALENDAR, q="dentist").execute()["items"]] == [early["id"]]
    world.delete_event(CALENDAR, early["id"])
    assert early["id"] not in {item["id"] for item in pages(events)[0]}
    assert early["id"] in {item["id"] for item in pages(events, showDeleted=True)[0]}


def test_ordering_by_start_needs_single_events(events):
    assert refusal(events.list(calendarId=CALENDAR, orderBy="startTime")) == (400, "invalid")
    late = insert(events)
    early = insert(events, start={"dateTime": "2027-03-01T08:00:00Z"}, end={"dateTime": "2027-03-01T09:00:00Z"})
    items, token = pages(events, orderBy="startTime", singleEvents=True)
    assert [item["id"] for item in items] == [early["id"], late["id"]]
    assert token is None
