"""The proxy: programs without a key speak plain HTTP to it; it judges, signs in the token and forwards to Kalshi."""
