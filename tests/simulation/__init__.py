"""The lives of keys, simulated: stores, Kalshi, clocks, network and operators in one process, driven by one seed.

The workflows' own code runs unchanged, and below it the stores' own code down to the last call that leaves the
process: C functions of a token, operations of KMS, requests to Vault and to Kalshi. ``python -m tests.simulation`` runs
lives, and tells the story of one.
"""
