"""Tiny checkpoints made on the spot: complete folders as they are published, with random but fixed weights.

Their tokenizers are of the real kinds, trained on a few sentences; their weights know nothing, but they are drawn so
wide that outputs differ from input to input. Each function writes one folder and returns it.
"""
