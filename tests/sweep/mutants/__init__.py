"""The proof of the sweep: broken variants of the program, and who finds them."""
