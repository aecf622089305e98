"""The fault suite: a house of real processes under load, broken on purpose, and judged from outside.

`make chaos` runs it; `docs/reliability.md` says what it shows. Uses the sandbox's servers and stand-ins and
the product as it is; nothing in the product knows of it.
"""
