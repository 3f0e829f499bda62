"""Checks of stores, of Kalshi and of the set-up. Nothing here changes a key; `lifecycle` does."""
