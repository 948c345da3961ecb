"""The parts that all Spaces share: settings, catalog, model cache, engines, and the pieces tabs share."""
