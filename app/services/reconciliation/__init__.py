"""Comparing with the providers: what they have and we have not, filled in as if it had been told.

``comparing`` owns the order and what is said of it, a file a provider what is asked and what is the same;
``periodic`` when it happens by itself.
"""
