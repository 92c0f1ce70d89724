"""After a run: pages, charts and findings, made from the run folder alone."""
