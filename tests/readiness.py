"""Readiness in tests: one check at a time, at a desk and in production."""

from __future__ import annotations

from app.config import Environment
from app.services import readiness
from app.services.readiness import CHECKS


def check(platform, name: str) -> dict:
    """Run one check by its name."""
    (found,) = readiness.run(platform, tuple(one for one in CHECKS if one.name == name))["checks"]
    return found


def in_production(platform):
    platform.settings = platform.settings.model_copy(update={"environment": Environment.PRODUCTION})
    return platform


def status_in_both(platform, name: str) -> tuple[str, str]:
    """What a check says at a desk and in production."""
    return check(platform, name)["status"], check(in_production(platform), name)["status"]
