"""Everything is declared in setup.cfg; this file lets tools that ask for setup.py find it."""

from setuptools import setup

setup()
