"""Adapters (LoRA, IA3, BitFit and heads) on an engine's layers."""
