"""Read by Python at the start of every process that has this folder on its PYTHONPATH: breaks what it is told to."""

import os

if os.environ.get("CHAOS_PATCH"):
    from chaos.sabotage import apply

    apply(os.environ["CHAOS_PATCH"])
