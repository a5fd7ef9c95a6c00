"""The compiled part of the beam decoder: CTC prefix search over one utterance.

* A prefix is a node of a trie, so extending one is an index, not a copy, and two ways to the same
  labels meet in the same node; those that never come into the beam are forgotten. Each prefix in the
  beam has the probability of all its paths that end in a blank and of all that end in its last label
  (Graves 2008, section 7.4; Hannun et al. 2014).
* Beside the sums runs the best single path, which dates the tokens. Its dates form a second trie.
* A frame that is almost surely blank only lets prefixes stay, so that equal labels on both sides of
  it are still two labels. Elsewhere, labels that the frame makes improbable are not tried; nor is the
  blank, as in pyctcdecode.
* The language model speaks when a word ends. What it said is kept in a hash table (KenLM is only
  reachable from Python). The search is a generator: it yields when answers are missing, and goes on
  where it was once they are there. Thus arguments pass into compiled code once an utterance, which
  takes as long as several frames, and what it works on never leaves it.
* The word being written is followed through a trie of the vocabulary. A word outside of it is charged
  its offset as soon as no word begins so. Until it ends, a word counts as the most frequent one that
  begins so (look-ahead: Steinbiss et al., "Improvements in beam search", ICSLP 1994; Ortmanns et al. 1996):
  else prefixes would be compared of which some have paid for their last word and some have not. Of scores
  it is no part.

Sums are float64. Compiled by numba: the work is a few operations on each of beams × labels, with
merges in between, slow in Python and awkward in tensors. It stands in one file, with the types of its own
arrays, since numba's cache on disk does not see changes in what comes from another. Functions are given
arrays rather than tuples of them where they are called often: numba counts references to what it takes from
a tuple.
"""

import numpy as np

from asrlib.compiled import compiled
from asrlib.decoding.vocabulary import UNKNOWN

BLANK, ROOT = 0, 0
EMPTY = -1  # no such node, emission, key, state, prefix or hypothesis
FIRST_NODES = 2**10
# of a histogram of totals, which ends a little above the best that is expected
BINS, BINS_PER_NAT = 256, 8
NODE = np.dtype(
    [
        ("parent", np.int32),
        ("token", np.int32),
        ("child", np.int32),  # the youngest; the others follow by sibling
        ("sibling", np.int32),
        ("beam", np.int32),  # index in the beam
        ("spelled", np.int32),  # the word being written, in the vocabulary's trie; EMPTY: not there
        ("state", np.int32),  # of the language model, before this word
        ("after", np.int32),  # and after it, should it end here
        ("lm", np.float64),  # score of the finished words
        ("close", np.float64),  # score of the word, should it end here; NaN: not known yet
        ("sure", np.float64),  # of that, what does not depend on the language model
        ("ahead", np.float64),  # guess of it, for as long as the word is not at its end
    ],
    align=True,
)
BEAM = np.dtype(
    [
        ("node", np.int32),
        ("fresh", np.bool_),  # best_label emits its last token in this very frame
        ("blank_emission", np.int32),  # of the last token on the best path that ends in a blank
        ("label_emission", np.int32),  # in its last label; if fresh, of the token before
        ("blank", np.float64),  # ln p of all paths that end in a blank
        ("label", np.float64),  # in the last label
        ("both", np.float64),
        ("best_blank", np.float64),  # ln p of the best one
        ("best_label", np.float64),
        ("total", np.float64),  # both, with the language model's score and the look-ahead
    ],
    align=True,
)
EMISSION = np.dtype([("previous", np.int32), ("frame", np.int32)])


@compiled
def _place(table, key):
    """Index of ``key``, or of the free place where it belongs (Fibonacci hashing, linear probing)."""
    last = len(table.answers) - 1
    # 2^64 / golden ratio; bits 40 and up of the product depend on the word and on the state
    index = (key * np.int64(-7046029254386353131) >> 40) & last
    while table.answers[index].key != key and table.answers[index].key != EMPTY:
        index = (index + 1) & last
    return index


