"""The compiled part of the lexicon decoder: CTC prefix search by phones, one frame after the other.

* A prefix is a sequence of phones and of the words that they are cut into: its last phone either ends a word,
  one of those that sound so, or is somewhere within one, at a prefix of the trie of all pronunciations.
  Nothing is heard between words, so a phone that ends a word and one that does not are two extensions.
* As in ``prefix_search`` each prefix has the probability of all its paths that end in a blank and of all
  that end in its last phone, so that its score is exact as far as nothing was pruned; until a word ends,
  and before it begins, it counts as the most frequent one that begins so.
* What a frame gives birth to is no node before it has come into the beam. One that left the beam and is born
  again is another node, with which those that have grown from the first do not meet.

What comes from ``prefix_search`` is compiled in here, and numba's cache on disk does not see changes there:
after one, remove the caches of both files.
"""

from typing import NamedTuple

import numpy as np

from asrlib.compiled import compiled
from asrlib.decoding.prefix_layout import ANSWER
from asrlib.decoding.prefix_search import BLANK, EMPTY, ROOT, _add, _keep, _place, _tried
from asrlib.decoding.vocabulary import UNKNOWN

NODE = np.dtype(
    [
        ("parent", np.int32),
        ("phone", np.int32),
        ("word", np.int32),  # that the phone ends, in the language model's numbers; or UNKNOWN
        ("spelled", np.int32),  # the word being said, in the trie; ROOT: none
        ("state", np.int32),  # of the language model
        ("beam", np.int32),  # index in the beam, or EMPTY
        ("lm", np.float64),  # score of the finished words
    ],
    align=True,
)
BEAM = np.dtype(
    [
        ("node", np.int32),
        ("blank", np.float64),  # ln p of all paths that end in a blank
        ("label", np.float64),  # in the last phone
        ("total", np.float64),  # of both, with the language model's score and the look-ahead
    ],
    align=True,
)
BIRTH = np.dtype(
    [
        ("parent", np.int32),  # index in the beam
        ("phone", np.int32),
        ("word", np.int32),
        ("spelled", np.int32),
        ("state", np.int32),
        ("lm", np.float64),
        ("label", np.float64),
        ("total", np.float64),
    ],
    align=True,
)


class LexiconRules(NamedTuple):
    """What holds for every frame; scores are natural logarithms."""

    trie: np.ndarray  # of ``Pronunciations``, as are the next four
    starts: np.ndarray
    words: np.ndarray
    ahead: np.ndarray
    alone: np.ndarray
    width: int
    skip_above: float
    token_min: float
    prune: float
    alpha: float
    beta: float


@compiled
def begin():
    """The empty prefix alone, with probability 1: NODE [1] and BEAM [1]."""
    nodes, beams = np.empty(1, NODE), np.empty(1, BEAM)
    nodes[0].parent, nodes[0].phone, nodes[0].word = EMPTY, BLANK, UNKNOWN
    nodes[0].spelled, nodes[0].state, nodes[0].beam, nodes[0].lm = ROOT, 0, 0, 0.0
    beams[0].node, beams[0].blank, beams[0].label, beams[0].total = 0, 0.0, -np.inf, 0.0
    return nodes, beams


@compiled
def _tried_phones(log_probs, token_min):
    """As ``prefix_search`` tries them; and the blank, for no word may go on with what else there is."""
    scores, _ = _tried(log_probs, token_min)
    scores[BLANK] = log_probs[BLANK]
    return scores


@compiled
def _ahead(prefix, rules):
    """The look-ahead at a prefix of a word, or before one."""
    return rules.alpha * rules.ahead[prefix] + rules.beta


@compiled
def _expected(place, rules):
    """What ending a word of a group adds, as far as is known before the language model is asked."""
    return rules.alpha * rules.alone[place] + rules.beta


@compiled
def _stay(scores, beams, nodes, rules):
    """The beam, each by a blank or its last phone again; and what is too little for the next beam.

    That is what is pruned, or, if the beam is full, what is less than the worst of those that stay.
    """
    stayed, best, worst = beams.copy(), -np.inf, np.inf
    for i in range(len(beams)):
        node, new = nodes[beams[i].node], stayed[i]
        new.blank = _add(beams[i].blank, beams[i].label) + scores[BLANK]
        new.label = beams[i].label + scores[node.phone]
        new.total = _add(new.blank, new.label) + node.lm + _ahead(node.spelled, rules)
        best, worst = max(best, new.total), min(worst, new.total)
    return stayed, max(best + rules.prune, worst if len(beams) == rules.width else -np.inf)


