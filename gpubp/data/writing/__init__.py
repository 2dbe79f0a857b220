"""How `convert` writes an HDF5 file: whole or not at all, as fast as the disk takes it, and so that `verify` can tell.

`tables` is what is to be written, as columns read in blocks; `narrow` finds the smallest type that holds them exactly;
`layouts` says how they lie in the file, `checksums` what is noted about each MiB of rows; `writer` does it in one pass
by several threads; `unfinished` gives the file its name when it is on the disk.
"""
