"""What is in a guest's memory: real binaries, and from them whole guests."""
