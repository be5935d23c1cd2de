"""Tables inside other frameworks. Each module needs its package, which an extra brings:

==================================  ======================================================
``shmtable.integrations``           pip install
==================================  ======================================================
``gymnasium``                       'shmtable[gymnasium]'
``sb3`` (Stable-Baselines3)         'shmtable[sb3]'
``tensordict``                      'shmtable[tensordict]'
``torchrl``                         'shmtable[torchrl]'
``minari``                          'shmtable[minari]'
``ray``                             'shmtable[ray]'
``tensorboard``                     whatever your SummaryWriter comes from
``prometheus``                      'shmtable[watch]', for ``TableCollector`` only
==================================  ======================================================

Nothing here is imported with ``shmtable`` itself: import the module you want.
"""

from __future__ import annotations
