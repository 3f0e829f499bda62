"""The proxy: programs without a key send it plain HTTP; it judges requests, signs in the token, forwards to Kalshi."""
