"""The benchmarks of others, asked of our models through the samplers and the forest that train them. Needs the extra `harness`.

    lm_eval.py      lm-evaluation-harness: python -m ikusei.evaluation.lm_eval run --model ikusei --model_args pretrained=runs/x --tasks ...
    inspect_ai.py   Inspect: inspect eval task.py --model ikusei/runs/x

Both take a folder in Hugging Face layout, a run, a hub id or seedling.
"""