@compiled
def insert(table, answers):
    """Puts ``answers``, ANSWER [n], into ``table``, which must have room for them."""
    for i in range(len(answers)):
        table.answers[_place(table, answers[i].key)] = answers[i]


@compiled
def _add(a, b):
    """ln(exp a + exp b)."""
    if a < b:
        a, b = b, a
    return a if b == -np.inf else a + np.log1p(np.exp(b - a))


@compiled
def spell(prefix, letter, vocabulary):
    """``prefix`` of the vocabulary and ``letter``, or EMPTY if no word begins so."""
    for longer in range(vocabulary[prefix].first, vocabulary[prefix + 1].first):
        if vocabulary[longer].letter == letter:
            return longer
    return EMPTY


@compiled
def _child(parent, token, nodes):
    """The node of ``parent``'s labels and ``token``, or EMPTY."""
    child = nodes[parent].child
    while child != EMPTY and nodes[child].token != token:
        child = nodes[child].sibling
    return child


@compiled
def _ahead(spelled, ahead, alpha, beta):
    """The look-ahead at a prefix of the vocabulary, or EMPTY."""
    return alpha * ahead[len(ahead) - 1 if spelled == EMPTY else spelled] + beta


@compiled
def _make(child, parent, token, rules, nodes):
    """Makes that node, as number ``child``."""
    old, new = nodes[parent], nodes[child]
    new.parent, new.token, new.child, new.sibling = parent, token, EMPTY, old.child
    old.child = child
    new.beam, new.close = EMPTY, np.nan
    spelled, new.state, new.lm = old.spelled, old.state, old.lm
    if rules.ends_word[token]:
        spelled, new.state, new.lm = ROOT, old.after, old.lm + old.close
    known = spelled != EMPTY
    for i in range(rules.starts[token], rules.starts[token + 1]):
        if spelled != EMPTY:
            spelled = spell(spelled, rules.letters[i], rules.vocabulary)
    new.spelled, new.sure = spelled, 0.0 if spelled == ROOT else rules.beta
    if known and spelled == EMPTY:
        new.lm += rules.unknown
    elif spelled > ROOT and rules.vocabulary[spelled].word == UNKNOWN:
        new.sure += rules.unknown
    new.ahead = _ahead(spelled, rules.ahead, rules.alpha, rules.beta)
    if not rules.ends_word[token]:  # unknown words may be more probable than those that begin so
        new.ahead = min(new.ahead, old.ahead)


@compiled
def _close(node, rules, table, questions, asked):
    """Finds what ending the word at ``node`` adds; if the table lacks it, that is one question more.

    Returns:
        The number of questions.
    """
    if node.spelled == ROOT:
        node.close, node.after = 0.0, node.state
        return asked
    word = UNKNOWN if node.spelled == EMPTY else rules.vocabulary[node.spelled].word
    key = np.int64(node.state) << 32 | word
    place = _place(table, key)
    if table.answers[place].key == EMPTY:
        questions[asked].key, questions[asked].state = key, EMPTY
        return asked + 1
    node.close = rules.alpha * table.answers[place].score + node.sure
    node.after = table.answers[place].state
    return asked


@compiled
def _stay(scores, beams, nodes, candidates):
    """Every prefix by a blank or its last label again, as a candidate; the best and the worst total."""
    best, worst = -np.inf, np.inf
    for i in range(len(beams)):
        old, new = beams[i], candidates[i]
        node = nodes[old.node]
        after_label = old.best_label >= old.best_blank
        new.node, new.fresh = old.node, False
        new.blank = old.both + scores[BLANK]
        new.best_blank = max(old.best_blank, old.best_label) + scores[BLANK]
        new.blank_emission = old.label_emission if after_label else old.blank_emission
        new.label = old.label + scores[node.token]
        new.best_label = old.best_label + scores[node.token]
        new.label_emission = old.label_emission
        new.both = _add(new.blank, new.label)
        new.total = new.both + (node.lm + node.ahead)
        best, worst = max(best, new.total), min(worst, new.total)
    return best, worst


