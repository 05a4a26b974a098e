"""Work that outlives a process: who the processes of a job are, and what each has finished.

In: the launcher's environment and parts of a run. Out: shares of work, and finished parts on disk that ``--resume`` finds.
"""
