"""Workflows over a store and Kalshi: each can be killed at any point and run again."""
