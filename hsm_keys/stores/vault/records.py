"""The record of each key in an entry, and the changes that workflows make to it. Nothing is sent here."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

from hsm_keys.errors import KeyBusyError, UsageError
from hsm_keys.signing.api_key_ids import check_api_key_id
from hsm_keys.signing.environments import is_environment
from hsm_keys.stores.marks import FOREIGN, OFFERED, UNBEGUN, UNNAMED, Claim, Mark

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Phase", "Record", "Records", "hand_over", "is_late", "is_transit_name", "label_of", "set_aside", "take_out"]

_TRANSIT_NAME = re.compile(r"\w(?:[\w.-]{0,250}\w)?", re.ASCII)


_LATE: Final = "+late-"
"""What follows NAME, before the end of its Transit key's name, in the label of one that was cleared away too early."""

_DISTINCT: Final = 16


class Phase(StrEnum):
    """What has been begun with a key, and not ended."""

    MAKING = "making"
    """Its Transit key may be there, or not yet; it has no name yet."""
    IMPORTING = "importing"
    """A key made elsewhere is to become its Transit key."""
    DESTROYING = "destroying"
    """Its Transit key may be gone."""


@dataclass(frozen=True, slots=True)
class Record:
    """What an entry says of one key.

    Args:
        transit_key: The name of the Transit key.
        version: The version of the Transit key that is the pair.
        api_key_id: The API key id of a registered key.
        environment: The environment in which it is registered, or was about to be, or for which it is being imported.
        phase: What has been begun with it; None for a key that is whole.
        key_type: The type that is being made or imported.
        run: Stands for the run that is making it.
        vouched: What the key before it signed about it, in base64.
        claim: What a run was about to do with an API key of a minted key, or ``UNBEGUN``.
    """

    transit_key: str
    version: int = 1
    api_key_id: str | None = None
    environment: str | None = None
    phase: Phase | None = None
    key_type: str | None = None
    run: str | None = None
    vouched: str | None = None
    claim: str | None = None

    @property
    def mark(self) -> Mark:
        """What it says of the key; with values that we never write, the key isn't ours."""
        if self.environment == UNNAMED and self.api_key_id is None:
            return OFFERED
        if self.environment is not None and not is_environment(self.environment):
            return FOREIGN
        if self.api_key_id is None:
            importing = self.phase is Phase.IMPORTING
            registering = self.environment is not None and not importing and self.claim != UNBEGUN
            claim = Claim.parse(self.claim) if registering else None
            return Mark(True, None, self.environment, importing=importing, registering=registering, claim=claim)
        try:
            known = check_api_key_id(self.api_key_id)
        except UsageError:
            return FOREIGN
        return Mark(ours=True, api_key_id=known, environment=self.environment) if self.environment else FOREIGN

    def as_dict(self) -> dict[str, Any]:
        """Return it as it goes into the entry."""
        fields = {name: getattr(self, name) for name in self.__slots__}
        return {name: str(value) if name == "phase" else value for name, value in fields.items() if value is not None}

    @classmethod
    def parse(cls, content: object) -> Record | None:
        """Return the record that a field of an entry holds; None if it is none of ours."""
        if not isinstance(content, dict) or not content.keys() <= set(cls.__slots__):
            return None
        transit_key, version, phase = content.get("transit_key"), content.get("version", 1), content.get("phase")
        texts = [content.get(name) for name in cls.__slots__ if name != "version"]
        if (
            not isinstance(transit_key, str)
            or not is_transit_name(transit_key)
            or not isinstance(version, int)
            or not all(text is None or isinstance(text, str) for text in texts)
            or phase not in {None, *Phase}
        ):
            return None
        return cls(**{**content, "version": version, "phase": None if phase is None else Phase(phase)})


Records = dict[str, Record]
"""Label to record: all that an entry says."""


def is_transit_name(text: str) -> bool:
    """Tell whether the Transit engine can have a key of that name."""
    return _TRANSIT_NAME.fullmatch(text) is not None


def label_of(records: Records, transit_key: str) -> str | None:
    """Return the label of a Transit key; None if it has none."""
    return next((label for label, record in records.items() if record.transit_key == transit_key), None)


def is_late(label: str) -> bool:
    """Tell whether a label is that of a Transit key that was cleared away before it had come."""
    return _LATE in label


def set_aside(records: Records, label: str, keeps: str | None = None) -> None:
    """Give a label free, and keep in mind the Transit key that was to be made for it: it may still come.

    Args:
        records: The records.
        label: The label.
        keeps: The Transit key that may keep it.
    """
    record = records.get(label)
    if record is not None and record.run is not None and record.transit_key != keeps:
        del records[label]
        late = f"{label.partition('+')[0]}{_LATE}{record.transit_key[-_DISTINCT:]}"
        records[late] = replace(record, phase=Phase.DESTROYING)


def take_out(records: Records, *transit_keys: str) -> None:
    """Take out what is said of these Transit keys."""
    for label in [label for label, record in records.items() if record.transit_key in transit_keys]:
        del records[label]


def hand_over(records: Records, name: str, left: str, keys: Mapping[str, str], vouched: str) -> None:
    """Give a name to another key. Nothing is changed if an earlier run has done it.

    Args:
        records: The records.
        name: The name to hand over.
        left: The label that the leaver has from now on.
        keys: The Transit key that gets it, then the one that has it, each with the label that it was seen with.
        vouched: What the leaver signed about the taker, in base64.

    Raises:
        KeyBusyError: If somebody else has changed the keys of that name.
    """
    labels = [label_of(records, key) for key in keys]
    if labels == [name, left]:
        return
    others = [label for label in (name, left) if label in records and label not in labels]
    if labels != list(keys.values()) or others:
        raise KeyBusyError(
            f"somebody else has changed the keys of {name!r} at the same moment",
            hint="look with `hsm-keys list`, then run the same command again",
        )
    taking, leaving = (records.pop(str(label)) for label in labels)
    records[name], records[left] = replace(taking, vouched=vouched), leaving
