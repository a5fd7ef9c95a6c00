"""English sentences for the demonstration corpus, made from a small grammar of our own.

Design choices:

* Word lists by meaning and form (people, things, past verbs, ...) and sentence templates with slots,
  so that every sentence is grammatical everyday English and the vocabulary is closed.
* Slots and templates are drawn from shuffled bags, refilled when empty, instead of independently:
  each word of a list is used before any is used again, which covers the vocabulary evenly.
* A skewed mixture of lengths: short sentences, single clauses, clauses joined by conjunctions, and
  utterances of two sentences.
* Words that sound alike are kept out of the vocabulary (buy, knew, two, their, ...), since sound
  alone could not decide their spelling.
* Everything is a pure function of (seed, split); the caller passes the sentences to keep out.
"""

import itertools
import re
from collections.abc import Collection, Sequence

import numpy as np

from asrlib.randomness import generator

MOST_WORDS = 39  # the slowest voice says this many in under 15 seconds

# "_" stands for a space inside one filler.
_LISTS = {
    "person": """doctor teacher farmer driver nurse baker neighbor painter singer lawyer student captain
        soldier waiter manager pilot dentist artist sailor gardener policeman librarian butcher
        plumber reporter visitor judge actor lady guest scientist""",
    "kin": "sister brother mother father daughter grandmother husband wife friend cousin uncle nephew",
    "owner": """the_doctor's the_teacher's the_farmer's my_sister's my_brother's my_mother's
        her_father's his_friend's our_neighbor's the_king's the_captain's the_children's
        the_woman's the_baker's my_uncle's anna's david's peter's""",
    "name": """anna david peter maria thomas emma oliver susan robert julia martin helen simon laura
        kevin alice victor nina andrew sophie daniel rebecca george""",
    "place": """kitchen garden station school market library hospital office church park village hotel
        museum restaurant bridge river lake farm factory theater airport beach castle bakery
        harbor bank island forest mountain college tower valley town city gate supermarket""",
    "thing": """book bag coat hat key lamp table chair letter camera bicycle ticket cup knife spoon
        bottle basket blanket clock picture pencil map radio phone computer guitar umbrella
        watch mirror ladder hammer jacket scarf wallet suitcase newspaper candle brush carpet
        pillow notebook magazine kite rope toy boat truck tent shirt dress belt desk sofa
        present package violin""",
    "food": """bread cheese soup rice chicken butter coffee tea milk sugar honey salad cake fruit
        chocolate juice fish pasta garlic water salt pepper jam toast bacon yogurt corn lemonade""",
    "animal": """dog cat horse rabbit cow duck goat pig monkey elephant lion tiger fox mouse bird frog
        turtle donkey puppy squirrel wolf snake""",
    "plural": """apples flowers windows animals shoes gloves buttons potatoes oranges bananas eggs onions
        stamps coins tools houses trees leaves stones plates glasses cookies tomatoes""",
    "vpast": """bought found lost sold dropped carried hid borrowed broke cleaned repaired brought
        painted moved noticed wanted needed forgot took stole kept loved chose""",
    "vbase": """carry find sell open move clean paint borrow bring use remember change lift choose
        return throw touch hold lend share keep take forget hide draw pull push""",
    "vi_past": """laughed waited slept smiled cried shouted danced sang worked arrived fell listened
        talked whispered walked ran traveled disappeared jumped stopped""",
    "ving": """sleeping singing reading cooking working waiting playing dancing running swimming
        learning smiling eating talking crying shopping fishing""",
    "adj": """old new small big heavy expensive cheap beautiful broken dirty empty strange wooden
        wonderful tiny enormous simple modern ancient lovely ugly plastic silver golden shiny
        thick thin perfect ordinary light dark soft valuable rusty little large special""",
    "color": "red blue green yellow white black brown purple orange pink gray",
    "mood": """tired happy angry hungry thirsty busy quiet nervous friendly sad kind clever lazy lonely
        proud sick strong polite brave careful rich jealous patient excited shy curious
        surprised calm rude popular lucky""",
    "manner": """quickly slowly quietly loudly carefully suddenly happily easily politely gently silently
        together immediately angrily alone outside upstairs""",
    "often": "always never often usually sometimes rarely",
    "past_time": """yesterday last_week last_month last_year last_summer last_winter last_night this_morning
        this_afternoon this_evening on_monday on_tuesday on_wednesday on_thursday on_friday
        on_saturday on_sunday in_january in_april in_june in_october in_december after_lunch
        after_dinner before_breakfast at_midnight at_noon in_the_spring in_autumn""",
    "next_time": """tomorrow tonight next_week next_month next_year next_monday next_friday on_saturday
        on_sunday after_breakfast after_dinner before_lunch""",
    "number": "three five six seven nine ten eleven twelve twenty thirty forty fifty",
    "sky": "raining snowing sunny cloudy cold hot foggy windy freezing",
    "event": """party concert wedding meeting match lesson movie festival exam race journey holiday trip
        flight lecture game""",
    "quality": """boring exciting terrible interesting long short difficult amazing noisy funny dangerous
        important disappointing pleasant""",
    "vehicle": "bus train plane ship taxi ferry tram",
    "told": "said thought believed hoped  promised heard decided learned ",
    "body": "hand arm leg head shoulder finger knee foot elbow neck",
    "hobby": "history music science geography poetry mathematics football tennis chess grammar",
    "near": "near behind opposite beside",
    "toward": "from through across to past",
    "join_past": "and but because so while although before after until when",
}

