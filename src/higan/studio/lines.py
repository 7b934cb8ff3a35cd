"""Who is served when. Clients take turns; each has a short line of its own, at whose head stands its newest wish.

Nothing grows without bound: a wish that a newer one of the same client replaces is dropped, a line that is full
refuses, and so does the whole when too many wait.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, TypeVar

__all__ = ["BusyError", "FairLine", "SupersededError", "TooManyError"]

_T = TypeVar("_T")
_R = TypeVar("_R")
_SHARE_ALONE = 4


class TooManyError(Exception):
    """One client waits for too much already."""


class BusyError(Exception):
    """All clients together wait for too much."""


class SupersededError(Exception):
    """Something newer was wished for by the same client."""


@dataclass(slots=True, eq=False)
class _Waiting(Generic[_T, _R]):
    item: _T
    answer: asyncio.Future[_R]
    newest: bool


class FairLine(Generic[_T, _R]):
    """Items of many clients, worked off in batches in a thread of its own.

    Args:
        work: from items to results, one for each, in order; called in the thread.
        at_once: most items of a batch, which takes one item of every client; a client alone gets a quarter of it.
        per_client: most items that one client may have waiting.
        total: most items that may wait in all.
        name: of the thread.
    """

    def __init__(
        self,
        work: Callable[[Sequence[_T]], Sequence[_R]],
        *,
        at_once: int = 1,
        per_client: int = 32,
        total: int = 512,
        name: str = "line",
    ) -> None:
        self._work = work
        self._at_once = at_once
        self._per_client = per_client
        self._total = total
        self._lines: OrderedDict[str, deque[_Waiting[_T, _R]]] = OrderedDict()
        self._waiting = 0
        self._someone = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=name)
        self._task: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        return self._waiting

    def start(self) -> None:
        """Begin to work; inside the event loop."""
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def stop(self) -> None:
        """Stop working; whoever still waits is told that it is busy."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        for waiting in (w for line in self._lines.values() for w in line):
            _refuse(waiting, BusyError())
        self._lines.clear()
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def ask(self, client: str, item: _T, *, newest: bool = False) -> _R:
        """Wait for an item's result.

        Args:
            client: whose line to stand in.
            item: what to work on.
            newest: replaces what the client wished for before as its newest, and goes to the head of its line.

        Raises:
            TooManyError: this client's line is full.
            BusyError: too many wait.
            SupersededError: a newer wish of the client replaced this one.
        """
        line = self._lines.get(client, deque())
        if newest and line and line[0].newest:
            _refuse(line.popleft(), SupersededError())
            self._waiting -= 1
        elif len(line) >= self._per_client:
            raise TooManyError
        elif self._waiting >= self._total:
            raise BusyError
        waiting = _Waiting[_T, _R](item, asyncio.get_running_loop().create_future(), newest)
        if newest:
            line.appendleft(waiting)
        else:
            line.append(waiting)
        self._lines.setdefault(client, line)
        self._waiting += 1
        self._someone.set()
        return await waiting.answer

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._someone.wait()
            batch = self._take()
            results = await loop.run_in_executor(self._thread, self._each, [w.item for w in batch])
            for waiting, result in zip(batch, results, strict=True):
                if isinstance(result, Exception):
                    _refuse(waiting, result)
                elif not waiting.answer.done():
                    waiting.answer.set_result(result)

    def _take(self) -> list[_Waiting[_T, _R]]:
        """The next batch: one item of every client in turn. A client alone gets a few at once, and not so many that
        whoever comes next would feel it.
        """
        alone = len(self._lines) == 1
        count = max(1, self._at_once // _SHARE_ALONE) if alone else min(self._at_once, len(self._lines))
        batch: list[_Waiting[_T, _R]] = []
        while self._lines and len(batch) < count:
            client, line = self._lines.popitem(last=False)
            batch.append(line.popleft())
            if line:
                self._lines[client] = line  # at the end: everybody else comes first
        self._waiting -= len(batch)
        if not self._lines:
            self._someone.clear()
        return batch

    def _each(self, items: Sequence[_T]) -> list[_R | Exception]:
        """Results; where a batch fails, every item by itself, so that nobody pays for another's mistake."""
        try:
            return list(self._work(items))
        except Exception as error:  # handed to whoever asked
            if len(items) == 1:
                return [error]
        return [result for item in items for result in self._each([item])]


def _refuse(waiting: _Waiting[_T, _R], error: Exception) -> None:
    if not waiting.answer.done():
        waiting.answer.set_exception(error)
