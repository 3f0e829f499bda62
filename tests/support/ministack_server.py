"""ministack with one wrapping key for all imports: it takes a second of processor for an RSA key of 4,096 bits.

Its own Python runs this file in place of its program.
"""

import functools
import sys
from typing import Any

from cryptography.hazmat.primitives.asymmetric import rsa
from ministack.app import main  # type: ignore[import-not-found]  # it has an environment of its own
from ministack.services import kms  # type: ignore[import-not-found]

_make = rsa.generate_private_key
_make_once = functools.cache(_make)


class _WrappingSize(int):
    """The size of a wrapping key: what is asked for with it is made once."""


def _generate_private_key(public_exponent: int, key_size: int, backend: Any = None) -> rsa.RSAPrivateKey:
    return (_make_once if isinstance(key_size, _WrappingSize) else _make)(public_exponent, key_size, backend)


if __name__ == "__main__":
    rsa.generate_private_key = _generate_private_key
    kms._WRAPPING_KEY_SIZES = {spec: _WrappingSize(size) for spec, size in kms._WRAPPING_KEY_SIZES.items()}
    sys.exit(main())
