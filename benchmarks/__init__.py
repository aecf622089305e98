"""What Voicedesk can do beside what it replaces, measured in one run: `make bench`.

Owns the measuring. Figures are ratios of neighbouring runs on the same machine, never numbers to be held to by
a clock; what a machine lacks (Node, wrk) is told as NOT RUN, and no old figure stands in for it.
"""
