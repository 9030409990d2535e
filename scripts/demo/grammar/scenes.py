"""Shorter scenes: counting, letters, cooking, animals, trades, talk."""

from __future__ import annotations

from . import words
from .openings import asides, ending, opening, weather_line
from .world import World, article, capital, listing, number


def counting(w: World) -> list[str]:
    """Goods are given, bought and lost; the running sum is told at the end."""
    hero = w.person()
    good = w.count()
    total = w.between(4, 20)
    lines = [opening(w, hero) if w.chance(0.5) else
             f"On {w.day} {hero.name} the {hero.trade} went to the market in {w.town}."]
    lines.append(w.any(f"{capital(hero.he)} had {good.of(total)} in {hero.his} {good.holder}.",
                       f"In {hero.his} {good.holder} there were {number(total)} {good.many}."))
    for _ in range(w.between(2, 4)):
        other = w.person()
        change = w.between(1, 9)
        if total > change and w.chance(0.5):
            total -= change
            lines.append(w.any(
                f"{capital(hero.he)} gave {number(change)} to {other.name} the {other.trade}.",
                f"{other.name} asked for {number(change)}, and {hero.name} handed them over."
                if change > 1 else f"{other.name} asked for one, and {hero.name} handed it over.",
                f"{capital(hero.he)} sold {good.of(change)} to {other.name}."))
        else:
            total += change
            lines.append(w.any(
                f"{other.name} the {other.trade} gave {hero.him} {number(change)} more.",
                f"Then {hero.he} bought {good.of(change)} from {other.name}.",
                f"{capital(hero.he)} found {number(change)} more behind the {other.workplace}."))
        if w.chance(0.6):
            lines.append(w.any(f"Now {hero.he} had {good.of(total)}.", f"That made {number(total)}.",
                               f"\"{capital(number(total))},\" counted {hero.name}."))
    lines += asides(w, hero, 0.3)
    lines.append(w.any(
        f"\"How many {good.many} do you have now?\" asked a child. \"I have {good.of(total)},\" said {hero.name}.",
        f"In the {w.time} {hero.name} counted again. The {good.holder} held {good.of(total)}."))
    return [" ".join(lines)]


def letter(w: World) -> list[str]:
    """A letter that speaks of shared acquaintances and invites the reader."""
    writer, reader, third = w.person(), w.person(), w.person()
    thing = w.thing()
    goal, _ = w.pick(words.WISHES)
    place, _ = w.pick(words.PLACES)
    hour = w.pick(words.HOURS)
    body = [w.any(f"How are you in {w.town}?", f"I hope you are well and still {reader.trait}.",
                  f"It has been a long time since we met at {place}."),
            w.any(f"Here it is {w.season}, and {w.sign}.", f"We have had so much {w.weather} that {w.road}."),
            f"You remember {third.name}, {article(third.trade)}. {capital(third.he)} still {third.labour} in the {third.workplace}.",
            w.any(f"Last {w.day} {third.he} {third.deed}, so you see that {third.he} is as {third.trait} as ever.",
                  f"{capital(third.he)} has found {article(thing.full)}, and keeps it for {thing.use}.")]
    ask = [w.any(f"Please come and visit me on {w.day} at {hour}.",
                 f"On {w.day} {third.name} and I want to {goal}. Will you come with us?"),
           w.any(f"Bring your {reader.tool} and some {reader.product}.", f"Please bring {article(thing.full)}.",
                 f"We will meet at {place} at {hour} in the {w.time}."),
           w.any(f"Put on {w.clothing}, because of the {w.weather}.", f"{third.name} sends greetings too.",
                 f"Do not forget: {w.day}, {hour}.")]
    close = w.any("Your old friend", f"Your {writer.kin}", "With love", "Yours")
    return [f"Dear {reader.name},", " ".join(body), " ".join(ask), f"{close}, {writer.name}"]


