"""The entry of web processes and of the command line: `gunicorn wsgi:app`, `flask --app wsgi ...`.

Owns nothing but the start: a wrong setting or a database role that sees too much ends it with one
readable line.
"""

from __future__ import annotations

import sys

from app import create_app
from app.errors import ConfigurationError

try:
    app = create_app()
except ConfigurationError as error:
    sys.stderr.write(f"Voicedesk does not start: {error}\n")
    raise SystemExit(78) from None  # EX_CONFIG
