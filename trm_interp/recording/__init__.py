"""Hook points, the recorder and the HDF5 stores that it writes."""