@compiled
def _pass_blank(score, beams):
    """A frame that is surely blank: all prefixes stay, and in the same order."""
    for i in range(len(beams)):
        beam = beams[i]
        if beam.best_label >= beam.best_blank:
            beam.best_blank, beam.blank_emission = beam.best_label, beam.label_emission
        beam.both += score
        beam.blank, beam.best_blank = beam.both, beam.best_blank + score
        beam.label = beam.best_label = -np.inf


@compiled
def _tried(log_probs, token_min):
    """What a frame tries: float64 [V], -inf for what is less than ``token_min`` and not the best of
    all; and the labels, without the blank."""
    scores, tokens, count = np.full(len(log_probs), -np.inf), np.empty(len(log_probs), np.int64), 0
    best = np.argmax(log_probs)
    for token in range(len(log_probs)):
        if log_probs[token] >= token_min or token == best:
            scores[token] = log_probs[token]
            if token != BLANK:
                tokens[count] = token
                count += 1
    return scores, tokens[:count]


@compiled
def _close_words(scores, tokens, floor, rules, table, beams, nodes, questions):
    """Closes the words that ``tokens`` may end with a total of at least ``floor``.

    Returns:
        The number of questions.
    """
    asked, ender = 0, -np.inf  # the most probable
    next_word = _ahead(ROOT, rules.ahead, rules.alpha, rules.beta)
    for token in tokens:
        if rules.ends_word[token]:
            ender = max(ender, scores[token])
    for i in range(len(beams) if ender > -np.inf else 0):
        beam = beams[i]
        node = nodes[beam.node]
        bound = beam.both + ender + (node.lm + node.sure + next_word)
        if np.isnan(node.close) and bound >= floor:
            asked = _close(node, rules, table, questions, asked)
    return asked


@compiled
def _count(total, low, width, bins, place, above):
    """Counts a candidate in the histogram ``bins``, which begins at ``low``.

    Returns:
        The highest bin from which on there are ``width`` candidates (else the first), and how many are.
    """
    own = min(int((total - low) * BINS_PER_NAT), BINS - 1) if total > low else EMPTY
    if own >= place:
        bins[own] += 1
        above += 1
        while place < BINS - 1 and above - bins[place] >= width:
            above -= bins[place]
            place += 1
    return place, above


@compiled
def _longer_in_beam(beams, nodes):
    """bool [beam]: a prefix of one more label is in the beam, too."""
    found = np.zeros(len(beams), np.bool_)
    for i in range(len(beams)):
        parent = nodes[beams[i].node].parent
        if parent != EMPTY and nodes[parent].beam != EMPTY:
            found[nodes[parent].beam] = True
    return found


@compiled
def _extend(scores, tokens, best, rules, beams, nodes, made, candidates):
    """Every prefix by every token, as candidates.

    One whose total is below that of ``width`` others is not made. New prefixes have the total that they
    are tried with; those of the beam, where ways meet, are never left out.

    Returns:
        The numbers of candidates and of nodes made, and the best total.
    """
    count, next_word = len(beams), _ahead(ROOT, rules.ahead, rules.alpha, rules.beta)
    first = nodes[beams[0].node]
    top = beams[0].both + (first.lm + first.ahead) + np.max(scores)
    low = top - 0.9 * BINS / BINS_PER_NAT
    bins, place, above = np.zeros(BINS, np.int64), 0, 0
    for i in range(len(beams)):
        place, above = _count(candidates[i].total, low, rules.width, bins, place, above)
    longer_in_beam = _longer_in_beam(beams, nodes)
    for i in range(len(beams)):
        beam = beams[i]
        node = nodes[beam.node]
        after_label = beam.best_label >= beam.best_blank
        for j in range(len(tokens)):
            token = tokens[j]
            again = token == node.token  # only after a blank is it another label
            score = (beam.blank if again else beam.both) + scores[token]
            ahead = node.close + next_word if rules.ends_word[token] else node.ahead
            bound = score + (node.lm + ahead)
            if not (bound > -np.inf and bound >= best + rules.prune):  # nor if close is NaN
                continue
            hopeless = above >= rules.width and bound < low + place / BINS_PER_NAT
            if hopeless and not longer_in_beam[i]:
                continue
            child = _child(beam.node, token, nodes)
            if hopeless and (child == EMPTY or nodes[child].beam == EMPTY):
                continue
            if child == EMPTY:
                child, made = made, made + 1
                _make(child, beam.node, token, rules, nodes)
            old = nodes[child].beam
            new = candidates[count if old == EMPTY else old]
            if old == EMPTY:
                new.node, new.blank, new.best_blank = child, -np.inf, -np.inf
                new.label, new.best_label, new.blank_emission = -np.inf, -np.inf, EMPTY
                count += 1
            new.label = _add(new.label, score)
            through_label = after_label and not again
            best_before = beam.best_label if through_label else beam.best_blank
            if best_before + scores[token] > new.best_label:
                new.best_label, new.fresh = best_before + scores[token], True
                new.label_emission = beam.label_emission if through_label else beam.blank_emission
            new.both = _add(new.blank, new.label)
            new.total = new.both + (nodes[child].lm + nodes[child].ahead)
            best = max(best, new.total)
            if old == EMPTY:
                place, above = _count(new.total, low, rules.width, bins, place, above)
    return count, made, best


