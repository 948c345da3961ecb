"""What checkpoints are: the catalog, kinds, files on disk, conversion, adapters."""
