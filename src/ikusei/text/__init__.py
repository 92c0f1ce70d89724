"""Between strings and tokens: the character tokenizer, chat templates, and the parts of an answer."""
