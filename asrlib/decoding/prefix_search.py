"""The compiled part of the beam decoder: CTC prefix search over one utterance.

* A prefix is a node of a trie, so extending one is an index, not a copy, and two ways to the same
  labels meet in the same node. Each prefix in the beam has the probability of all its paths that end
  in a blank and of all that end in its last label (Graves 2008, section 7.4; Hannun et al. 2014).
* Beside the sums runs the best single path, which dates the tokens. Its dates form a second trie.
* A frame that is almost surely blank only lets prefixes stay, so that equal labels on both sides of
  it are still two labels. Elsewhere, labels that the frame makes improbable extend nothing.
* The language model speaks when a word ends. What it said is kept in a hash table (KenLM is only
  reachable from Python); when an answer is missing the search stops before the frame, and goes on
  from there once the table holds it.
* The words that begin like the one being written are a range of the sorted vocabulary; each letter
  narrows it. A word outside the vocabulary is charged its offset as soon as that range is empty.

Sums are float64. Compiled by numba: the work is a few operations on each of beams × labels, with
merges in between, slow in Python and awkward in tensors. It stands in one file, since numba's cache
on disk does not see changes in a function that comes from another.
"""

import numpy as np

try:
    from numba import njit
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "the beam decoder is compiled by numba: pip install numba -c constraints.txt", name="numba"
    ) from error

BLANK, ROOT = 0, 0
UNKNOWN = 0  # number of all words outside the vocabulary; word i of it has number i + 1
BEAMS, NODES, EMISSIONS, WAITING = range(4)  # indices into ``search.counts``
EMPTY = -1  # no such node, emission or key


@njit(cache=True)
def find(keys, key):
    """Index of ``key``, or of the free place where it belongs (Fibonacci hashing, linear probing)."""
    # 2^64 / golden ratio; bits 40 and up of the product depend on the word and on the state
    index = (key * np.int64(-7046029254386353131) >> 40) & (len(keys) - 1)
    while keys[index] != key and keys[index] != EMPTY:
        index = (index + 1) & (len(keys) - 1)
    return index


@njit(cache=True)
def insert(table, keys, scores, states):
    """Puts the answers for int64 [n] ``keys`` into ``table``."""
    for i in range(len(keys)):
        index = find(table.keys, keys[i])
        table.keys[index], table.scores[index], table.states[index] = keys[i], scores[i], states[i]


@njit(cache=True)
def _add(a, b):
    """ln(exp a + exp b)."""
    if a < b:
        a, b = b, a
    return a if b == -np.inf else a + np.log1p(np.exp(b - a))


@njit(cache=True)
def _first_not_below(rules, low, high, position, letter):
    """The first of the words [low, high) whose letter at ``position`` is ``letter`` or more."""
    while low < high:
        middle = (low + high) // 2
        at = rules.word_starts[middle] + position
        # a word that has ended stands before its continuations
        if at == rules.word_starts[middle + 1] or rules.words[at] < letter:
            low = middle + 1
        else:
            high = middle
    return low


@njit(cache=True)
def _child(parent, token, rules, search):
    """The node of ``parent``'s labels and ``token``; made if there is none."""
    nodes = search.nodes
    child = nodes[parent].child
    while child != EMPTY and nodes[child].token != token:
        child = nodes[child].sibling
    if child != EMPTY:
        return child
    child = search.counts[NODES]
    search.counts[NODES] += 1
    old, new = nodes[parent], nodes[child]
    new.parent, new.token, new.child, new.sibling = parent, token, EMPTY, old.child
    old.child = child
    new.beam, new.close = EMPTY, np.nan
    letters, low, high, state, lm = old.letters, old.low, old.high, old.state, old.lm
    if rules.ends_word[token]:
        letters, low, high = 0, 0, len(rules.word_starts) - 1
        state, lm = old.after, lm + old.close
    known = low < high
    for i in range(rules.starts[token], rules.starts[token + 1]):
        letter = rules.letters[i]
        low = _first_not_below(rules, low, high, letters, letter)
        high = _first_not_below(rules, low, high, letters, letter + 1)
        letters += 1
    new.letters, new.low, new.high, new.state = letters, low, high, state
    new.lm = lm + (rules.unknown if known and low == high else 0.0)
    new.word, new.sure = UNKNOWN, rules.beta if letters else 0.0
    if low < high and rules.word_starts[low + 1] - rules.word_starts[low] == letters:
        new.word = low + 1
    elif low < high and letters:
        new.sure += rules.unknown
    return child


