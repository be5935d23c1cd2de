"""Shared memory, locks and waiting: the only code that maps, locks or sleeps.

An ``Arena`` is one mapped file, a ``Guard`` runs critical sections under one of its two locks,
a ``Bell`` lets others wait until a section changed something.
"""