def cooking(w: World) -> list[str]:
    """A dish is made from exactly the ingredients that it needs."""
    hero, helper = w.person(), w.person()
    dish, needs, vessel, last = w.pick(words.DISHES)
    needs = w.sample(needs, 3)
    sellers = [w.person() for _ in range(2)]
    guests = w.between(3, 12)
    first = [opening(w, hero) if w.chance(0.5) else f"{hero.name} wanted to cook for {number(guests)} guests.",
             f"{capital(hero.he)} wished to make {dish}.",
             f"\"For {dish} we need {listing(needs)},\" {hero.he} said to {helper.name}."]
    second = [f"There were {needs[0]} in the house." if needs[0].endswith("s") else f"There was {needs[0]} in the house.",
              f"{helper.name} got {needs[1]} from {sellers[0].name} the {sellers[0].trade}.",
              w.any(f"Only {needs[2]} could not be found, until {sellers[1].name} came out of the {sellers[1].workplace} with a full bag.",
                    f"For {needs[2]} {helper.he} had to walk to {w.new_town()}.")]
    second += asides(w, hero, 0.4)
    third = [f"{hero.name} put {listing(needs)} into {article(vessel)} and {last}.",
             w.any(f"The {dish} was enough for all {number(guests)} guests.",
                   f"\"This is the best {dish} in {w.town},\" said {sellers[0].name}.",
                   f"{helper.name} had two plates of {dish} and was {w.good()}."),
             ending(w, hero)]
    return [" ".join(first), " ".join(second), " ".join(third)]


def animal_friend(w: World) -> list[str]:
    """A lost animal is followed by its voice and brought home."""
    hero, owner = w.person(), w.person()
    kind, sound, home, food, young = w.pick(words.ANIMALS)
    place, spot = w.pick(words.PLACES)
    coat = w.new_colour()
    pet = w.fresh(words.FEMALE_NAMES + words.MALE_NAMES, w.names)
    first = [opening(w, hero), weather_line(w), w.any(
        f"On the way to {place} {hero.he} heard something. Somewhere {article(kind)} {sound}.",
        f"Suddenly {article(kind)} {sound} {spot}.")]
    first.append(w.any(f"It was a small {coat} {young}, and it was {w.bad()}.",
                       f"There sat {article(coat)} {young}, wet and {w.bad()}."))
    second = [w.any(f"{hero.name} gave it {food}, and it ate everything.",
                    f"\"Are you hungry?\" asked {hero.name}, and held out {food}."),
              w.any(f"Around its neck was a tag with the name {pet}.", f"\"I will call you {pet},\" said {hero.name}."),
              w.any(f"Then came {owner.name} the {owner.trade}. \"That is my {young}!\" {owner.he} cried. \"The {coat} one is missing from the {home}.\"",
                    f"In the {owner.workplace} {hero.he} met {owner.name}. \"I am looking for {article(coat)} {young},\" said {owner.name}.")]
    second += asides(w, hero, 0.4)
    third = [f"{hero.name} carried {pet} back to the {home}.",
             w.any(f"The old {kind} {sound} with joy.", f"{pet} {sound} once more and fell asleep.",
                   f"From then on {pet} {sound} whenever {hero.name} came by."),
             w.any(f"{owner.name} gave {hero.him} some {owner.product}.",
                   f"\"You are {hero.trait},\" said {owner.name}, \"and {hero.moral}.\"", ending(w, hero))]
    return [" ".join(first), " ".join(second), " ".join(third)]


def fable(w: World) -> list[str]:
    """Two talking animals of which one is right."""
    rows = w.sample(words.ANIMALS, 2)
    (one, _, home, food, _), (two, _, home_two, food_two, _) = rows
    trait, fault, deed, moral = w.pick(words.TRAITS)
    place, spot = w.pick(words.PLACES)
    first = [w.any(f"Once upon a time {article(one)} and {article(two)} lived near {place}.",
                   f"{capital(article(one))} once met {article(two)} {spot}.",
                   f"Once upon a time there was {article(trait)} {one} who lived in a {home}."),
             f"The {one} was {trait}, and the {two} was {fault}.", weather_line(w)]
    second = [w.any(f"\"Give me {food_two},\" said the {two}. \"I am too {fault} to look for it myself.\"",
                    f"\"Why are you so {trait}?\" asked the {two}. \"It brings you nothing but work.\""),
              w.any(f"\"You will see,\" said the {one}.", f"\"Wait until {w.season} is over,\" said the {one}."),
              f"When the {w.weather} came, the {one} sat in its {home} with {food}.",
              f"But the {two} sat in its {home_two} and had nothing at all."]
    third = [w.any(f"\"Please let me in,\" begged the {two}.", f"So the {two} came and asked for help."),
             f"The {one} opened the door and gave the {two} {food_two}.",
             w.any(f"\"From now on I will not be {fault},\" said the {two}.",
                   f"The {two} was ashamed and wanted to be {trait} too."),
             w.any(f"For {moral}.", f"The moral is: {moral}.", f"And the {one} said: \"{capital(moral)}.\"")]
    return [" ".join(first), " ".join(second), " ".join(third)]


