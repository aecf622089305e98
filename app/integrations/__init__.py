"""How each outside party talks: one module per provider, and the breaker around all calls out.

Leaves of the house: they translate between a provider's wire format and the shapes in ``events.py``
and ``errors.py``. They know no database, no service, no web framework, and not each other.
"""
