"""Hugging Face models: loaded, made from a configuration, probed, and given the forest's attention.

load.py, make.py, first_import.py     from a folder or a hub id; from a configuration; the first import, made faster
probe.py                         which layouts a model runs correctly in
body.py, heads.py, causal.py     the layers; heads with one output; a language model of both
adapter.py, critic.py            LoRA; a critic for a policy
attention.py                     attention over forests: flash.py on a CPU, flex.py on a GPU
fused_decoder.py, linear.py      decoder layers in few, large operations; prepacked linear layers
logprobs.py                      log-probs and entropies from hidden states
score.py, continuations.py       log P of given strings; of continuations, as multiple-choice benchmarks ask
learned_reward.py                a reward model, or an ensemble, as a reward
"""
