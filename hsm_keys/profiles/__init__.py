"""Profiles: settings under a name in ``config.toml``, and the one order in which options, variables and they count."""
