"""A Space as a folder of its own, and onto the Hub."""