@compiled
def _keep(candidates, floor, width):
    """Indices of those for the beam by their totals, float64 [n], best first; equals in their order."""
    totals, kept = np.empty(len(candidates)), np.empty(len(candidates), np.int64)
    size = 0
    for i in range(len(candidates)):
        if candidates[i] > -np.inf and candidates[i] >= floor:
            totals[size], kept[size] = -candidates[i], i
            size += 1
    if size == 0:  # an impossible utterance: some prefix must stay
        totals[0], kept[0], size = np.inf, 0, 1
    if size > width:  # most are sorted out before the sort
        worst = np.partition(totals[:size], width - 1)[width - 1]
        ties = width - np.sum(totals[:size] < worst)
        count, size = size, 0
        for i in range(count):
            if totals[i] < worst or (totals[i] == worst and ties > 0):
                ties -= totals[i] == worst
                totals[size], kept[size], size = totals[i], kept[i], size + 1
    return kept[np.argsort(totals[:size], kind="mergesort")]


@compiled
def _forget(first, made, candidates, kept, nodes):
    """Moves those of the nodes from ``first`` on that are ``kept`` together, over the others; how many
    nodes there then are. They have no children yet, and the youngest stand first among siblings."""
    for node in range(first, made):
        nodes[node].beam = EMPTY
        parent = nodes[nodes[node].parent]
        while parent.child >= first:
            parent.child = nodes[parent.child].sibling
    for i in range(len(kept)):
        if candidates[kept[i]].node >= first:
            nodes[candidates[kept[i]].node].beam = i
    end = first
    for node in range(first, made):
        place = nodes[node].beam
        if place != EMPTY:
            nodes[end] = nodes[node]
            parent = nodes[nodes[end].parent]
            nodes[end].sibling, parent.child = parent.child, end
            candidates[kept[place]].node = end
            end += 1
    return end


@compiled
def _replace(frame, candidates, kept, size, beams, nodes, emissions, emitted):
    """Makes the ``kept`` candidates the beam, which had ``size``; the number of emissions."""
    for i in range(size):
        nodes[beams[i].node].beam = EMPTY
    for i in range(len(kept)):
        beams[i] = candidates[kept[i]]
        beam = beams[i]
        nodes[beam.node].beam = i
        if beam.fresh:
            emissions[emitted].previous, emissions[emitted].frame = beam.label_emission, frame
            beam.label_emission, emitted = emitted, emitted + 1
    return emitted


@compiled
def _end(rules, table, beams, nodes, questions):
    """Ends the last word and the sentence of every prefix; the number of questions."""
    asked = 0
    for i in range(len(beams)):
        beam = beams[i]
        node = nodes[beam.node]
        if np.isnan(node.close):
            asked = _close(node, rules, table, questions, asked)
        beam.total = beam.both + node.lm + node.close
        if not np.isnan(beam.total):
            beam.total += rules.alpha * table.ends[node.after]
    return asked


