"""Firefox's translators (Marian "tiny" students): file, network, reference and batched engine."""
