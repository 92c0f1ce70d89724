"""Between rewards and the run: worker processes that can be killed, results that say what happened, and alarms.

workers.py           rewards in worker processes, restarted when they hang or end
process.py           the trainer's end of one worker
worker_main.py       the worker's end
worker_protocol.py   the JSON between them
sandbox.py           the sandbox of rewards that run a model's code
outcomes.py          one status for each call, a total or none, and failure counts
watch.py             alarms during training: monitors.py looks for each kind, trend.py decides whether a metric moved
"""