@compiled
def _score(beam, both, node, phone, scores):
    """ln p of all paths of a prefix that ``phone`` makes longer: after itself only past a blank."""
    return (beam.blank if phone == node.phone else both) + scores[phone]


@compiled
def _questions_of(log_probs, beams, nodes, rules, table):
    """The answers that ``_step`` will need and ``table`` lacks: keys int64 [n], each once."""
    asked, count = np.empty(64, np.int64), 0
    if log_probs[BLANK] > rules.skip_above:
        return asked[:0]
    scores = _tried_phones(log_probs, rules.token_min)
    _, floor = _stay(scores, beams, nodes, rules)
    for i in range(len(beams)):
        node, both = nodes[beams[i].node], _add(beams[i].blank, beams[i].label)
        for longer in range(rules.trie[node.spelled].first, rules.trie[node.spelled + 1].first):
            phone, group = rules.trie[longer].letter, rules.trie[longer].word
            if group == UNKNOWN or scores[phone] == -np.inf:
                continue
            score = _score(beams[i], both, node, phone, scores) + node.lm
            for place in range(rules.starts[group], rules.starts[group + 1]):
                if score + _expected(place, rules) < floor:
                    continue
                key = np.int64(node.state) << 32 | rules.words[place]
                if table.answers[_place(table, key)].key == EMPTY:
                    if count == len(asked):
                        asked = np.concatenate((asked, np.empty(count, np.int64)))
                    asked[count] = key
                    count += 1
    return np.unique(asked[:count])


@compiled
def _in_beam_below(beams, nodes):
    """Of each prefix those of one phone more that are in the beam: the first, and after each the next."""
    first, following = np.full(len(beams), EMPTY, np.int32), np.full(len(beams), EMPTY, np.int32)
    for i in range(len(beams)):
        parent = nodes[beams[i].node].parent
        if parent != EMPTY and nodes[parent].beam != EMPTY:
            above = nodes[parent].beam
            following[i], first[above] = first[above], i
    return first, following


@compiled
def _births(scores, beams, stayed, floor, nodes, rules, table):
    """Every prefix by every phone that a word may go on with; BIRTH [n].

    Those that are in the beam already are no births: what leads to them is added to ``stayed``.
    """
    births, count = np.empty(4 * len(beams) + 64, BIRTH), 0
    first, following = _in_beam_below(beams, nodes)
    for i in range(len(beams)):
        node, both = nodes[beams[i].node], _add(beams[i].blank, beams[i].label)
        for longer in range(rules.trie[node.spelled].first, rules.trie[node.spelled + 1].first):
            phone, group = rules.trie[longer].letter, rules.trie[longer].word
            if scores[phone] == -np.inf:
                continue
            label = _score(beams[i], both, node, phone, scores)
            within = label + node.lm + _ahead(longer, rules)
            # place -1: the word goes on; the others: it is one of the group, and ends
            start = 0 if group == UNKNOWN else rules.starts[group]
            end = 0 if group == UNKNOWN else rules.starts[group + 1]
            goes_on = rules.trie[longer].first < rules.trie[longer + 1].first
            for place in range(start - 1, end):
                word, spelled, state, lm, total = UNKNOWN, longer, node.state, node.lm, within
                if place >= start:
                    if label + node.lm + _expected(place, rules) < floor:
                        continue
                    key = np.int64(node.state) << 32 | rules.words[place]
                    answer = table.answers[_place(table, key)]
                    word, spelled, state = rules.words[place], ROOT, answer.state
                    lm = node.lm + rules.alpha * answer.score + rules.beta
                    total = label + lm + _ahead(ROOT, rules)
                elif not goes_on:
                    continue
                there = first[i]
                while there != EMPTY and not (
                    nodes[beams[there].node].phone == phone
                    and nodes[beams[there].node].word == word
                ):
                    there = following[there]
                if there != EMPTY:
                    old = stayed[there]
                    old.label = _add(old.label, label)
                    old.total = _add(old.blank, old.label) + lm + _ahead(spelled, rules)
                elif total >= floor:
                    if count == len(births):
                        more = np.empty(2 * count, BIRTH)
                        more[:count] = births
                        births = more
                    new = births[count]
                    new.parent, new.phone, new.word, new.spelled = i, phone, word, spelled
                    new.state, new.lm, new.label, new.total = state, lm, label, total
                    count += 1
    return births[:count]


