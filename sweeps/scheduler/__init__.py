"""Who trains what, where: proposals go in, worker groups train them, outcomes come out.

`driver` runs a session on `machines`, `slots` keeps the worker groups, `broker` stands between them
and Tune's light `trials`; `evaluation` asks trained and other systems on the same devices.
"""
