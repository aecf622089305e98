"""The HTTP door: translate a request, call one service, translate back. No business rule lives here."""
