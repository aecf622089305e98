"""The programs' door, ``/api/v1``: a key, a scope, a checked question, one service, a checked answer.

Every route is declared with ``@operation`` (``operations.py``), which asks for the key and the scope and
from which the description at ``/api/openapi.json`` is made; the blueprint refuses what is not. Must not
know rows: a service reads them as the tenant.
"""

from app.http.api import appointments, availability, calls, deliveries, messages, openapi, usage
from app.http.api.operations import blueprint

# Importing a file declares its routes.
ROUTES = (deliveries, calls, messages, appointments, availability, usage, openapi)

__all__ = ["ROUTES", "blueprint"]
