"""Decoders (Llama, GPT-2): the reference on PyTorch, and the batched engine on compiled kernels."""
