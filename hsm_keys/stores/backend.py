"""The description of a kind of store: its options on the command line, how it is opened, its checks, its policies.

A back-end is a package whose module ``backend`` has a ``Backend`` named ``BACKEND``, and one line in
``hsm_keys.stores``. ``--help`` reads these descriptions: nothing heavy is imported before a store is opened.

What only some stores can do is in ``hsm_keys.stores.abilities``, what only some back-ends can in ``policies`` and
``new_store``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from hsm_keys.errors import UsageError
from hsm_keys.stores.access import Access
from hsm_keys.stores.checks import Check, checked

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from hsm_keys.stores.base import KeyStore
    from hsm_keys.stores.candidates import Candidate
    from hsm_keys.stores.pins import Pin, PinWanted
    from hsm_keys.values import Secret

__all__ = ["Backend", "Option", "refuse_two"]


@dataclass(frozen=True, slots=True)
class Option:
    """An option of the command line that a back-end offers.

    Args:
        flag: Such as ``--slot``.
        help: What it is, for ``--help``.
        kind: What it takes; ``bool`` makes it a flag that takes nothing.
        metavar: What its value is called.
        setting: What it is called as a setting; empty for one that `hsm-keys config` leaves out.
        variables: The environment variables that stand in where the option is left out, the first one first.
        default: What counts where nothing says anything, in words.
        uri_attribute: What says the same in a store's URI. A profile may hold such an option, which is a path.
        names_store: Whether the option says by itself which store is meant.
        multiple: Whether it may be given several times.
        is_secret_file: Whether it names a file or pipe that holds a secret.
    """

    flag: str
    help: str
    kind: type[str | int | bool] = str
    metavar: str | None = None
    setting: str = ""
    variables: tuple[str, ...] = ()
    default: str = ""
    uri_attribute: str = ""
    names_store: bool = False
    multiple: bool = False
    is_secret_file: bool = False

    @property
    def field(self) -> str:
        """What a profile calls it: the flag without the dashes before it."""
        return self.flag.removeprefix("--")

    @property
    def name(self) -> str:
        """What its value is kept under."""
        return self.field.replace("-", "_")


class Backend(ABC):
    """A kind of store.

    Options come as a mapping from ``Option.name`` to the value; those that were left out aren't in it.

    Attributes:
        scheme: The scheme of its URIs, without the colon.
        title: What people call it in a sentence.
        example: How its stores are named on the command line.
        options: What commands take for it.
        creation_options: What commands that make keys take for it beside.
        has_pin: Whether a person may be asked for a PIN when a store is opened.
        bills_signatures: Whether the store's operator bills each signature.
        abilities: What its stores can do that not every store can.
        access: What gives access to them on this machine.
    """

    scheme: ClassVar[str]
    title: ClassVar[str]
    example: ClassVar[str]
    options: ClassVar[tuple[Option, ...]] = ()
    creation_options: ClassVar[tuple[Option, ...]] = ()
    has_pin: ClassVar[bool] = False
    bills_signatures: ClassVar[bool] = False
    abilities: ClassVar[tuple[type, ...]] = ()
    access: ClassVar[Access] = Access()

    def has(self, uri: str) -> bool:
        """Tell whether a URI names a store of this kind."""
        return uri.lower().startswith(f"{self.scheme}:")

    def uri_of(self, options: Mapping[str, Any], report: Callable[[str], None]) -> str:  # noqa: ARG002 - for others
        """Return the URI of the store that options name, or of the usual one.

        Args:
            options: This back-end's options.
            report: Called with a line for people.

        Raises:
            UsageError: If they contradict each other, or can't be.
            StoreError: If they name no store that is there.
        """
        return self.with_options(f"{self.scheme}:///", options)

    def with_options(self, uri: str, options: Mapping[str, Any]) -> str:  # noqa: ARG002 - for those that have options
        """Return a URI with what the options add to it.

        Raises:
            UsageError: If they contradict it, or it is malformed.
        """
        return uri

    def check_public(self, uri: str) -> None:  # noqa: B027 - most URIs can hold no secret
        """Refuse a URI that holds a secret: it stands on a command line, for all to see.

        Raises:
            UsageError: If it does.
        """

    def check_region(self, region: str) -> None:  # noqa: B027 - most stores know no Regions
        """Refuse what can't be a Region to replicate a key to.

        Raises:
            UsageError: If it can't.
        """

    def wants_secret(self, uri: str) -> bool:  # noqa: ARG002 - most stores have no PIN
        """Tell whether opening the store takes a PIN whose place the URI doesn't name."""
        return False

    def uri_to_keep(self, opened: str, named: str) -> str:  # noqa: ARG002 - most URIs name no PIN's place
        """Return the URI by which a store can be opened again: as it was opened, with the place of its PIN.

        Args:
            opened: The URI of the open store, which names one store.
            named: The URI by which it was opened; empty where options named it.
        """
        return opened

    def public_names(self, uri: str) -> list[str]:  # noqa: ARG002 - most stores show nothing to just anybody
        """Return the names of keys that a store of this kind on this machine shows to all, to be proposed to a shell.

        Raises:
            StoreError: If the store isn't there, or doesn't answer.
        """
        return []

    def access_paths(self, env: Mapping[str, str], home: Path) -> list[Path]:
        """Return the files and folders that give access to its stores, whether they are there or not.

        Args:
            env: The environment.
            home: The home folder.
        """
        return self.access.paths(env, home)

    def candidates(
        self,
        options: Mapping[str, Any],  # noqa: ARG002 - for those that look
        env: Mapping[str, str],  # noqa: ARG002
        report: Callable[[str], None],  # noqa: ARG002
    ) -> list[Candidate]:
        """Return the stores of this kind that this machine or its environment names, to be proposed to a person.

        Nothing is opened that needs a PIN, and nobody is asked over a network.

        Args:
            options: This back-end's options; a store that they don't mean is left out.
            env: The environment.
            report: Called with a line for people.

        Raises:
            StoreError: If an option names what isn't there.
        """
        return []

    def pin_apart(
        self, uri: Secret, pin_file: Path | None, ask: Callable[[str], str] | None
    ) -> tuple[Secret, Callable[[PinWanted], Pin | None]]:
        """Return a URI without its PIN, and what finds the PIN here for a process that has none of its sources.

        Args:
            uri: Names the store.
            pin_file: A file or pipe that holds the PIN.
            ask: Asks a person for it; None where nobody can be asked.

        Raises:
            UsageError: If the URI is malformed.
        """
        del pin_file, ask  # for stores that have a PIN
        return uri, lambda _wanted: None

    def open_with(self, uri: str, get_pin: Callable[[PinWanted], Pin | None], *, force_pin: bool) -> KeyStore:
        """Open a store with a PIN from anywhere, as the process does that ``pin_apart`` is for.

        Args:
            uri: Names it, without a PIN.
            get_pin: Gets the PIN.
            force_pin: Log in also where one more wrong PIN locks the store.

        Raises:
            UsageError: If the URI can't be used.
            StoreError: If the store isn't there, or can't be used.
        """
        del get_pin  # for stores that have a PIN
        return self.open(uri, {"force_pin": force_pin}, None, {})

    @abstractmethod
    def open(
        self,
        uri: str | Secret,
        options: Mapping[str, Any],
        ask: Callable[[str], str] | None,
        creation: Mapping[str, Any],
    ) -> KeyStore:
        """Open a store.

        Args:
            uri: Names it.
            options: This back-end's options; others are passed over.
            ask: Asks a person for a PIN; None where nobody can be asked.
            creation: This back-end's options for making keys.

        Raises:
            UsageError: If the URI or an option can't be used.
            StoreError: If the store isn't there, or can't be used.
        """

    def look(
        self, uri: str, options: Mapping[str, Any], env: Mapping[str, str], opened: Callable[[], list[Check]]
    ) -> list[Check]:
        """Look at a store for ``doctor``: first from outside, then at the open one where that is safe.

        Args:
            uri: Names the store.
            options: This back-end's options.
            env: The environment.
            opened: Opens the store, and looks at it.
        """
        del uri, options, env  # for those that look from outside
        return checked("store", opened)


def refuse_two(option: str, value: object, in_uri: object) -> None:
    """Refuse an option that says something else than a store's URI.

    Raises:
        UsageError: If the URI says something, and not the same.
    """
    if in_uri and in_uri != value:
        raise UsageError(f"{option} and the URI don't say the same", hint="give it once")
