"""Measures a store, and what it is compared with, in one run."""
