"""Text, languages and recordings, before any model reads them."""
