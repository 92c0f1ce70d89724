"""The runner: a recipe is a pipeline of one stage or of many, and each stage trains a model or collects its answers."""
