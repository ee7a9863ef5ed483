"""One file per command: its typed config and the one function ``run`` that composes the rooms below.

In: a config (from the command line, a YAML file or Python). Out: a small result object that knows its lines for a
person (``lines``) and its JSON for a script (``to_json``). Heavy imports stay inside ``run``.
"""
