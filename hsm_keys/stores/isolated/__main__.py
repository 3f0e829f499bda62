"""The signer's process: ``python -m hsm_keys.stores.isolated``, with a socket to its owner for stdin."""

from hsm_keys.stores.isolated.server import main

main()
