"""Compiled inner loops of the CPU engine: arrays in, arrays out, one replica at a time. Importing a module compiles."""
