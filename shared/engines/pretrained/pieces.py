"""Token ids that are too long, split at the ends of clauses; pieces gathered into batches."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence

END_OF_CLAUSE = re.compile(r"[.!?…;:,)\]}»”—–。！？；：，]['\"»”’)]*$")


def split_long(words: list[str], limit: int, count: Callable[[list[str]], list[int]]) -> list[str]:
    """Packs words into pieces of at most `limit` tokens, ended after punctuation where the second half has some.

    `count` gives the tokens of each word; no token of these vocabularies spans two words, so they add up.
    """
    lengths = count(words)
    while max(lengths, default=0) > limit:  # a "word" without spaces, such as a page of Chinese: cut it by characters
        halves = ((word[: len(word) // 2], word[len(word) // 2 :]) for word in words)
        cut = [half if n > limit else (word,) for word, half, n in zip(words, halves, lengths, strict=True)]
        words = [part for parts in cut for part in parts]
        lengths = count(words)
    pieces: list[str] = []
    start, size = 0, 0
    for i, length in enumerate(lengths):
        while size + length > limit:
            second_half = range(i, start + (i - start) // 2, -1)
            end = next((j for j in second_half if END_OF_CLAUSE.search(words[j - 1])), i)
            pieces.append(" ".join(words[start:end]))
            start, size = end, sum(lengths[end:i])
        size += length
    return [*pieces, " ".join(words[start:])] if words else []


def batches(lengths: Sequence[int], lines: int, tokens: int) -> Iterator[list[int]]:
    """Places of sentences of similar length, the longest first, bounded in number and in padded tokens."""
    batch: list[int] = []
    for place in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        if batch and (len(batch) == lines or (len(batch) + 1) * lengths[batch[0]] > tokens):
            yield batch
            batch = []
        batch.append(place)
    if batch:
        yield batch
