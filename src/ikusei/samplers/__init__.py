"""Samplers write responses. `local` shares the policy's weights and runs wherever torch does.

local.py          KV-cached, continuous batching, one prefill for all responses to a prompt
lockstep.py       for models that do not run over forests
decoding.py       the responses that are being written
kv_cache.py       their keys and values
draw.py           from logits to tokens
continuation.py   continue partial responses (partial.py), for test-time methods
streaming.py      text that can be shown while a response is written
load.py           a sampler for a trained model
"""
