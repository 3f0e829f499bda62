"""Signing: the message, the algorithms, and the headers of a request. Where a key is kept doesn't matter here."""
