"""Memory in use: processes, and QEMU guests among them."""
