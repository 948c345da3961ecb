"""Engines that listen: wav2vec2 and its kin, musicnn, and heads on its features."""
