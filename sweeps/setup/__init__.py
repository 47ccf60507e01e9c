"""What happens before anything runs: options go in, a configuration and a folder come out.

`command_line` has the options, `plan` loads and splits the corpora and counts, `folders` makes or
reopens the folder of results.
"""
