"""The entry of web processes and of the command line: `gunicorn wsgi:app`, `flask --app wsgi ...`.

Owns nothing but the start: a wrong setting or a database role that sees too much ends it with one
readable line. Only `settings check` and `readiness` go on, because they are what tells of them.
"""

from __future__ import annotations

import sys

from app import create_app
from app.cli import goes_on_without_settings, without_platform
from app.errors import ConfigurationError
from app.observability.errors import watch_process

try:
    app = create_app()
except ConfigurationError as error:
    if not goes_on_without_settings(sys.argv[1:]):
        sys.stderr.write(f"Voicedesk does not start: {error}\n")
        raise SystemExit(78) from None  # EX_CONFIG
    app = without_platform()
watch_process("cli")  # in a web process gunicorn.conf.py says otherwise
