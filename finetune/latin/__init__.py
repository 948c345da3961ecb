"""Latin music by rules, and the head trained on it."""
