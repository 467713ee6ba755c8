"""The run time in C that every package is linked with; `prunec.h` is what its users include."""
