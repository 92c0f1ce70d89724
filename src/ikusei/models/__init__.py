"""Hugging Face models: loaded, made from a configuration, probed, and given the forest's attention."""
