"""Latin music by rules, and the head that learned from it."""
