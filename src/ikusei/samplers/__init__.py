"""Samplers write responses. `local` shares the policy's weights and runs wherever torch does."""
