"""Longer tales: losing and finding, journeys, wishes, mysteries, contests."""

from __future__ import annotations

from . import words
from .openings import asides, ending, introduce, opening, trait_line, weather_line
from .world import World, article, capital, listing, number


def lost_thing(w: World) -> list[str]:
    """The hero loses a treasured thing, asks around and finds it again."""
    hero, helper, other = w.person(), w.person(), w.person()
    thing = w.thing()
    (place, spot), (wrong, wrong_spot) = w.sample(words.PLACES, 2)
    first = [opening(w, hero), w.any(
        f"{capital(hero.his)} dearest possession was {article(thing.full)} made of {thing.material}.",
        f"{capital(hero.he)} owned {article(thing.full)}, which was good for {thing.use}.",
        f"From {hero.his} grandmother {hero.he} had {article(thing.full)} of fine {thing.material}.")]
    first.append(w.any(
        f"One {w.time} the {thing.name} was gone.",
        f"But on {w.day} {w.time} {hero.he} could not find the {thing.name}.",
        f"But one {w.sky} {w.day} somebody left the door open, and the {thing.name} disappeared."))
    first.append(f"{hero.name} was {w.bad()} and looked everywhere.")
    first += asides(w, hero, 0.4)
    second = [w.any(
        f"First {hero.he} went to {wrong}, but there was nothing {wrong_spot}.",
        f"{capital(hero.he)} searched {wrong_spot}, but the {thing.name} was not there.")]
    second.append(f"There {hero.he} met {other.name} the {other.trade}.")
    second.append(w.any(
        f"\"Have you seen my {thing.name}?\" asked {hero.name}. \"It is {thing.colour}.\" "
        f"\"No,\" said {other.name}, \"but {helper.name} the {helper.trade} may know.\"",
        f"\"I have lost {article(thing.full)},\" said {hero.name}. "
        f"\"Go and ask {helper.name},\" said {other.name}. \"{capital(helper.he)} sees everything.\""))
    third = [f"{helper.name} was in the {helper.workplace}, where {helper.he} {helper.labour}."]
    third.append(w.any(
        f"\"Yes,\" said {helper.name}, \"I saw something {thing.colour} {spot}.\"",
        f"{helper.name} put down {helper.his} {helper.tool} and thought. \"Something of {thing.material} lies {spot},\" {helper.he} said."))
    third.append(w.any(
        f"{hero.name} ran to {place}, and there, {spot}, was the {thing.full}.",
        f"So {hero.name} went to {place}, and {spot} {hero.he} found {hero.his} {thing.name}."))
    third.append(w.any(
        f"{hero.name} was {w.good()} and thanked {helper.name}.",
        f"As thanks {hero.he} gave {helper.name} some of {hero.his} {hero.product}.",
        f"Now {hero.he} could use it again for {thing.use}."))
    return [" ".join(first), " ".join(second), " ".join(third + [ending(w, hero)])]


