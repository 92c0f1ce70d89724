"""What a run leaves behind: its folder (the truth), the progress display and the report (views of it), and the statistics of both.

Nothing is imported here: `ikusei runs` needs the folder alone, and not the seconds that plots and quantiles take to load.
"""
