"""Memory that was written to a file: raw images, ELF cores, LiME."""
