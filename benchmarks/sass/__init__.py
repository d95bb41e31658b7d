"""A GPU's machine code, read and executed: what a launch issues, counted without a GPU."""
