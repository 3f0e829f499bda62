"""Finds the file of a command's first word, as execvp(3) does."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, ClassVar

from hsm_keys.errors import HsmKeysError
from hsm_keys.values import hides_its_arguments, shown, shown_path

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["ProgramNotExecutableError", "ProgramNotFoundError", "find_program"]


class ProgramNotFoundError(HsmKeysError):
    """There is no program of that name: 127, as shells say it."""

    code: ClassVar[str] = "program_not_found"
    exit_code: ClassVar[int] = 127


class ProgramNotExecutableError(HsmKeysError):
    """There is a file, and it can't be run: 126, as shells say it."""

    code: ClassVar[str] = "program_not_executable"
    exit_code: ClassVar[int] = 126


@hides_its_arguments
def find_program(word: str, environment: Mapping[str, str]) -> str:
    """Return the path of the program that a word means: the word itself if it has a slash, else found along ``PATH``.

    Raises:
        ProgramNotFoundError: If there is none.
        ProgramNotExecutableError: If what there is can't be run.
    """
    if not word:
        raise ProgramNotFoundError("the command's first word is empty", hint="give the program behind --")
    folders = [""] if "/" in word else environment.get("PATH", os.defpath).split(os.pathsep)
    refused = ""
    for folder in folders:
        path = os.path.join(folder, word)  # noqa: PTH118 - `./x` stays `./x`: a program may look at its own name
        try:
            mode = os.stat(path).st_mode  # noqa: PTH116
        except OSError as error:
            if isinstance(error, PermissionError):
                refused = refused or path
            continue
        if stat.S_ISREG(mode) and os.access(path, os.X_OK, effective_ids=os.access in os.supports_effective_ids):
            return path
        if "/" in word or stat.S_ISREG(mode):
            refused = refused or path
    if refused:
        raise ProgramNotExecutableError(
            f"{shown_path(refused)} can't be run: it is a folder, or lacks the permission to be executed",
            hint="chmod +x makes a file a program; a script needs its interpreter in front: -- python bot.py",
        )
    raise ProgramNotFoundError(
        f"there is no program {shown(word)}", hint="give its path, or see that PATH names its folder"
    )
