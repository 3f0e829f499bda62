"""Lets Kalshi's SDKs sign with a key in a store where a private key object isn't enough; docs/sdks.md has recipes."""
