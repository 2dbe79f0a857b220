"""From a user's file to rows that training can walk through.

From file to rows: `guard` opens a file without trusting it, and the room `hdf5` finds out what is in it and reads it;
`names` knows what people call their datasets; `tables` takes fields of records, `virtual` the files behind a virtual
dataset; `dataset` puts these together, `several` makes one data set of many files. `source` says what rows are, `views`
shows some of them, some columns, or their gaps filled, `stamp` notices a file that changes, `place` says where a row is
to be found.

From rows to numbers: `select` and `missing` do what --select and --missing say; `scan` looks once at every row (by way
of `direct`, with the sums of `moments`), `scaling` and `digits` judge what it found; `targets` turns labels into
numbers and back, `class_weights` weighs them; `split` chooses validation rows; `memory` knows how much of it is free;
`rows` is what a pass is given.

For people: `report` says what a file holds (`columns` and `speed` look, `advice` says what to fix); `convert` makes
HDF5 of the files that the room `formats` reads, or of HDF5 (`relayout`), by the room `writing`; `verify` checks what it
wrote; `demo` finds the example data. `in_order` shares work among threads.

Nothing is imported here: h5py is loaded when a file is opened, not before.
"""
