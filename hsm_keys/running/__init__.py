"""``hsm-keys run``: a program that signs through a proxy of its own, and holds no key.

Three processes stand beside the program. The run itself (``front``), which the shell knows; the proxy, in a session of
its own (``proxy_process``, ``sharing``); and the keeper between the run and the program (``keeping``).
"""