@njit(cache=True)
def _close(node, rules, table, search):
    """Finds what ending the word at ``node`` adds; if the table lacks it, its key waits."""
    if node.letters == 0:
        node.close, node.after = 0.0, node.state
        return
    key = np.int64(node.state) << 32 | node.word
    index = find(table.keys, key)
    if table.keys[index] == EMPTY:
        search.waiting[search.counts[WAITING]] = key
        search.counts[WAITING] += 1
        return
    node.close = rules.alpha * table.scores[index] + node.sure
    node.after = table.states[index]


@njit(cache=True)
def _stay(scores, search):
    """Every prefix by a blank or its last label again, as a candidate; the best total."""
    best = -np.inf
    for i in range(search.counts[BEAMS]):
        old, new = search.beams[i], search.candidates[i]
        node = search.nodes[old.node]
        after_label = old.best_label >= old.best_blank
        new.node, new.fresh = old.node, False
        new.blank = _add(old.blank, old.label) + scores[BLANK]
        new.best_blank = max(old.best_blank, old.best_label) + scores[BLANK]
        new.blank_emission = old.label_emission if after_label else old.blank_emission
        new.label = old.label + scores[node.token]
        new.best_label = old.best_label + scores[node.token]
        new.label_emission = old.label_emission
        new.total = _add(new.blank, new.label) + node.lm
        best = max(best, new.total)
    return best


@njit(cache=True)
def _pass_blank(score, search):
    """A frame that is surely blank: all prefixes stay, and in the same order."""
    for i in range(search.counts[BEAMS]):
        beam = search.beams[i]
        if beam.best_label >= beam.best_blank:
            beam.best_blank, beam.blank_emission = beam.best_label, beam.label_emission
        beam.blank, beam.best_blank = _add(beam.blank, beam.label) + score, beam.best_blank + score
        beam.label = beam.best_label = -np.inf


@njit(cache=True)
def _tokens(scores, token_min):
    """The labels that may extend a prefix: those probable enough and the best of all."""
    tokens, count, best = np.empty(len(scores), np.int64), 0, np.argmax(scores)
    for token in range(BLANK + 1, len(scores)):
        if scores[token] >= token_min or token == best:
            tokens[count] = token
            count += 1
    return tokens[:count]


@njit(cache=True)
def _close_words(scores, tokens, floor, rules, table, search):
    """Closes the words that ``tokens`` may end with a total of at least ``floor``."""
    enders = scores[tokens[rules.ends_word[tokens]]]
    for i in range(search.counts[BEAMS] if len(enders) else 0):
        beam = search.beams[i]
        node = search.nodes[beam.node]
        bound = _add(beam.blank, beam.label) + enders.max() + (node.lm + node.sure)
        if np.isnan(node.close) and bound >= floor:
            _close(node, rules, table, search)


@njit(cache=True)
def _extend(scores, tokens, best, rules, search):
    """Every prefix by every token, as candidates; the number of candidates and the best total."""
    count = search.counts[BEAMS]
    for i in range(search.counts[BEAMS]):
        beam = search.beams[i]
        node = search.nodes[beam.node]
        total = _add(beam.blank, beam.label)
        after_label = beam.best_label >= beam.best_blank
        for token in tokens:
            again = token == node.token  # only after a blank is it another label
            score = (beam.blank if again else total) + scores[token]
            bound = score + (node.lm + (node.close if rules.ends_word[token] else 0.0))
            if not (bound > -np.inf and bound >= best + rules.prune):  # nor if close is NaN
                continue
            child = _child(beam.node, token, rules, search)
            place = search.nodes[child].beam
            new = search.candidates[count if place == EMPTY else place]
            if place == EMPTY:
                new.node, new.blank, new.best_blank = child, -np.inf, -np.inf
                new.label, new.best_label, new.blank_emission = -np.inf, -np.inf, EMPTY
                count += 1
            new.label = _add(new.label, score)
            through_label = after_label and not again
            best_before = beam.best_label if through_label else beam.best_blank
            if best_before + scores[token] > new.best_label:
                new.best_label, new.fresh = best_before + scores[token], True
                new.label_emission = beam.label_emission if through_label else beam.blank_emission
            new.total = _add(new.blank, new.label) + search.nodes[child].lm
            best = max(best, new.total)
    return count, best


