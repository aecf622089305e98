"""Connecting real accounts: what a provider must be told, told by command.

Owns the way from credentials to traffic. ``google`` gets a person's consent to their calendar;
``comparing`` says where a provider's settings differ from what they should be, with the help of ``twilio``,
``vapi`` and ``calendar``, each of which knows one provider's; ``applying`` mends what differs. No transaction
is open while a provider is asked.
"""
