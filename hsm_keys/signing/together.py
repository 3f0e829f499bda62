"""An ability of some keys: to sign several messages together."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["SignsTogether"]


class SignsTogether(ABC):
    """A key that signs several messages in less time than one after the other."""

    @abstractmethod
    def sign_all(self, messages: Sequence[bytes], /) -> list[bytes]:
        """Return the signatures over messages, in their order; all or none.

        Raises:
            HsmKeysError: Whatever ``sign`` raises.
        """
