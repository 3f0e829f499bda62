"""The variables, files and folders that give access to a kind of store: ``run`` hides them from its programs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Access"]


@dataclass(frozen=True, slots=True)
class Access:
    """Variables, files and folders that open stores, or are ones.

    Args:
        variables: What the names of environment variables begin with that open such a store, or lead to one.
        path_variables: Variables that name a file or folder which opens one, or is one.
        in_home: Paths under the home folder.
        in_system: Absolute paths.
    """

    variables: tuple[str, ...] = ()
    path_variables: tuple[str, ...] = ()
    in_home: tuple[str, ...] = ()
    in_system: tuple[str, ...] = ()

    def paths(self, env: Mapping[str, str], home: Path) -> list[Path]:
        """Return the files and folders, whether they are there or not.

        Args:
            env: The environment.
            home: The home folder.
        """
        named = [Path(env[name]) for name in self.path_variables if env.get(name)]
        return [*named, *(home / name for name in self.in_home), *map(Path, self.in_system)]
