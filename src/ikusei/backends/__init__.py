"""Training back ends: each implements `protocols.Policy`.

local.py        one process, one device
optimizer.py    AdamW, and two ways to keep its moments out of GPU memory
reference.py    frozen and moving reference policies
export.py       a model as a folder in Hugging Face layout
threads.py      how many CPU threads a piece of work gets
"""
