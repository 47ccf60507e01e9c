"""What a command is asked, before anything runs: options go in, a configuration comes out.

`command_line` has the options, `plan` loads and splits the corpora and counts, `folders` makes or
reopens the folder of results.
"""
