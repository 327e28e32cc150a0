"""Linux 5.10 memory management. Start with types.py, or with README.md, which follows one mmap through all of it."""
