"""Measuring models outside a run, and the adapters of two benchmark harnesses.

    measure.py      `ikusei eval`: the evaluation that a run makes, of any model
    judges.py       `ikusei compare --judge`: two models' answers, compared by a reward, a reward model or votes
    scaling.py      `ikusei scale`: accuracy over tokens, for each test-time method
    lm_eval.py      lm-evaluation-harness: python -m ikusei.evaluation.lm_eval run --model ikusei --model_args pretrained=runs/x --tasks ...
    inspect_ai.py   Inspect: inspect eval task.py --model ikusei/runs/x

The harnesses need the extra `harness`. Both adapters take a folder in Hugging Face layout, a run, a hub id or seedling.
"""
