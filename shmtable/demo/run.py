"""Puts the parts together, runs them, and takes them apart again."""

from __future__ import annotations

import torch

from shmtable.crew import Crew
from shmtable.demo.actor import ActorPlan, act
from shmtable.demo.agent import Agent
from shmtable.demo.learner import Learner, Outcome
from shmtable.demo.meter import Meter
from shmtable.demo.options import LONGEST_EPISODE, Options
from shmtable.demo.pace import Exploration, Pace
from shmtable.demo.picture import draw
from shmtable.demo.progress import open_screen
from shmtable.demo.replay import make_table
from shmtable.demo.summary import summarise


def run(options: Options) -> int:
    """Runs the demo from beginning to end.

    Returns:
        The exit code.
    """
    torch.manual_seed(options.seed)
    torch.set_num_threads(1)  # the learner needs one core; the others are the actors'
    meter = Meter()
    pace = Pace(options.replay_ratio, options.warmup, lead=LONGEST_EPISODE)
    exploration = Exploration(start=1.0, end=0.02, transitions=options.exploration)
    plan = ActorPlan(options.actors, options.seed, pace, exploration)
    agent = Agent(options.learning_rate)
    with make_table(options) as table:
        # The table and the network go to the actors as arguments: what is pickled is where
        # they lie, not what is in them.
        crew = Crew("actor", options.actors, act, table, agent.network, plan)
        with open_screen() as screen, crew:
            screen.say(f"{crew} are starting; Ctrl-C ends the run")
            try:
                outcome = Learner(options, table, agent, pace, crew, meter, screen).train()
            except KeyboardInterrupt:
                outcome = Outcome.INTERRUPTED
        stats = table.stats()
    meter.add_moment(stats)
    print(summarise(outcome, meter, stats, draw(meter, options)))
    return outcome.exit_code
