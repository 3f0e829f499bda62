"""From nothing, or from a PEM, to a key in a store: ``init`` and ``migrate``, to be run again at any point."""
