"""A queue in which visitors take turns, however much each of them asks for."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

T = TypeVar("T")


class FairQueue(Generic[T]):
    """First in, first out for one visitor; visitors take turns. Not thread-safe: its owner holds a lock."""

    def __init__(self) -> None:
        self._waiting: OrderedDict[str, deque[T]] = OrderedDict()

    def __len__(self) -> int:
        return sum(map(len, self._waiting.values()))

    def put(self, visitor: str, item: T) -> None:
        self._waiting.setdefault(visitor, deque()).append(item)

    def pop(self) -> T:
        """The next item; its visitor goes to the end of the row."""
        visitor, items = self._waiting.popitem(last=False)
        item = items.popleft()
        if items:
            self._waiting[visitor] = items
        return item

    def join(self, fits: Callable[[T], bool]) -> Iterator[T]:
        """Takes further items that fit, one of each visitor at a time: so many items of one visitor never displace
        another's only one."""
        found = True
        while found:
            found = False
            for visitor in list(self._waiting):
                item = next((item for item in self._waiting[visitor] if fits(item)), None)
                if item is not None:
                    self.remove(visitor, item)
                    found = True
                    yield item

    def __iter__(self) -> Iterator[T]:
        return (item for items in self._waiting.values() for item in items)

    def remove(self, visitor: str, item: T) -> None:
        items = self._waiting.get(visitor)
        if items and item in items:
            items.remove(item)
            if not items:
                del self._waiting[visitor]

    def place(self, visitor: str, item: T) -> int:
        """How many will have been popped when this item comes, itself included; 0 when it is not waiting."""
        items = self._waiting.get(visitor)
        if not items or item not in items:
            return 0
        round_of_item = items.index(item)
        visitors = list(self._waiting)
        before_me = visitors.index(visitor)
        return (
            1
            + sum(
                min(len(other), round_of_item + (position <= before_me))
                for position, other in enumerate(self._waiting.values())
                if other is not items
            )
            + round_of_item
        )
