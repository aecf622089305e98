"""A program that uses the API, as a test needs it: its key, and answers that are as they are described."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from flask import Flask
from werkzeug.test import TestResponse

from app.services import api_keys
from app.services.platform import Platform


class Program:
    """Asks with one organization's key."""

    def __init__(self, app: Flask, org_id: UUID, *, scopes: tuple[str, ...] = api_keys.SCOPES) -> None:
        platform: Platform = app.extensions["platform"]
        made = api_keys.create(platform, org_id, scopes=list(scopes), actor="test")
        self.key: str = made["api_key"]
        self.prefix: str = made["prefix"]
        self._client = app.test_client()

    def get(self, path: str, **query: Any) -> TestResponse:
        return self._client.get(f"/api/v1{path}", query_string=query, headers=self.headers)

    def post(self, path: str, body: Any = None, **headers: str) -> TestResponse:
        sent = {**self.headers, **{name.replace("_", "-"): value for name, value in headers.items()}}
        return self._client.post(f"/api/v1{path}", json=body, headers=sent)

    def send(self, key: str, **body: Any) -> TestResponse:
        return self.post("/messages", body, Idempotency_Key=key)

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.key}"}
