"""Signing: what is signed, how, and the headers it makes. Knows nothing of where a key lives."""
