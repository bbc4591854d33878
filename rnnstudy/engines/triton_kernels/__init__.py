"""Triton kernels for NVIDIA GPUs: one program per replica and tile of the batch, with the loop over time inside.

Arrays are contiguous, with the replica first: (replica, time, batch, …). Width and batch are padded in memory, so that
no load or store needs a mask: width to the one in `table.TABLE`, batch to a multiple of a tile's rows. Padded rows and
columns are computed too; their gradients are zero. Importing a kernel module needs Triton.
"""
