"""The state a story keeps: people, town, season, weather and its random source."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from . import words


def article(noun: str) -> str:
    """The noun with its indefinite article."""
    return ("an " if noun[0] in "aeiou" or noun.startswith("honest") else "a ") + noun


def capital(text: str) -> str:
    """The text with its first letter in upper case."""
    return text[0].upper() + text[1:]


def number(value: int) -> str:
    """A whole number from 0 to 999 in words."""
    if value < 0 or value > 999:
        raise ValueError(f"number out of range: {value}")
    if value <= 20:
        return words.NUMBERS[value]
    if value < 100:
        tail = "" if value % 10 == 0 else "-" + words.NUMBERS[value % 10]
        return words.TENS[value // 10] + tail
    rest = "" if value % 100 == 0 else " and " + number(value % 100)
    return words.NUMBERS[value // 100] + " hundred" + rest


def listing(items: list[str], last: str = "and") -> str:
    """Items joined as in running text."""
    if len(items) == 1:
        return items[0]
    return ", ".join(items[:-1]) + f" {last} " + items[-1]


@dataclass
class Person:
    """A character whose attributes stay the same through a story."""

    name: str
    female: bool
    trade: str
    workplace: str
    tool: str
    product: str
    labour: str
    trait: str
    fault: str
    deed: str
    moral: str
    colour: str
    kin: str

    @property
    def he(self) -> str:
        return "she" if self.female else "he"

    @property
    def him(self) -> str:
        return "her" if self.female else "him"

    @property
    def his(self) -> str:
        return "her" if self.female else "his"

    @property
    def coloured(self) -> str:
        """The person's colour with its indefinite article."""
        return article(self.colour)

    @property
    def child(self) -> str:
        return "girl" if self.female else "boy"

    @property
    def adult(self) -> str:
        return "woman" if self.female else "man"


@dataclass
class Thing:
    """An object with the looks it keeps."""

    name: str
    material: str
    use: str
    colour: str

    @property
    def full(self) -> str:
        return f"{self.colour} {self.name}"


@dataclass
class Count:
    """A countable good: its words and how many there are."""

    one: str
    many: str
    holder: str
    value: int = 0

    def of(self, value: int) -> str:
        """That many of the good, in words."""
        return f"{number(value)} {self.one if value == 1 else self.many}"


@dataclass
class World:
    """One story's setting, and the random choices made in it."""

    rng: random.Random
    names: set[str] = field(default_factory=set)
    trades: set[str] = field(default_factory=set)
    traits: set[str] = field(default_factory=set)
    colours: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.town = self.new_town()
        self.season = self.pick(list(words.SEASONS))
        sky = self.pick(words.SEASONS[self.season])
        entry = next(row for row in words.WEATHERS if row[0] == sky)
        self.weather, self.sky, self.road, self.clothing, self.clearing = entry
        self.sign = self.pick(words.SEASON_SIGNS[self.season])
        self.day = self.pick(words.DAYS)
        self.time = self.pick(words.TIMES)

    def pick(self, options):
        """One of the options."""
        return options[int(self.rng.random() * len(options))]

    def any(self, *options: str) -> str:
        """One of several wordings."""
        return self.pick(options)

    def chance(self, share: float) -> bool:
        """True in that share of the calls."""
        return self.rng.random() < share

    def between(self, low: int, high: int) -> int:
        """A whole number from low to high, both included."""
        return self.rng.randint(low, high)

    def sample(self, options, count: int) -> list:
        """Several different options in random order."""
        return self.rng.sample(options, count)

    def fresh(self, options, used: set):
        """An option (or table row) that this story has not used yet."""
        while True:
            option = self.pick(options)
            key = option if isinstance(option, str) else option[0]
            if key not in used:
                used.add(key)
                return option

    def new_town(self) -> str:
        """A made-up place name."""
        head = self.pick(words.TOWN_HEADS)
        return head + self.pick(words.TOWN_TAILS)

    def new_colour(self) -> str:
        return self.fresh(words.COLOURS, self.colours)

    def person(self) -> Person:
        """A character that differs from all others in the story."""
        female = self.chance(0.5)
        name = self.fresh(words.FEMALE_NAMES if female else words.MALE_NAMES, self.names)
        trade = self.fresh(words.TRADES, self.trades)
        trait = self.fresh(words.TRAITS, self.traits)
        kin = self.pick(words.RELATIONS_F if female else words.RELATIONS_M)
        return Person(name, female, *trade, *trait, self.new_colour(), kin)

    def thing(self, name: str | None = None) -> Thing:
        """An object, a certain one if named."""
        if name is None:
            row = self.pick(words.THINGS)
        else:
            row = next(row for row in words.THINGS if row[0] == name)
        return Thing(*row, self.new_colour())

    def count(self) -> Count:
        """A countable good with no number yet."""
        return Count(*self.pick(words.GOODS))

    def good(self) -> str:
        return self.pick(words.FEELINGS_GOOD)

    def bad(self) -> str:
        return self.pick(words.FEELINGS_BAD)
