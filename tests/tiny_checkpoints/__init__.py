"""Tiny checkpoints with seeded weights, written to a folder as they lie on the Hub."""