def journey(w: World) -> list[str]:
    """The hero carries a gift to another town and meets two obstacles."""
    hero, friend = w.person(), w.person()
    goal = w.new_town()
    gift = w.thing()
    hurdles = w.sample([row for row in words.OBSTACLES if row[1] != gift.name], 2)
    tools = [w.thing(row[1]) for row in hurdles]
    first = [opening(w, hero), introduce(w, friend, hero)]
    first.append(w.any(
        f"{friend.name} had moved to {goal} and was ill.",
        f"Every {w.season} {friend.name} stayed in {goal}, far from {w.town}.",
        f"One {w.day} a letter came from {friend.name}, who now lived in {goal}."))
    first.append(f"So {hero.name} decided to bring {friend.him} {article(gift.full)}.")
    packed = listing([article(tool.full) for tool in tools])
    second = [w.any(f"{capital(hero.he)} packed {packed}, and put on {w.clothing}.",
                    f"Into {hero.his} bag {hero.he} put {packed}.",
                    f"\"I will need {packed},\" said {hero.name}.")]
    second.append(weather_line(w))
    lead_ins = ["On the first day", "Before long", "Halfway there", "After a few miles"]
    later = ["On the second day", "A little later", "Near the end of the road", f"Just outside {goal}"]
    for moment, row, tool in zip((w.pick(lead_ins), w.pick(later)), hurdles, tools):
        second.append(w.any(
            f"{moment} {row[0]}. {hero.name} took out the {tool.full}, and {hero.he} {row[2]}.",
            f"{moment} {row[0]}, but {hero.name} had {hero.his} {tool.name}. {capital(hero.he)} {row[2]}."))
    second += asides(w, hero, 0.6)
    third = [w.any(f"At last {hero.name} came to {goal} and knocked at the door of the {friend.workplace}.",
                   f"In the {w.time} {hero.he} reached {goal}.")]
    third.append(w.any(
        f"\"I have brought you {article(gift.full)},\" said {hero.name}. "
        f"\"Thank you!\" cried {friend.name}. \"It will be good for {gift.use}.\"",
        f"{friend.name} took the {gift.name} with both hands and was {w.good()}.",
        f"{friend.name} saw the {gift.full} and said: \"You came all the way from {w.town} for me!\""))
    third += asides(w, friend, 0.3)
    third.append(ending(w, hero))
    return [" ".join(first), " ".join(second), " ".join(third)]


def wish(w: World) -> list[str]:
    """The hero has a wish, saves or works for it, and it comes true."""
    hero, helper = w.person(), w.person()
    goal, fulfilled = w.pick(words.WISHES)
    years = w.between(2, 9)
    first = [opening(w, hero), w.any(
        f"More than anything {hero.he} wanted to {goal}.",
        f"{capital(hero.he)} had only one wish: to {goal}.",
        f"Every night {hero.name} dreamed of one thing. {capital(hero.he)} wanted to {goal}.")]
    first.append(w.any(
        f"But {hero.name} had no money and no time.",
        f"\"That is not for {article(hero.trade)},\" people said.",
        f"\"You will never do it,\" said {hero.his} {helper.kin} {helper.name}."))
    first += asides(w, hero, 0.5)
    second = [w.any(
        f"For {number(years)} years {hero.he} {hero.labour} and saved every penny.",
        f"{hero.name} sold {number(years * 10)} {hero.product} and kept the money in a jar.",
        f"{number(years).capitalize()} years went by, and {hero.name} did not give up.")]
    second.append(w.any(
        f"Then {helper.name} the {helper.trade} heard about it. \"You are {hero.trait},\" {helper.he} said. \"I will help you {goal}.\"",
        f"One {w.sky} {w.day} {hero.he} told {helper.name}, {article(helper.trade)}, that {hero.he} wished to {goal}. \"Come with me,\" said {helper.name}."))
    second.append(w.any(
        f"After {number(years)} years the day had come: {hero.name} {fulfilled}.",
        f"And in the {w.season}, when {w.sign}, {hero.name} {fulfilled}.",
        f"Soon after that {hero.he} {fulfilled}."))
    second.append(w.any(
        f"{helper.name} stood by in {helper.his} {helper.colour} coat and clapped.",
        f"Nobody in {w.town} had ever been so {w.good()}.",
        f"\"I always wanted to {goal},\" said {hero.name}, \"and now I have done it.\""))
    return [" ".join(first), " ".join(second + [ending(w, hero)])]