# Clauses in the past tense, which any conjunction of "join_past" can join.
_PAST = """
the {person} {vpast} a {adj} {thing} {past_time}
the {mood} {person} {vi_past} {manner} near the {place}
{name} {vpast} {owner} {thing} {past_time}
my {kin} {vpast} the {color} {thing} {past_time}
the {animal} ran {toward} the {place}
a {color} {animal} slept under the {thing}
{name} walked {toward} the {place} with a {mood} {animal}
we saw {number} {plural} and a {adj} {thing} {near} the {place}
they {vpast} {number} {plural} {past_time}
{name} didn't {vbase} the {adj} {thing}
the {person} couldn't {vbase} {owner} {thing}
her {kin} was {ving} {past_time}
the {person} and the {person} were {ving} at the {place}
it was {sky} near the {place}
it was {sky} and we were {mood}
the {event} was {quality} {past_time}
the {event} wasn't very {quality}
{owner} {animal} ate the {food} and the {food}
{name} made some {food} with {food}
she put the {food} and the {thing} on the {adj} {thing}
the {vehicle} was late {past_time}
the {vehicle} stopped {near} the {place}
he {told} that the {event} was {quality}
{name} {told} that the {person} wasn't {mood}
I hurt my {body} {past_time}
he studied {hobby} at the {place}
many people were {ving} {near} the {place}
our {kin} taught us {hobby} and {hobby}
{name} {vi_past} {manner} {past_time}
the {person} gave me a {adj} {color} {thing}
there were several {plural} {near} the {place}
there was a {adj} {thing} behind {owner} {thing}
his {kin} {vi_past} {past_time}
the {person} {vi_past} {manner} because it was {sky}
the {plural} were {adj} and {color}
everybody {vi_past} {manner} {past_time}
nobody {vpast} the {adj} {color} {thing}
I had to {vbase} {number} {plural}
you told me about the {quality} {event}
the {person} asked {name} to {vbase} the {thing}
"""

# Clauses about now and later, joined only by "and", "but" and "so".
_NOW = """
I'm going to {vbase} the {adj} {thing} {next_time}
{name} will {vbase} {owner} {thing} {next_time}
she doesn't like {food} or {food}
he's {often} {mood} when it's {sky}
my {kin} {often} drinks {food} at the {place}
we don't know how to {vbase} these {plural}
they can't {vbase} your {thing} {next_time}
I'd like {number} {plural} and some {food}
the {vehicle} {often} leaves at {number} minutes past {number}
she's {ving} with her {kin}
the {person} is {ving} {near} the {place}
that's the {quality} {event} which the {person} wanted
there's a {color} {thing} on {owner} {thing}
you should {vbase} the {plural} {manner}
I'll help the {mood} {person} {next_time}
we've never seen a {animal} at the {place}
the {animal} and the {animal} are very {mood}
the {event} won't be {quality}
the {animal} isn't as {mood} as the {animal}
{name} lives {near} the {adj} {place}
I haven't been to the {place} since the {event}
my {body} and my {body} still hurt
{hobby} is more {quality} than {hobby}
if it's {sky}, the {person} must {vbase} the {thing}
this {thing} is too {adj} for my {kin}
"""

# Questions and requests: sentences by themselves.
_ALONE = """
where did the {person} {vbase} the {adj} {thing}?
what's behind the {color} {thing}?
why is {owner} {thing} so {adj}?
when does the {vehicle} leave the {place}?
who {vpast} the {number} {plural}?
how many {plural} did {name} {vbase}?
could you {vbase} the {adj} {thing} for me, please?
would you like some {food} with your {food}?
have you ever seen {owner} {animal}?
please don't {vbase} the {color} {thing}
let's go to the {event} {next_time}
did {name} and {name} like the {event}?
can your {kin} {vbase} these {plural} {next_time}?
is the {person} {mood} because of the {event}?
what {color} {plural} do you want?
you shouldn't {vbase} {owner} {plural}
"""

