"""What the business does. HTTP, workers and the command line are doors into these.

A service owns its transaction. Services know no web framework, no HTTP library and no queue library;
they hold no transaction while somebody else's API is called.
"""
