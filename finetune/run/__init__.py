"""One training run: prepared, estimated, trained, watched, in its turn, perhaps in a process of its own."""