def mystery(w: World) -> list[str]:
    """A theft with three suspects; the clue fits one of them only."""
    judge = w.person()
    suspects = [w.person() for _ in range(3)]
    thief = w.pick(suspects)
    thing = w.thing()
    place, spot = w.pick(words.PLACES)
    clue_kind = w.pick(["colour", "tool", "product"])
    first = [w.any(f"One {w.sky} {w.time} the {thing.full} was stolen from {place} in {w.town}.",
                   f"In {w.town} somebody had taken the {thing.full} that always lay {spot}.")]
    first.append(f"{judge.name}, {article(judge.trait)} {judge.trade}, was asked to find the thief.")
    first.append(f"Three people had been near {place}.")
    for person in suspects:
        first.append(w.any(
            f"{person.name} the {person.trade} wore {person.coloured} coat.",
            f"{person.name}, who was {article(person.trade)}, had on {person.coloured} cap.",
            f"One was {person.name}, {article(person.trade)} with {person.coloured} scarf."))
    clues = {
        "colour": (f"a thread of {thief.colour} wool", f"Only {thief.name} has anything {thief.colour}"),
        "tool": (f"the mark of {article(thief.tool)}", f"{capital(article(thief.tool))} belongs to {article(thief.trade)}"),
        "product": (f"a trace that smelled of the {thief.workplace}", f"Only {article(thief.trade)} works in the {thief.workplace}"),
    }
    clue, reason = clues[clue_kind]
    first += asides(w, judge, 0.4)
    second = [f"{judge.name} looked {spot} and found {clue}.", w.any(
        f"\"{reason},\" said {judge.name}. \"So it was {thief.name}!\"",
        f"\"{reason},\" {judge.he} said. Everybody looked at {thief.name}.")]
    second.append(w.any(
        f"{thief.name} turned red and gave the {thing.name} back. \"I only needed it for {thing.use},\" {thief.he} said.",
        f"The {thing.full} was in the {thief.workplace}, under {thief.his} {thief.tool}.",
        f"{thief.name} the {thief.trade} confessed and was {w.bad()}."))
    innocent = [person.name for person in suspects if person is not thief]
    second.append(w.any(f"{listing(innocent)} went home {w.good()}.",
                        f"Now everyone knew that {listing(innocent)} were honest.",
                        f"\"Forgive me,\" said {thief.name} to {listing(innocent)}."))
    return [" ".join(first), " ".join(second + [ending(w, judge)])]


def contest(w: World) -> list[str]:
    """Three people compete; the order follows from the numbers told."""
    people = [w.person() for _ in range(3)]
    task, unit = w.pick([
        ("who could carry the most stones", "stones"), ("who could catch the most fish", "fish"),
        ("who could pick the most apples", "apples"), ("who could eat the most dumplings", "dumplings"),
        ("who could throw a ball the farthest", "yards"), ("who could jump the farthest", "feet"),
        ("who could tell the most riddles", "riddles"), ("who could find the most mushrooms", "mushrooms")])
    prize = w.thing()
    scores = w.sample(range(3, 30), 3)
    order = sorted(zip(scores, people), key=lambda pair: -pair[0])
    names = listing([person.name for person in people])
    first = [w.any(f"Every {w.season} there was a contest in {w.town}.",
                   f"Once upon a time there was a great fair in {w.town}, and a contest was held.",
                   f"On {w.day} the people of {w.town} held a contest."),
             f"They wanted to see {task}.", f"The prize was {article(prize.full)}.",
             f"{names} took part.", weather_line(w)]
    first += asides(w, w.pick(people), 0.4)
    second = []
    for score, person in zip(scores, people):
        second.append(w.any(
            f"{person.name} the {person.trade} managed {number(score)} {unit}.",
            f"{person.name}, who was {person.trait}, came to {number(score)} {unit}.",
            f"With {person.his} {person.colour} sleeves rolled up, {person.name} reached {number(score)} {unit}."))
    (best, winner), (middle, runner), (least, loser) = order
    second.append(w.any(f"So {winner.name} won with {number(best)} {unit}.",
                        f"The winner was {winner.name}.",
                        f"Nobody did better than {winner.name}."))
    second.append(w.any(
        f"{runner.name} came second, {number(best - middle)} behind, and {loser.name} came last.",
        f"{runner.name} was second and {loser.name} was third.",
        f"{loser.name} had only {number(least)} and was {w.bad()}."))
    second.append(f"{winner.name} took the {prize.full} home to the {winner.workplace}.")
    return [" ".join(first), " ".join(second + [ending(w, winner)])]


