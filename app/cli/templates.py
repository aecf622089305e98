"""`template`: what an organization says and texts, in its own words or as it ships."""

from __future__ import annotations

from uuid import UUID

import click

from app.cli.output import DataCommand, Row
from app.cli.typed import VALUE, operator, platform
from app.services import template_setup
from app.services.catalogue import LANGUAGES

_org = click.argument("org_id", type=click.UUID)
_key = click.argument("key")
_language = click.option("--language", type=click.Choice(LANGUAGES), help="Not the one that the organization speaks.")


@click.group()
def template() -> None:
    """Templates: the sentences that are said and texted."""


@template.command("list", cls=DataCommand, columns=("key", "text", "is_own", "content_sid"))
@_org
@_language
def list_templates(org_id: UUID, language: str | None) -> list[Row]:
    """All sentences in the organization's language."""
    return template_setup.list_all(platform(), org_id, language)


@template.command("show", cls=DataCommand)
@_org
@_key
@_language
def show(org_id: UUID, key: str, language: str | None) -> Row:
    """One sentence, how it ships, and its placeholders."""
    return template_setup.show(platform(), org_id, key, language)


@template.command("set", cls=DataCommand)
@_org
@_key
@click.option("--text", type=VALUE, help="The sentence with its {placeholders}, or @file.")
@click.option("--content-sid", help="The approved WhatsApp template that says it (HX...); empty: none.")
@click.option("--variables", help="Which placeholders are its variables 1, 2, ...: business,when. Without: all.")
@_language
def change(
    org_id: UUID, key: str, text: str | None, content_sid: str | None, variables: str | None, language: str | None
) -> Row:
    """Word a sentence otherwise, or name the approved template for WhatsApp outside its 24 hours."""
    return template_setup.change(
        platform(),
        org_id,
        key,
        language=language,
        text=text,
        content_sid=content_sid,
        variables=variables,
        actor=operator(),
    )


@template.command("reset", cls=DataCommand)
@_org
@_key
@_language
def reset(org_id: UUID, key: str, language: str | None) -> Row:
    """Say it as it ships again."""
    return template_setup.reset(platform(), org_id, key, language=language, actor=operator())
