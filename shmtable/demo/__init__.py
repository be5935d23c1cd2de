"""A complete program around one shared table: ``python -m shmtable.demo``.

Several actor processes play Gymnasium's CartPole-v1 and add whole episodes to a table; a
learner in the parent process samples transitions from it and trains double DQN until its greedy
policy holds the pole up. It is meant to be read and copied, in this order:

=================  ==============================================================
``replay.py``      the table: which columns an episode has
``actor.py``       what runs in each actor process
``learner.py``     what runs in the parent: sample, train, evaluate
``run.py``         how the parts are put together and taken apart again
=================  ==============================================================

The rest serves those: ``environment.py`` (play an episode, evaluate a policy), ``agent.py``
(double DQN), ``pace.py`` (how often a transition is used), ``shmtable.crew`` (starting, hearing and
ending processes), ``meter.py``, ``progress.py``, ``summary.py`` and ``picture.py`` (what people
see), ``options.py`` and ``extras.py``.
"""

from __future__ import annotations
