def marks(prompt: str, response: str, **columns: object) -> dict[str, float]:
    """Two parts: a number between 0 and 1 that depends on every character, and a penalty by length."""
    return {"sum": sum(map(ord, response)) % 7 / 7, "short": -0.01 * len(response)}
