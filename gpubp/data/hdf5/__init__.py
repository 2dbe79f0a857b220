"""HDF5 files read without trusting them: libhdf5 never works on a user's file in the process that trains.

Structure-aware mutants of HDF5 files crash libhdf5, hang it, and make it take memory without end; and a sound file can
still point at other files. So a file is opened by a process of its own (`warden`), which has no other file, little
memory and little time. What comes back (`stored`) is a description: which datasets there are, of what type, and where
their bytes lie. Rows are then read by `pread` and decoded here (`rows`, `codecs`); what we cannot decode, that other
process reads for us. If it dies, that is one line of an error.

`survey` is what that process does with h5py, `file` is the side that asks.
"""
