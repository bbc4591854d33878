"""Kernels of the compiled engine: arrays in, arrays out, one replica at a time. Importing a module compiles it."""
