"""Profiles: named settings in ``config.toml``, and the order in which options, variables and profiles are used."""
