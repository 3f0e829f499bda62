"""``python -m hsm_keys`` is the same program as ``hsm-keys``."""

from hsm_keys.cli import main

main()
