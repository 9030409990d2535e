"""A seeded generative grammar of short stories and scenes."""

from __future__ import annotations

import random

from . import echoes, scenes, tales
from .world import World

#: kinds of documents and how often each is told
KINDS = [
    (tales.lost_thing, 5), (tales.journey, 5), (tales.wish, 4), (tales.mystery, 4),
    (tales.contest, 4), (tales.workshop, 4), (tales.lesson, 4),
    (scenes.counting, 4), (scenes.letter, 4), (scenes.cooking, 4), (scenes.animal_friend, 4),
    (echoes.roll_call, 4), (echoes.packing, 4), (echoes.song, 3), (echoes.errand, 4),
    (scenes.fable, 3), (scenes.trade_portrait, 3), (scenes.talk, 4), (scenes.garden, 3),
]


def document(rng: random.Random) -> str:
    """One story or scene; its paragraphs are separated by line breaks."""
    kinds, weights = zip(*KINDS)
    tell = rng.choices(kinds, weights)[0]
    return "\n".join(tell(World(rng)))
