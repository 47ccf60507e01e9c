"""What is kept and shown of a running sweep: committed epochs go in, rows and events come out.

`ledger` is the only writer of rows, `events` writes TensorBoard's files, `progress` what a person
watches, `timing` where the time went.
"""
