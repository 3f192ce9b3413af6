"""Files whose pages memory may hold: directories, and images of file systems."""
