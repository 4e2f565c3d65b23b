"""Small programs to sweep, each whole or broken in one named way."""
