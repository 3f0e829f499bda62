"""A local door to Kalshi: programs speak plain HTTP to it, it judges, signs in the token and forwards."""
