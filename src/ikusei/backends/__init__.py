"""Training back ends: each implements `protocols.Policy`."""