_SHORT = """
it's {sky} near the {place} today
he's a very {mood} {person}
she's {often} {mood} at the {place}
where's {owner} {color} {thing}?
don't {vbase} the {adj} {thing}
{name} doesn't like my {food}
{name} isn't very {mood} today
{owner} {thing} is here now
are {owner} {plural} better now?
that's {owner} {adj} {thing}
those are very {adj} {plural}
my {body} hurts when I'm {ving}
the {animal} was very {mood} today
the {event} is {quality} this time
does {name} like {hobby} very much?
{name} was {ving} all day
we are all {ving} {near} the {place}
"""

_TEMPLATES = {
    kind: text.strip().splitlines()
    for kind, text in {"past": _PAST, "now": _NOW, "alone": _ALONE, "short": _SHORT}.items()
}
_FILLERS = {name: words.replace("\n", " ").split() for name, words in _LISTS.items()}
_CALENDAR = """monday tuesday wednesday thursday friday saturday sunday january april june october
    december"""
_NAMES = frozenset(_FILLERS["name"] + _CALENDAR.split())
_JOIN_NOW = ["and", "but", "so"]
# {kinds of clauses in one utterance, with a full stop between sentences: how often}
_SHAPES = {
    "short": 0.09,
    "past": 0.08,
    "now": 0.06,
    "alone": 0.07,
    "past past": 0.17,
    "now now": 0.11,
    "past . alone": 0.07,
    "short . now": 0.07,
    "past past past": 0.11,
    "past past . now": 0.08,
    "past past . past past": 0.06,
    "now now . past past past": 0.03,
}


class _Bags:
    """Draws from named lists without replacement; a bag which has become empty is refilled."""

    def __init__(self, rng: np.random.Generator):
        self._rng = rng
        self._bags: dict[str, list[str]] = {}
        self._drawn: list[tuple[str, str]] = []

    def draw(self, name: str, choices: Sequence[str]) -> str:
        bag = self._bags.setdefault(name, [])
        if not bag:
            bag.extend(choices[i] for i in self._rng.permutation(len(choices)))
        self._drawn.append((name, bag[-1]))
        return bag.pop()

    def keep(self) -> None:
        self._drawn.clear()

    def put_back(self) -> None:
        """Returns what was drawn since the last ``keep``, to be drawn last."""
        for name, choice in self._drawn:
            self._bags[name].insert(0, choice)
        self._drawn.clear()


def _clause(kind: str, bags: _Bags) -> str:
    template = bags.draw(f"template {kind}", _TEMPLATES[kind])

    def filler(slot: re.Match[str]) -> str:
        return bags.draw(slot[1], _FILLERS[slot[1]])

    return re.sub(r"\{(\w+)\}", filler, template).replace("_", " ")


def _sentence(kinds: Sequence[str], bags: _Bags) -> str:
    text = _clause(kinds[0], bags)
    for kind in kinds[1:]:
        joins = _FILLERS["join_past"] if kind == "past" else _JOIN_NOW
        text += f", {bags.draw(f'join {kind}', joins)} {_clause(kind, bags)}"
    # every word here that is spelt with a first vowel also begins with one in speech
    text = re.sub(r"\ba (?=[aeiou])", "an ", text)
    text = re.sub(r"[a-z]+", lambda w: w[0].capitalize() if w[0] in _NAMES else w[0], text)
    return text[0].upper() + text[1:] + ("" if text.endswith("?") else ".")


def _utterance(rng: np.random.Generator, bags: _Bags) -> str:
    shape = str(rng.choice(list(_SHAPES), p=list(_SHAPES.values())))
    return " ".join(_sentence(kinds.split(), bags) for kinds in shape.split(" . "))


def transcript(sentence: str) -> str:
    """The words of ``sentence`` in LibriSpeech's form: A-Z, apostrophes and single spaces."""
    return " ".join(re.findall(r"[A-Z']+", sentence.upper()))


def sentences(seed: int, split: str, words: int, without: Collection[str] = ()) -> list[str]:
    """Distinct utterances (one or two sentences) with punctuation, at least ``words`` words in all.

    A pure function of the arguments. No sentence has a transcript listed in ``without`` or more
    than ``MOST_WORDS`` words.
    """
    rng = generator(seed, "demo sentences", split)
    bags = _Bags(rng)
    seen = set(without)
    chosen: list[str] = []
    total = 0
    while total < words:
        sentence = _utterance(rng, bags)
        text = transcript(sentence)
        length = len(text.split())
        if text in seen or length > MOST_WORDS:
            bags.put_back()
        else:
            bags.keep()
            seen.add(text)
            chosen.append(sentence)
            total += length
    return chosen


def vocabulary() -> frozenset[str]:
    """Every word, in capitals, that the grammar can produce."""
    templates = " ".join(itertools.chain(*_TEMPLATES.values(), _JOIN_NOW))
    fillers = " ".join(itertools.chain(*_FILLERS.values())).replace("_", " ")
    literal = re.sub(r"\{\w+\}", " ", templates)
    return frozenset(transcript(f"{literal} {fillers} an").split())