@compiled
def _trace(beam, nodes, emissions, path):
    """Writes the labels of a prefix and the frames where its best path emits them; how many."""
    node, size = beam.node, 0
    while node != ROOT:
        node, size = nodes[node].parent, size + 1
    after_label = beam.best_label >= beam.best_blank
    node = beam.node
    emission = beam.label_emission if after_label else beam.blank_emission
    for i in range(size - 1, -1, -1):
        path[0, i], path[1, i] = nodes[node].token, emissions[emission].frame
        node, emission = nodes[node].parent, emissions[emission].previous
    return size


@compiled
def _begin(rules, beams, nodes):
    """Before the first frame: the empty prefix alone, with probability 1."""
    root, beam = nodes[ROOT], beams[0]
    root.parent = root.child = root.sibling = EMPTY
    root.token, root.beam = BLANK, 0
    root.spelled, root.state, root.lm, root.close, root.sure = ROOT, 0, 0.0, np.nan, 0.0
    root.ahead = _ahead(ROOT, rules.ahead, rules.alpha, rules.beta)
    beam.node, beam.fresh, beam.blank_emission, beam.label_emission = ROOT, False, EMPTY, EMPTY
    beam.blank = beam.both = beam.best_blank = beam.total = 0.0
    beam.label = beam.best_label = -np.inf


@compiled
def _with_room(nodes, needed):
    """``nodes``, or a copy of them that has room for as many as are ``needed``."""
    if needed <= len(nodes):
        return nodes
    larger = np.empty(max(needed, 2 * len(nodes)), NODE)
    larger[: len(nodes)] = nodes
    return larger


@compiled
def best_prefixes(log_probs, rules, table, questions, found):
    """Searches float64 [T', V] and writes the best hypotheses to ``found``, best first.

    A generator. It yields how many of ``questions``, ANSWER [width], are to be answered, and goes on
    with what then stands in them; if they are left unanswered it ends. It must end: what it holds is
    not freed before.
    """
    nodes, beams = np.empty(FIRST_NODES, NODE), np.empty(rules.width, BEAM)
    emissions = np.empty(len(log_probs) * rules.width, EMISSION)
    _begin(rules, beams, nodes)
    size, made, emitted = 1, 1, 0  # of the beam, the nodes and the emissions
    for frame in range(len(log_probs)):
        if log_probs[frame, BLANK] > rules.skip_above:
            _pass_blank(log_probs[frame, BLANK], beams[:size])
            continue
        scores, tokens = _tried(log_probs[frame], rules.token_min)
        nodes = _with_room(nodes, made + size * len(tokens))
        candidates = np.empty(size + size * len(tokens), BEAM)
        best, worst = _stay(scores, beams[:size], nodes, candidates)
        floor = max(best + rules.prune, worst if size == rules.width else -np.inf)
        asked = _close_words(scores, tokens, floor, rules, table, beams[:size], nodes, questions)
        if asked:
            yield asked
            if questions[0].state == EMPTY:
                return
            insert(table, questions[:asked])
            _close_words(scores, tokens, floor, rules, table, beams[:size], nodes, questions)
        first = made
        count, made, best = _extend(
            scores, tokens, best, rules, beams[:size], nodes, made, candidates
        )
        kept = _keep(candidates[:count]["total"], best + rules.prune, rules.width)
        made = _forget(first, made, candidates, kept, nodes)
        emitted = _replace(frame, candidates, kept, size, beams, nodes, emissions, emitted)
        size = len(kept)
    asked = _end(rules, table, beams[:size], nodes, questions)
    if asked:
        yield asked
        if questions[0].state == EMPTY:
            return
        insert(table, questions[:asked])
        _end(rules, table, beams[:size], nodes, questions)
    order = np.argsort(-beams[:size]["total"], kind="mergesort")[: len(found.scores)]
    found.sizes[:] = EMPTY
    for i in range(len(order)):
        beam = beams[order[i]]
        found.scores[i] = beam.total
        found.sizes[i] = _trace(beam, nodes, emissions, found.paths[i])
