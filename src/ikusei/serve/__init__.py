"""Finished models in use: a conversation in the terminal."""
