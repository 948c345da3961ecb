"""Greedy and beam search, sampling."""
