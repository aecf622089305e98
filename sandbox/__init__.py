"""The outside world for demo, tests, chaos and benchmarks: real servers and stand-ins on this machine.

Production never imports it.
"""
