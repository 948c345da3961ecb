"""Turns data into better checkpoints: `python -m finetune RECIPE` trains, measures before and after, and publishes."""
