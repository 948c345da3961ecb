"""Which sentences say most of a text: close to its centroid, far from each other (MMR, Carbonell & Goldstein 1998)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from shared.engines.protocols import SentenceEncoder
from shared.media.text import Span
from shared.serving.lease import Lease

RELEVANCE = 0.7
"""MMR's lambda: how much closeness to the whole counts against novelty."""


def choose(
    pieces: Sequence[Span], max_tokens: int, encoder: SentenceEncoder, lease: Lease
) -> tuple[list[Span], list[float]]:
    """The chosen pieces in their order, and every piece's cosine similarity to the whole text.

    At least one is chosen, even when it alone is longer than `max_tokens`.
    """
    texts = [piece.text for piece in pieces]
    vectors = encoder.encode(texts, lease.compute)
    lengths = np.array(encoder.count_tokens(texts))
    centroid = vectors.mean(axis=0)
    centroid /= max(float(np.linalg.norm(centroid)), 1e-9)
    relevance = vectors @ centroid
    redundancy = np.zeros(len(pieces))
    # Pieces of no token the encoder knows say nothing that could be compared.
    left, candidates = max_tokens, lengths > 0
    if not candidates.any():
        return list(pieces[:1]), [0.0] * len(pieces)
    chosen: list[int] = []
    while True:
        lease.check()
        fitting = candidates & (lengths <= left)
        if not fitting.any():
            if chosen:
                break
            fitting = candidates
        worth = np.where(fitting, RELEVANCE * relevance - (1 - RELEVANCE) * redundancy, -np.inf)
        best = int(worth.argmax())  # the first of equals
        chosen.append(best)
        candidates[best] = False
        left -= int(lengths[best])
        redundancy = np.maximum(redundancy, vectors @ vectors[best])
    return [pieces[i] for i in sorted(chosen)], [float(value) for value in relevance]
