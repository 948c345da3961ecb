"""The likeliest token, and what makes probabilities of logits: twice through the vocabulary, on vectors."""

from __future__ import annotations

import numpy as np

from shared.engines.kernels.compiling import regrouped
from shared.engines.kernels.numbers import exponential, f32, in_order, of_order


@regrouped
def likeliest(logits: np.ndarray) -> tuple[int, float]:
    """The likeliest token, the first of equals, and its log-probability without the sign.

    So the log-probability of any token is its logit less the likeliest token's, less that. `logits`: float32
    (vocabulary,); where one is NaN, the answer means nothing.
    """
    greatest = in_order(logits[0])
    for t in range(len(logits)):
        greatest = max(greatest, in_order(logits[t]))
    most, token = of_order(greatest), 0
    while logits[token] != most and token < len(logits) - 1:
        token += 1
    total = f32(0)
    for t in range(len(logits)):
        total += exponential(logits[t] - most)
    return token, np.log(total)
