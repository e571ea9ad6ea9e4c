#!/usr/bin/env python3
"""Deterministic workload for pattern-memory benchmarks (standard library only).

Emits JSON Lines on stdout.  Two record kinds:

  {"kind": "pattern", "i": 0, "events": [["s17"], ["s2", "s903"], ...]}
  {"kind": "query",   "i": 0, "shape": "middle", "source": 412, "events": [[...], x5]}

A *pattern* is a sequence of events to observe one by one and then learn.
A *query* is what short-term memory should hold when predictions are requested.

Shape of the data (defaults):
  * vocabulary of 5,000 symbols "s0".."s4999"; symbol of rank r has weight 1/(r+1)^1.0 (Zipf);
  * 8-12 events per pattern (mean 10), 1-3 distinct symbols per event (mean 2), symbols sorted
    in each event;
  * query: 5 events cut out of a learned pattern at one of three places (prefix / middle / suffix),
    some with one symbol replaced, one symbol dropped or one foreign symbol added, plus a share of
    purely random queries.

Everything follows from (seed, parameters).  Record number i depends only on (seed, kind, i), and a
query's source pattern only on the number of patterns given with --patterns, so the first 1,000
patterns of a 100,000-pattern run are the same as in a 1,000-pattern run.  The generator uses its
own 64-bit splitmix arithmetic, not the random module, so output does not depend on the version
of the interpreter and is easy to port.

Examples:
  python3 zipf_patterns.py --patterns 1000 --queries 50 > workload.jsonl
  python3 zipf_patterns.py --patterns 100000 --queries 0 | head -3
  python3 zipf_patterns.py --patterns 1000 --queries 50 --digest
"""

import argparse
import bisect
import hashlib
import json
import sys

MASK = (1 << 64) - 1


class SplitMix:
    """splitmix64: tiny, portable, good enough for synthetic workloads."""

    def __init__(self, seed):
        self.s = seed & MASK

    def next(self):
        self.s = (self.s + 0x9E3779B97F4A7C15) & MASK
        z = self.s
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
        return z ^ (z >> 31)

    def below(self, n):
        """Integer in [0, n)."""
        return (self.next() >> 11) * n >> 53

    def unit(self):
        """Float in [0, 1) with 53 random bits."""
        return (self.next() >> 11) / float(1 << 53)


def stream(seed, kind, i):
    """Independent generator for record (kind, i)."""
    g = SplitMix(seed * 0x100000001B3 ^ (kind << 56) ^ (i * 0xD1342543DE82EF95 & MASK))
    g.next()
    return g


class Zipf:
    def __init__(self, n, s):
        acc, self.cum = 0.0, []
        for r in range(n):
            acc += 1.0 / (r + 1) ** s
            self.cum.append(acc)
        self.total = acc

    def draw(self, g):
        return bisect.bisect_right(self.cum, g.unit() * self.total)


class Workload:
    def __init__(
        self,
        seed=20240601,
        vocab=5000,
        zipf=1.0,
        min_events=8,
        max_events=12,
        min_symbols=1,
        max_symbols=3,
        stm=5,
    ):
        self.seed, self.stm = seed, stm
        self.z = Zipf(vocab, zipf)
        self.ev = (min_events, max_events)
        self.sy = (min_symbols, max_symbols)

    def _event(self, g):
        k = self.sy[0] + g.below(self.sy[1] - self.sy[0] + 1)
        out = set()
        while len(out) < k:
            out.add(f"s{self.z.draw(g)}")
        return sorted(out)

    def pattern(self, i):
        g = stream(self.seed, 1, i)
        n = self.ev[0] + g.below(self.ev[1] - self.ev[0] + 1)
        return [self._event(g) for _ in range(n)]

    def query(self, i, patterns):
        g = stream(self.seed, 2, i)
        roll = g.below(10)
        if roll == 9 or patterns < 1:
            return {"shape": "random", "source": None, "events": [self._event(g) for _ in range(self.stm)]}
        src = g.below(patterns)
        p = self.pattern(src)
        n = min(self.stm, len(p))
        shape = ("prefix", "middle", "suffix")[roll % 3]
        at = 0 if shape == "prefix" else len(p) - n if shape == "suffix" else g.below(len(p) - n + 1)
        ev = [list(e) for e in p[at : at + n]]
        noise = g.below(4)  # 0 = clean
        j = g.below(len(ev))
        if noise == 1:
            ev[j][g.below(len(ev[j]))] = f"s{self.z.draw(g)}"
        elif noise == 2 and len(ev[j]) > 1:
            ev[j].pop(g.below(len(ev[j])))
        elif noise == 3:
            ev[j].append(f"s{self.z.draw(g)}")
        return {"shape": shape, "source": src, "events": [sorted(set(e)) for e in ev]}


def main():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("--patterns", type=int, default=1000)
    a.add_argument("--queries", type=int, default=50)
    a.add_argument("--seed", type=int, default=20240601)
    a.add_argument("--vocab", type=int, default=5000)
    a.add_argument("--zipf", type=float, default=1.0)
    a.add_argument("--stm", type=int, default=5, help="events per query")
    a.add_argument("--start", type=int, default=0, help="first pattern number to emit")
    a.add_argument("--digest", action="store_true", help="print only the SHA-256 of the output")
    o = a.parse_args()
    w = Workload(o.seed, o.vocab, o.zipf, stm=o.stm)
    h = hashlib.sha256()

    def put(d):
        line = json.dumps(d, separators=(",", ":")) + "\n"
        if o.digest:
            h.update(line.encode())
        else:
            sys.stdout.write(line)

    for i in range(o.start, o.patterns):
        put({"kind": "pattern", "i": i, "events": w.pattern(i)})
    for i in range(o.queries):
        put(dict({"kind": "query", "i": i}, **w.query(i, o.patterns)))
    if o.digest:
        print(h.hexdigest())


if __name__ == "__main__":
    try:
        main()
    except BrokenPipeError:
        sys.stderr.close()
