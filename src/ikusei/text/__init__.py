"""Text and tokens: tokenizers, chat templates, conversations, and the split of a response into thought and answer."""
