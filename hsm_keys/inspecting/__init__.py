"""What only looks: at stores, at Kalshi, at the set-up. Nothing here changes a key; `lifecycle` does."""