@compiled
def _step(log_probs, beams, nodes, size, rules, table):
    """One frame, float64 [V]: the next BEAM [width at most], best first, the nodes, and how many there are.

    Args:
        beams: BEAM.
        nodes: NODE [size or more].
        table: has all that ``_questions_of`` asked for.
    """
    if log_probs[BLANK] > rules.skip_above:
        for i in range(len(beams)):
            beams[i].blank = _add(beams[i].blank, beams[i].label) + log_probs[BLANK]
            beams[i].label = -np.inf
        return beams, nodes, size
    scores = _tried_phones(log_probs, rules.token_min)
    stayed, floor = _stay(scores, beams, nodes, rules)
    births = _births(scores, beams, stayed, floor, nodes, rules, table)
    totals = np.concatenate((stayed["total"], births["total"]))
    order = _keep(totals, np.max(totals) + rules.prune, rules.width)
    if size + len(order) > len(nodes):
        more = np.empty(2 * (size + len(order)), NODE)
        more[:size] = nodes[:size]
        nodes = more
    for i in range(len(beams)):
        nodes[beams[i].node].beam = EMPTY
    kept = np.empty(len(order), BEAM)
    for count in range(len(order)):
        choice = order[count]
        if choice < len(stayed):
            kept[count] = stayed[choice]
        else:
            birth, node = births[choice - len(stayed)], nodes[size]
            node.parent, node.phone, node.word = beams[birth.parent].node, birth.phone, birth.word
            node.spelled, node.state, node.lm = birth.spelled, birth.state, birth.lm
            kept[count].node, kept[count].blank = size, -np.inf
            kept[count].label, kept[count].total = birth.label, birth.total
            size += 1
        nodes[kept[count].node].beam = count
    return kept, nodes, size


@compiled
def advance(log_probs, frame, answered, beams, nodes, size, rules, table):
    """Goes on from ``frame`` of float64 [T', V] until the language model has to be asked.

    One call for many frames, since arguments pass into compiled code as slowly as some frames.

    Args:
        answered: what ``frame`` needs is in ``table``.
        beams, nodes, size: as of ``_step``.

    Returns:
        The frame for which is asked, T' at the end; the questions, ANSWER [n]; beams, nodes and size.
    """
    while frame < len(log_probs):
        if not answered:
            keys = _questions_of(log_probs[frame], beams, nodes, rules, table)
            if len(keys):
                questions = np.empty(len(keys), ANSWER)
                for i in range(len(keys)):
                    questions[i].key, questions[i].state = keys[i], EMPTY
                return frame, questions, beams, nodes, size
        beams, nodes, size = _step(log_probs[frame], beams, nodes, size, rules, table)
        frame, answered = frame + 1, False
    return frame, np.empty(0, ANSWER), beams, nodes, size


@compiled
def finish(beams, nodes, alpha, ends):
    """Total of every prefix that ends with a word, and with it the sentence: float64 [beam]; else -inf."""
    totals = np.full(len(beams), -np.inf)
    for i in range(len(beams)):
        node = nodes[beams[i].node]
        if node.spelled == ROOT:
            totals[i] = _add(beams[i].blank, beams[i].label) + node.lm + alpha * ends[node.state]
    return totals


@compiled
def words_of_prefix(node, nodes):
    """Numbers of its words, int64 [n]; one that is not at its end is none of them."""
    count, at = 0, node
    while at != EMPTY:
        count, at = count + (nodes[at].word != UNKNOWN), nodes[at].parent
    words, at = np.empty(count, np.int64), node
    while at != EMPTY:
        if nodes[at].word != UNKNOWN:
            count -= 1
            words[count] = nodes[at].word
        at = nodes[at].parent
    return words
