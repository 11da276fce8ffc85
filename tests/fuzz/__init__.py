"""Commands on damaged input: each run ends well, or in one message; nothing is run, lost or written elsewhere."""
