"""The worker's door into the services: its process, its jobs, its schedule.

Importing this package imports the whole application, on purpose: a worker has everything in memory
before its first job.
"""

from workers.worker import Worker

__all__ = ["Worker"]
