"""The front doors that there are. One line for each: importing a door is all there is to its registration.

Owns the list. What a door brings is in ``front_door.py``; each has its own module here, and knows no other.
"""

from __future__ import annotations

from app.integrations.doors.cal_com import CAL_COM as CAL_COM
from app.integrations.doors.standard_webhooks import STANDARD_WEBHOOKS as STANDARD_WEBHOOKS
from app.integrations.doors.stripe import STRIPE as STRIPE
from app.integrations.doors.whatsapp_cloud import WHATSAPP_CLOUD as WHATSAPP_CLOUD
from app.integrations.front_door import FrontDoor
from app.observability import metrics

DOORS: dict[str, FrontDoor] = {door.provider: door for door in list(vars().values()) if isinstance(door, FrontDoor)}

for _provider in DOORS:
    metrics.know_provider(_provider)
