"""From a user's file to rows that training can walk through.

`guard` opens a file without trusting it; `names` knows what people call their datasets; `dataset` puts the two
together; `source` reads rows; `targets` turns labels into numbers and back; `scaling` looks once at every row;
`split` chooses validation rows; `memory` knows how much of it is free; `convert` and `formats` make HDF5 out of
other files.

Nothing is imported here: h5py is loaded when a file is opened, not before.
"""
