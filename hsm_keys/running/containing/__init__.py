"""``run --contain``: a program that reaches the proxy and nothing else, by namespaces(7) and seccomp(2) of Linux."""
