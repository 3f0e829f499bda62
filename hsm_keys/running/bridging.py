"""Forwards bytes between two connections, in both directions."""

from __future__ import annotations

import asyncio
from typing import Final

__all__ = ["bridge"]

_PIECE: Final = 65536


async def bridge(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    far_reader: asyncio.StreamReader,
    far_writer: asyncio.StreamWriter,
) -> None:
    """Pass on what comes, until one end is gone.

    Args:
        reader: Of the connection that was accepted.
        writer: Likewise; it is left to be closed.
        far_reader: Of the one that was opened for it.
        far_writer: Likewise; it is closed.

    Raises:
        OSError: If one end breaks off.
    """
    ways = [
        asyncio.create_task(_pass_on(reader, far_writer)),
        asyncio.create_task(_pass_on(far_reader, writer)),
    ]
    try:
        await asyncio.gather(*ways)
    finally:
        for way in ways:
            way.cancel()
        far_writer.close()


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while piece := await reader.read(_PIECE):
        writer.write(piece)
        await writer.drain()
    if writer.can_write_eof():
        writer.write_eof()
    else:
        writer.close()
