"""Measuring the store at hand, beside what it is compared with, in one run."""