@njit(cache=True)
def _prune(frame, count, best, rules, search):
    """The best candidates become the beam, best first; equals in the order they were made."""
    totals, kept = np.empty(count), np.empty(count, np.int64)
    size = 0
    for i in range(count):
        total = search.candidates[i].total
        if total > -np.inf and total >= best + rules.prune:
            totals[size], kept[size] = -total, i
            size += 1
    if size == 0:  # an impossible utterance: some prefix must stay
        totals[0], kept[0], size = np.inf, 0, 1
    order = np.argsort(totals[:size], kind="mergesort")[: rules.width]
    for i in range(search.counts[BEAMS]):
        search.nodes[search.beams[i].node].beam = EMPTY
    for i in range(len(order)):
        search.beams[i] = search.candidates[kept[order[i]]]
        beam = search.beams[i]
        search.nodes[beam.node].beam = i
        if beam.fresh:
            emission = search.emissions[search.counts[EMISSIONS]]
            emission.previous, emission.frame = beam.label_emission, frame
            beam.label_emission = search.counts[EMISSIONS]
            search.counts[EMISSIONS] += 1
    search.counts[BEAMS] = len(order)


@njit(cache=True)
def advance(log_probs, frame, rules, table, search):
    """Searches on from ``frame`` of float64 [T', V].

    Returns:
        T', or the frame that cannot be searched yet: ``search`` has keys waiting, or too few nodes.
    """
    search.counts[WAITING] = 0
    while frame < len(log_probs):
        scores = log_probs[frame]
        if scores[BLANK] > rules.skip_above:
            _pass_blank(scores[BLANK], search)
        else:
            tokens = _tokens(scores, rules.token_min)
            if search.counts[NODES] + search.counts[BEAMS] * len(tokens) > len(search.nodes):
                break
            best = _stay(scores, search)
            _close_words(scores, tokens, best + rules.prune, rules, table, search)
            if search.counts[WAITING]:
                break
            count, best = _extend(scores, tokens, best, rules, search)
            _prune(frame, count, best, rules, search)
        frame += 1
    return frame


@njit(cache=True)
def finish(rules, table, search):
    """Ends the last word and the sentence of every prefix, and returns their order, best first.

    The order is empty while ``search`` has keys waiting.
    """
    search.counts[WAITING] = 0
    size = search.counts[BEAMS]
    for i in range(size):
        beam = search.beams[i]
        node = search.nodes[beam.node]
        if np.isnan(node.close):
            _close(node, rules, table, search)
        beam.total = _add(beam.blank, beam.label) + node.lm + node.close
        if not np.isnan(beam.total):
            beam.total += rules.alpha * table.ends[node.after]
    order = np.argsort(-search.beams["total"][:size], kind="mergesort")
    return order[: 0 if search.counts[WAITING] else size]


@njit(cache=True)
def trace(beam, search):
    """Labels of a prefix and the frames where its best path emits them: int64 [U] both."""
    node, size = beam.node, 0
    while node != ROOT:
        node, size = search.nodes[node].parent, size + 1
    tokens, frames = np.empty(size, np.int64), np.empty(size, np.int64)
    after_label = beam.best_label >= beam.best_blank
    node = beam.node
    emission = beam.label_emission if after_label else beam.blank_emission
    for i in range(size - 1, -1, -1):
        tokens[i], frames[i] = search.nodes[node].token, search.emissions[emission].frame
        node, emission = search.nodes[node].parent, search.emissions[emission].previous
    return tokens, frames
