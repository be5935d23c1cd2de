"""The replay buffers that shmtable is measured beside, each driven through one small interface.

A module here is loaded by the interpreter of its peer only: what it imports need not be installed
anywhere else.
"""
