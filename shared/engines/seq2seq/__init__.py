"""Encoder-decoders (T5, BART, Marian, M2M100): the reference, and the batched engine."""