def trade_portrait(w: World) -> list[str]:
    """What a trade does, with which tool, and a question about it."""
    hero, pupil = w.person(), w.person()
    years = w.between(2, 40)
    lines = [f"{capital(article(hero.trade))} works in {article(hero.workplace)}." if w.chance(0.5)
             else f"What does {article(hero.trade)} do? {capital(article(hero.trade))} needs {article(hero.tool)}.",
             f"In {w.town} the {hero.trade} is {hero.name}.",
             f"For {number(years)} years {hero.he} has had the same {hero.tool}, and it is still {hero.colour}.",
             f"{capital(hero.he)} sells {hero.product} on {w.day}.",
             f"{pupil.name}, {article(pupil.trait)} {pupil.child}, wants to become {article(hero.trade)} too.",
             w.any(f"\"What is the {hero.tool} for?\" asks {pupil.name}.", f"\"Is it hard?\" asks {pupil.name}."),
             w.any(f"\"It took me {number(years)} years to learn it,\" says {hero.name}.",
                   f"\"Without {article(hero.tool)} there would be no {hero.product},\" says {hero.name}."),
             w.any(f"Then {pupil.he} takes the {hero.colour} {hero.tool} and tries it.",
                   f"So {pupil.name} stays in the {hero.workplace} until the {w.time}."),
             f"\"Be {pupil.trait},\" says {hero.name}, \"for {pupil.moral}.\""]
    return [" ".join(lines)]


def talk(w: World) -> list[str]:
    """Two people meet, ask and answer; answers repeat what was asked."""
    one, two = w.person(), w.person()
    thing = w.thing()
    place, spot = w.pick(words.PLACES)
    hour = w.pick(words.HOURS)
    goal, _ = w.pick(words.WISHES)
    good = w.count()
    many, price = w.between(2, 9), w.between(2, 9)
    turns = [
        (f"Good {w.time}, {two.name}! Where are you going?", f"I am going to {place}, {one.name}."),
        (f"What is that {thing.colour} thing in your hand?", f"It is {article(thing.name)}. It is made of {thing.material} and good for {thing.use}."),
        (f"When does the {two.workplace} open?", f"At {hour}. I am {article(two.trade)}, so I must be there at {hour}."),
        (f"What do {number(many)} {good.many} cost at {number(price)} pennies each?", f"That makes {number(many * price)} pennies."),
        ("What would you like to do one day?", f"I would like to {goal}. And you, {one.name}?"),
        (f"Do you like this {w.weather}?", f"No, {w.road}. I wear {w.clothing}."),
        ("Who taught you your trade?", f"My {one.kin} did. I have been {article(two.trade)} ever since."),
    ]
    lines = [w.any(f"One {w.sky} {w.day} {one.name} met {two.name} {spot}.",
                   f"{one.name} the {one.trade} and {two.name} the {two.trade} met {spot}.")]
    for question, answer in w.sample(turns, w.between(3, 5)):
        lines.append(f"\"{question}\" asked {one.name}." if question[-1] == "?" else question)
        lines.append(f"\"{answer}\" " + w.any("", f"said {two.name}.", f"answered {two.name}.").strip())
    lines.append(w.any(f"Then {one.name} went back to the {one.workplace}.",
                       f"\"Goodbye, {two.name},\" said {one.name}. \"Goodbye, {one.name},\" said {two.name}."))
    lines = [line.strip().replace(".\" said", ",\" said").replace(".\" answered", ",\" answered") for line in lines]
    return lines


def garden(w: World) -> list[str]:
    """A harvest over several rows: the total is the sum or the product."""
    hero, thief = w.person(), w.pick(words.ANIMALS)
    good = w.count()
    rows, each = w.between(2, 9), w.between(2, 9)
    total = rows * each
    eaten = w.between(1, min(total - 1, 9))
    return [" ".join([
        opening(w, hero),
        f"Behind the {hero.workplace} {hero.he} had a {hero.colour} shed.",
        w.any(f"In it stood {number(rows)} shelves with {number(each)} {good.many} on each shelf.",
              f"There {hero.he} kept {number(rows)} boxes, and in every box were {number(each)} {good.many}."),
        w.any(f"That made {good.of(total)}.", f"So there were {good.of(total)} in all."),
        f"But one {w.time} {article(thief[0])} came in and took {number(eaten)} of them."
        if eaten > 1 else f"But one {w.time} {article(thief[0])} came in and took one of them.",
        f"It {thief[1]} and ran back to its {thief[2]}.",
        f"{hero.name} was {w.bad()}, for now {hero.he} had only {good.of(total - eaten)}.",
        ending(w, hero)])]
