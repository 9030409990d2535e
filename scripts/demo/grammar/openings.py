"""Beginnings, endings and small events that all kinds of stories share."""

from __future__ import annotations

from . import words
from .world import Person, World, article, capital


def opening(w: World, hero: Person) -> str:
    """Introduce the hero and the town."""
    age = w.any("young", "old", "little", "tall", "quiet", "clever-eyed", "round-faced", "thin")
    who = w.any(
        f"{article(hero.trade)} named {hero.name}",
        f"{article(hero.trait)} {hero.trade} called {hero.name}",
        f"{article(age)} {hero.trade} whose name was {hero.name}",
        f"{article(hero.trait)} {hero.adult} named {hero.name}, who was {article(hero.trade)}",
    )
    where = w.any(f"in {w.town}", f"in the village of {w.town}", f"in the small town of {w.town}",
                  f"near {w.town}", f"on the road to {w.town}", f"in a house at the edge of {w.town}")
    first = w.any(
        f"Once upon a time there was {who}.",
        f"Once upon a time, {where}, there lived {who}.",
        f"Once upon a time there lived {who}. {capital(hero.he)} had a house {where}.",
        f"Long ago, {where}, there lived {who}.",
        f"There was once {who} {where}.",
        f"In the days when {w.sign} in {w.town}, there was {who}.",
        f"One {w.sky} {w.time}, {who} walked through {w.town}.",
        f"Everybody in {w.town} knew {hero.name}, the {hero.trade}.",
        f"{capital(where)} lived {who}.",
    )
    return f"{first} {trait_line(w, hero)}" if w.chance(0.7) else first


def trait_line(w: World, hero: Person) -> str:
    """Something about the hero that follows from trade or trait."""
    he, his = capital(hero.he), hero.his
    return w.any(
        f"{he} was {hero.trait} and never {hero.fault}.",
        f"All day long {hero.he} {hero.labour} in the {hero.workplace}.",
        f"{he} worked in the {hero.workplace} and made {hero.product}.",
        f"{he} always wore {hero.coloured} coat and carried {his} {hero.tool} everywhere.",
        f"People said that {hero.he} was {hero.trait}, because {hero.he} once {hero.deed}.",
        f"In the {hero.workplace} {hero.he} kept {his} {hero.tool} and many {hero.product}.",
    )


def introduce(w: World, person: Person, friend: Person) -> str:
    """Introduce a second character by the relation to the first."""
    return w.any(
        f"{capital(friend.his)} {person.kin} {person.name} was {article(person.trade)}.",
        f"{friend.name} had {article(person.kin)}, {person.name} the {person.trade}.",
        f"Next door lived {person.name}, who {person.labour} from dawn to dusk.",
        f"Not far away, in the {person.workplace}, worked {person.name} in {person.his} {person.colour} apron.",
    )


def weather_line(w: World) -> str:
    """The weather of this story and what it does."""
    return w.any(
        f"It was {w.season}, and {w.sign}.",
        f"That {w.time} was {w.sky}, and {w.road}.",
        f"It was a {w.sky} {w.day} in {w.season}.",
        f"Because of the {w.weather}, {w.road}.",
        f"The {w.weather} had come in the night, and now {w.road}.",
    )


def ending(w: World, hero: Person) -> str:
    """Close the story in a way that fits the hero's trait or the weather."""
    return w.any(
        f"Since that day they say in {w.town} that {hero.moral}.",
        f"And so {hero.name} learned that {hero.moral}.",
        f"Then {w.clearing}, and {hero.name} was {w.good()}.",
        f"That night {hero.name} slept well in {hero.his} house in {w.town}.",
        f"The next morning {hero.name} was back in the {hero.workplace} with {hero.his} {hero.tool}.",
        f"In {w.town} they still tell the story of {hero.name} the {hero.trade}.",
        f"\"After all,\" said {hero.name}, \"{hero.moral}.\"",
        "And they all lived happily ever after.",
        f"When {w.season} came again, {hero.name} remembered that {w.day} and smiled.",
    )


def aside(w: World, hero: Person) -> str:
    """A small event by the way, told with the story's people and weather."""
    kind, sound, home, food, young = w.pick(words.ANIMALS)
    dish, needs, _, _ = w.pick(words.DISHES)
    good = w.count()
    hour = w.pick(words.HOURS)
    place, spot = w.pick(words.PLACES)
    return w.any(
        f"Somewhere {article(kind)} {sound}.",
        f"{article(kind).capitalize()} came out of its {home} and looked at {hero.him}.",
        f"{hero.name} stopped to give {article(young)} {food}.",
        f"The clock struck {hour}, and {hero.name} was still {w.pick([w.good(), w.bad()])}.",
        f"For supper there was {dish} with plenty of {needs[0]}.",
        f"The whole house smelled of {dish}.",
        f"{hero.name} ate {good.of(w.between(1, 6))} and drank a glass of water.",
        f"Children were playing {spot}, and {hero.he} waved to them.",
        f"It was {hour} o'clock, and {place} lay quiet.",
        f"{hero.name} hummed a song about {article(kind)} and {article(w.pick(words.TRADES)[0])}.",
        f"{capital(hero.he)} pulled {hero.his} {hero.colour} coat tighter against the {w.weather}.",
        f"In {hero.his} pocket {hero.he} had {good.of(w.between(2, 9))}, just in case.",
        f"{hero.name} thought of the {hero.workplace} and of {hero.his} {hero.tool}.",
        f"\"What {article(w.sky)} {w.time}!\" said {hero.name}.",
        f"A cart with {good.many} rolled by, followed by {article(kind)}.",
    )


def asides(w: World, hero: Person, share: float) -> list[str]:
    """No, one or two small events; more of them as the share grows."""
    return [aside(w, hero) for _ in range(2) if w.chance(share)]
