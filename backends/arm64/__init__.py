"""The target `arm64`: NEON kernels in a shared and a static library, with a header and a runner, checked under qemu.

Kernels, lowering and run time are those of `prunec.backends.cpu`. Nothing here measures speed: that takes a device.
"""
