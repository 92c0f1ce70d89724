"""Trained models in use.

chat.py     a conversation in the terminal, token by token or by a test-time method
"""
