"""What Kalshi's SDKs need beyond a private key object, to sign with a key in a store; docs/sdks.md has the recipes."""
