"""The arithmetic of networks, compiled for the processor it runs on: fewer bytes read, no interpreter.

A token of a small model is bound by how fast its weights come out of memory, so they are kept as small as they were
published. Where those are integers, activations become integers of 16 bits, in the same groups, and the processor sums
their products exactly, in one instruction where it has VNNI. Everything between two tokens is one compiled function,
which holds no lock of the interpreter.

Sums are taken in the same order whatever else is computed in the same step, so what a sequence gets does not depend on
its company, to the last bit.

`llama`, `gpt2`, `encoder`, `cross_decoder` and `ssru` are whole forward passes, built from `products`, `attention`,
`sources`, `elementwise` and `likeliest`, which use `numbers`, `integer_sums` and `compiling`.
"""
