"""Words with colons in Bash, which breaks a line at them (COMP_WORDBREAKS): scopes such as write::trade."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from click.shell_completion import BashComplete, add_completion_class

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

__all__ = ["complete_words_with_colons"]


class _BashWords(BashComplete):
    """Puts words together again, and proposes what Bash is to put behind the last colon.

    Where the user's Bash doesn't break at colons, there is nothing to be put together.
    """

    _typed = ""
    """What stands before the part that Bash replaces."""

    def get_completion_args(self) -> tuple[list[str], str]:
        """Return the words before the one that is completed, and that one."""
        before, last = super().get_completion_args()
        words: list[str] = []
        for word, former in zip([*before, last], ["", *before], strict=True):
            if words and (_is_colons(word) or _is_colons(former)):
                words[-1] += word
            else:
                words.append(word)
        if words[-1] != last or _is_colons(last):
            self._typed = words[-1] if _is_colons(last) else words[-1].removesuffix(last)
        # The "=" of --scope=read is dropped: click would take it for a value.
        return [word for word in words[:-1] if word != "="], words[-1]

    def format_completion(self, item: CompletionItem[Any]) -> str:
        """Return one as the program's function in Bash reads it."""
        return f"{item.type},{item.value.removeprefix(self._typed)}"


def _is_colons(word: str) -> bool:
    return bool(word) and not word.strip(":")


def complete_words_with_colons() -> None:
    """Have click complete them in Bash."""
    add_completion_class(_BashWords)
