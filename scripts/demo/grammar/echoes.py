"""Scenes in which something said before is said again, word for word.

Roll calls, packing lists, songs and errands.  They are plain repetition, from
which a small model learns early to look back; the longer tales need that too.
"""

from __future__ import annotations

from . import words
from .world import World, article, capital, listing, number


def roll_call(w: World) -> list[str]:
    """A list of names is called, answered and called again."""
    leader = w.person()
    names = w.sample(words.FEMALE_NAMES + words.MALE_NAMES, w.between(4, 8))
    place, _ = w.pick(words.PLACES)
    lines = [w.any(f"{leader.name} the {leader.trade} called the names of the children: {listing(names)}.",
                   f"On {w.day} {listing(names)} went to {place} with {leader.name} the {leader.trade}.")]
    for name in names:
        lines.append(w.any(f"\"{name}?\" \"Here!\"", f"\"Is {name} here?\" \"Yes!\" said {name}.", f"{name} waved."))
    missing = w.pick(names)
    rest = [name for name in names if name != missing]
    lines.append(w.any(f"On the way back {leader.name} counted again: {listing(rest)}.",
                       f"At {place} {leader.name} called once more, and {listing(rest)} answered."))
    lines.append(f"\"Where is {missing}?\" asked {leader.name}. " + w.any(
        f"{missing} was still at {place}.", f"Then {missing} came running. \"Here I am!\" said {missing}."))
    return [" ".join(lines)]


def packing(w: World) -> list[str]:
    """Things are packed and unpacked in the same order; one may be missing."""
    hero = w.person()
    things = [w.thing().full for _ in range(w.between(3, 6))]
    packed = [article(thing) for thing in things]
    goal = w.new_town()
    lines = [f"{hero.name} the {hero.trade} was going to {goal}. Into the bag went {listing(packed)}.",
             f"\"{capital(listing(packed))},\" said {hero.name} to be sure."]
    kept = [thing for thing in things if thing != things[0] or w.chance(0.5)]
    again = listing([f"the {thing}" for thing in kept])
    lines.append(w.any(f"In {goal} {hero.name} unpacked everything: {again}.",
                       f"In the {w.time} in {goal} {hero.he} took out {again}."))
    if len(kept) < len(things):
        lines.append(f"\"But where is the {things[0]}?\" asked {hero.name}. The {things[0]} was still in {w.town}.")
    else:
        lines.append(f"All {number(len(things))} things were there.")
    return [" ".join(lines)]


def song(w: World) -> list[str]:
    """Verses with a refrain; only the animal changes."""
    singer = w.person()
    place, spot = w.pick(words.PLACES)
    refrain = w.any(
        f"Oh {w.town}, dear {w.town}, where {w.sign}.",
        f"Sing for {singer.name}, the {singer.trait} {singer.trade} of {w.town}.",
        f"The {w.new_colour()} {w.pick(words.THINGS)[0]} lies {spot}, {spot}.")
    lines = [f"{singer.name} the {singer.trade} sang a song in {w.town}:"]
    for kind, sound, home, _, _ in w.sample(words.ANIMALS, w.between(2, 4)):
        lines.append(w.any(f"\"The {kind} {sound}, the {kind} {sound},", f"\"The {kind} came out of its {home} and {sound},"))
        lines.append(f"{refrain}\"")
    return lines


def errand(w: World) -> list[str]:
    """A message is passed from mouth to mouth without changing."""
    people = [w.person() for _ in range(w.between(3, 4))]
    goods = w.sample(words.GOODS, 3)
    wanted = listing([f"{number(w.between(2, 12))} {many}" for _, many, _ in goods])
    place, _ = w.pick(words.PLACES)
    hour = w.pick(words.HOURS)
    message = w.any(f"bring {wanted} to {place}", f"be at {place} at {hour} with {wanted}",
                    f"{w.pick(people).name} needs {wanted}")
    first = people[0]
    lines = [f"{first.name} the {first.trade} said to {people[1].name}: \"Tell {people[2].name}: {message}.\""]
    for teller, hearer in zip(people[1:], people[2:] + [first]):
        lines.append(f"{teller.name} went to {hearer.name} and said: \"{capital(message)}.\"")
    lines.append(f"\"{capital(wanted)},\" said {people[-1].name}, \"I will not forget.\"")
    return [" ".join(lines)]
