"""What the workflows rely on, tried on each double and on what it stands for: the same tests, so that they can't drift.

SoftHSM, ministack, OpenBao and the sandbox are the real parts. What no real part here can be made to do, such as a list
that lags, has no test: it comes from Kalshi's and AWS's documents.
"""
