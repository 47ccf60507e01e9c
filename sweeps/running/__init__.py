"""What the commands share once their options are read: a folder, a session, the report."""
