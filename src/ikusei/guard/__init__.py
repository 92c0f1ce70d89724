"""What stands between a reward and the run: processes that can be killed, and outcomes that say what happened."""
