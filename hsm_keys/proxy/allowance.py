"""Asks Kalshi what calls cost and what the account may do, when the proxy starts and then once an hour."""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import suppress
from datetime import UTC, datetime
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

import aiohttp
from pydantic import BaseModel, ValidationError

from hsm_keys.errors import HsmKeysError
from hsm_keys.proxy.costs import Costs, EndpointCosts
from hsm_keys.proxy.reaching import reason_of
from hsm_keys.proxy.tiers import AccountLimits
from hsm_keys.settings_errors import wrong_settings
from hsm_keys.signing.environments import PERPS

if TYPE_CHECKING:
    from hsm_keys.proxy.asking import OwnRequests
    from hsm_keys.proxy.judge import Judge
    from hsm_keys.proxy.metrics import Metrics

__all__ = ["AllowanceWatch"]

_PATIENCE_S: Final = 2.0
_HOUR_S: Final = 3600.0
_TRIED_AGAIN_S: Final = 300.0

_log: Final = logging.getLogger(__name__)
_Answer = TypeVar("_Answer", bound=BaseModel)


class AllowanceWatch:
    """Has the judge reckon with what Kalshi says. An answer that can't be used changes nothing.

    Args:
        own: Asks Kalshi.
        judge: Judges by it.
        metrics: Shows where the numbers are from.
        environment: The key's, which tells the exchange; None if it isn't known.
    """

    def __init__(self, own: OwnRequests, judge: Judge, metrics: Metrics, *, environment: str | None) -> None:
        self._own = own
        self._judge = judge
        self._metrics = metrics
        perps = environment is not None and environment.endswith(f"-{PERPS}")
        self._costs = _Question("costs", "/account/endpoint_costs", EndpointCosts)
        self._limits = _Question("limits", "/account/limits/perps" if perps else "/account/limits", AccountLimits)

    async def start(self, serving: asyncio.Event) -> asyncio.Task[None]:
        """Return what goes on asking, once Kalshi has answered, and after 2 seconds at the latest; see ``keep``."""
        asked = asyncio.Event()
        asking = asyncio.create_task(self.keep(asked, serving))
        with suppress(TimeoutError):
            async with asyncio.timeout(_PATIENCE_S):
                await asked.wait()
        return asking

    async def keep(self, asked: asyncio.Event, serving: asyncio.Event) -> None:
        """Ask now and every hour; every 5 minutes while there is an answer missing.

        Args:
            asked: Is set when everything was asked once.
            serving: Is set when people have been told that the proxy serves; they hear of the answers afterwards.
        """
        while True:
            await self.ask()
            asked.set()
            await serving.wait()
            self.tell()
            missing = self._costs.trouble or self._limits.trouble
            await asyncio.sleep(_TRIED_AGAIN_S if missing else _HOUR_S)

    async def ask(self) -> None:
        """Ask once."""
        costs = await self._asked(self._costs)
        if costs is not None:
            self._judge.costs = Costs(costs)
        limits = await self._asked(self._limits)
        if limits is not None:
            self._judge.tier.follow(limits, time.monotonic())

    def summary(self) -> str:
        """Return where the numbers are from, for people; ``tell`` doesn't repeat it."""
        for question in (self._costs, self._limits):
            question.news = question.news if question.trouble else ""
        return ", ".join(
            f"{question.name} are {'the program' if question.answer is None else 'Kalshi'}'s own"
            + ("" if question.answer is None else f" ({question.answer})")
            for question in (self._costs, self._limits)
        )

    def tell(self) -> None:
        """Log what is new: another answer, or another reason why there is none."""
        for question in (self._costs, self._limits):
            news, question.news = question.news, ""
            if news:
                _log.warning("%s", news)

    def status(self) -> dict[str, Any]:
        """Return where the numbers are from, and since when; and the account's limits, if Kalshi has said them."""
        limits = self._limits.answer
        return {
            "costs": self._costs.status(),
            "limits": self._limits.status() | ({} if limits is None else limits.model_dump()),
        }

    async def _asked(self, question: _Question[_Answer]) -> _Answer | None:
        """Return Kalshi's answer; None if there is none that can be used."""
        answer, trouble = await self._tried(question)
        if answer is None:
            if trouble != question.trouble:
                kept = "Kalshi's last ones hold" if question.answer else "the program's own hold"
                question.news = f"{question.name} aren't to be had by GET {question.path}: {trouble}; {kept}"
            question.trouble = trouble
            return None
        if answer != question.answer:
            question.news = f"{question.name} are Kalshi's own from now on ({answer})"
        question.answer, question.said_at, question.trouble = answer, time.time(), ""
        self._metrics.from_kalshi.labels(question.name).set(1)
        return answer

    async def _tried(self, question: _Question[_Answer]) -> tuple[_Answer | None, str]:
        """Return Kalshi's answer, or why there is none."""
        try:
            status, body = await self._own.get(question.path)
        except HsmKeysError as error:
            return None, str(error)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            return None, f"Kalshi can't be reached ({reason_of(error)})"
        if status != HTTPStatus.OK:  # a key with few scopes may not ask
            return None, f"Kalshi answers {status}"
        try:
            return question.model.model_validate_json(body), ""
        except ValidationError as error:
            return None, f"Kalshi's answer can't be used: {wrong_settings(error, ())}"


class _Question(Generic[_Answer]):
    """Something that Kalshi is asked.

    Args:
        name: What the answer tells.
        path: Where, below ``/trade-api/v2``.
        model: What the answer looks like.

    Attributes:
        answer: The last one that could be used.
        said_at: When that was, in Unix time.
        trouble: Why the last try brought none; empty if it did.
        news: What people should hear of it; empty if they have.
    """

    def __init__(self, name: str, path: str, model: type[_Answer]) -> None:
        self.name = name
        self.path = path
        self.model = model
        self.answer: _Answer | None = None
        self.said_at = 0.0
        self.trouble = ""
        self.news = ""

    def status(self) -> dict[str, Any]:
        """Return where its numbers are from, and since when."""
        if self.answer is None:
            return {"from": "table"}
        return {"from": "kalshi", "said_at": datetime.fromtimestamp(self.said_at, UTC).isoformat(timespec="seconds")}
