"""Matrices as small as they were published, laid out for the compiled kernels."""
