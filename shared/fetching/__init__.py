"""Bytes to disk: from packages and from a Hub, resumed, hashed, once however many ask."""