def workshop(w: World) -> list[str]:
    """A customer orders something; the maker needs three materials."""
    maker, customer = w.person(), w.person()
    thing = w.thing()
    sellers = [w.person() for _ in range(2)]
    price = w.between(3, 20)
    first = [opening(w, maker), f"One {w.day} {customer.name} the {customer.trade} came in."]
    first.append(w.any(
        f"\"I need {article(thing.name)},\" {customer.he} said. \"It must be {thing.colour}.\"",
        f"\"Can you get me {article(thing.full)} for {thing.use}?\" {customer.he} asked.",
        f"{capital(customer.he)} wanted {article(thing.full)} and offered {number(price)} coins."))
    first.append(f"\"Come back in {number(w.between(2, 9))} days,\" said {maker.name}.")
    second = [
        f"{maker.name} went to {sellers[0].name} in the {sellers[0].workplace} for some {thing.material}.",
        w.any(f"Then {maker.he} borrowed the {sellers[1].tool} of {sellers[1].name} the {sellers[1].trade}.",
              f"{sellers[1].name} the {sellers[1].trade} lent {maker.him} {article(sellers[1].tool)}."),
        w.any(f"{capital(maker.he)} worked until late at night and painted everything {thing.colour}.",
              f"For hours {maker.he} worked by candle light, for {maker.he} was {maker.trait}.")]
    second += asides(w, maker, 0.6)
    third = [w.any(
        f"When {customer.name} came back, the {thing.full} lay on the table.",
        f"At last the {thing.name} was ready, and {customer.name} came to fetch it.")]
    third.append(w.any(
        f"\"It is perfect for {thing.use},\" said {customer.name}, and paid {number(price)} coins.",
        f"{customer.name} was {w.good()} and gave {maker.name} some {customer.product} as well.",
        f"{maker.name} gave back the {sellers[1].tool} to {sellers[1].name} and was {w.good()}."))
    return [" ".join(first), " ".join(second), " ".join(third + [ending(w, maker)])]


def lesson(w: World) -> list[str]:
    """Two people with opposite habits; the outcome shows the moral."""
    good, bad = w.person(), w.person()
    fault = good.fault
    thing = w.thing()
    place, spot = w.pick(words.PLACES)
    first = [w.any(f"Once upon a time two neighbours lived in {w.town}: {good.name} and {bad.name}.",
                   f"Once upon a time there were two friends, {good.name} and {bad.name}.",
                   f"In {w.town} lived {good.name} the {good.trade} and {bad.name} the {bad.trade}."),
             f"{good.name} was {good.trait}, but {bad.name} was {fault}.",
             trait_line(w, good), weather_line(w)]
    second = [w.any(f"One {w.time} an old beggar sat {spot}.",
                    f"One {w.time} a stranger in {article(w.new_colour())} cloak stood {spot}."),
              f"{bad.name} came by first. \"I have no time for you,\" said {bad.name}, and was {fault} as always.",
              f"Then {good.name} came to {place}. {capital(good.he)} was {good.trait} and {good.deed}."]
    second += asides(w, good, 0.3)
    third = [w.any(f"The stranger took off the cloak and was the king of {w.new_town()}.",
                   "The next day a golden coach stopped in the street."),
             f"{good.name} was given {article(thing.full)} of the best {thing.material}.",
             w.any(f"{bad.name} got nothing and was {w.bad()}.",
                   f"\"And I?\" asked {bad.name}. \"You were {fault},\" was the answer."),
             w.any(f"So it is true that {good.moral}.", f"Remember: {good.moral}.",
                   f"{bad.name} thought about it for a long time, because {good.moral}.")]
    return [" ".join(first), " ".join(second), " ".join(third)]
