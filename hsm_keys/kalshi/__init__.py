"""Kalshi's REST API, as far as keys need it."""
