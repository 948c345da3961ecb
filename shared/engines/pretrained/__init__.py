"""Checkpoints in Hugging Face's folder format, and how their inputs are batched."""
