"""Population kernels for NVIDIA GPUs: a program for each replica and tile of the batch, the loop over time inside.

Arrays are contiguous, with the replica first: (replica, time, batch, …). Width and batch are padded in memory, so that
no load or store needs a mask: width to `PADDED`, batch to a multiple of a tile's rows. Padded rows and columns are
computed too, and meet only zeros on the way back. Importing a kernel module needs Triton.
"""
