"""The plain, readable loops: supervised, online, evaluate. They receive policies, samplers, tasks and algorithms as arguments."""
