"""What every Space stands on: settings, catalog, model cache, engines, and the pieces tabs share."""
