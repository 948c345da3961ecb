"""What all Spaces share, from settings to the page. ARCHITECTURE.md has a map of the folders."""
